//! The state that the handles of one open store share: the store, whether it is closed, the process that it
//! belongs to, and the cancel callback.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use graviton_core::{Code, Error, Process, Result, Store, uninterrupted};

use crate::callback::{Cancel, Question, cancelled};
use crate::panic::Outcome;

/// The interval at which a call asks its cancel callback.
pub(crate) const PERIOD: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(crate) struct Session {
    store: Store,
    /// The core refuses calls to a closed store; this flag is for readers and writers, which hold parts of
    /// it.
    closed: Arc<AtomicBool>,
    process: Process,
    cancel: Option<Cancel>,
}

impl Session {
    pub(crate) fn new(store: Store, cancel: Option<Cancel>) -> Session {
        Session { store, closed: Arc::default(), process: Process::this(), cancel }
    }

    /// The same store with another cancel callback.
    pub(crate) fn with_cancel(&self, cancel: Option<Cancel>) -> Session {
        Session { cancel, ..self.clone() }
    }

    /// Whether the store can be used now, in this process.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_process()?;
        self.check_open()
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed").with_advice("open it again"));
        }
        Ok(())
    }

    fn check_process(&self) -> Result<()> {
        self.process.check("this store")
    }

    /// The store, for calls that were checked before.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Calls the engine, which asks the cancel callback from time to time.
    pub(crate) fn run<T>(&self, call: impl FnOnce(&Store) -> Result<T>) -> Outcome<T> {
        self.check()?;
        self.run_checked(|| call(&self.store))
    }

    /// Like `run`, for callers that have already checked: the process id is a system call, and there are many
    /// small reads.
    pub(crate) fn run_checked<T>(&self, call: impl FnOnce() -> Result<T>) -> Outcome<T> {
        Cancel::watch(self.cancel, |_| call())
    }

    /// Like `run`, for a call that also waits for something outside the engine.
    pub(crate) fn run_waiting<T>(&self, call: impl FnOnce(&Store, &Waiting<'_>) -> Result<T>) -> Outcome<T> {
        self.check()?;
        Cancel::watch(self.cancel, |question| {
            let waiting = Waiting { session: self, question, asked: Cell::new(Instant::now()) };
            call(&self.store, &waiting)
        })
    }

    pub(crate) fn close(&self) -> Result<()> {
        self.check_process()?;
        self.closed.store(true, Ordering::Release);
        // The close runs to its end, whatever call it is made from.
        uninterrupted(|| self.store.close());
        Ok(())
    }
}

/// A call that waits for a file descriptor.
pub(crate) struct Waiting<'a> {
    session: &'a Session,
    question: Option<&'a Question>,
    asked: Cell<Instant>,
}

impl Waiting<'_> {
    /// Asks the cancel callback, if it is time to.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.asked.get().elapsed() < PERIOD {
            return Ok(());
        }
        self.session.check_open()?;
        let no = self.question.is_some_and(|question| question.ask().is_break());
        self.asked.set(Instant::now());
        if no { Err(cancelled("cancel")) } else { Ok(()) }
    }
}
