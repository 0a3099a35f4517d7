//! Every error of Graviton, in every language, is one [`Error`].
//!
//! The rules:
//! - [`Code`] is the closed list. It has a stable name, C integer, HTTP status and exit code in one
//!   table, [`Code::facts`]; numbers and names are never reused.
//! - A new code is added only where a caller would act differently.
//! - The message names the operation, its object and the reason; [`Error::advice`] says what to do. Neither
//!   contains a secret. The cause is the `source`, and the message does not repeat it.
//! - Errors are cheap to clone: commits are grouped, and each member of a failed group gets the error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of everything in Graviton that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure: the part of an [`Error`] that programs act on.
///
/// ```
/// use graviton_core::Code;
/// assert_eq!(Code::NotFound.name(), "not-found");
/// assert_eq!(Code::from_name("not-found"), Some(Code::NotFound));
/// assert_eq!(Code::NotFound.http_status(), 404);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A parameter is invalid; the call did nothing.
    InvalidArgument,
    /// The text is not a blob id or block key.
    InvalidId,
    /// There is no such blob or file.
    NotFound,
    /// The content does not match its id.
    DigestMismatch,
    /// Larger than a limit allows.
    TooLarge,
    /// The range starts beyond the end of the blob.
    RangeNotSatisfiable,
    /// The credentials are missing or wrong.
    Unauthorized,
    /// The credentials do not allow this, or the operating system does not.
    Forbidden,
    /// The bytes of a block do not match its key.
    CorruptBlock,
    /// A block that a blob refers to is not in the block store.
    MissingBlock,
    /// The database or block store does not answer; trying again may help.
    BackendUnavailable,
    /// The put took longer than its lease, and its blocks may have been collected; put again.
    WriterExpired,
    /// The disk is full.
    NoSpace,
    /// A quota is used up.
    QuotaExceeded,
    /// The path does not have this HTTP method.
    MethodNotAllowed,
    /// It took too long.
    Timeout,
    /// A length is required.
    LengthRequired,
    /// Known, but not supported here.
    Unsupported,
    /// Too many requests.
    RateLimited,
    /// The configuration is wrong.
    Config,
    /// The store was written by a newer version.
    Version,
    /// The store was opened by the parent process, before `fork`.
    Forked,
    /// The store, reader or writer is closed.
    Closed,
    /// The caller cancelled it.
    Cancelled,
    /// The operating system reported an input or output error.
    Io,
    /// An earlier write failed, and this store refuses writes until it is opened again.
    Latched,
    /// A bug in Graviton.
    Internal,
    /// The database is damaged, or another program changed it.
    CorruptDatabase,
    /// Too many operations at once; trying again may help.
    Overloaded,
    /// Something is in another state than the caller requires; the call did nothing.
    Conflict,
}

struct Facts {
    code: Code,
    name: &'static str,
    integer: i32,
    python: &'static str,
    http: u16,
    exit: u8,
    retryable: bool,
}

const fn facts(
    code: Code,
    name: &'static str,
    integer: i32,
    python: &'static str,
    http: u16,
    exit: u8,
    retryable: bool,
) -> Facts {
    Facts { code, name, integer, python, http, exit, retryable }
}

/// The table, in the order of the enum. Integers are negative so that 0 can be success in C.
#[rustfmt::skip]
const TABLE: &[Facts] = &[
    facts(Code::InvalidArgument, "invalid-argument", -1, "InvalidArgumentError", 400, 1, false),
    facts(Code::InvalidId, "invalid-id", -2, "InvalidIdError", 400, 1, false),
    facts(Code::NotFound, "not-found", -3, "NotFoundError", 404, 3, false),
    facts(Code::DigestMismatch, "digest-mismatch", -4, "DigestMismatchError", 422, 1, false),
    facts(Code::TooLarge, "too-large", -5, "TooLargeError", 413, 1, false),
    facts(Code::RangeNotSatisfiable, "range-not-satisfiable", -6, "RangeError", 416, 1, false),
    facts(Code::Unauthorized, "unauthorized", -7, "UnauthorizedError", 401, 1, false),
    facts(Code::Forbidden, "forbidden", -8, "ForbiddenError", 403, 1, false),
    facts(Code::CorruptBlock, "corrupt-block", -9, "CorruptBlockError", 500, 4, false),
    facts(Code::MissingBlock, "missing-block", -10, "MissingBlockError", 500, 4, false),
    facts(Code::BackendUnavailable, "backend-unavailable", -11, "BackendUnavailableError", 503, 1, true),
    facts(Code::WriterExpired, "writer-expired", -12, "WriterExpiredError", 503, 1, true),
    facts(Code::NoSpace, "no-space", -13, "NoSpaceError", 507, 1, false),
    facts(Code::QuotaExceeded, "quota-exceeded", -14, "QuotaExceededError", 507, 1, false),
    facts(Code::MethodNotAllowed, "method-not-allowed", -15, "MethodNotAllowedError", 405, 1, false),
    facts(Code::Timeout, "timeout", -16, "TimeoutError", 408, 1, true),
    facts(Code::LengthRequired, "length-required", -17, "LengthRequiredError", 411, 1, false),
    facts(Code::Unsupported, "unsupported", -18, "UnsupportedError", 415, 1, false),
    facts(Code::RateLimited, "rate-limited", -19, "RateLimitedError", 429, 1, true),
    facts(Code::Config, "config", -20, "ConfigError", 500, 1, false),
    facts(Code::Version, "version", -21, "VersionError", 500, 1, false),
    facts(Code::Forked, "forked", -22, "ForkedError", 500, 1, false),
    facts(Code::Closed, "closed", -23, "ClosedError", 500, 1, false),
    facts(Code::Cancelled, "cancelled", -24, "CancelledError", 500, 130, false),
    facts(Code::Io, "io", -25, "IoError", 500, 1, false),
    facts(Code::Latched, "latched", -26, "LatchedError", 500, 1, false),
    facts(Code::Internal, "internal", -27, "InternalError", 500, 1, false),
    facts(Code::CorruptDatabase, "corrupt-database", -28, "CorruptDatabaseError", 500, 4, false),
    facts(Code::Overloaded, "overloaded", -29, "OverloadedError", 503, 1, true),
    facts(Code::Conflict, "conflict", -30, "ConflictError", 409, 1, false),
];

