//! `<root>/reserve`: unused space that makes room for deletions on a full disk.
//!
//! A deletion has to write: rows change before any space is freed. On a full disk that fails, unless the
//! reserve is released first.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::descriptor::occupy_standard;
use crate::durable;
use crate::error::{Error, Result};
use crate::repeated::again;

const NAME: &str = "reserve";

/// The prefix of the names of such files while they are being written.
pub(super) const UNFINISHED: &str = ".reserve-";

const SIZE: usize = 4 << 20;

/// On a disk with less free space than this many times the reserve, it would do more harm than good.
const ROOM: u64 = 4;

/// Creates the file, if it does not exist and there is room for it.
pub(super) fn keep(root: &Path) -> Result<()> {
    let path = root.join(NAME);
    let failed = |error| Error::io_at("cannot write", &path, error);
    if path.exists() || !root.is_dir() {
        return Ok(());
    }
    let disk = rustix::fs::statvfs(root).map_err(|error| failed(error.into()))?;
    if disk.f_bavail * disk.f_frsize < ROOM * SIZE as u64 {
        return Ok(());
    }
    occupy_standard();
    // Everybody who may write to the directory can replace it: a group that shares the store, by its umask.
    let mode = PermissionsExt::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().prefix(UNFINISHED).permissions(mode).tempfile_in(root).map_err(failed)?;
    // Not zeros, nor anything that compresses: some filesystems would not store that.
    let mut bytes = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    file.write_all(&bytes).map_err(failed)?;
    match durable::rename_without_replacing(file.path(), &path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Releases the space. False if there was none.
pub(super) fn release(root: &Path) -> Result<bool> {
    let path = root.join(NAME);
    match again(|| std::fs::remove_file(&path)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io_at("cannot remove", &path, error)),
    }
}
