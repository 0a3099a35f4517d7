//! Failures, and panics as failures.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use graviton_core::{Code, Error};

/// Why a call failed: the error, and what the program's own callback returned if that ended it.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) callback_code: i32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, callback_code: 0 }
    }
}

impl Failure {
    /// The same failure, with what another callback returned if that is why.
    pub(crate) fn or_code(mut self, code: i32) -> Failure {
        if self.error.code() == Code::Cancelled && self.callback_code == 0 {
            self.callback_code = code;
        }
        self
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// Runs what cannot fail; a panic ends here too, and nobody can be told.
pub(crate) fn contain<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        // Dropping it could panic again.
        std::mem::forget(panic);
        fallback
    })
}

/// Runs what can fail. A panic ends here and is a failure.
pub(crate) fn catch(body: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(panic).into()))
}

fn panicked(panic: Box<dyn Any + Send>) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    // Dropping it could panic again.
    std::mem::forget(panic);
    Error::new(Code::Internal, format!("a bug in Graviton: {text}"))
        .with_advice("free the handles that took part, and report it with this message")
}
