//! The process that opened something. A forked child has a copy of its parent's memory, but none of its
//! threads and locks, so that it must not use what the parent opened.

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
