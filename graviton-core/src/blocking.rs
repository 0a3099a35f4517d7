//! Work that blocks or computes, kept off the threads that drive futures.
//!
//! There are three ways. Each of them depends on the thread's [`Mode`]:
//! - [`run`]: a closure. It runs on the caller's thread if that thread may block, which saves two thread
//!   switches (tens of microseconds, a large part of a small put). Otherwise it runs on one of our own
//!   [`threads`]. It is an error if the system cannot start one.
//! - [`run_waiting`]: a closure that may have to wait for another process. It never waits on a thread whose
//!   caller may want to end the call, and it stops waiting once nobody waits for its answer.
//! - [`Task`]: a closure or a future that always runs on other threads, and ends with its handle.
//!
//! [`at_once`] polls a call once on this thread: the call answers if it can do so without waiting, and
//! otherwise begins nothing.
//!
//! The mode is one thread-local. The check of an interruptible call is another (`interrupt`): a closure that
//! the caller supplies, and that outlives the calls it applies to.

use std::cell::RefCell;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;

use crate::error::{Code, Error, Result};
use crate::interrupt;
use crate::threads::{self, Running};

thread_local! {
    static MODE: RefCell<Mode> = const { RefCell::new(Mode::Driving) };
}

/// The rules for the code that runs on a thread.
#[derive(Debug, Clone)]
enum Mode {
    /// The thread drives futures: it must not block.
    Driving,
    /// The thread drives a future that is polled only once: nothing may block, wait, or be left to other
    /// threads.
    AtOnce,
    /// The thread may block: it is the caller's own thread inside the synchronous store, or one of
    /// [`threads`].
    Blocking(Wait),
}

/// How long a blocking call may wait for another process, that is, for its transaction or its lock.
#[derive(Debug, Clone)]
enum Wait {
    Forever,
    Never,
    /// Until this is set.
    Until(Arc<AtomicBool>),
}

/// Sets the mode of this thread until it is dropped, which restores the previous mode.
pub(crate) struct Entered {
    before: Mode,
}

impl Entered {
    fn new(mode: Mode) -> Entered {
        Entered { before: MODE.replace(mode) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        MODE.set(std::mem::replace(&mut self.before, Mode::Driving));
    }
}

/// Lets this thread block until the guard is dropped. The limit on waiting for other processes does not
/// change.
pub(crate) fn may_block() -> Entered {
    let wait = MODE.with_borrow(|mode| match mode {
        Mode::Driving => Wait::Forever,
        Mode::AtOnce => Wait::Never,
        Mode::Blocking(wait) => wait.clone(),
    });
    Entered::new(Mode::Blocking(wait))
}

/// Whether this thread may block.
pub(crate) fn may_block_here() -> bool {
    MODE.with_borrow(|mode| matches!(mode, Mode::Blocking(_)))
}

/// Whether the current call is polled only once: it must answer without waiting, or stay pending without
/// having begun anything.
pub fn is_at_once() -> bool {
    MODE.with_borrow(|mode| matches!(mode, Mode::AtOnce))
}

/// Whether the work on this thread may wait for another process.
pub(crate) fn may_wait() -> bool {
    MODE.with_borrow(|mode| match mode {
        Mode::Driving | Mode::Blocking(Wait::Forever) => true,
        Mode::AtOnce | Mode::Blocking(Wait::Never) => false,
        Mode::Blocking(Wait::Until(given_up)) => !given_up.load(Ordering::Relaxed),
    })
}

/// Whether nobody waits any more for the work on this thread.
pub(crate) fn is_given_up() -> bool {
    MODE.with_borrow(
        |mode| matches!(mode, Mode::Blocking(Wait::Until(given_up)) if given_up.load(Ordering::Relaxed)),
    )
}

/// Polls the future once on this thread, which need not be one that may block. Returns `None` if the future
/// has to wait for anything or needs another thread; it has then begun nothing.
///
/// Each place where work begins upholds this: [`run`] and [`run_waiting`] in this module, and [`begins`] in
/// backends that talk to a network.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let _entered = Entered::new(Mode::AtOnce);
    future.now_or_never()
}

/// Stays pending if the caller polls only once. To be called before anything that takes longer begins.
pub(crate) async fn begins() {
    if is_at_once() {
        pending::<()>().await;
    }
}

