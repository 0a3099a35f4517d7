//! The meaning of SQLite's result codes for the store: <https://sqlite.org/rescode.html>.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{Code, Error};
use crate::manifest::connection::Problem;

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Whether the file is damaged.
pub(in crate::manifest) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Whether SQLite cannot make the files that it needs beside the database.
pub(super) fn is_about_other_files(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly)
    )
}

/// SQLite reports a full disk as an I/O error, unless it writes to the database itself.
fn is_full(path: &Path) -> bool {
    let free = rustix::fs::statvfs(path).map(|disk| disk.f_bavail * disk.f_frsize);
    free.is_ok_and(|free| free < 64 << 10)
}

/// The error of an operation on the database at `path`.
pub(super) fn failed(path: &Path, problem: Problem) -> Error {
    const PERMISSIONS: &str = "check the permissions of the file and of its directory";
    const FULL: (Code, &str, &str) = (
        Code::NoSpace,
        "cannot grow: no space left on the device",
        "free some space on that disk and try again",
    );
    let error = match problem {
        Problem::Ours(error) => return error,
        Problem::Sqlite(error) => error,
        #[cfg(feature = "postgres")]
        Problem::Postgres(error) => return Error::new(Code::Internal, error.to_string()),
    };
    let (code, what, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FULL,
        Some(ErrorCode::OperationInterrupted) => {
            (Code::Cancelled, "was told to stop", "nobody waited for it any more")
        }
        Some(ErrorCode::SystemIoFailure) if is_full(path.parent().unwrap_or(path)) => FULL,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Code::BackendUnavailable, "is busy", "another process holds it; try again")
        }
        Some(ErrorCode::SystemIoFailure) => {
            (Code::Io, "could not be read or written", "look at the kernel's log for the state of that disk")
        }
        Some(ErrorCode::ReadOnly) => (Code::Forbidden, "is read-only", PERMISSIONS),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (Code::Forbidden, "may not be opened", PERMISSIONS)
        }
        Some(ErrorCode::CannotOpen) => (
            Code::Forbidden,
            "cannot be opened",
            "check that its directory exists and that you may write there",
        ),
        Some(ErrorCode::NotADatabase) => (
            Code::Config,
            "is not a SQLite database",
            "choose another directory or another GRAVITON_MANIFEST_URL",
        ),
        Some(ErrorCode::DatabaseCorrupt) => {
            (Code::CorruptDatabase, "is damaged", "restore the database from a backup")
        }
        _ => (Code::Internal, "answered with an unexpected error", "please report this"),
    };
    Error::new(code, format!("the database {} {what} ({error})", path.display()))
        .with_advice(advice)
        .with_source(error)
}
