//! Statuses: 0, or the negative integer of one of the core's error codes.

use std::ffi::{CString, c_char};
use std::sync::LazyLock;

use graviton_core::Code;

/// The result of a call: GRAVITON_OK, or one of the negative GRAVITON_ERROR_…. Numbers are never reused; a
/// later version may add more.
pub type graviton_status = i32;

/// Success.
pub const GRAVITON_OK: graviton_status = 0;

/// `invalid-argument`: a parameter is invalid; the call did nothing.
pub const GRAVITON_ERROR_INVALID_ARGUMENT: graviton_status = -1;

/// `invalid-id`: the text is not a blob id or block key.
pub const GRAVITON_ERROR_INVALID_ID: graviton_status = -2;

/// `not-found`: there is no such blob (or file).
pub const GRAVITON_ERROR_NOT_FOUND: graviton_status = -3;

/// `digest-mismatch`: the content does not match its id.
pub const GRAVITON_ERROR_DIGEST_MISMATCH: graviton_status = -4;

/// `too-large`: larger than a limit allows.
pub const GRAVITON_ERROR_TOO_LARGE: graviton_status = -5;

/// `range-not-satisfiable`: the range starts beyond the end of the blob.
pub const GRAVITON_ERROR_RANGE_NOT_SATISFIABLE: graviton_status = -6;

/// `unauthorized`: the credentials are missing or wrong.
pub const GRAVITON_ERROR_UNAUTHORIZED: graviton_status = -7;

/// `forbidden`: the credentials do not allow this, or the operating system does not.
pub const GRAVITON_ERROR_FORBIDDEN: graviton_status = -8;

/// `corrupt-block`: a block's bytes are not the bytes that were stored.
pub const GRAVITON_ERROR_CORRUPT_BLOCK: graviton_status = -9;

/// `missing-block`: a block that a blob refers to is not in the block store.
pub const GRAVITON_ERROR_MISSING_BLOCK: graviton_status = -10;

/// `backend-unavailable`: the database or block store does not answer; trying again may help.
pub const GRAVITON_ERROR_BACKEND_UNAVAILABLE: graviton_status = -11;

/// `writer-expired`: the put took longer than its lease, and its blocks may have been collected; put again.
pub const GRAVITON_ERROR_WRITER_EXPIRED: graviton_status = -12;

/// `no-space`: the disk is full.
pub const GRAVITON_ERROR_NO_SPACE: graviton_status = -13;

/// `quota-exceeded`: a quota is used up.
pub const GRAVITON_ERROR_QUOTA_EXCEEDED: graviton_status = -14;

/// `method-not-allowed`: the HTTP method does not apply here.
pub const GRAVITON_ERROR_METHOD_NOT_ALLOWED: graviton_status = -15;

/// `timeout`: it took too long.
pub const GRAVITON_ERROR_TIMEOUT: graviton_status = -16;

/// `length-required`: a length is required.
pub const GRAVITON_ERROR_LENGTH_REQUIRED: graviton_status = -17;

/// `unsupported`: known, but not supported here.
pub const GRAVITON_ERROR_UNSUPPORTED: graviton_status = -18;

/// `rate-limited`: too many requests.
pub const GRAVITON_ERROR_RATE_LIMITED: graviton_status = -19;

/// `config`: the configuration is wrong.
pub const GRAVITON_ERROR_CONFIG: graviton_status = -20;

/// `version`: the store was written by a newer version.
pub const GRAVITON_ERROR_VERSION: graviton_status = -21;

/// `forked`: the store was opened by the parent process, before `fork`.
pub const GRAVITON_ERROR_FORKED: graviton_status = -22;

/// `closed`: the store, reader or writer is closed.
pub const GRAVITON_ERROR_CLOSED: graviton_status = -23;

/// `cancelled`: the caller cancelled it.
pub const GRAVITON_ERROR_CANCELLED: graviton_status = -24;

/// `io`: the operating system reported an input or output error.
pub const GRAVITON_ERROR_IO: graviton_status = -25;

/// `latched`: an earlier write failed, and this store refuses writes until it is opened again.
pub const GRAVITON_ERROR_LATCHED: graviton_status = -26;

/// `internal`: a bug in Graviton.
pub const GRAVITON_ERROR_INTERNAL: graviton_status = -27;

/// `corrupt-database`: the database is damaged, or another program changed it.
pub const GRAVITON_ERROR_CORRUPT_DATABASE: graviton_status = -28;

/// `overloaded`: too many operations at once; trying again may help.
pub const GRAVITON_ERROR_OVERLOADED: graviton_status = -29;

/// `conflict`: something is in another state than the caller requires; the call did nothing.
pub const GRAVITON_ERROR_CONFLICT: graviton_status = -30;

/// The names, NUL-terminated, in the order of the codes.
static NAMES: LazyLock<Vec<(Code, CString)>> =
    LazyLock::new(|| Code::all().map(|code| (code, CString::new(code.name()).unwrap_or_default())).collect());

fn find(status: graviton_status) -> Option<&'static (Code, CString)> {
    NAMES.iter().find(|(code, _)| code.integer() == status)
}

/// The name of a status; null for an unknown number.
pub(crate) fn name_of(status: graviton_status) -> *const c_char {
    match find(status) {
        Some((_, name)) => name.as_ptr(),
        None if status == GRAVITON_OK => c"ok".as_ptr(),
        None => std::ptr::null(),
    }
}

/// The stable name of a status, such as "not-found"; "ok" for GRAVITON_OK, NULL for an unknown number. It is
/// valid for ever. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_status_name(status: graviton_status) -> *const c_char {
    name_of(status)
}

/// 1 for a status after which the same call may succeed later without a change by the caller, otherwise 0.
/// Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_status_is_retryable(status: graviton_status) -> i32 {
    i32::from(find(status).is_some_and(|(code, _)| code.is_retryable()))
}

/// The number of error codes of this library. A binding can list them with graviton_status_at. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_status_count() -> usize {
    NAMES.len()
}

/// The error code at an index from 0 to graviton_status_count() - 1, in the order -1, -2, …; GRAVITON_OK for
/// any other. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_status_at(index: usize) -> graviton_status {
    NAMES.get(index).map_or(GRAVITON_OK, |(code, _)| code.integer())
}
