//! File descriptors other than 0, 1 and 2.
//!
//! A program may close its standard streams, and some part of it may still write to them. The next file or
//! socket that the process opens gets such a number, and a log line lands in it. So no file of the store has
//! a descriptor below 3: a standard stream that is found closed becomes `/dev/null` and stays that. SQLite
//! does the same for its own files.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::retry_on_intr;

/// The first descriptor that is no standard stream.
const FIRST: i32 = 3;

/// Opens a file or directory, like `openat`. With `CREATE` and `EXCL` it may be told that the file exists
/// which it has created: a new name is needed then.
pub(crate) fn open_at(
    directory: BorrowedFd<'_>,
    name: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    loop {
        let open = || rustix::fs::openat(directory, name.as_ref(), flags | OFlags::CLOEXEC, mode);
        let mut file = retry_on_intr(open)?;
        if file.as_raw_fd() >= FIRST {
            return Ok(file);
        }
        // Something may have been written to it already, so it is opened again.
        rustix::io::dup2(null()?, &mut file)?;
        std::mem::forget(file);
    }
}

/// Opens a file to be read.
pub(crate) fn open_file(path: &Path) -> std::io::Result<File> {
    Ok(open_at(CWD, path, OFlags::RDONLY, Mode::empty())?.into())
}

/// Fails if so many files cannot be opened now. For code of others that opens them, and does not say why it
/// could not.
pub(crate) fn check_free(count: usize) -> std::io::Result<()> {
    let files: std::io::Result<Vec<File>> = (0..count).map(|_| open_file(Path::new("/"))).collect();
    files.map(drop)
}

/// Opens `/dev/null` for each standard stream that is closed. For code that opens files or sockets by way of
/// another crate.
pub(crate) fn occupy_standard() {
    while let Ok(file) = null() {
        if file.as_raw_fd() >= FIRST {
            return;
        }
        std::mem::forget(file);
    }
}

/// Without `CLOEXEC`: a child has standard streams too.
fn null() -> rustix::io::Result<OwnedFd> {
    retry_on_intr(|| rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR, Mode::empty()))
}
