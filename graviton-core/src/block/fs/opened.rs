//! A directory that is kept open, with checks that it is still the one under its path.
//!
//! A disk can be mounted over an open directory, or unmounted from it. The descriptor then leads to a
//! directory that no other process sees. Therefore:
//! - **A put is acknowledged only if the directories that it wrote to are still the ones under their paths.**
//!   Otherwise it is an I/O error, which latches the store: the owner of the blocks in the new directory is
//!   checked when the store is opened again.
//! - Before a block counts as missing, intact or removed, the directory is opened again if another one is
//!   under the path. A block that is found in the open directory is read without that check, and verified.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::temporaries::Temporaries;
use crate::digest::Algo;
use crate::durable;
use crate::error::{Code, Error, Result};

/// Device and inode.
type FileId = (u64, u64);

fn id_of(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

#[derive(Debug)]
pub(super) struct OpenDirectory {
    path: PathBuf,
    descriptor: OwnedFd,
    id: FileId,
}

/// The directories that blocks are written to. They stay the same for as long as the store is open.
#[derive(Debug)]
pub(super) struct Writable {
    pub(super) temporaries: Temporaries,
    pub(super) algo: [OpenDirectory; Algo::ALL.len()],
}

impl AsFd for OpenDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl OpenDirectory {
    /// Opens it; `None` if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Option<OpenDirectory>> {
        let opened = durable::open_directory(path).and_then(|descriptor| {
            let id = id_of(&retry_on_intr(|| rustix::fs::fstat(&descriptor))?);
            Ok(OpenDirectory { path: path.to_owned(), descriptor, id })
        });
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io_at("cannot open", path, error.into())),
        }
    }

    /// The same for a directory that must exist.
    pub(super) fn open_existing(path: &Path) -> Result<OpenDirectory> {
        let gone = || Error::io_at("cannot open", path, std::io::ErrorKind::NotFound.into());
        OpenDirectory::open(path)?.ok_or_else(gone)
    }

    /// Whether it is still the directory under its path.
    pub(super) fn is_in_place(&self) -> Result<bool> {
        match retry_on_intr(|| rustix::fs::statat(CWD, &self.path, AtFlags::empty())) {
            Ok(stat) => Ok(id_of(&stat) == self.id),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(Error::io_at("cannot look at", &self.path, error.into())),
        }
    }

    /// Fails unless it is still the directory under its path.
    pub(super) fn check_in_place(&self) -> Result<()> {
        if self.is_in_place()? {
            return Ok(());
        }
        let why = format!(
            "the directory {} was removed or replaced while the store was open: a disk was mounted or unmounted, or it was moved",
            self.path.display()
        );
        Err(Error::new(Code::Io, why).with_advice(
            "bring the right directory back to this path, open the store again, and put the content again",
        ))
    }
}
