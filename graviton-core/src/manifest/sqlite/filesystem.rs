//! Checks whether SQLite can rely on the filesystem of a database.
//!
//! SQLite isolates processes with file locks, and finds pages in the write-ahead log with memory that the
//! processes share. A network filesystem gives such memory only to the processes of one host: a second host
//! damages the database (<https://sqlite.org/wal.html>, section 1). No call fails then, so only the kind of
//! the filesystem can tell. Kinds that are a disk as often as a network (FUSE, 9P) are not refused.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock, statfs};
use rustix::io::Errno;

use crate::descriptor::occupy_standard;
use crate::error::{Code, Error, Result};

/// The setting that allows a network filesystem.
const SETTING: &str = "GRAVITON_SQLITE_NETWORK";

/// Where else the database can be.
const ELSEWHERE: &str = "keep the database on a local disk (GRAVITON_MANIFEST_URL=sqlite:PATH) or in PostgreSQL, with the blocks where they are";

/// The numbers of `linux/magic.h`, and those that the modules of the others define themselves.
const NETWORKS: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
];

/// Fails if a database at this path would be on a network filesystem.
pub(crate) fn check_local(path: &Path) -> Result<()> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Directories that are made for it will be on the same filesystem.
    let Some(Ok(found)) = path.ancestors().map(statfs).find(|found| !matches!(found, Err(Errno::NOENT)))
    else {
        return Ok(());
    };
    let Some((_, name)) =
        NETWORKS.iter().find(|(kind, _)| i64::from(*kind) == i64::from(found.f_type as u32))
    else {
        return Ok(());
    };
    let why = format!(
        "the database {} would be on a network filesystem ({name}), where SQLite is safe for one host only",
        path.display()
    );
    Err(Error::new(Code::Unsupported, why)
        .with_advice(format!("{ELSEWHERE}; if no other host ever opens it, set {SETTING}=one-host (for a second store, in a file of its settings)")))
}

/// Fails if this file cannot be locked, whoever has it open.
pub(super) fn check_locks(file: &File, path: &Path) -> Result<()> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) | Err(Errno::AGAIN | Errno::ACCESS | Errno::INTR) => Ok(()),
        Err(error) => {
            let why =
                format!("the database {} cannot be locked: its filesystem has no locks", path.display());
            Err(Error::new(Code::Unsupported, why).with_advice(ELSEWHERE).with_errno(error.raw_os_error()))
        }
    }
}

/// The same for the filesystem of a database that is there, with a file of our own beside it: to close one
/// of the database gives up all locks that this process has on it.
pub(super) fn check_locks_beside(path: &Path) -> Result<()> {
    occupy_standard();
    match tempfile::tempfile_in(path.parent().unwrap_or(path)) {
        Ok(file) => check_locks(&file, path),
        // Nothing can be made here, so nothing is found out.
        Err(_) => Ok(()),
    }
}

/// The error of a database whose log needs memory that cannot be had.
pub(super) fn no_shared_memory(path: &Path, error: rusqlite::Error) -> Error {
    let why = format!(
        "the database {} cannot share memory between processes, which its log needs: its filesystem does not do that ({error})",
        path.display()
    );
    Error::new(Code::Unsupported, why).with_advice(ELSEWHERE).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_no_network_and_has_locks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not/yet/made.db");
        check_local(&path).unwrap();
        check_locks_beside(&directory.path().join("m.db")).unwrap();
    }
}