/// Runs a closure that blocks or computes for long. If the future is dropped, the closure still runs to
/// its end.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    begins().await;
    if may_block_here() { Ok(work()) } else { start(work, || false)?.join().await }
}

/// Begins work on another thread, which may block.
fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    unless: impl FnOnce() -> bool + Send + 'static,
) -> Result<Running<T>> {
    let work = || {
        let _entered = may_block();
        work()
    };
    threads::start(work, unless)
}

/// Runs work that nobody waits for, if there is a thread for it.
pub(crate) fn run_beside(work: impl FnOnce() + Send + 'static) {
    drop(start(work, || false));
}

/// Like [`run`], for work that may have to wait for others. The work returns `None` if it would have to wait
/// and [may not](may_wait). If the caller may [end the call](crate::interruptible), another thread does the
/// waiting; it stops once the future is dropped.
pub(crate) async fn run_waiting<T: Send + 'static>(
    work: impl Fn() -> Option<T> + Send + 'static,
) -> Result<T> {
    if is_at_once() {
        return match work() {
            Some(answer) => Ok(answer),
            None => pending().await,
        };
    }
    if may_block_here() {
        let _never = interrupt::is_watched().then(|| Entered::new(Mode::Blocking(Wait::Never)));
        if let Some(answer) = work() {
            return Ok(answer);
        }
    }
    let given_up = GivenUp(Arc::default());
    let wait = Wait::Until(Arc::clone(&given_up.0));
    let answer = Task::blocking(move || {
        let _entered = Entered::new(Mode::Blocking(wait));
        work()
    });
    answer
        .join()
        .await?
        .ok_or_else(|| Error::new(Code::Internal, "work was given up that somebody waited for"))
}

/// Set when the future that holds it is dropped.
#[derive(Debug)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The result of a task: its panic stays a panic, and a runtime that is shutting down is `closed`.
pub(crate) fn joined<T>(result: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    result.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::new(Code::Closed, "the runtime that drives the store is shutting down"),
    })
}

/// Work on other threads that ends when its handle is dropped; a closure that has begun runs to its end.
#[derive(Debug)]
pub(crate) struct Task<T>(Kind<T>);

#[derive(Debug)]
enum Kind<T> {
    /// Work on a thread of its own, which is not begun once this is set.
    Thread(Result<Running<T>>, #[allow(dead_code, reason = "dropped, it tells the thread")] GivenUp),
    Future(tokio::task::JoinHandle<T>),
}

impl<T: Send + 'static> Task<T> {
    /// Runs a closure on another thread, beside what the caller does. If no thread can be started,
    /// [`Task::join`] returns that error.
    pub(crate) fn blocking(work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
        let given_up = GivenUp(Arc::default());
        let flag = Arc::clone(&given_up.0);
        Task(Kind::Thread(start(work, move || flag.load(Ordering::Relaxed)), given_up))
    }

    /// Drives a future on threads of the runtime, so that the caller's own thread can be interrupted
    /// meanwhile.
    pub(crate) fn spawn(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        Task(Kind::Future(tokio::spawn(future)))
    }

    /// Waits for the result.
    pub(crate) async fn join(mut self) -> Result<T> {
        match &mut self.0 {
            Kind::Thread(Ok(running), _) => running.join().await,
            Kind::Thread(Err(error), _) => Err(error.clone()),
            Kind::Future(task) => joined(task.await),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Kind::Future(task) = &self.0 {
            task.abort();
        }
    }
}

/// How many closures can compute at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_is_polled_once_answers_or_has_begun_nothing() {
        let begun = Arc::new(AtomicBool::new(false));
        let work = || {
            let begun = Arc::clone(&begun);
            move || begun.store(true, Ordering::Relaxed)
        };
        assert!(at_once(run(work())).is_none());
        let waits = || {
            assert!(!may_wait());
            None::<()>
        };
        assert!(at_once(run_waiting(waits)).is_none());
        assert!(at_once(begins()).is_none());
        assert!(!begun.load(Ordering::Relaxed));
        assert_eq!(at_once(run_waiting(|| Some(7))).unwrap().unwrap(), 7);
        // The mode ends with the call.
        assert!(!is_at_once());
        run(work()).await.unwrap();
        assert!(begun.load(Ordering::Relaxed));
    }
}
