//! Blocks as files: `<root>/<prefix>/<algo>/<hex>-<size>`, each file the raw bytes of its block.
//!
//! Beside the directories of the algorithms are `store-id` (the id of the database that owns the blocks),
//! `generation` (which copy of that database), `.tmp` (files that are being written) and `.doomed` (files
//! that are being removed). A store that only reads creates nothing.
//!
//! Writing is in `publish`. Its invariant: *a file under a final name was durable before it got that name*,
//! so that one writer may replace another's file at any moment.

mod aside;
mod directory;
mod identity;
mod memory;
mod opened;
mod packs;
mod publish;
mod reserve;
mod shared;
mod temporaries;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(any(test, feature = "testing"))]
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Dir};
use rustix::io::{Errno, retry_on_intr};

use super::{
    Aside, Asides, Block, BlockStore, Disk, Identity, Listed, Listing, Packs, Published, Removal, Removed,
};
use crate::digest::Algo;
use crate::error::{Error, Result};
use crate::key::BlockKey;
use crate::repeated::again;
use crate::{blocking, durable};
use shared::Shared;

/// Blocks as files under a directory. Clones share everything.
#[derive(Debug, Clone)]
pub struct FsBlockStore(Arc<Shared>);

impl FsBlockStore {
    /// Blocks under `<root>/<prefix>`; the prefix may be empty. Touches nothing.
    ///
    /// With `durable`, blocks survive a power cut once [`BlockStore::put`] has returned.
    pub fn new(root: &Path, prefix: &str, durable: bool) -> FsBlockStore {
        FsBlockStore(Arc::new(Shared::new(root, prefix, durable)))
    }

