//! A value that one thread uses at a time. The other threads wait without the GIL, and still handle signals.
//!
//! A plain mutex does neither, and would hang if a signal handler calls the object that its own thread is
//! using, or if a fork copied the mutex while another thread held it.
//! thread is using, or where a fork copied it while another thread had it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use graviton_core::{Code, Error, Process, Result};

use crate::call::{Interrupts, PATIENCE};

/// A `T`, until it is closed.
pub(crate) struct Turn<T> {
    /// The name in errors, with its article.
    name: &'static str,
    process: Process,
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Free(T),
    Taken(ThreadId),
    Closed,
}

impl<T> Turn<T> {
    pub(crate) fn new(name: &'static str, value: T) -> Turn<T> {
        let state = Mutex::new(State::Free(value));
        Turn { name, process: Process::this(), state, changed: Condvar::new() }
    }

    /// Waits for its turn, and runs `work` on the value.
    pub(crate) fn with<R>(
        &self,
        interrupts: &Interrupts,
        work: impl FnOnce(&mut T) -> Result<R>,
    ) -> Result<R> {
        let Some(value) = self.acquire(interrupts)? else {
            return Err(Error::new(Code::Closed, format!("{} is closed", self.name)));
        };
        let mut taken = Taken { turn: self, value: Some(value) };
        match &mut taken.value {
            Some(value) => work(value),
            None => unreachable!("it was put in above"),
        }
    }

    /// Waits for its turn, and takes the value out for good; `None` if it was already closed.
    pub(crate) fn close(&self, interrupts: &Interrupts) -> Result<Option<T>> {
        let value = self.acquire(interrupts)?;
        *self.lock() = State::Closed;
        self.changed.notify_all();
        Ok(value)
    }

    fn acquire(&self, interrupts: &Interrupts) -> Result<Option<T>> {
        self.process.check(self.name)?;
        let me = thread::current().id();
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken(me)) {
                State::Free(value) => return Ok(Some(value)),
                State::Closed => {
                    *state = State::Closed;
                    return Ok(None);
                }
                State::Taken(owner) => {
                    *state = State::Taken(owner);
                    if owner == me {
                        let why =
                            format!("{} is used by a signal handler that interrupted a use of it", self.name);
                        return Err(Error::new(Code::InvalidArgument, why));
                    }
                    state =
                        self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
                    if matches!(*state, State::Taken(_)) {
                        // Signal handlers may call back into this.
                        drop(state);
                        interrupts.check()?;
                        state = self.lock();
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the value, even if the work panics.
struct Taken<'a, T> {
    turn: &'a Turn<T>,
    value: Option<T>,
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        *self.turn.lock() = self.value.take().map_or(State::Closed, State::Free);
        self.turn.changed.notify_one();
    }
}
