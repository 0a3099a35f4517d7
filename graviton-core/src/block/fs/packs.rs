//! Packs as files: `<root>/<prefix>-packs/<name>.pack`, beside the directory of the blocks, which other
//! programs list.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::opened::OpenDirectory;
use super::{memory, temporaries};
use crate::block::pack::{OpenPack, Packs};
use crate::descriptor::open_at;
use crate::error::{Error, Result};
use crate::place::PackName;
use crate::repeated::{again, names_in};
use crate::{blocking, durable};

/// The most files that are kept open for reading.
const MOST_OPEN: usize = 64;

/// A file that nobody read for this long is closed. Files without a name are looked for at the same interval.
const IDLE: Duration = Duration::from_secs(60);

/// The largest size of a pack.
const MOST_BYTES: u64 = 64 << 20;

/// The first step by which space is reserved; each step is twice as long as the one before. A sync of bytes
/// in reserved space need not extend the file: 279 µs instead of 358 µs for 4 KiB on ext4.
const FIRST_STEP: u64 = 1 << 20;

/// The longest step.
const LONGEST_STEP: u64 = 16 << 20;

/// The most parts that one system call writes.
const PARTS: usize = 1_024;

/// Holes are punched in whole blocks of the filesystem.
const FILESYSTEM_BLOCK: u64 = 4_096;

/// The packs of a directory.
#[derive(Debug)]
pub(super) struct FsPacks {
    directory: PathBuf,
    memory: memory::Pool,
    open: Mutex<Open>,
}

/// Files that are open for reading.
#[derive(Debug, Default)]
struct Open {
    files: HashMap<PackName, (Arc<File>, Instant)>,
    looked: Option<Instant>,
}

impl FsPacks {
    pub(super) fn new(blocks: &Path, root: &Path, memory: memory::Pool) -> FsPacks {
        let directory = match blocks.file_name() {
            Some(name) if blocks != root => {
                let mut name = name.to_owned();
                name.push("-packs");
                blocks.with_file_name(name)
            }
            _ => root.join("packs"),
        };
        FsPacks { directory, memory, open: Mutex::default() }
    }

    fn path(&self, name: &PackName) -> PathBuf {
        self.directory.join(file_name(name))
    }

    fn failed(&self, tried: &str, name: &PackName, error: impl Into<std::io::Error>) -> Error {
        Error::io_at(tried, self.path(name), error.into())
    }

    /// The file, if it is open.
    fn opened(&self, name: &PackName) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_due() {
            open.forget_some();
        }
        let (file, used) = open.files.get_mut(name)?;
        *used = Instant::now();
        Some(Arc::clone(file))
    }

    /// The file, opened for reading; `None` if there is none.
    fn file(&self, name: &PackName) -> Result<Option<Arc<File>>> {
        if let Some(file) = self.opened(name) {
            return Ok(Some(file));
        }
        let file = match self.open_to(OFlags::RDONLY, name) {
            Ok(file) => Arc::new(File::from(file)),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("cannot open", name, error)),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.forget_some();
        open.files.insert(*name, (Arc::clone(&file), Instant::now()));
        Ok(Some(file))
    }

    fn open_to(&self, flags: OFlags, name: &PackName) -> rustix::io::Result<OwnedFd> {
        open_at(rustix::fs::CWD, self.path(name), flags | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Fails unless a file can be written in the directory. A put creates a missing directory.
    pub(super) fn check_writable(&self) -> Result<()> {
        if again(|| std::fs::metadata(&self.directory))
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            return Ok(());
        }
        temporaries::check_writable_in(&self.directory)
    }

    /// Makes all bytes durable that were written to packs without a sync.
    pub(super) fn sync_filesystem(&self) -> Result<()> {
        let directory = match durable::open_directory(&self.directory) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::io_at("cannot open", &self.directory, error.into())),
        };
        let failed = |error: Errno| Error::io_at("cannot sync", &self.directory, error.into());
        if durable::sync_filesystem(&directory).map_err(failed)? {
            Ok(())
        } else {
            durable::sync_each_file(&self.directory)
        }
    }

    fn create_file(&self, name: &PackName, header: &[u8]) -> Result<PackFile> {
        durable::create_directory(&self.directory)?;
        let directory = OpenDirectory::open_existing(&self.directory)?;
        let path = self.path(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = open_at(rustix::fs::CWD, &path, flags, Mode::from_raw_mode(0o666));
        let file: File = file.map_err(|error| Error::io_at("cannot create", &path, error.into()))?.into();
        let pack = PackFile { file, path, directory, reserved: Mutex::new(Some(0)) };
        // On a full disk nothing of the pack must remain.
        self.fill(&pack, header).inspect_err(|_| drop(std::fs::remove_file(&pack.path)))?;
        Ok(pack)
    }

    fn fill(&self, pack: &PackFile, header: &[u8]) -> Result<()> {
        // The owner of the store can continue to use a pack that root has created.
        durable::give_to_owner_of(&self.directory, &pack.path)?;
        pack.reserve(header.len() as u64);
        pack.file.write_all_at(header, 0).map_err(|error| pack.failed("cannot write", error))?;
        // In every mode: the row of the pack is synced, and must not be mistaken for that of a lost pack.
        durable::sync_directory(&self.directory)
    }

    fn read_here(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let mut memory = self.memory.take((range.end - range.start) as usize);
        let mut filled = 0;
        while filled < memory.as_ref().len() {
            match file.read_at(&mut memory.as_mut()[filled..], range.start + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("cannot read", name, error)),
            }
        }
        Ok(Some(Bytes::from_owner(memory).slice(..filled)))
    }

    /// The bytes, if the file is open and the system has them in memory.
    fn read_cached(&self, name: &PackName, range: &Range<u64>) -> Option<Bytes> {
        let file = self.opened(name)?;
        let mut memory = self.memory.take((range.end - range.start) as usize);
        let into = &mut [IoSliceMut::new(memory.as_mut())];
        let count = rustix::io::preadv2(&file, into, range.start, ReadWriteFlags::NOWAIT).ok()?;
        (count as u64 == range.end - range.start).then(|| Bytes::from_owner(memory))
    }

    /// Opens a pack at rest to change it; `None` if there is none, or this user may not.
    fn open_at_rest(&self, name: &PackName) -> Result<Option<OwnedFd>> {
        match self.open_to(OFlags::RDWR, name) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(None),
            Err(error) => Err(self.failed("cannot open", name, error)),
        }
    }
}

