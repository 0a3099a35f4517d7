//! The meaning of SQLite's result codes for the store: <https://sqlite.org/rescode.html>.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};
use rustix::io::Errno;

use super::filesystem::{check_locks_beside, no_shared_memory};
use crate::descriptor::{check_free, occupy_standard};
use crate::error::{Code, Error, is_out_of_files};
use crate::manifest::connection::Problem;
use crate::manifest::upgraded::{is_upgraded, upgraded};

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Whether a signal ended a system call of SQLite's before it did anything. To be asked right after the
/// error, on the same thread.
///
/// SQLite repeats what opens, reads and writes, but neither its syncs nor what it does to directories. It
/// does not say why a call failed; but `errno` of this thread still has the number: calls that succeed do not
/// change it, and none of those by which SQLite rolls back waits for anything that a signal could end.
///
/// An interrupted sync is no lost write: the kernel keeps the report of one for the next sync of that file.
/// So the operation can be run again, which writes once more whatever was rolled back.
fn was_interrupted(error: &rusqlite::Error) -> bool {
    let is_system =
        matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen));
    is_system && io::Error::last_os_error().kind() == ErrorKind::Interrupted
}

/// An error that may be SQLite's.
pub(super) trait MaySqlite {
    fn sqlite(&self) -> Option<&rusqlite::Error>;
}

impl MaySqlite for rusqlite::Error {
    fn sqlite(&self) -> Option<&rusqlite::Error> {
        Some(self)
    }
}

impl MaySqlite for Problem {
    fn sqlite(&self) -> Option<&rusqlite::Error> {
        if let Problem::Sqlite(error) = self { Some(error) } else { None }
    }
}

/// Runs this again for as long as signals end it; but not for ever, for nothing says that SQLite never leaves
/// an old number behind.
pub(super) fn repeated<T, E: MaySqlite>(mut run: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    const MOST_RUNS: usize = 100;
    let mut result = run();
    for _ in 1..MOST_RUNS {
        match &result {
            Err(error) if error.sqlite().is_some_and(was_interrupted) => result = run(),
            _ => break,
        }
    }
    result
}

/// Whether the file is damaged.
pub(in crate::manifest) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Whether a lock could not be had, although nobody has it.
pub(super) fn is_about_locks(error: &rusqlite::Error) -> bool {
    let locks = [
        ffi::SQLITE_IOERR_LOCK,
        ffi::SQLITE_IOERR_RDLOCK,
        ffi::SQLITE_IOERR_UNLOCK,
        ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
    ];
    error.sqlite_error().is_some_and(|error| locks.contains(&error.extended_code))
}

/// Whether the memory that the log needs could not be shared. That its file could not be made or enlarged is
/// another matter: a full disk, above all.
fn is_about_shared_memory(error: &rusqlite::Error) -> bool {
    let memory = [ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMLOCK];
    error.sqlite_error().is_some_and(|error| memory.contains(&error.extended_code))
}

/// Whether SQLite cannot make the files that it needs beside the database.
pub(super) fn is_about_other_files(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly)
    )
}

/// SQLite reports a full disk as an I/O error, unless it writes to the database itself, and a used-up quota
/// in any case, and a limit on the size of files. It keeps the number of the error to itself, so that one has
/// to try: the answer is `NOSPC`, `DQUOT` or `FBIG`. Only after an error, so it may cost a sync.
fn lack_of_space(database: &Path) -> Option<Errno> {
    const TRIED: usize = 64 << 10;
    let directory = database.parent().unwrap_or(database);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let is_long = |ending: &str| {
        let mut path = database.as_os_str().to_owned();
        path.push(ending);
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        limit.is_some_and(|limit| length + TRIED as u64 > limit)
    };
    if ["", "-wal"].into_iter().any(is_long) {
        return Some(Errno::FBIG);
    }
    let free = rustix::fs::statvfs(directory).map(|disk| disk.f_bavail * disk.f_frsize);
    if free.is_ok_and(|free| free < TRIED as u64) {
        return Some(Errno::NOSPC);
    }
    occupy_standard();
    let tried = tempfile::tempfile_in(directory).and_then(|file| {
        // Not zeros, nor what can be compressed: some filesystems do not store that.
        let mut bytes = vec![0; TRIED];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    });
    match tried.err()?.kind() {
        ErrorKind::StorageFull => Some(Errno::NOSPC),
        ErrorKind::QuotaExceeded => Some(Errno::DQUOT),
        ErrorKind::FileTooLarge => Some(Errno::FBIG),
        _ => None,
    }
}

