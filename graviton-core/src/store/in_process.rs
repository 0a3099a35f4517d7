//! The value that only the process that made it may use.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::Result;
use crate::process::Process;
use crate::runtime;

/// A part of the engine in the hands of a synchronous caller. It is dropped on the runtime, which it may
/// need to clean up; in a forked child it is left alone, for its threads and locks are the parent's.
#[derive(Clone)]
pub(super) struct InProcess<T> {
    process: Process,
    /// `None` only once it was taken out.
    value: Option<T>,
}

impl<T> InProcess<T> {
    pub(super) fn new(value: T) -> InProcess<T> {
        InProcess { process: Process::this(), value: Some(value) }
    }

    /// Something else of the same process, whichever calls.
    pub(super) fn beside<U>(&self, value: U) -> InProcess<U> {
        InProcess { process: self.process, value: Some(value) }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.process.check("this store")
    }

    pub(super) fn into_inner(mut self) -> T {
        self.value.take().expect(PRESENT)
    }
}

const PRESENT: &str = "taken out only when consumed";

impl<T> Deref for InProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(PRESENT)
    }
}

impl<T> DerefMut for InProcess<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(PRESENT)
    }
}

impl<T> Drop for InProcess<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            std::mem::forget(self.value.take());
        } else if let Ok(runtime) = runtime::of_this_process() {
            let _entered = runtime.enter();
            drop(self.value.take());
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for InProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