impl Code {
    fn facts(self) -> &'static Facts {
        &TABLE[self as usize]
    }

    /// All codes, in the order of their integers.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|facts| facts.code)
    }

    /// The stable kebab-case name, such as `not-found`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Code> {
        TABLE.iter().find(|facts| facts.name == name).map(|facts| facts.code)
    }

    /// The negative integer that C programs see.
    pub fn integer(self) -> i32 {
        self.facts().integer
    }

    /// The class that Python programs see.
    pub fn python_class(self) -> &'static str {
        self.facts().python
    }

    /// The status that HTTP clients see.
    pub fn http_status(self) -> u16 {
        self.facts().http
    }

    /// The exit code of the command line.
    pub fn exit_code(self) -> u8 {
        self.facts().exit
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(self) -> bool {
        self.facts().retryable
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure: a [`Code`] to act on, a message to read, advice, and the cause.
///
/// ```
/// use graviton_core::{BlobId, Code};
/// let error = "blake3:no".parse::<BlobId>().unwrap_err();
/// assert_eq!(error.code(), Code::InvalidId);
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    code: Code,
    message: String,
    advice: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    errno: Option<i32>,
    path: Option<PathBuf>,
}

impl Error {
    /// An error with this code and message. The message names the operation, its object and the reason, in
    /// lower case and without a full stop.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        let message = message.into();
        Error(Arc::new(Inner { code, message, advice: None, source: None, errno: None, path: None }))
    }

    /// The error for a failed system call: `tried` is the operation and its object, as in `"cannot write
    /// ./data/manifests.db"`.
    pub fn io(tried: impl fmt::Display, error: io::Error) -> Error {
        use io::ErrorKind as Kind;
        let (code, advice) = match error.kind() {
            Kind::StorageFull => (Code::NoSpace, "free some space on that disk and try again"),
            Kind::QuotaExceeded => (Code::NoSpace, "raise the quota or free some space, and try again"),
            Kind::NotFound => (Code::NotFound, "check the path"),
            Kind::PermissionDenied => {
                (Code::Forbidden, "check the permissions of that path and of its directory")
            }
            Kind::ReadOnlyFilesystem => {
                (Code::Forbidden, "the filesystem is mounted read-only; use another directory")
            }
            Kind::NotADirectory => (Code::InvalidArgument, "a part of that path is a file, not a directory"),
            Kind::IsADirectory => (Code::InvalidArgument, "name a file, not a directory"),
            Kind::TimedOut => (Code::Timeout, "try again"),
            Kind::OutOfMemory => (Code::BackendUnavailable, "free some memory and try again"),
            Kind::FileTooLarge => {
                (Code::NoSpace, "raise the limit on the size of files (`ulimit -f`), and try again")
            }
            _ if is_out_of_files(&error) => (
                Code::BackendUnavailable,
                "raise the limit on open files (`ulimit -n`), or do less at once, and try again",
            ),
            _ => (Code::Io, "look at the kernel's log for the state of that disk"),
        };
        let why = if error.kind() == Kind::StorageFull {
            "no space left on the device".to_owned()
        } else {
            reason(&error)
        };
        let errno = error.raw_os_error();
        Error(Arc::new(Inner {
            code,
            message: format!("{tried}: {why}"),
            advice: Some(advice.to_owned()),
            source: Some(Box::new(error)),
            errno,
            path: None,
        }))
    }

    /// The same for a system call about a file: `tried` is the operation, as in `"cannot write"`.
    pub fn io_at(tried: &str, path: impl AsRef<Path>, error: io::Error) -> Error {
        let path = path.as_ref();
        Error::io(format!("{tried} {}", path.display()), error)
            .edit(|inner| inner.path = Some(path.to_owned()))
    }

    /// The error for a thread that the system did not start.
    pub fn no_thread(tried: impl fmt::Display, error: io::Error) -> Error {
        Error::io(tried, error).with_code(Code::BackendUnavailable).with_advice(
            "raise the limit on processes and threads (`ulimit -u`), or do less at once, and try again",
        )
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<String>) -> Error {
        self.edit(|inner| inner.advice = Some(advice.into()))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.edit(|inner| inner.source = Some(Box::new(source)))
    }

    /// The same error under another code.
    #[must_use]
    pub(crate) fn with_code(self, code: Code) -> Error {
        self.edit(|inner| inner.code = code)
    }

    /// The same error with this number of the operating system.
    #[must_use]
    pub(crate) fn with_errno(self, errno: i32) -> Error {
        self.edit(|inner| inner.errno = Some(errno))
    }

    /// The same error, with what it was part of in front of the message.
    #[must_use]
    pub fn within(self, what: impl fmt::Display) -> Error {
        self.edit(|inner| inner.message = format!("{what}: {}", inner.message))
    }

    fn edit(self, change: impl FnOnce(&mut Inner)) -> Error {
        let mut inner = match Arc::try_unwrap(self.0) {
            Ok(inner) => inner,
            // Shared: the copy keeps the words, and the original keeps the cause.
            Err(shared) => Inner {
                code: shared.code,
                message: shared.message.clone(),
                advice: shared.advice.clone(),
                errno: shared.errno,
                path: shared.path.clone(),
                source: Some(Box::new(Error(shared))),
            },
        };
        change(&mut inner);
        Error(Arc::new(inner))
    }

    /// The error code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The advice for the reader of the message, one sentence.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// The operating system's error number that caused the failure, if any.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The file or directory about which the operating system's error is, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

/// Whether no more files can be opened, by this process or by any.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The message of the innermost cause, which says the most: "connection refused" below four layers of "error
/// sending request".
#[cfg(any(feature = "s3", feature = "postgres"))]
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    reason(innermost)
}

