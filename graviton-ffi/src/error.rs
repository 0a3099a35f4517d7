//! The error object: everything that is known about a failure, owned by the caller.

use std::ffi::{CString, c_char};

use crate::panic::{Failure, contain};
use crate::pointer::free;
use crate::status::{GRAVITON_ERROR_INVALID_ARGUMENT, GRAVITON_OK, graviton_status, name_of};

/// Why a call failed. Immutable: any number of threads may read it. Free it with graviton_error_free.
pub struct graviton_error {
    code: graviton_status,
    retryable: bool,
    errno: i32,
    callback_code: i32,
    message: CString,
    advice: CString,
}

impl graviton_error {
    pub(crate) fn give(failure: &Failure) -> *mut graviton_error {
        let error = &failure.error;
        Box::into_raw(Box::new(graviton_error {
            code: error.code().integer(),
            retryable: error.is_retryable(),
            errno: error.errno().unwrap_or(0),
            callback_code: failure.callback_code,
            message: c_string(&error.to_string()),
            advice: c_string(error.advice().unwrap_or_default()),
        }))
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> std::borrow::Cow<'_, str> {
        self.message.to_string_lossy()
    }
}

/// C ends text at a NUL, so one inside (of a file's name, say) is shown.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\\0")).unwrap_or_default()
}

/// # Safety
/// Null, misaligned, or an error that was given and not freed.
unsafe fn of<T>(error: *const graviton_error, none: T, get: impl FnOnce(&graviton_error) -> T) -> T {
    if error.is_null() || !error.is_aligned() {
        return none;
    }
    // SAFETY: not null, aligned, and good by the contract.
    let error = unsafe { &*error };
    contain(none, || get(error))
}

/// The status that the failed call returned: one of GRAVITON_ERROR_…. GRAVITON_OK for NULL. A misaligned
/// pointer is GRAVITON_ERROR_INVALID_ARGUMENT here and counts as NULL in the other functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_code(error: *const graviton_error) -> graviton_status {
    let none = if error.is_aligned() { GRAVITON_OK } else { GRAVITON_ERROR_INVALID_ARGUMENT };
    // SAFETY: the caller keeps to the header.
    unsafe { of(error, none, |error| error.code) }
}

/// The stable name of the code, such as "not-found"; "ok" for NULL. It is valid for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_name(error: *const graviton_error) -> *const c_char {
    // SAFETY: the caller keeps to the header.
    name_of(unsafe { graviton_error_code(error) })
}

/// The message: the operation, its object, and the reason for the failure. UTF-8, lower case, without a full
/// stop or secrets. Empty for NULL, never NULL. It is valid as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_message(error: *const graviton_error) -> *const c_char {
    // SAFETY: the caller keeps to the header.
    unsafe { of(error, c"".as_ptr(), |error| error.message.as_ptr()) }
}

/// The advice, as UTF-8. Empty if there is none and for NULL, never NULL. It is valid as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_advice(error: *const graviton_error) -> *const c_char {
    // SAFETY: the caller keeps to the header.
    unsafe { of(error, c"".as_ptr(), |error| error.advice.as_ptr()) }
}

/// 1 if the same call may succeed later without a change by the caller, otherwise 0. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_is_retryable(error: *const graviton_error) -> i32 {
    // SAFETY: the caller keeps to the header.
    unsafe { of(error, 0, |error| i32::from(error.retryable)) }
}

/// The operating system's errno that caused the failure, otherwise 0. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_errno(error: *const graviton_error) -> i32 {
    // SAFETY: the caller keeps to the header.
    unsafe { of(error, 0, |error| error.errno) }
}

/// The value by which the program's own callback ended the call (the code is then GRAVITON_ERROR_CANCELLED),
/// otherwise 0. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_callback_code(error: *const graviton_error) -> i32 {
    // SAFETY: the caller keeps to the header.
    unsafe { of(error, 0, |error| error.callback_code) }
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_error_free(error: *mut graviton_error) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(error) }
}
