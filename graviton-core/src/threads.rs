//! Threads for work that blocks or computes.
//!
//! tokio has such threads, too. If the system can start no more of them, tokio panics, or leaves the work in
//! a queue that no thread reads. Here the caller gets an error, `backend-unavailable`, unless there is a
//! thread that will come to the work.
//!
//! So work on these threads never waits for other work on them: the calls of the store that it needs run on
//! the same thread (`blocking::may_block`). A thread without work ends after a while, except the last one.
//!
//! A forked child has none of its parent's threads, and starts new ones.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{Code, Error, Result};
use crate::process::PerProcess;

/// No more threads are started; work waits for one that is free.
const MOST: usize = 512;

/// A thread that had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// The threads of a process.
#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    /// Signalled for each piece of work that is queued.
    queued: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
}

static POOL: PerProcess<Pool> = PerProcess::new();

impl Pool {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&'static self, work: Work) -> std::io::Result<()> {
        let mut state = self.locked();
        if state.idle <= state.queue.len() && state.threads < MOST {
            match std::thread::Builder::new().name("graviton".into()).spawn(|| self.serve()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(error),
                // Those that are busy come to it.
                Err(_) => {}
            }
        }
        state.queue.push_back(work);
        self.queued.notify_one();
        Ok(())
    }

    /// Does what is queued, until there was nothing for a while.
    fn serve(&self) {
        let mut state = self.locked();
        loop {
            while let Some(work) = state.queue.pop_front() {
                drop(state);
                work();
                state = self.locked();
            }
            state.idle += 1;
            let waited = self.queued.wait_timeout_while(state, IDLE, |state| state.queue.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            if state.queue.is_empty() && state.threads > 1 {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Work that was begun, or is queued. It runs to its end, whatever becomes of this.
#[derive(Debug)]
pub(crate) struct Running<T>(oneshot::Receiver<std::thread::Result<T>>);

impl<T> Running<T> {
    /// Waits for its result. A panic goes on here.
    pub(crate) async fn join(&mut self) -> Result<T> {
        match (&mut self.0).await {
            Ok(result) => Ok(result.unwrap_or_else(|panic| resume_unwind(panic))),
            Err(_) => Err(Error::new(Code::Closed, "the work was not begun, for nobody waited for it")),
        }
    }
}

/// Begins this work on another thread, inside of the caller's runtime. Not if `unless` says so by then.
pub(crate) fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    unless: impl FnOnce() -> bool + Send + 'static,
) -> Result<Running<T>> {
    let (answer, result) = oneshot::channel();
    start_boxed(Box::new(move || {
        if !unless() {
            // A panic is the caller's. If nobody waits, nobody gets the result.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        }
    }))?;
    Ok(Running(result))
}

/// Apart, because this is compiled once, and [`start`] for each kind of work.
fn start_boxed(work: Work) -> Result<()> {
    let runtime = Handle::try_current().ok().map(Arc::new);
    let pool = POOL.get_or_make(|| Ok(Pool::default()))?;
    let queued = pool.queue(Box::new(move || {
        let _entered = runtime.as_ref().map(|runtime| runtime.enter());
        work();
    }));
    queued.map_err(|error| Error::no_thread("cannot start a thread of the store", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_used_again_and_work_waits_for_one_that_is_busy() {
        let pool: &'static Pool = Box::leak(Box::default());
        let (told, telling) = std::sync::mpsc::channel();
        for number in 0..100 {
            let told = told.clone();
            pool.queue(Box::new(move || told.send(number).unwrap())).unwrap();
            assert_eq!(telling.recv().unwrap(), number);
        }
        assert!(pool.locked().threads < 50);
        // No thread can be had, and the only one is busy.
        let pool: &'static Pool = Box::leak(Box::new(Pool {
            state: Mutex::new(State { threads: MOST - 1, ..State::default() }),
            queued: Condvar::new(),
        }));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        pool.queue(Box::new(move || wait.recv().unwrap())).unwrap();
        for number in 0..3 {
            let told = told.clone();
            pool.queue(Box::new(move || told.send(number).unwrap())).unwrap();
        }
        go.send(()).unwrap();
        assert_eq!([0; 3].map(|_| telling.recv().unwrap()), [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_panic_is_the_callers_and_the_thread_goes_on() {
        let mut panics = start(|| panic!("of the work"), || false).unwrap();
        let panicked = tokio::spawn(async move { panics.join().await }).await;
        assert!(panicked.unwrap_err().is_panic());
        assert_eq!(start(|| 7, || false).unwrap().join().await.unwrap(), 7);
        assert_eq!(start(|| 7, || true).unwrap().join().await.unwrap_err().code(), Code::Closed);
    }
}
