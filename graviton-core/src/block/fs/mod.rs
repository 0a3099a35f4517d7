//! Blocks as files: `<root>/<prefix>/<algo>/<hex>-<size>`, each file the raw bytes of its block.
//!
//! Beside the algorithms' directories stand `store-id` (the id of the database these blocks belong to)
//! and `.tmp` (files on their way in). A store that only reads creates nothing.
//!
//! Writing is in `publish`; its invariant is that *whatever stands under a final name was durable before
//! it got that name*, so that one writer may replace another's file at any moment.

mod collection;
mod memory;
mod publish;
mod reserve;

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
#[cfg(any(test, feature = "testing"))]
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::Semaphore;

use super::{
    Block, BlockStore, CollectionLock, Deadline, Deleted, Listed, Listing, Published, missing, wrong_length,
};
use crate::collection::Collection;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::{blocking, durable};

const STORE_ID: &str = "store-id";
const TEMPORARY: &str = ".tmp";

/// Blocks as files under a directory. Clones share everything.
#[derive(Debug, Clone)]
pub struct FsBlockStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Absolute.
    root: PathBuf,
    /// `<root>/<prefix>`.
    blocks: PathBuf,
    durable: bool,
    named_temporaries: AtomicBool,
    /// The directories, opened when first read from or written to.
    algo: [OnceLock<OwnedFd>; Algo::ALL.len()],
    /// Set once the directories for writing are there, durable and rid of leftovers.
    writable: tokio::sync::OnceCell<publish::Workshop>,
    /// One permit for each file that may be open for writing at once.
    files: Arc<Semaphore>,
    most_files: usize,
    /// What blocks are read into.
    memory: memory::Pool,
}

impl FsBlockStore {
    /// Blocks under `<root>/<prefix>`; the prefix may be empty. Touches nothing.
    ///
    /// With `durable`, what [`BlockStore::put`] returned for survives a power cut.
    pub fn new(root: &Path, prefix: &str, durable: bool) -> FsBlockStore {
        // A quarter of what the process may open: the rest is the program's.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most_files = limit.map_or(1024, |limit| (limit / 4).clamp(8, 1024)) as usize;
        // Absolute, so that a later change of the working directory moves nothing.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        FsBlockStore(Arc::new(Shared {
            blocks: if prefix.is_empty() { root.clone() } else { root.join(prefix) },
            root,
            durable,
            named_temporaries: AtomicBool::new(false),
            algo: Default::default(),
            writable: tokio::sync::OnceCell::new(),
            files: Arc::new(Semaphore::new(most_files)),
            most_files,
            memory: memory::Pool::default(),
        }))
    }

    /// The same for a filesystem that has no unnamed files, whether or not this one has. Before first use.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with_named_temporaries(self) -> FsBlockStore {
        self.0.named_temporaries.store(true, Ordering::Relaxed);
        self
    }

    /// The path of a block's file, whether it is there or not.
    pub fn path(&self, key: &BlockKey) -> PathBuf {
        self.0.path(key)
    }

    async fn with_shared<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.0);
        blocking::run(move || work(&shared)).await?
    }
}

impl Shared {
    fn path(&self, key: &BlockKey) -> PathBuf {
        self.blocks.join(key.algo().name()).join(key.name())
    }

    /// The open directory of an algorithm; `None` where it does not exist.
    fn directory(&self, algo: Algo) -> Result<Option<&OwnedFd>> {
        let slot = &self.algo[algo as usize];
        if slot.get().is_none() {
            let path = self.blocks.join(algo.name());
            match durable::open_directory(&path) {
                Ok(directory) => drop(slot.set(directory)),
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(Error::io(format!("cannot open {}", path.display()), error.into())),
            }
        }
        Ok(slot.get())
    }

    /// The length of the block's file, and its inode.
    fn file(&self, key: &BlockKey) -> Result<Option<(u64, u64)>> {
        let Some(directory) = self.directory(key.algo())? else { return Ok(None) };
        match rustix::fs::statat(directory, key.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_size as u64, stat.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => {
                Err(Error::io(format!("cannot look at {}", self.path(key).display()), error.into()))
            }
        }
    }

