//! Directories and names that survive a power cut: creating, opening, syncing and naming them.
//!
//! Some filesystems (CIFS, FUSE, Android, some of HPC) cannot sync a directory or the whole filesystem, lock,
//! link, or rename without replacing. This module makes all these calls, and it alone has the fallbacks.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::descriptor::open_at;
use crate::error::{Code, Error, Result};
use crate::repeated::{again, names_in};

/// Opens a directory, so that files can be opened in it and it can be synced.
pub(crate) fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    open_at(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// The same, for a directory that is to be there.
pub(crate) fn open_existing(path: &Path) -> Result<OwnedFd> {
    open_directory(path).map_err(|error| Error::io_at("cannot open", path, error.into()))
}

/// Creates a directory and its missing parents, and syncs the parent of each. Also syncs the parent of a
/// directory that exists: another process may have made it a moment ago and not synced it yet.
///
/// A directory that root creates belongs to the owner of its parent, as SQLite's files do: the owner goes on
/// using the store.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let is_here = parent.as_os_str().is_empty();
    let parent = if is_here { Path::new(".") } else { parent };
    let mut created = again(|| std::fs::create_dir(path));
    // Only once: where nothing can be created, as in /proc, the error is the same although the parent exists.
    if !is_here && created.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        create_directory(parent)?;
        created = again(|| std::fs::create_dir(path));
    }
    match created {
        Ok(()) => give_to_owner_of(parent, path)?,
        Err(_) if is_directory(path) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(Code::Config, format!("{} is a file, not a directory", path.display()))
                .with_advice("choose another directory for the store"));
        }
        Err(error) => {
            return Err(Error::io_at("cannot create the directory", path, error));
        }
    }
    sync_directory(parent)
}

/// Gives what root has made to the owner of its directory.
pub(crate) fn give_to_owner_of(parent: &Path, path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let given = again(|| std::fs::metadata(parent)).and_then(|parent| match (parent.uid(), parent.gid()) {
        (0, 0) => Ok(()),
        (user, group) => again(|| std::os::unix::fs::chown(path, Some(user), Some(group))),
    });
    match given {
        // Nobody is root on a filesystem that forbids it (NFS, a user namespace).
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        given => given.map_err(|error| Error::io_at("cannot change the owner of", path, error)),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let synced = open_directory(path).and_then(|directory| sync_open_directory(&directory));
    synced.map_err(|error| Error::io_at("cannot sync the directory", path, error.into()))
}

/// The same of an open directory.
pub(crate) fn sync_open_directory(directory: impl AsFd) -> rustix::io::Result<()> {
    match retry_on_intr(|| rustix::fs::fsync(&directory)) {
        // Some filesystems cannot sync a directory, because there is nothing to sync, and say so.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

/// Syncs the filesystem that a directory is on. False if it cannot be synced as a whole, or this process may
/// not: each file is to be synced then.
pub(crate) fn sync_filesystem(directory: &OwnedFd) -> rustix::io::Result<bool> {
    match retry_on_intr(|| rustix::fs::syncfs(directory)) {
        Ok(()) => Ok(true),
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Syncs every file of a directory, and its names. The slow way, where [`sync_filesystem`] cannot.
pub(crate) fn sync_each_file(directory: &Path) -> Result<()> {
    for name in names_in(directory).map_err(|error| Error::io_at("cannot list", directory, error))? {
        let path = directory.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let synced = open_at(CWD, &path, flags, Mode::empty())
            .and_then(|file| retry_on_intr(|| rustix::fs::fdatasync(&file)));
        match synced {
            // It is gone, or it is something that cannot be synced, such as a link.
            Ok(()) | Err(Errno::NOENT | Errno::LOOP | Errno::INVAL) => {}
            Err(error) => return Err(Error::io_at("cannot sync", &path, error.into())),
        }
    }
    sync_directory(directory)
}

/// Locks a file for as long as it is open. False where the filesystem has no locks.
pub(crate) fn lock(file: impl AsFd, how: FlockOperation) -> rustix::io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(&file, how)) {
        Ok(()) => Ok(true),
        Err(Errno::NOSYS | Errno::NOTSUP | Errno::INVAL | Errno::NOLCK) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_directory(path: &Path) -> bool {
    again(|| std::fs::metadata(path)).is_ok_and(|metadata| metadata.is_dir())
}

/// Gives a file that has a name another one, if nothing has that. `AlreadyExists` if something has.
pub(crate) fn rename_without_replacing(from: &Path, to: &Path) -> std::io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    match retry_on_intr(|| rustix::fs::renameat_with(CWD, from, CWD, to, flags)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        result => return Ok(result?),
    }
    match retry_on_intr(|| rustix::fs::link(from, to)) {
        Ok(()) => return again(|| std::fs::remove_file(from)),
        Err(error) if !is_refused(error) => return Err(error.into()),
        Err(_) => {}
    }
    // The name is taken by an empty file, which is replaced.
    std::fs::OpenOptions::new().write(true).create_new(true).open(to)?;
    again(|| std::fs::rename(from, to)).inspect_err(|_| drop(again(|| std::fs::remove_file(to))))
}

/// Whether a file that is being written is older than an hour: nobody takes that long to write one.
pub(crate) fn is_abandoned(path: &Path) -> bool {
    is_abandoned_with(path, u64::MAX)
}

fn is_abandoned_with(path: &Path, largest: u64) -> bool {
    const ABANDONED: Duration = Duration::from_secs(3_600);
    let is_so = || {
        let metadata = again(|| std::fs::symlink_metadata(path)).ok()?;
        let is_old = metadata.modified().ok()?.elapsed().ok()? > ABANDONED;
        Some(is_old && metadata.is_file() && metadata.len() <= largest)
    };
    is_so() == Some(true)
}

/// Removes the files of this directory whose names begin so, that are no larger than this and abandoned.
/// Returns how many.
pub(crate) fn remove_abandoned(directory: &Path, beginning: &str, largest: u64) -> Result<u64> {
    let names = match names_in(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        names => names.map_err(|error| Error::io_at("cannot list", directory, error))?,
    };
    let mut removed = 0;
    for name in names {
        let path = directory.join(&name);
        if name.as_encoded_bytes().starts_with(beginning.as_bytes())
            && is_abandoned_with(&path, largest)
            && again(|| std::fs::remove_file(&path)).is_ok()
        {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether the filesystem, or the system, lets nobody link.
fn is_refused(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::MLINK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_created_is_an_error_that_names_it() {
        // The kernel says that a part of the path is missing, although every part of it exists.
        let error = create_directory(Path::new("/proc/graviton/store")).unwrap_err();
        assert!(error.to_string().contains("/proc/graviton"), "{error}");
    }

    #[test]
    fn a_name_that_is_taken_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        std::fs::write(&from, "new").unwrap();
        rename_without_replacing(&from, &to).unwrap();
        std::fs::write(&from, "newer").unwrap();
        let error = rename_without_replacing(&from, &to).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(&from).unwrap(), "newer");
    }
}