/// The message of an error of the system or of a library in our form: in lower case, without `(os error 5)`.
fn reason(error: &(impl fmt::Display + ?Sized)) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        // An abbreviation keeps its first letter.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain([second]).chain(letters).collect()
        }
        _ => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.0.code, self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// For `Read`, `Write` and `Seek`: the [`Error`] is inside and comes out with
/// [`Error::from`]`(io_error)`.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.code() {
            Code::NotFound => io::ErrorKind::NotFound,
            Code::Forbidden => io::ErrorKind::PermissionDenied,
            Code::NoSpace | Code::QuotaExceeded => io::ErrorKind::StorageFull,
            Code::InvalidArgument | Code::RangeNotSatisfiable => io::ErrorKind::InvalidInput,
            Code::CorruptBlock | Code::MissingBlock | Code::DigestMismatch => io::ErrorKind::InvalidData,
            Code::Timeout => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// The inverse: an [`Error`] that travelled as an `io::Error` comes back as itself.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::io("input or output failed", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_nothing_is_used_twice() {
        for (index, facts) in TABLE.iter().enumerate() {
            assert_eq!(facts.code as usize, index, "{}", facts.name);
            assert_eq!(facts.integer, -(index as i32) - 1, "{}", facts.name);
            assert!(facts.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            for other in &TABLE[index + 1..] {
                assert_ne!(facts.name, other.name);
                assert_ne!(facts.python, other.python);
            }
        }
        assert_eq!(TABLE.len(), Code::Conflict as usize + 1);
    }

    #[test]
    fn an_error_survives_the_way_through_io_error() {
        let error = Error::new(Code::CorruptBlock, "bad").with_advice("mend");
        let back = Error::from(io::Error::from(error));
        assert_eq!(back.code(), Code::CorruptBlock);
        assert_eq!(back.advice(), Some("mend"));
        assert_eq!(Error::from(io::Error::from_raw_os_error(28)).code(), Code::NoSpace);
    }

    #[test]
    fn a_full_disk_says_so_and_a_shared_error_can_still_be_edited() {
        let error = Error::io("cannot write x", io::Error::from_raw_os_error(28));
        assert_eq!(error.to_string(), "cannot write x: no space left on the device");
        let edited = error.clone().within("put");
        assert_eq!(edited.to_string(), "put: cannot write x: no space left on the device");
        assert_eq!((edited.code(), edited.errno()), (Code::NoSpace, Some(28)));
    }

    #[test]
    fn being_out_of_descriptors_is_no_fault_of_the_disk() {
        for errno in [23, 24] {
            let error = Error::io("cannot open x", io::Error::from_raw_os_error(errno));
            assert_eq!((error.code(), error.is_retryable()), (Code::BackendUnavailable, true));
        }
        assert_eq!(Error::io("cannot open x", io::Error::from_raw_os_error(5)).code(), Code::Io);
    }
}