fn file_name(name: &PackName) -> String {
    format!("{name}.pack")
}

impl Open {
    fn is_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() > IDLE)
    }

    /// Closes files that nobody read for long, files without a name, and one more if there are many.
    fn forget_some(&mut self) {
        if self.is_due() || self.files.len() >= MOST_OPEN {
            self.looked = Some(Instant::now());
            let has_name = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
            self.files.retain(|_, (file, used)| used.elapsed() < IDLE && has_name(file));
        }
        if self.files.len() >= MOST_OPEN
            && let Some(oldest) = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| *name)
        {
            self.files.remove(&oldest);
        }
    }
}

#[async_trait]
impl Packs for Arc<FsPacks> {
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>> {
        let (packs, name) = (Arc::clone(self), *name);
        let created = blocking::run(move || packs.create_file(&name, &header)).await??;
        Ok(Arc::new(Arc::new(created)))
    }

    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        if blocking::is_at_once()
            && let Some(bytes) = self.read_cached(name, &range)
        {
            return Ok(Some(bytes));
        }
        let (packs, name) = (Arc::clone(self), *name);
        blocking::run(move || packs.read_here(&name, range)).await?
    }

    async fn length(&self, name: &PackName) -> Result<Option<u64>> {
        let (packs, name) = (Arc::clone(self), *name);
        blocking::run(move || match again(|| std::fs::symlink_metadata(packs.path(&name))) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(packs.failed("cannot look at", &name, error)),
        })
        .await?
    }

    async fn sync(&self, name: &PackName) -> Result<()> {
        let (packs, name) = (Arc::clone(self), *name);
        blocking::run(move || {
            let file = match packs.open_to(OFlags::RDONLY, &name) {
                Ok(file) => file,
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(packs.failed("cannot open", &name, error)),
            };
            retry_on_intr(|| rustix::fs::fdatasync(&file))
                .map_err(|error| packs.failed("cannot sync", &name, error))
        })
        .await?
    }

    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()> {
        let (packs, name) = (Arc::clone(self), *name);
        blocking::run(move || {
            let Some(file) = packs.open_at_rest(&name)? else { return Ok(()) };
            retry_on_intr(|| rustix::fs::ftruncate(&file, bytes))
                .map_err(|error| packs.failed("cannot cut", &name, error))
        })
        .await?
    }

    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<u64> {
        let (packs, name, ranges) = (Arc::clone(self), *name, ranges.to_vec());
        blocking::run(move || {
            let Some(file) = packs.open_at_rest(&name)? else { return Ok(0) };
            let mut punched = 0;
            for range in ranges {
                let start = range.start.next_multiple_of(FILESYSTEM_BLOCK);
                let end = range.end / FILESYSTEM_BLOCK * FILESYSTEM_BLOCK;
                if start >= end {
                    continue;
                }
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                match retry_on_intr(|| rustix::fs::fallocate(&file, flags, start, end - start)) {
                    Ok(()) => punched += end - start,
                    Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                    Err(error) => return Err(packs.failed("cannot punch a hole into", &name, error)),
                }
            }
            Ok(punched)
        })
        .await?
    }

    async fn remove(&self, names: &[PackName]) -> Result<()> {
        let (packs, names) = (Arc::clone(self), names.to_vec());
        blocking::run(move || {
            let mut any = false;
            for name in &names {
                packs.open.lock().unwrap_or_else(PoisonError::into_inner).files.remove(name);
                let path = packs.path(name);
                match retry_on_intr(|| rustix::fs::unlinkat(rustix::fs::CWD, &path, AtFlags::empty())) {
                    Ok(()) => any = true,
                    // It may have been removed a moment ago, and the removal may not be durable yet.
                    Err(Errno::NOENT) => any = any || packs.directory.is_dir(),
                    Err(error) => return Err(packs.failed("cannot remove", name, error)),
                }
            }
            if any { durable::sync_directory(&packs.directory) } else { Ok(()) }
        })
        .await?
    }

    async fn list(&self) -> Result<Vec<(PackName, u64)>> {
        let packs = Arc::clone(self);
        blocking::run(move || {
            let failed = |error| Error::io_at("cannot list", &packs.directory, error);
            let names = match names_in(&packs.directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                names => names.map_err(failed)?,
            };
            let mut all = Vec::new();
            for name in names {
                let name = name.to_str().and_then(|name| name.strip_suffix(".pack")?.parse().ok());
                let Some(name) = name else { continue };
                match again(|| std::fs::symlink_metadata(packs.path(&name))) {
                    Ok(metadata) => all.push((name, metadata.len())),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Ok(all)
        })
        .await?
    }

    fn place(&self, name: &PackName) -> String {
        self.path(name).display().to_string()
    }

    fn most_bytes(&self) -> u64 {
        MOST_BYTES
    }

    fn grows(&self) -> bool {
        true
    }
}

/// A pack that is appended to.
#[derive(Debug)]
struct PackFile {
    file: File,
    path: PathBuf,
    /// Kept open, so that no other directory gets its inode number.
    directory: OpenDirectory,
    /// Space is reserved up to this offset; `None` if the filesystem cannot reserve, or has no space left.
    reserved: Mutex<Option<u64>>,
}

impl PackFile {
    fn failed(&self, tried: &str, error: impl Into<std::io::Error>) -> Error {
        Error::io_at(tried, &self.path, error.into())
    }

    /// Reserves space for bytes up to this end, and some more. A failure here is ignored: the write reports
    /// it itself.
    fn reserve(&self, end: u64) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = *reserved else { return };
        if end <= before {
            return;
        }
        let step = before.clamp(FIRST_STEP, LONGEST_STEP);
        let to = end.max(before + step);
        let done = retry_on_intr(|| {
            rustix::fs::fallocate(self.file.as_fd(), FallocateFlags::empty(), before, to - before)
        });
        *reserved = done.is_ok().then_some(to);
    }

    fn write_here(&self, mut offset: u64, parts: &[Bytes]) -> Result<()> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        self.reserve(offset + length as u64);
        for parts in parts.chunks(PARTS) {
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut rest = &mut slices[..];
            // Empty parts would look like a file that accepts nothing.
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(&self.file, rest, offset) {
                    Ok(0) => {
                        return Err(self.failed("cannot write", std::io::Error::from(ErrorKind::WriteZero)));
                    }
                    Ok(count) => {
                        offset += count as u64;
                        IoSlice::advance_slices(&mut rest, count);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(self.failed("cannot write", error)),
                }
            }
        }
        self.directory.check_in_place()
    }
}

#[async_trait]
impl OpenPack for Arc<PackFile> {
    async fn write(&self, offset: u64, parts: Vec<Bytes>) -> Result<()> {
        let pack = Arc::clone(self);
        blocking::run(move || pack.write_here(offset, &parts)).await?
    }

    async fn sync(&self) -> Result<()> {
        let pack = Arc::clone(self);
        blocking::run(move || {
            retry_on_intr(|| rustix::fs::fdatasync(&pack.file))
                .map_err(|error| pack.failed("cannot sync", error))
        })
        .await?
    }

    fn is_in_doubt(&self) -> bool {
        false
    }
}
