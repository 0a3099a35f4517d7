//! `.tmp`, and the files that are written there before they get their names.

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
use crate::repeated::{again, names_in};

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
            let _ = unlink(&self.temporary, &self.name);
        }
    }
}

fn unlink(directory: &OwnedFd, name: impl AsRef<Path>) -> rustix::io::Result<()> {
    retry_on_intr(|| rustix::fs::unlinkat(directory, name.as_ref(), AtFlags::empty()))
}

/// Opens `.tmp` beside the blocks.
pub(super) fn open_temporary(blocks: &Path) -> Result<OwnedFd> {
    durable::open_existing(&blocks.join(TEMPORARY))
}

/// Removes the files of writers that are gone; a file of a living one is locked, or young where there are no
/// locks. Returns how many there were.
pub(super) fn remove_leftovers(blocks: &Path) -> Result<u64> {
    let path = blocks.join(TEMPORARY);
    let failed = |error: std::io::Error| Error::io_at("cannot list", &path, error);
    let names = match names_in(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        names => names.map_err(failed)?,
    };
    let temporary = open_temporary(blocks)?;
    let mut removed = 0;
    for name in names {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = open_at(temporary.as_fd(), &name, flags, Mode::empty()) else { continue };
        let is_left = match durable::lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(true) => true,
            Ok(false) => durable::is_abandoned(&path.join(&name)),
            Err(_) => false,
        };
        // One that cannot be removed is gone already, or not ours to remove: it only takes space.
        if is_left && unlink(&temporary, &name).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Fails unless a file can be made and written in `.tmp`, or, where there is none, unless it could be made.
pub(super) fn check_writable(blocks: &Path) -> Result<()> {
    let place = blocks.join(TEMPORARY);
    if place.is_dir() {
        return check_writable_in(&place);
    }
    let failed = |error: std::io::Error| Error::io_at("cannot write in", &place, error);
    let parent = place.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("."));
    access(parent, Access::WRITE_OK).map_err(|error| failed(error.into()))
}

/// Fails unless a file can be made and written in this directory. It needs no name where that can be had.
pub(super) fn check_writable_in(place: &Path) -> Result<()> {
    occupy_standard();
    let written = tempfile::tempfile_in(place).and_then(|mut file| file.write_all(&[0; 4096]));
    written.map_err(|error| Error::io_at("cannot write in", place, error))
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
        let _ = unlink(&self.temporary, &name);
        linked.is_ok()
    }

    pub(super) fn create(&self, key: BlockKey) -> std::io::Result<Fresh> {
        if self.unnamed.load(Ordering::Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::WRONLY;
            match open_at(self.temporary.as_fd(), ".", flags, FILE_MODE) {
                Ok(file) => return Ok(Fresh { key, file: file.into(), name: None }),
                Err(Errno::NOTSUP | Errno::ISDIR | Errno::INVAL | Errno::NOENT | Errno::NOSYS) => {
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
            // From here on it is removed, whatever fails.
            let name = Some(self.temporary_name(name));
            durable::lock(&file, FlockOperation::LockExclusive)?;
            let file = File::from(file);
            // A store that was opened between the two lines took it for a leftover.
            if again(|| file.metadata())?.nlink() > 0 {
                return Ok(Fresh { key, file, name });
            }
        }
    }

    fn temporary_name(&self, name: String) -> TemporaryName {
        TemporaryName { temporary: Arc::clone(&self.temporary), name, renamed: false }
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
        durable::lock(file, FlockOperation::LockExclusive)?;
        let mut between = self.temporary_name(self.fresh_name());
        self.link(file, &self.temporary, &between.name)?;
        retry_on_intr(|| rustix::fs::renameat(&self.temporary, &between.name, directory, &name))?;
        between.renamed = true;
        Ok(())
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
