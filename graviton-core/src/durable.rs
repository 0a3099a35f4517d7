//! Directories that survive a power cut: made, opened and synced.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::descriptor::open_at;
use crate::error::{Code, Error, Result};

/// Opens a directory, so that files can be opened in it and it can be synced.
pub(crate) fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    open_at(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// The same, for a directory that is to be there.
pub(crate) fn open_existing(path: &Path) -> Result<OwnedFd> {
    open_directory(path).map_err(|error| Error::io(format!("cannot open {}", path.display()), error.into()))
}

/// Creates a directory and its missing parents, and syncs the parent of each. Also syncs the parent of a directory that
/// exists: another process may have made it a moment ago and not synced it yet.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let is_here = parent.as_os_str().is_empty();
    let mut created = std::fs::create_dir(path);
    // Only once: where nothing can be created, as in /proc, the error is the same although the parent exists.
    if !is_here && created.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        create_directory(parent)?;
        created = std::fs::create_dir(path);
    }
    match created {
        Ok(()) => {}
        Err(_) if path.is_dir() => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(Code::Config, format!("{} is a file, not a directory", path.display()))
                .with_advice("choose another directory for the store"));
        }
        Err(error) => {
            return Err(Error::io(format!("cannot create the directory {}", path.display()), error));
        }
    }
    sync_directory(if is_here { Path::new(".") } else { parent })
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let synced = open_directory(path).and_then(|directory| match rustix::fs::fsync(&directory) {
        // Some filesystems cannot sync a directory, because there is nothing to sync, and say so.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        result => result,
    });
    synced.map_err(|error| Error::io(format!("cannot sync the directory {}", path.display()), error.into()))
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
}
