//! Work that blocks or computes, kept off the threads that drive futures.
//!
//! [`run`] hands a closure to tokio's blocking threads, except on a thread that said it may block: the
//! caller's own thread inside the synchronous facade. There the closure runs where it is, which saves two
//! thread switches (tens of microseconds, much of what a small put costs).
//!
//! Work that may have to wait for another process goes through [`run_waiting`]: it does not wait on a thread whose
//! caller may want to end the call, and no longer than somebody waits for it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Code, Error, Result};
use crate::interrupt;

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
    static PATIENCE: RefCell<Patience> = const { RefCell::new(Patience::Endless) };
}

/// For how long the work on this thread may wait for others.
#[derive(Debug)]
enum Patience {
    Endless,
    None,
    /// Until this is set.
    Until(Arc<AtomicBool>),
}

/// Whether the work on this thread may wait for others: another process's transaction, a lock.
pub(crate) fn may_wait() -> bool {
    PATIENCE.with_borrow(|patience| match patience {
        Patience::Endless => true,
        Patience::None => false,
        Patience::Until(given_up) => !given_up.load(Ordering::Relaxed),
    })
}

/// Whether nobody waits any more for what this thread does.
pub(crate) fn is_given_up() -> bool {
    PATIENCE.with_borrow(
        |patience| matches!(patience, Patience::Until(given_up) if given_up.load(Ordering::Relaxed)),
    )
}

/// Runs work that [may not wait](may_wait).
pub(crate) fn without_waiting<T>(work: impl FnOnce() -> T) -> T {
    with_patience(Patience::None, work)
}

/// Runs the work with this patience.
fn with_patience<T>(patience: Patience, work: impl FnOnce() -> T) -> T {
    struct Before(Patience);
    impl Drop for Before {
        fn drop(&mut self) {
            PATIENCE.set(std::mem::replace(&mut self.0, Patience::Endless));
        }
    }
    let _before = Before(PATIENCE.replace(patience));
    work()
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

/// Runs a closure that blocks or computes for long. If the future is dropped, the closure still runs to
/// its end.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if may_block_here() { Ok(work()) } else { run_elsewhere(work).await }
}

/// Like [`run`], for work that may have to wait for others: `None` says that it would have to and
/// [may not](may_wait). A caller that may [end the call](crate::interruptible) gets to do so while another thread waits;
/// once the future is dropped, nobody waits any more.
pub(crate) async fn run_waiting<T: Send + 'static>(
    work: impl Fn() -> Option<T> + Send + 'static,
) -> Result<T> {
    if may_block_here() {
        let patience = if interrupt::is_watched() { Patience::None } else { Patience::Endless };
        if let Some(answer) = with_patience(patience, &work) {
            return Ok(answer);
        }
    }
    let given_up = GivenUp(Arc::default());
    let patience = Patience::Until(Arc::clone(&given_up.0));
    let answer = run_elsewhere(move || with_patience(patience, work)).await?;
    answer.ok_or_else(|| Error::new(Code::Internal, "work was given up that somebody waited for"))
}

/// Set when the future that holds it is dropped.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
