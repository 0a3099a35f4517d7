//! The directories and limits that the parts of a [`FsBlockStore`](super::FsBlockStore) share, and the calls
//! that read, check and remove files.

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rustix::fs::{Access, AtFlags, Mode, OFlags, Stat, accessat};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};
use tokio::sync::{OnceCell, Semaphore};

use super::memory;
use super::opened::{OpenDirectory, Writable};
use super::packs::FsPacks;
use crate::block::{missing, wrong_length};
use crate::descriptor::open_at;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::repeated::again;

/// How often a reader looks for a file: each move by a collection during a look may cost a round
/// (`tests/model/src/files`, mutant `ReaderLooksTwice`).
const ROUNDS: usize = 4;

#[derive(Debug)]
pub(super) struct Shared {
    /// Absolute.
    pub(super) root: PathBuf,
    /// `<root>/<prefix>`.
    pub(super) blocks: PathBuf,
    pub(super) durable: bool,
    pub(super) named_temporaries: AtomicBool,
    /// The directories to read from, opened when they are first needed, and again when others have taken
    /// their places.
    algo: [RwLock<Option<Arc<OpenDirectory>>>; Algo::ALL.len()],
    /// Set once the directories for writing are there, durable and rid of leftovers.
    pub(super) writable: OnceCell<Writable>,
    /// One permit for each file that may be open for writing at once.
    pub(super) files: Arc<Semaphore>,
    pub(super) most_files: usize,
    /// The memory that blocks are read into.
    pub(super) memory: memory::Pool,
    pub(super) packs: Arc<FsPacks>,
}

impl Shared {
    pub(super) fn new(root: &Path, prefix: &str, durable: bool) -> Shared {
        // A quarter of what the process may open: the rest is the program's.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most_files = limit.map_or(1024, |limit| (limit / 4).clamp(8, 1024)) as usize;
        // Absolute, so that a later change of the working directory moves nothing.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let blocks = if prefix.is_empty() { root.clone() } else { root.join(prefix) };
        let memory = memory::Pool::default();
        Shared {
            packs: Arc::new(FsPacks::new(&blocks, &root, memory.clone())),
            blocks,
            root,
            durable,
            named_temporaries: AtomicBool::new(false),
            algo: Default::default(),
            writable: OnceCell::new(),
            files: Arc::new(Semaphore::new(most_files)),
            most_files,
            memory,
        }
    }

    pub(super) fn path(&self, key: &BlockKey) -> PathBuf {
        self.blocks.join(key.algo().name()).join(key.name())
    }

    /// The open directory of an algorithm; `None` where it does not exist. Another one may be under the path
    /// by now.
    fn opened(&self, algo: Algo) -> Result<Option<Arc<OpenDirectory>>> {
        let opened = self.algo[algo as usize].read().unwrap_or_else(PoisonError::into_inner).clone();
        if opened.is_some() { Ok(opened) } else { self.open_directory(algo) }
    }

    /// The directory of an algorithm that is under the path now; `None` where there is none.
    pub(super) fn directory(&self, algo: Algo) -> Result<Option<Arc<OpenDirectory>>> {
        match self.opened(algo)? {
            Some(opened) if opened.is_in_place()? => Ok(Some(opened)),
            _ => self.open_directory(algo),
        }
    }

    fn open_directory(&self, algo: Algo) -> Result<Option<Arc<OpenDirectory>>> {
        let opened = OpenDirectory::open(&self.blocks.join(algo.name()))?.map(Arc::new);
        self.algo[algo as usize].write().unwrap_or_else(PoisonError::into_inner).clone_from(&opened);
        Ok(opened)
    }

    /// Looks for something in the open directory of an algorithm, and if it is not there in the one that is
    /// under the path.
    fn look<T>(&self, algo: Algo, look: impl Fn(&OpenDirectory) -> Result<Option<T>>) -> Result<Option<T>> {
        let Some(opened) = self.opened(algo)? else { return Ok(None) };
        if let Some(found) = look(&opened)? {
            return Ok(Some(found));
        }
        match self.directory(algo)? {
            Some(now) if !Arc::ptr_eq(&now, &opened) => look(&now),
            _ => Ok(None),
        }
    }

