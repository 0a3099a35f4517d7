//! A value for one thread at a time that keeps its first error: the position of a reader, or a writer.

use std::sync::Mutex;

use graviton_core::Result;

use crate::panic::{Failure, Outcome};
use crate::pointer::exclusive;
use crate::session::Session;

pub(crate) struct Sticky<T> {
    session: Session,
    /// The kind of value, for messages.
    what: &'static str,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: T,
    /// The error that every later call gets again.
    failed: Option<Failure>,
}

impl<T> Sticky<T> {
    pub(crate) fn new(session: &Session, what: &'static str, value: T) -> Sticky<T> {
        Sticky { session: session.clone(), what, state: Mutex::new(State { value, failed: None }) }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Uses the value. An error of the call is kept; use by two threads at once, or of a closed store, is
    /// not.
    pub(crate) fn with<R>(&self, call: impl FnOnce(&mut T) -> Result<R>) -> Outcome<R> {
        // This check comes first: in a forked child, the lock may be held by a thread that does not exist.
        self.session.check()?;
        let mut state = exclusive(&self.state, self.what)?;
        let State { value, failed } = &mut *state;
        if let Some(failure) = failed {
            return Err(failure.clone());
        }
        self.session.run_checked(|| call(value)).inspect_err(|failure| *failed = Some(failure.clone()))
    }
}
