//! The destination of `get`.
//!
//! A file appears whole or not at all. It is written without a name, if the filesystem supports that, and
//! named when it is complete, so not even `kill -9` leaves a part of it. Otherwise it is a temporary file in
//! the same directory, removed on failure. It replaces an existing file; a symbolic link stays, and its
//! target is replaced. It is not synced, because a copy can be made again.
//!
//! Devices and pipes are written to directly.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use graviton_core::{Code, Error};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use tempfile::{Builder, NamedTempFile};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{self, Reader};

/// Repeats a call as long as a signal interrupts it.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The kernel follows this many.
const MOST_LINKS: usize = 40;

/// An open destination.
pub(crate) enum Destination {
    Stdout,
    Straight { file: File, name: String },
    Atomic { file: Unfinished, target: PathBuf, name: String },
}

/// A file that is not visible yet.
pub(crate) enum Unfinished {
    Unnamed(File),
    Named(NamedTempFile),
}

impl Destination {
    /// Opens the destination; `None` and `-` are standard output.
    pub(crate) fn open(path: Option<&Path>) -> Result<Destination, Failure> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else { return Ok(Destination::Stdout) };
        let name = path.display().to_string();
        let failed = |error| Failure::io(format!("cannot write {name}"), error);
        let there = match retried(|| std::fs::metadata(path)) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        match there {
            Some(metadata) if metadata.is_dir() => {
                let message = format!("cannot write {name}: it is a directory");
                let error = Error::new(Code::InvalidArgument, message).with_advice("name a file in it");
                Err(error.into())
            }
            Some(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                Ok(Destination::Straight { file, name })
            }
            there => {
                let target = behind_links(path).map_err(failed)?;
                let file = Unfinished::create(&target, there.as_ref()).map_err(failed)?;
                Ok(Destination::Atomic { file, target, name })
            }
        }
    }

    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Destination::Stdout)
    }

    /// Writes all of the bytes.
    pub(crate) fn write(&self, bytes: &[u8], interrupt: &Interrupt) -> Result<Reader, Failure> {
        match self {
            Destination::Stdout => output::write_to_stdout(bytes, interrupt),
            Destination::Straight { file, name } => output::write(file, bytes, interrupt, name),
            Destination::Atomic { file: Unfinished::Unnamed(file), name, .. } => {
                output::write(file, bytes, interrupt, name)
            }
            Destination::Atomic { file: Unfinished::Named(file), name, .. } => {
                output::write(file.as_file(), bytes, interrupt, name)
            }
        }
    }

    /// Publishes the file under its name.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self {
            Destination::Stdout | Destination::Straight { .. } => Ok(()),
            Destination::Atomic { file, target, name } => {
                file.publish(&target).map_err(|error| Failure::io(format!("cannot write {name}"), error))
            }
        }
    }
}

impl Unfinished {
    /// A file for that place. It has the permissions of the file that it replaces, or those of any new file.
    fn create(target: &Path, replaced: Option<&Metadata>) -> io::Result<Unfinished> {
        let unfinished = match unnamed_beside(target) {
            Ok(file) => Unfinished::Unnamed(file.into()),
            // Some filesystems cannot do this, and some old kernels report that with other errors. If the
            // directory is missing, creating a file with a name fails too.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT) => {
                Unfinished::Named(named_beside(target)?)
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(replaced) = replaced {
            set_permissions(
                unfinished.file(),
                Permissions::from_mode(replaced.permissions().mode() & 0o777),
            )?;
        }
        Ok(unfinished)
    }

    fn file(&self) -> &File {
        match self {
            Unfinished::Unnamed(file) => file,
            Unfinished::Named(file) => file.as_file(),
        }
    }

    fn publish(self, target: &Path) -> io::Result<()> {
        let file = match self {
            Unfinished::Unnamed(file) => file,
            Unfinished::Named(file) => return Ok(file.persist(target).map(drop)?),
        };
        match link(&file, target) {
            // A link cannot replace a file; a rename can.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let named = temporary_name().make_in(directory_of(target), |path| link(&file, path))?;
                Ok(named.persist(target).map(drop)?)
            }
            // Some filesystems have unnamed files but refuse links.
            Err(error) if error.raw_os_error().is_some_and(is_refused) => {
                let mut named = named_beside(target)?;
                set_permissions(named.as_file(), file.metadata()?.permissions())?;
                (&file).rewind()?;
                io::copy(&mut &file, named.as_file_mut())?;
                Ok(named.persist(target).map(drop)?)
            }
            result => result,
        }
    }
}

/// Sets the permissions of a file. Does nothing on filesystems where all files have the same permissions.
fn set_permissions(file: &File, permissions: Permissions) -> io::Result<()> {
    match file.set_permissions(permissions) {
        Err(error)
            if [Errno::PERM, Errno::NOSYS, Errno::NOTSUP]
                .contains(&Errno::from_io_error(&error).unwrap_or(Errno::IO)) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn is_refused(error: i32) -> bool {
    let refusals = [Errno::PERM, Errno::ACCESS, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL];
    refusals.contains(&Errno::from_raw_os_error(error))
}

fn temporary_name() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".graviton-");
    builder
}

fn named_beside(target: &Path) -> io::Result<NamedTempFile> {
    temporary_name().permissions(Permissions::from_mode(0o666)).tempfile_in(directory_of(target))
}

fn unnamed_beside(target: &Path) -> Result<OwnedFd, Errno> {
    // Without /proc the file could never be named.
    retry_on_intr(|| rustix::fs::stat("/proc/self/fd")).map_err(|_| Errno::OPNOTSUPP)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::openat(CWD, directory_of(target), flags, Mode::from_raw_mode(0o666)))
}

/// Gives an unnamed file its name.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || rustix::fs::linkat(CWD, &unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW);
    Ok(retry_on_intr(link)?)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path behind symbolic links in the last component. Nothing needs to exist there.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match retried(|| std::fs::read_link(&path)) {
            Ok(next) => path = directory_of(&path).join(next),
            // The path is not a link, or nothing exists there.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::LOOP.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The filesystems under the tests have unnamed files, so no other test takes this path.
    #[test]
    fn a_file_that_needs_a_name_appears_whole_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let plain = File::create(directory.path().join("plain")).unwrap();
        let mode = plain.metadata().unwrap().permissions().mode();
        std::fs::remove_file(directory.path().join("plain")).unwrap();
        for content in ["first", "second"] {
            drop(named_beside(&target).unwrap());
            let before = names(directory.path());
            let file = Unfinished::Named(named_beside(&target).unwrap());
            file.file().write_all(content.as_bytes()).unwrap();
            assert_eq!(names(directory.path()).len(), before.len() + 1);
            file.publish(&target).unwrap();
            assert_eq!(std::fs::read_to_string(&target).unwrap(), content);
            assert_eq!(target.metadata().unwrap().permissions().mode(), mode);
            assert_eq!(names(directory.path()), ["target"]);
        }
    }
}