    fn read(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        let place = || self.path(key).display().to_string();
        let failed = |error: std::io::Error| Error::io(format!("cannot read {}", place()), error);
        let Some(directory) = self.directory(key.algo())? else { return Err(missing(key, &place())) };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(directory, key.name(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(missing(key, &place())),
            Err(error) => return Err(failed(error.into())),
        };
        let length = file.metadata().map_err(failed)?.len();
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
    fn read_at_once(&self, key: &BlockKey) -> Option<Bytes> {
        let directory = self.directory(key.algo()).ok()??;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(directory, key.name(), flags, Mode::empty()).ok()?;
        // A byte more than the block has shows a file that is too long.
        let mut memory = self.memory.take(key.size() + 1);
        let into = &mut [IoSliceMut::new(memory.as_mut())];
        let count = rustix::io::preadv2(file, into, 0, ReadWriteFlags::NOWAIT).ok()?;
        (count == key.size()).then(|| Bytes::from_owner(memory).slice(..count))
    }

    fn read_store_id(&self) -> Result<Option<String>> {
        let path = self.blocks.join(STORE_ID);
        match std::fs::read_to_string(&path) {
            Ok(id) => Ok(Some(id.trim_end().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
        }
    }

    /// Writes the id under another name and links it, so that it is never there in part and never replaced.
    fn write_store_id(&self, id: &str) -> Result<String> {
        let path = self.blocks.join(STORE_ID);
        let failed = |error: std::io::Error| Error::io(format!("cannot write {}", path.display()), error);
        durable::create_directory(&self.blocks)?;
        let mut file = tempfile::Builder::new()
            .prefix(".store-id-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&self.blocks)
            .map_err(failed)?;
        file.write_all(format!("{id}\n").as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(error.error));
            }
            _ => durable::sync_directory(&self.blocks)?,
        }
        self.read_store_id()?.ok_or_else(|| {
            Error::new(Code::Config, format!("{} was just written and is gone", path.display()))
        })
    }
}

impl Shared {
    fn delete(&self, keys: &[BlockKey], until: Deadline) -> Vec<Deleted> {
        let mut touched = [false; Algo::ALL.len()];
        let mut deleted: Vec<Deleted> = keys
            .iter()
            .map(|key| match self.directory(key.algo()) {
                Ok(_) if until.has_passed() => Deleted::NotBegun,
                Ok(None) => Deleted::Gone,
                Ok(Some(directory)) => {
                    touched[key.algo() as usize] = true;
                    match rustix::fs::unlinkat(directory, key.name(), AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => Deleted::Gone,
                        Err(error) => {
                            let tried = format!("cannot remove {}", self.path(key).display());
                            Deleted::Unknown(Error::io(tried, error.into()))
                        }
                    }
                }
                Err(error) => Deleted::Unknown(error),
            })
            .collect();
        if !self.durable {
            return deleted;
        }
        for algo in Algo::ALL.into_iter().filter(|algo| touched[*algo as usize]) {
            let Err(error) = durable::sync_directory(&self.blocks.join(algo.name())) else { continue };
            for (key, deleted) in keys.iter().zip(&mut deleted) {
                if key.algo() == algo && matches!(deleted, Deleted::Gone) {
                    *deleted = Deleted::Unknown(error.clone());
                }
            }
        }
        deleted
    }
}

/// The directories of the algorithms, one after the other.
struct DirectoryListing {
    shared: Arc<Shared>,
    reading: Option<(Algo, std::fs::ReadDir)>,
    rest: Vec<Algo>,
}

/// Names of one page.
const PAGE: usize = 2_048;

#[async_trait]
impl Listing for DirectoryListing {
    async fn next(&mut self) -> Result<Vec<Listed>> {
        loop {
            let (algo, mut entries) = if let Some(reading) = self.reading.take() {
                reading
            } else {
                let Some(algo) = self.rest.pop() else { return Ok(Vec::new()) };
                match std::fs::read_dir(self.shared.blocks.join(algo.name())) {
                    Ok(entries) => (algo, entries),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(cannot_list(&self.shared.blocks.join(algo.name()), error)),
                }
            };
            let blocks = self.shared.blocks.join(algo.name());
            let (page, entries) = blocking::run(move || {
                let page = read_page(algo, &mut entries).map_err(|error| cannot_list(&blocks, error));
                (page, entries)
            })
            .await?;
            if let Some(page) = page? {
                self.reading = Some((algo, entries));
                // What has other names than blocks have is none of ours.
                if !page.is_empty() {
                    return Ok(page);
                }
            }
        }
    }
}

fn cannot_list(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot list {}", path.display()), error)
}

/// Some of the blocks of a directory; `None` at its end.
fn read_page(algo: Algo, entries: &mut std::fs::ReadDir) -> std::io::Result<Option<Vec<Listed>>> {
    let mut page = Vec::new();
    for count in 0..PAGE {
        let Some(entry) = entries.next() else { return Ok((count > 0).then_some(page)) };
        let entry = entry?;
        let name = entry.file_name();
        let Some(Ok(key)) = name.to_str().map(|name| BlockKey::from_name(algo, name)) else { continue };
        match entry.metadata() {
            Ok(metadata) => page.push(Listed { key, length: metadata.len() }),
            // Deleted since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(page))
}

#[async_trait]
impl BlockStore for FsBlockStore {
    async fn put(&self, blocks: Vec<Block>) -> Result<Published> {
        publish::publish(&self.0, blocks).await
    }

    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        let key = *key;
        self.with_shared(move |shared| shared.read(&key, range)).await
    }

    fn get_at_once(&self, key: &BlockKey) -> Option<Bytes> {
        self.0.read_at_once(key)
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        let key = *key;
        self.with_shared(move |shared| Ok(shared.file(&key)?.map(|(length, _)| length))).await
    }

    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        let keys = keys.to_vec();
        self.with_shared(move |shared| {
            keys.iter()
                .map(|key| Ok(shared.file(key)?.is_some_and(|(length, _)| length == key.size() as u64)))
                .collect()
        })
        .await
    }

    async fn sync_all(&self) -> Result<()> {
        self.with_shared(|shared| {
            let path = shared.blocks.display();
            let directory = durable::open_directory(&shared.blocks)
                .map_err(|error| Error::io(format!("cannot open {path}"), error.into()))?;
            rustix::fs::syncfs(&directory)
                .map_err(|error| Error::io(format!("cannot sync {path}"), error.into()))
        })
        .await
    }

    fn location(&self) -> String {
        let path = std::fs::canonicalize(&self.0.blocks).unwrap_or_else(|_| self.0.blocks.clone());
        format!("fs:{}", path.display())
    }

    fn place(&self, key: &BlockKey) -> String {
        self.0.path(key).display().to_string()
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.with_shared(Shared::read_store_id).await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        let id = id.to_owned();
        self.with_shared(move |shared| shared.write_store_id(&id)).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        self.with_shared(|shared| {
            for algo in Algo::ALL {
                let path = shared.blocks.join(algo.name());
                match std::fs::read_dir(&path) {
                    Ok(mut entries) => {
                        if entries.next().is_some() {
                            return Ok(true);
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io(format!("cannot list {}", path.display()), error)),
                }
            }
            Ok(false)
        })
        .await
    }

    async fn delete(&self, keys: &[BlockKey], until: Deadline) -> Vec<Deleted> {
        let (shared, owned) = (Arc::clone(&self.0), keys.to_vec());
        let deleted = blocking::run(move || shared.delete(&owned, until)).await;
        deleted.unwrap_or_else(|error| keys.iter().map(|_| Deleted::Unknown(error.clone())).collect())
    }

    /// A local call has ended when it returns.
    fn deletion_takes(&self) -> Duration {
        Duration::ZERO
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        Ok(Box::new(DirectoryListing {
            shared: Arc::clone(&self.0),
            reading: None,
            rest: Algo::ALL.to_vec(),
        }))
    }

    async fn remove_leftovers(&self) -> Result<u64> {
        self.with_shared(publish::remove_leftovers).await
    }

    fn lock_collection(&self, by: Collection) -> Result<Option<CollectionLock>> {
        Ok(Some(Box::new(collection::CollectionFile::lock(&self.0.blocks, by)?)))
    }

    fn is_collection_gone(&self, by: Collection) -> bool {
        collection::is_gone(&self.0.blocks, by)
    }

    async fn release_reserve(&self) -> Result<bool> {
        self.with_shared(|shared| reserve::release(&shared.root)).await
    }

    async fn keep_reserve(&self) -> Result<()> {
        self.with_shared(|shared| reserve::keep(&shared.root)).await
    }

    fn is_local(&self) -> bool {
        true
    }

    fn proves_publication(&self) -> bool {
        true
    }
}
