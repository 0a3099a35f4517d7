//! The boundary that no panic crosses, and that turns a failure into a status and an error object.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use graviton_core::{Code, Error};

use crate::error::graviton_error;
use crate::status::{GRAVITON_ERROR_INVALID_ARGUMENT, GRAVITON_OK, graviton_status};

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

/// Runs the body of an exported function. `error`, unless it is null, becomes the error, or null on success. A misaligned
/// one cannot be told why, but from the status: nothing is done.
///
/// # Safety
/// `error` is null, misaligned, or a place for a pointer.
pub(crate) unsafe fn guard(
    error: *mut *mut graviton_error,
    body: impl FnOnce() -> Outcome<()>,
) -> graviton_status {
    if !error.is_aligned() {
        return GRAVITON_ERROR_INVALID_ARGUMENT;
    }
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(panic).into()));
    let (status, object) = match outcome {
        Ok(()) => (GRAVITON_OK, std::ptr::null_mut()),
        Err(failure) => {
            let status = failure.error.code().integer();
            (status, if error.is_null() { std::ptr::null_mut() } else { graviton_error::give(&failure) })
        }
    };
    if !error.is_null() {
        // SAFETY: not null, aligned, and by the contract of this function a place for a pointer.
        unsafe { error.write(object) };
    }
    status
}

/// Runs what cannot fail; a panic ends here too, and nobody can be told.
pub(crate) fn contain<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        // Dropping it could panic again.
        std::mem::forget(panic);
        fallback
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    // Dropping it could panic again.
    std::mem::forget(panic);
    Error::new(Code::Internal, format!("a bug in Graviton: {text}"))
        .with_advice("free the handles that took part, and report it with this message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_internal_with_its_message() {
        let mut error = std::ptr::null_mut();
        // SAFETY: a place for a pointer.
        let status = unsafe { guard(&raw mut error, || panic!("the {} broke", "thing")) };
        assert_eq!(status, Code::Internal.integer());
        // SAFETY: the error that was just given.
        let error = unsafe { Box::from_raw(error) };
        assert!(error.message().contains("the thing broke"));
        // SAFETY: no place for an error is allowed.
        assert_eq!(unsafe { guard(std::ptr::null_mut(), || panic!("again")) }, status);
        assert_eq!(contain(7, || panic!("and again")), 7);
    }
}
