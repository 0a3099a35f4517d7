//! An operation with its arguments, ready to run, and a place for its answer.
//!
//! The databases see neither the type of the arguments nor that of the answer. If they did, all that they do
//! for an operation, from the wait for a connection to the commit, would be compiled sixty times. That was a
//! sixth of all that was compiled of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::connection::{Connection, Ending, Running, Work};
use crate::error::{Code, Error, Result};

/// An operation that can run any number of times.
pub(super) trait Prepared: Send + Sync {
    /// Runs it once on this connection, and keeps its answer.
    fn run_on<'c>(&'c self, connection: Connection<'c>) -> Running<'c, ()>;
}

/// An operation, and the answer of its last run.
pub(super) struct Answered<A, T, W> {
    arguments: A,
    work: W,
    answer: Mutex<Option<T>>,
}

impl<A, T, W> Answered<A, T, W> {
    pub(super) fn new(arguments: A, work: W) -> Answered<A, T, W> {
        Answered { arguments, work, answer: Mutex::new(None) }
    }

    /// The answer, once the database has said that the operation has succeeded.
    pub(super) fn answer(&self) -> Result<T> {
        let answer = self.kept().take();
        answer.ok_or_else(|| Error::new(Code::Internal, "an operation succeeded without an answer"))
    }

    fn kept(&self) -> MutexGuard<'_, Option<T>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A, T, W> Prepared for Answered<A, T, W>
where
    A: Send + Sync + 'static,
    T: Send + 'static,
    W: Work<A, T>,
{
    fn run_on<'c>(&'c self, connection: Connection<'c>) -> Running<'c, ()> {
        let running = (self.work)(connection, &self.arguments);
        Box::pin(async move {
            let (ending, answer) = match running.await? {
                Ending::Commit(answer) => (Ending::Commit(()), answer),
                Ending::RollBack(answer) => (Ending::RollBack(()), answer),
            };
            *self.kept() = Some(answer);
            Ok(ending)
        })
    }
}
