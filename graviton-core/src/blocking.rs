//! Work that blocks or computes, kept off the threads that drive futures.
//!
//! [`run`] hands a closure to tokio's blocking threads, except on a thread that said it may block: the
//! caller's own thread inside the synchronous facade. There the closure runs where it is, which saves two
//! thread switches (tens of microseconds, much of what a small put costs).

use std::cell::Cell;

use crate::error::{Code, Error, Result};
use crate::interrupt;

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Lets [`run`] block this thread until the guard is dropped.
pub(crate) struct MayBlock {
    before: bool,
}

impl MayBlock {
    pub(crate) fn here() -> MayBlock {
        MayBlock { before: MAY_BLOCK.replace(true) }
    }
}

impl Drop for MayBlock {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.before);
    }
}

/// Whether the calling thread may block.
pub(crate) fn may_block_here() -> bool {
    MAY_BLOCK.get()
}

/// Whether a future polled on this thread is never dropped half-way, for the thread does nothing else until the future is
/// done.
pub(crate) fn ends_here() -> bool {
    MAY_BLOCK.get() && !interrupt::is_watched()
}

/// Runs a closure that blocks or computes for long. If the future is dropped, the closure still runs to
/// its end.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if may_block_here() { Ok(work()) } else { run_elsewhere(work).await }
}

/// Like [`run`], but always on another thread: for work that is to go on beside the caller's.
pub(crate) async fn run_elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// The result of a task: its panic stays a panic, and a runtime that is shutting down is `closed`.
pub(crate) fn joined<T>(result: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    result.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::new(Code::Closed, "the runtime that drives the store is shutting down"),
    })
}

/// Runs a future that may compute for long on threads of the runtime, so that the caller's can be interrupted meanwhile.
pub(crate) async fn aside<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    Task::new(tokio::spawn(future)).join().await
}

/// A task that ends with its handle.
#[derive(Debug)]
pub(crate) struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Task<T> {
    pub(crate) fn new(handle: tokio::task::JoinHandle<T>) -> Task<T> {
        Task(handle)
    }

    /// What it came to.
    pub(crate) async fn join(mut self) -> Result<T> {
        joined((&mut self.0).await)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many closures can compute at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