    /// The length of the file under the block's name, and its inode.
    pub(super) fn file(&self, key: &BlockKey) -> Result<Option<(u64, u64)>> {
        let found = self.look(key.algo(), |directory| self.stat(directory, key))?;
        Ok(found.map(|stat| (stat.st_size as u64, stat.st_ino)))
    }

    /// Looks at the file under the block's name in this directory, if there is one.
    fn stat(&self, directory: &OpenDirectory, key: &BlockKey) -> Result<Option<Stat>> {
        match retry_on_intr(|| rustix::fs::statat(directory, key.name(), AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io_at("cannot look at", self.path(key), error.into())),
        }
    }

    /// Of each block whether the file under its name has the right length, and is not one that another user
    /// kept for himself.
    pub(super) fn seem_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        let directories = Algo::ALL
            .map(|algo| keys.iter().any(|key| key.algo() == algo).then(|| self.directory(algo)).transpose());
        let look = |key: &BlockKey| match &directories[key.algo() as usize] {
            Ok(Some(Some(directory))) => self.seems_intact(directory, key),
            Ok(_) => Ok(false),
            Err(error) => Err(error.clone()),
        };
        keys.iter().map(look).collect()
    }

    fn seems_intact(&self, directory: &OpenDirectory, key: &BlockKey) -> Result<bool> {
        let Some(stat) = self.stat(directory, key)? else { return Ok(false) };
        let is_own = || stat.st_uid == rustix::process::geteuid().as_raw();
        let access = || retry_on_intr(|| accessat(directory, key.name(), Access::READ_OK, AtFlags::EACCESS));
        Ok(stat.st_size as u64 == key.size() as u64 && (is_own() || access().is_ok()))
    }

    /// Opens the file of a block, also while it is set aside.
    fn open(&self, key: &BlockKey) -> Result<Option<File>> {
        self.look(key.algo(), |directory| self.open_in(directory, key))
    }

    fn open_in(&self, directory: &OpenDirectory, key: &BlockKey) -> Result<Option<File>> {
        let failed = |error| Error::io_at("cannot open", self.path(key), error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        for _ in 0..ROUNDS {
            match open_at(directory.as_fd(), key.name(), flags, Mode::empty()) {
                Ok(file) => return Ok(Some(file.into())),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error.into())),
            }
            if let Some(file) = self.open_aside(key).map_err(failed)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The length of the block's file, also while it is set aside.
    pub(super) fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        if let Some((length, _)) = self.file(key)? {
            return Ok(Some(length));
        }
        let Some(file) = self.open(key)? else { return Ok(None) };
        let metadata = again(|| file.metadata());
        let failed = |error| Error::io_at("cannot look at", self.path(key), error);
        Ok(Some(metadata.map_err(failed)?.len()))
    }

    pub(super) fn read(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        let place = || self.path(key).display().to_string();
        let failed = |error: std::io::Error| Error::io(format!("cannot read {}", place()), error);
        let Some(file) = self.open(key)? else { return Err(missing(key, &place())) };
        let length = again(|| file.metadata()).map_err(failed)?.len();
        if length != key.size() as u64 {
            return Err(wrong_length(key, &place(), length));
        }
        let Range { start, end } = range.unwrap_or(0..key.size());
        if start > end || end > key.size() {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("block {key} has no range {start}..{end}"),
            ));
        }
        let mut memory = self.memory.take(end - start);
        match file.read_exact_at(memory.as_mut(), start as u64) {
            Ok(()) => Ok(Bytes::from_owner(memory)),
            // It was cut off between the look at its length and the reading.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(wrong_length(key, &place(), file.metadata().map_err(failed)?.len()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The whole block, if the system has it in memory.
    pub(super) fn read_cached(&self, key: &BlockKey) -> Option<Bytes> {
        let directory = self.opened(key.algo()).ok()??;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        let file = open_at(directory.as_fd(), key.name(), flags, Mode::empty()).ok()?;
        // A byte more than the block has shows a file that is too long.
        let mut memory = self.memory.take(key.size() + 1);
        let into = &mut [IoSliceMut::new(memory.as_mut())];
        let count = rustix::io::preadv2(file, into, 0, ReadWriteFlags::NOWAIT).ok()?;
        (count == key.size()).then(|| Bytes::from_owner(memory).slice(..count))
    }
}
