//! `.tmp`, and the files that are written in it before they get their names.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, Mode, OFlags, access};
use rustix::io::{Errno, retry_on_intr};

use crate::descriptor::{occupy_standard, open_at};
use crate::durable;
use crate::error::{Error, Result};
use crate::key::BlockKey;

pub(super) const TEMPORARY: &str = ".tmp";

/// Blocks are never written to twice.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o444);

/// Where files are made.
#[derive(Debug)]
pub(super) struct Temporaries {
    temporary: Arc<OwnedFd>,
    /// Whether files are made without a name and linked. Not where the filesystem turns out to lack either.
    unnamed: AtomicBool,
    /// Set when the kernel turns out not to name a file by its descriptor (before 6.10 it does for the
    /// privileged only): through `/proc` it does for all, and takes longer.
    pub(super) through_proc: AtomicBool,
    names: AtomicU64,
}

/// A file that is written but not published yet.
pub(super) struct Fresh {
    pub(super) key: BlockKey,
    pub(super) file: File,
    /// Its name in `.tmp`, if it has one; then the file is locked.
    name: Option<TemporaryName>,
}

/// A name in `.tmp`, removed with this unless the file was given its final one.
struct TemporaryName {
    temporary: Arc<OwnedFd>,
    name: String,
    renamed: bool,
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if !self.renamed {
            // If it stays, the next store to open removes it.
            let _ = rustix::fs::unlinkat(&self.temporary, &self.name, AtFlags::empty());
        }
    }
}

/// Opens `.tmp` beside the blocks.
pub(super) fn open_temporary(blocks: &Path) -> Result<OwnedFd> {
    durable::open_existing(&blocks.join(TEMPORARY))
}

/// Removes the files of writers that are gone; a file of a living one is locked. Returns how many there were.
pub(super) fn remove_leftovers(blocks: &Path) -> Result<u64> {
    let path = blocks.join(TEMPORARY);
    let failed = |error: std::io::Error| Error::io_at("cannot list", &path, error);
    let entries = match std::fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed)?,
    };
    let temporary = open_temporary(blocks)?;
    let mut removed = 0;
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = open_at(temporary.as_fd(), &name, flags, Mode::empty()) else { continue };
        // One that cannot be removed is gone already, or not ours to remove: it only takes space.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && rustix::fs::unlinkat(&temporary, &name, AtFlags::empty()).is_ok()
        {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Fails unless a file can be made and written in `.tmp`, or, where there is none, unless it could be made.
pub(super) fn check_writable(blocks: &Path) -> Result<()> {
    let place = blocks.join(TEMPORARY);
    let failed = |error: std::io::Error| Error::io_at("cannot write in", &place, error);
    if place.is_dir() {
        occupy_standard();
        return tempfile::tempfile_in(&place).and_then(|mut file| file.write_all(&[0; 4096])).map_err(failed);
    }
    let parent = place.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("."));
    access(parent, Access::WRITE_OK).map_err(|error| failed(error.into()))
}

impl Temporaries {
    /// In this directory, which is `.tmp`. With `named` every file has a name from the start.
    pub(super) fn new(temporary: OwnedFd, named: bool) -> Temporaries {
        let temporaries = Temporaries {
            temporary: Arc::new(temporary),
            unnamed: AtomicBool::new(false),
            through_proc: AtomicBool::new(false),
            names: AtomicU64::new(0),
        };
        temporaries.unnamed.store(!named && temporaries.links(), Ordering::Relaxed);
        temporaries
    }

    /// Whether an unnamed file can be made here and given a name. Found out before the first block is
    /// written: some filesystems have such files, and let nobody link (Android, some containers).
    fn links(&self) -> bool {
        let flags = OFlags::TMPFILE | OFlags::WRONLY;
        let Ok(file) = open_at(self.temporary.as_fd(), ".", flags, FILE_MODE) else { return false };
        let name = self.fresh_name();
        let linked = self.link(&File::from(file), &self.temporary, &name);
        // Where this process dies in between, the next store to open removes it.
        let _ = rustix::fs::unlinkat(&self.temporary, &name, AtFlags::empty());
        linked.is_ok()
    }

    pub(super) fn create(&self, key: BlockKey) -> std::io::Result<Fresh> {
        if self.unnamed.load(Ordering::Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::WRONLY;
            match open_at(self.temporary.as_fd(), ".", flags, FILE_MODE) {
                Ok(file) => return Ok(Fresh { key, file: file.into(), name: None }),
                Err(Errno::NOTSUP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                    self.unnamed.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            let name = self.fresh_name();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            let file = match open_at(self.temporary.as_fd(), &name, flags, FILE_MODE) {
                Ok(file) => file,
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            let file = File::from(file);
            // A store that was opened between the two lines took it for a leftover.
            if file.metadata()?.nlink() > 0 {
                let temporary = Arc::clone(&self.temporary);
                return Ok(Fresh {
                    key,
                    file,
                    name: Some(TemporaryName { temporary, name, renamed: false }),
                });
            }
        }
    }

    fn fresh_name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        format!("{}-{nanos}-{number}", std::process::id())
    }

    /// Step 3.
    pub(super) fn name(&self, fresh: &mut Fresh, directory: impl AsFd + Copy) -> std::io::Result<()> {
        let (file, name) = (&fresh.file, fresh.key.name());
        if let Some(temporary) = &mut fresh.name {
            retry_on_intr(|| rustix::fs::renameat(&self.temporary, &temporary.name, directory, &name))?;
            temporary.renamed = true;
            return Ok(());
        }
        match self.link(file, directory, &name) {
            Err(Errno::EXIST) => {}
            result => return Ok(result?),
        }
        // A link never replaces, a rename does. Locked, so that the name in between is removed if we die.
        rustix::fs::flock(file, FlockOperation::LockExclusive)?;
        let between = self.fresh_name();
        self.link(file, &self.temporary, &between)?;
        Ok(retry_on_intr(|| rustix::fs::renameat(&self.temporary, &between, directory, &name))?)
    }

    fn link(&self, file: &File, directory: impl AsFd + Copy, name: &str) -> rustix::io::Result<()> {
        if !self.through_proc.load(Ordering::Relaxed) {
            let linked = retry_on_intr(|| rustix::fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH));
            if linked.is_ok() || linked == Err(Errno::EXIST) {
                return linked;
            }
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        retry_on_intr(|| rustix::fs::linkat(CWD, &path, directory, name, AtFlags::SYMLINK_FOLLOW))?;
        self.through_proc.store(true, Ordering::Relaxed);
        Ok(())
    }
}
