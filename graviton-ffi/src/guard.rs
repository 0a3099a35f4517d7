//! The boundary that no panic crosses. It turns a failure into a status and an error object.

use crate::error::graviton_error;
use crate::panic::{Outcome, catch};
use crate::status::{GRAVITON_ERROR_INVALID_ARGUMENT, GRAVITON_OK, graviton_status};

/// Runs the body of an exported function. `error`, unless it is null, becomes the error, or null on success.
/// A misaligned one cannot be told why, but from the status: nothing is done.
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
    let (status, object) = match catch(body) {
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

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use graviton_core::{Code, Error};

    use super::*;
    use crate::error::{
        graviton_error_advice, graviton_error_code, graviton_error_free, graviton_error_is_retryable,
        graviton_error_message, graviton_error_name,
    };
    use crate::panic::contain;

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

    /// Also those that only servers give, and bugs.
    #[test]
    fn every_code_of_the_core_comes_through_the_error_object() {
        for code in Code::all() {
            let mut error = std::ptr::null_mut();
            let failure = || Error::new(code, "a message with a \0 in it").with_advice("advice");
            // SAFETY: a place for a pointer; then the error that was given there, freed once.
            unsafe {
                assert_eq!(guard(&raw mut error, || Err(failure().into())), code.integer());
                assert_eq!(graviton_error_code(error), code.integer());
                assert_eq!(CStr::from_ptr(graviton_error_name(error)).to_str(), Ok(code.name()));
                assert_eq!(
                    CStr::from_ptr(graviton_error_message(error)).to_str(),
                    Ok("a message with a \\0 in it")
                );
                assert_eq!(CStr::from_ptr(graviton_error_advice(error)).to_str(), Ok("advice"));
                assert_eq!(graviton_error_is_retryable(error) == 1, code.is_retryable());
                graviton_error_free(error);
            }
        }
    }
}
