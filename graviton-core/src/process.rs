//! The process that opened a store or a handle. A forked child has a copy of its parent's memory, but none of
//! its threads and locks, so it must not use what the parent opened.

use std::sync::OnceLock;

use crate::error::{Code, Error, Result};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    /// The one that calls.
    ///
    /// ```
    /// use graviton_core::Process;
    /// let opened = Process::this();
    /// assert!(opened.is_this() && opened.check("this store").is_ok());
    /// ```
    pub fn this() -> Process {
        Process(std::process::id())
    }

    /// Whether it is the one that calls.
    pub fn is_this(self) -> bool {
        self == Process::this()
    }

    /// Fails with `forked` in any other process; `what` it opened.
    pub fn check(self, what: &str) -> Result<()> {
        if self.is_this() {
            return Ok(());
        }
        Err(Error::new(Code::Forked, format!("{what} was opened by the parent process"))
            .with_advice("open the store again after the fork"))
    }
}

/// A value that each process has of its own: a forked child makes another one, and leaves that of its parent
/// alone, whose threads and locks it has not.
pub(crate) struct PerProcess<T>(OnceLock<Box<Made<T>>>);

/// The value of a process, and behind it that of a child it was forked into.
struct Made<T> {
    by: Process,
    value: T,
    child: PerProcess<T>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess(OnceLock::new())
    }

    /// The value of this process; made when it is first needed.
    ///
    /// No lock is held while it is made: a child that is forked meanwhile would wait for it for ever. Of two
    /// threads that make one, one drops its own.
    pub(crate) fn get_or_make(&'static self, make: impl Fn() -> Result<T>) -> Result<&'static T> {
        let this = Process::this();
        let mut place = self;
        loop {
            let known = if let Some(known) = place.0.get() {
                known
            } else {
                let value = make()?;
                place.0.get_or_init(|| Box::new(Made { by: this, value, child: PerProcess::new() }))
            };
            if known.by == this {
                return Ok(&known.value);
            }
            place = &known.child;
        }
    }
}
