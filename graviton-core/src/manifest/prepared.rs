//! An operation with its arguments, ready to run, and a place for its answer.
//!
//! The databases see neither the type of the arguments nor that of the answer. If they did, all that they do
//! for an operation, from the wait for a connection to the commit, would be compiled sixty times: that took
//! half of the time of a build.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

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
    runs: PhantomData<fn(A) -> T>,
}

impl<A, T, W> Answered<A, T, W> {
    pub(super) fn new(arguments: A, work: W) -> Answered<A, T, W> {
        Answered { arguments, work, answer: Mutex::new(None), runs: PhantomData }
    }

    /// The answer, once the database has said that the operation has succeeded.
    pub(super) fn answer(&self) -> Result<T> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.take().ok_or_else(|| Error::new(Code::Internal, "an operation succeeded without an answer"))
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
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            Ok(ending)
        })
    }
}