    /// The same for a filesystem without unnamed files, whether or not this one has them. Call it before
    /// first use.
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

/// The directories of the algorithms, one after another.
struct DirectoryListing {
    shared: Arc<Shared>,
    reading: Option<(Algo, Entries)>,
    rest: Vec<Algo>,
}

/// The names of one page.
const PAGE: usize = 2_048;

#[async_trait]
impl Listing for DirectoryListing {
    async fn next(&mut self) -> Result<Vec<Listed>> {
        loop {
            let (algo, mut entries) = if let Some(reading) = self.reading.take() {
                reading
            } else {
                let Some(algo) = self.rest.pop() else { return Ok(Vec::new()) };
                let path = self.shared.blocks.join(algo.name());
                match durable::open_directory(&path).and_then(Dir::new) {
                    Ok(directory) => (algo, Entries { directory, last: None }),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(cannot_list(&path, error.into())),
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
                // Skips files that are not named like blocks.
                if !page.is_empty() {
                    return Ok(page);
                }
            }
        }
    }
}

fn cannot_list(path: &Path, error: std::io::Error) -> Error {
    Error::io_at("cannot list", path, error)
}

/// A directory that is being listed.
struct Entries {
    directory: Dir,
    /// The position of the last name, from which a listing continues after a signal.
    last: Option<i64>,
}

impl Entries {
    fn next(&mut self) -> Option<rustix::io::Result<std::ffi::CString>> {
        loop {
            match self.directory.read()? {
                Ok(entry) => {
                    self.last = Some(entry.offset());
                    return Some(Ok(entry.file_name().to_owned()));
                }
                Err(Errno::INTR) => match self.last {
                    None => self.directory.rewind(),
                    #[cfg(target_pointer_width = "64")]
                    Some(last) => {
                        if let Err(error) = self.directory.seek(last) {
                            return Some(Err(error));
                        }
                    }
                    #[cfg(not(target_pointer_width = "64"))]
                    Some(_) => return Some(Err(Errno::INTR)),
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Some of the blocks of a directory; `None` at its end.
fn read_page(algo: Algo, entries: &mut Entries) -> std::io::Result<Option<Vec<Listed>>> {
    let mut page = Vec::new();
    for count in 0..PAGE {
        let Some(name) = entries.next() else { return Ok((count > 0).then_some(page)) };
        let name = name?;
        let Some(Ok(key)) = name.to_str().ok().map(|name| BlockKey::from_name(algo, name)) else { continue };
        let directory = entries.directory.fd()?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match retry_on_intr(|| rustix::fs::statat(directory, &*name, flags)) {
            Ok(stat) => page.push(Listed { key, length: stat.st_size as u64 }),
            // It was deleted since it was listed.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
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
        if range.is_none()
            && blocking::is_at_once()
            && let Some(bytes) = self.0.read_cached(&key)
        {
            return Ok(bytes);
        }
        self.with_shared(move |shared| shared.read(&key, range)).await
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        let key = *key;
        self.with_shared(move |shared| shared.length(&key)).await
    }

    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        let keys = keys.to_vec();
        self.with_shared(move |shared| shared.seem_intact(&keys)).await
    }

    fn place(&self, key: &BlockKey) -> String {
        self.0.path(key).display().to_string()
    }

    async fn prepare_removal(&self, _blocks: &[Aside], _valid: Duration) -> Result<Box<dyn Removal>> {
        Ok(Box::new(self.clone()))
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        Ok(Box::new(DirectoryListing {
            shared: Arc::clone(&self.0),
            reading: None,
            rest: Algo::ALL.to_vec(),
        }))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn proves_publication(&self) -> bool {
        true
    }

    fn asides(&self) -> Option<Box<dyn Asides>> {
        Some(Box::new(self.clone()))
    }

    fn disk(&self) -> Option<Box<dyn Disk>> {
        Some(Box::new(self.clone()))
    }

    fn packs(&self) -> Option<Arc<dyn Packs>> {
        Some(Arc::new(Arc::clone(&self.0.packs)))
    }
}

#[async_trait]
impl Identity for FsBlockStore {
    fn location(&self) -> String {
        let path = std::fs::canonicalize(&self.0.blocks).unwrap_or_else(|_| self.0.blocks.clone());
        format!("fs:{}", path.display())
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.with_shared(Shared::read_store_id).await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        let id = id.to_owned();
        self.with_shared(move |shared| shared.write_store_id(&id)).await
    }

    async fn generation(&self) -> Result<u64> {
        self.with_shared(Shared::read_generation).await
    }

    async fn raise_generation(&self, to: u64) -> Result<()> {
        self.with_shared(move |shared| shared.raise_generation(to)).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        let any = self.with_shared(|shared| {
            for algo in Algo::ALL {
                let path = shared.blocks.join(algo.name());
                match again(|| std::fs::read_dir(&path)?.next().transpose()) {
                    Ok(first) => {
                        if first.is_some() {
                            return Ok(true);
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io_at("cannot list", &path, error)),
                }
            }
            Ok(!shared.asides()?.is_empty())
        });
        Ok(any.await? || !self.0.packs.list().await?.is_empty())
    }
}

#[async_trait]
impl Asides for FsBlockStore {
    async fn all(&self) -> Result<Vec<Aside>> {
        self.with_shared(Shared::asides).await
    }

    async fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()> {
        let (gone, back) = (gone.to_vec(), back.to_vec());
        self.with_shared(move |shared| shared.end_removal(&gone, &back)).await
    }
}

#[async_trait]
impl Disk for FsBlockStore {
    async fn sync_all(&self) -> Result<()> {
        self.with_shared(|shared| {
            let directory = durable::open_existing(&shared.blocks)?;
            let failed = |error: Errno| Error::io_at("cannot sync", &shared.blocks, error.into());
            if !durable::sync_filesystem(&directory).map_err(failed)? {
                for algo in Algo::ALL {
                    if shared.directory(algo)?.is_some() {
                        durable::sync_each_file(&shared.blocks.join(algo.name()))?;
                    }
                }
            }
            // The packs may be on another filesystem.
            shared.packs.sync_filesystem()
        })
        .await
    }

    async fn remove_leftovers(&self) -> Result<u64> {
        self.with_shared(|shared| {
            Ok(temporaries::remove_leftovers(&shared.blocks)? + shared.remove_unfinished()?)
        })
        .await
    }

    async fn check_writable(&self) -> Result<()> {
        self.with_shared(|shared| {
            shared.check_directories()?;
            temporaries::check_writable(&shared.blocks)?;
            shared.packs.check_writable()
        })
        .await
    }

    async fn directory_share(&self) -> Result<f64> {
        self.with_shared(|shared| {
            let directories = Algo::ALL.into_iter().map(|algo| shared.blocks.join(algo.name()));
            Ok(directories.map(|path| directory::share(&path)).fold(0.0, f64::max))
        })
        .await
    }

    async fn release_reserve(&self) -> Result<bool> {
        self.with_shared(|shared| reserve::release(&shared.root)).await
    }

    async fn keep_reserve(&self) -> Result<()> {
        self.with_shared(|shared| reserve::keep(&shared.root)).await
    }
}

#[async_trait]
impl Removal for FsBlockStore {
    async fn remove(&self, blocks: &[Aside]) -> Vec<Removed> {
        let (shared, asides) = (Arc::clone(&self.0), blocks.to_vec());
        let removed = blocking::run(move || shared.set_aside(&asides)).await;
        removed.unwrap_or_else(|error| blocks.iter().map(|_| Removed::Kept(error.clone())).collect())
    }
}