/// The reason why no more files can be opened, if that is so: SQLite says only that it could not, and has
/// closed its others by then.
fn lack_of_descriptors() -> Option<io::Error> {
    // The database, its log, the shared memory, and the directory.
    const NEEDED: usize = 4;
    check_free(NEEDED).err().filter(is_out_of_files)
}

/// The error of an operation on the database at `path`.
pub(super) fn failed(path: &Path, problem: Problem) -> Error {
    const PERMISSIONS: &str = "check the permissions of the file and of its directory";
    const FULL: (Code, &str, &str) = (
        Code::NoSpace,
        "cannot grow: no space left on the device",
        "free some space on that disk and try again",
    );
    const QUOTA: (Code, &str, &str) = (
        Code::NoSpace,
        "cannot grow: the disk quota is used up",
        "raise the quota or free some space, and try again",
    );
    const LIMIT: (Code, &str, &str) = (
        Code::NoSpace,
        "cannot grow: the limit on the size of files is reached",
        "raise that limit (`ulimit -f`) and try again",
    );
    let error = match problem {
        Problem::Ours(error) => return error,
        Problem::Sqlite(error) => error,
        #[cfg(feature = "postgres")]
        Problem::Postgres(error) => return Error::new(Code::Internal, error.to_string()),
    };
    if is_upgraded(&error.to_string()) {
        return upgraded(&path.display().to_string());
    }
    if let Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) = error.sqlite_error_code()
        && let Some(why) = lack_of_descriptors()
    {
        return Error::io_at("cannot open the database", path, why);
    }
    let lacking = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Some(Errno::NOSPC),
        Some(ErrorCode::SystemIoFailure) => lack_of_space(path),
        _ => None,
    };
    if lacking.is_none() && is_busy(&error) | is_about_locks(&error) {
        if let Err(no_locks) = check_locks_beside(path) {
            return no_locks;
        }
    } else if lacking.is_none() && is_about_shared_memory(&error) {
        return no_shared_memory(path, error);
    }
    let (code, what, advice) = match error.sqlite_error_code() {
        _ if lacking == Some(Errno::DQUOT) => QUOTA,
        _ if lacking == Some(Errno::FBIG) => LIMIT,
        _ if lacking.is_some() => FULL,
        Some(ErrorCode::OperationInterrupted) => {
            (Code::Cancelled, "was told to stop", "nobody waited for it any more")
        }
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
        // Another process is opening or closing the database, or was stopped at it.
        Some(ErrorCode::FileLockingProtocolFailed) => (
            Code::BackendUnavailable,
            "is being opened or closed by other processes",
            "try again; end a process that was stopped while it had the store open",
        ),
        Some(ErrorCode::OutOfMemory) => {
            (Code::BackendUnavailable, "needs more memory than there is", "free some memory and try again")
        }
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
    let failure = Error::new(code, format!("the database {} {what} ({error})", path.display()))
        .with_advice(advice)
        .with_source(error);
    match lacking {
        Some(errno) => failure.with_errno(errno.raw_os_error()),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_its_number_whoever_met_it() {
        let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let error = failed(Path::new("/somewhere/m.db"), Problem::Sqlite(full));
        assert_eq!((error.code(), error.errno()), (Code::NoSpace, Some(Errno::NOSPC.raw_os_error())));
    }

    #[test]
    fn no_memory_is_no_bug() {
        let none = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOMEM), None);
        let error = failed(Path::new("/somewhere/m.db"), Problem::Sqlite(none));
        assert!(error.code() == Code::BackendUnavailable && error.is_retryable(), "{error}");
    }

    #[test]
    fn processes_that_are_in_each_others_way_are_no_bug() {
        let protocol = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_PROTOCOL), None);
        let error = failed(Path::new("/somewhere/m.db"), Problem::Sqlite(protocol));
        assert!(error.code() == Code::BackendUnavailable && error.is_retryable(), "{error}");
    }
}
