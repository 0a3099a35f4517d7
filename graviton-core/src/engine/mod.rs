//! The engine: [`AsyncStore`], which joins a block store and a manifest repository.
//!
//! ```text
//! write -> small  ┐                    read -> manifest windows, blocks ahead, verified
//!       -> pinned ┴-> commit (grouped)
//! session: blocks that a client cut, by way of pinned
//! delete, collect: what is dead goes    verify, copy: what is wrong is found and mended
//! ```
//! The engine decides what is durable when, and in which order; it is the only one that does. It runs on
//! the tokio runtime of whoever calls it, and its methods never wait on their thread: what takes a few microseconds
//! there (a small blob that is in memory) is done at once, all else elsewhere. The synchronous [`crate::Store`] drives it.

mod buffer;
mod collect;
mod commit;
mod copy;
mod delete;
mod group;
mod latch;
mod lease;
mod pace;
mod pinned;
mod put;
mod read;
mod session;
mod small;
mod verify;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::block::{Block, BlockStore, Published};
use crate::blocking;
use crate::chunker::ChunkerSpec;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{BlobRecord, Connections, Durability, ManifestEntry, ManifestRepo, StoreRecord};
use crate::report::{BlobStat, PutReceipt, StoreStats};

use buffer::Buffers;
use commit::Commits;
use latch::Latch;
use lease::Leases;
use small::Ingest;

pub use collect::GcOptions;
pub use copy::CopyOptions;
pub use put::{AsyncPut, PutOptions};
pub use read::BlobReader;
pub use session::{COMMIT_AHEAD, Session, SessionCommit};
pub use verify::{Damage, Finding, VerifyEvent, VerifyOptions};
pub use write::BlobWriter;
pub(crate) use write::source_failed;

/// What the engine is told, beside where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The algorithm of what is written.
    pub algo: Algo,
    /// How it is cut.
    pub chunker: ChunkerSpec,
    /// What a returned put survives.
    pub durability: Durability,
    /// Whether every block is hashed again before a byte of it is handed out.
    pub verify_reads: bool,
    /// How many bytes of memory a put may use, whatever the blob's size.
    pub window: usize,
    /// How many bytes more puts may use that find them unused, all together.
    pub shared_window: usize,
    /// Whether nothing is to be written.
    pub read_only: bool,
    /// Whether blocks without a `store-id` beside them are taken over.
    pub adopt: bool,
    /// How long a deleted blob is kept, unless a collection is told otherwise.
    pub grace: Duration,
    /// The times that the protocol is built on, the same in every process that shares the database. Not to be changed but
    /// by tests that cannot wait for a minute.
    pub timing: Timing,
}

/// The times that the protocol is built on. The database's clock must not jump by as much as the doom is longer than the
/// last deletion.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For how long a writer counts as alive without a word from it.
    pub lease: Duration,
    /// How often it says so.
    pub renewal: Duration,
    /// For how long nobody pins a block that a collector is about to delete.
    pub doom: Duration,
    /// How long after the doom its last deletion may still be under way.
    pub last_deletion: Duration,
}

impl Timing {
    /// What every store that shares a database uses.
    pub(crate) const USUAL: Timing = Timing {
        lease: Duration::from_secs(60),
        renewal: Duration::from_secs(15),
        doom: Duration::from_secs(60),
        last_deletion: Duration::from_secs(30),
    };
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            algo: Algo::default(),
            chunker: ChunkerSpec::default(),
            durability: Durability::default(),
            verify_reads: true,
            window: 64 << 20,
            shared_window: 0,
            read_only: false,
            adopt: false,
            grace: Duration::from_secs(3_600),
            timing: Timing::USUAL,
        }
    }
}

/// A content-addressed blob store, for tokio.
///
/// Cheap to clone; clones are one store. [`close`](AsyncStore::close) it to leave it tidy; a store that is
/// dropped or whose process dies loses nothing that was committed.
///
/// ```
/// # #[tokio::main] async fn main() -> graviton_core::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// use graviton_core::Config;
/// let store = Config::for_directory(directory.path()).open_async().await?;
/// let put = store.put(&b"hello"[..]).await?;
/// let mut reader = store.reader(&put.id).await?;
/// assert_eq!(reader.next().await?.as_deref(), Some(&b"hello"[..]));
/// store.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AsyncStore(Arc<Engine>);

/// What reading and writing share.
#[derive(Debug)]
struct Core {
    blocks: Arc<dyn BlockStore>,
    manifests: Arc<dyn ManifestRepo>,
    algo: Algo,
    spec: ChunkerSpec,
    chunker_text: Arc<str>,
    durability: Durability,
    verify_reads: bool,
    read_only: bool,
    latch: Latch,
    /// Blocks that were found altered: the next put of them writes them again.
    suspects: Mutex<HashSet<BlockKey>>,
}

/// What was seen of a `store-id` before the database was asked.
pub(crate) enum Seen {
    NotYet,
    Nothing,
    StoreId(String),
}

struct Engine {
    core: Arc<Core>,
    buffers: Arc<Buffers>,
    leases: Leases,
    ingest: Ingest,
    commits: Arc<Commits>,
    /// The random id of the store.
    store_id: String,
    /// The process that opened it: after a fork, the child's copy is not to be used.
    process: u32,
    closed: AtomicBool,
    /// Set once the identity of the block location was established for writing.
    writable: tokio::sync::OnceCell<()>,
    adopt: bool,
    grace: Duration,
    timing: Timing,
}

fn not_found(id: &BlobId) -> Error {
    Error::new(Code::NotFound, format!("there is no blob {id} in this store")).with_advice("check the id")
}

impl AsyncStore {
    /// A store over these two. Checks that they belong together, and writes nothing if the store was
    /// written to before.
    pub async fn new(
        blocks: Arc<dyn BlockStore>,
        manifests: Arc<dyn ManifestRepo>,
        settings: Settings,
    ) -> Result<AsyncStore> {
        AsyncStore::join(blocks, manifests, settings, Seen::NotYet).await
    }

    /// Like [`new`](AsyncStore::new), for who has looked already whose the blocks are.
    pub(crate) async fn join(
        blocks: Arc<dyn BlockStore>,
        manifests: Arc<dyn ManifestRepo>,
        settings: Settings,
        seen: Seen,
    ) -> Result<AsyncStore> {
        let core = Arc::new(Core {
            blocks,
            manifests: Arc::clone(&manifests),
            algo: settings.algo,
            chunker_text: settings.chunker.to_string().into(),
            durability: settings.durability,
            verify_reads: settings.verify_reads,
            read_only: settings.read_only,
            latch: Latch::default(),
            suspects: Mutex::default(),
            spec: settings.chunker,
        });
        let buffers = Arc::new(Buffers::new(core.spec.max_size(), settings.window, settings.shared_window));
        let commits = Arc::new(commit::commits(&core));
        let ingest = small::ingest(&core, &commits);
        let record = core.manifests.store().await?;
        let store = AsyncStore(Arc::new(Engine {
            store_id: record.id.clone(),
            core,
            buffers,
            leases: Leases::new(manifests, settings.timing),
            ingest,
            commits,
            process: std::process::id(),
            closed: AtomicBool::new(false),
            writable: tokio::sync::OnceCell::new(),
            adopt: settings.adopt,
            grace: settings.grace,
            timing: settings.timing,
        }));
        store.0.check_identity(record, seen).await?;
        Ok(store)
    }

    fn engine(&self) -> Result<&Arc<Engine>> {
        if self.0.process != std::process::id() {
            return Err(Error::new(Code::Forked, "this store was opened by the parent process")
                .with_advice("open the store again after the fork"));
        }
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        Ok(&self.0)
    }

    /// A put with options: `store.put_with(&options).bytes(bytes)`, or [`source`](AsyncPut::source),
    /// [`file`](AsyncPut::file), [`writer`](AsyncPut::writer).
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> graviton_core::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = graviton_core::Config::for_directory(directory.path()).open_async().await?;
    /// use graviton_core::{Algo, BlobId, Code, PutOptions};
    /// let expected = PutOptions::new().expect(BlobId::of(Algo::Blake3, b"hello"));
    /// assert!(store.put_with(&expected).source(&b"hello"[..]).await?.created);
    /// assert_eq!(store.put_with(&expected).bytes("jello").await.unwrap_err().code(), Code::DigestMismatch);
    /// # Ok(()) }
    /// ```
    pub fn put_with<'a>(&'a self, options: &'a PutOptions) -> AsyncPut<'a> {
        AsyncPut::new(self, options)
    }

    /// Puts everything that the source gives, with default options.
    pub async fn put(&self, source: impl AsyncRead + Unpin) -> Result<PutReceipt> {
        self.put_with(&PutOptions::new()).source(source).await
    }

    /// Puts these bytes without copying them, with default options; see [`AsyncPut::bytes`].
    pub async fn put_bytes(&self, bytes: impl Into<Bytes>) -> Result<PutReceipt> {
        self.put_with(&PutOptions::new()).bytes(bytes).await
    }

    /// Puts the content of a file, with default options.
    pub async fn put_file(&self, path: impl AsRef<Path>) -> Result<PutReceipt> {
        self.put_with(&PutOptions::new()).file(path).await
    }

    /// A blob to be written piece by piece, with default options.
    pub async fn writer(&self) -> Result<BlobWriter> {
        self.put_with(&PutOptions::new()).writer().await
    }

    /// A blob to be read.
    pub async fn reader(&self, id: &BlobId) -> Result<BlobReader> {
        self.engine()?.core.reader(id).await
    }

    /// These bytes of a blob, as many of them as it has. Touches only the blocks that hold them.
    pub async fn read_range(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes> {
        self.engine()?.core.read_range(id, range).await
    }

    /// What is known of a blob; `not-found` if it is not there.
    pub async fn stat(&self, id: &BlobId) -> Result<BlobStat> {
        self.engine()?.core.stat(id).await?.ok_or_else(|| not_found(id))
    }

    /// Whether the blob is there.
    pub async fn exists(&self, id: &BlobId) -> Result<bool> {
        Ok(self.engine()?.core.stat(id).await?.is_some())
    }

    /// Up to `limit` entries of the blob's manifest, from the one that holds the byte at `from` on. The next
    /// page starts at the [`end`](ManifestEntry::end) of the last entry; behind the end of the blob there
    /// are none.
    pub async fn manifest(&self, id: &BlobId, from: u64, limit: usize) -> Result<Vec<ManifestEntry>> {
        let core = &self.engine()?.core;
        let (record, _) = core.manifests.find(id, 0).await?.ok_or_else(|| not_found(id))?;
        if from >= id.size() {
            return Ok(Vec::new());
        }
        core.manifests.entries(record.row, from, limit).await
    }

    /// Up to `limit` blobs behind `after`, ordered by algorithm, digest and size. The next page starts
    /// behind the last one, whether or not that is deleted meanwhile.
    pub async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobStat>> {
        let records = self.engine()?.core.manifests.list(after, limit).await?;
        Ok(records.into_iter().map(BlobStat::from).collect())
    }

    /// Sums over the store. Costs time proportional to what is stored.
    pub async fn stats(&self) -> Result<StoreStats> {
        let manifests = Arc::clone(&self.engine()?.core.manifests);
        let totals = blocking::aside(async move { manifests.totals().await }).await??;
        Ok(StoreStats {
            blobs: totals.blobs,
            logical_bytes: totals.logical_bytes,
            blocks: totals.blocks,
            stored_bytes: totals.stored_bytes,
            dead_blobs: totals.dead_blobs,
            dead_bytes: totals.dead_bytes,
            reclaimable_bytes: totals.reclaimable_bytes,
        })
    }

    /// Asks the database and the block store something small each: whether they answer, and whether the store takes
    /// writes (`latched` if it does not any more).
    pub async fn ping(&self) -> Result<()> {
        let core = &self.engine()?.core;
        core.latch.check()?;
        let nothing = BlobId::of(core.algo, b"");
        tokio::try_join!(core.manifests.find(&nothing, 0), core.blocks.store_id())?;
        Ok(())
    }

    /// The connections to the database; for SQLite, those that read.
    pub fn connections(&self) -> Connections {
        self.0.core.manifests.connections()
    }

    /// Ends the lease and closes the database in an orderly way. Calls that come later, on any clone, are
    /// `closed`; puts in flight fail.
    pub async fn close(&self) {
        if self.0.process == std::process::id() && !self.0.closed.swap(true, Ordering::AcqRel) {
            self.0.leases.close().await;
            self.0.core.manifests.close().await;
        }
    }
}

impl From<BlobRecord> for BlobStat {
    fn from(record: BlobRecord) -> BlobStat {
        BlobStat {
            id: record.id,
            blocks: record.block_count,
            chunker: record.chunker,
            created_at_ms: record.created_at_ms,
        }
    }
}

impl fmt::Debug for AsyncStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncStore")
            .field("blocks", &self.0.core.blocks)
            .field("manifests", &self.0.core.manifests)
            .finish_non_exhaustive()
    }
}

impl Core {
    fn suspects(&self) -> MutexGuard<'_, HashSet<BlockKey>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stat(&self, id: &BlobId) -> Result<Option<BlobStat>> {
        let found = match self.manifests.find_at_once(id, 0) {
            Some(found) => found,
            None => self.manifests.find(id, 0).await?,
        };
        Ok(found.map(|(record, _)| record.into()))
    }

    /// For blocks whose rows say `stored`: those that are to be written again all the same.
    async fn damaged(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let intact = self.blocks.seems_intact(keys).await?;
        let suspects = self.suspects();
        let damaged = keys.iter().zip(intact).filter(|(key, intact)| !intact || suspects.contains(key));
        Ok(damaged.map(|(key, _)| *key).collect())
    }

    /// Writes blocks, durably. A failed sync latches the store.
    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<Published> {
        self.latch.check()?;
        let keys: Vec<BlockKey> = blocks.iter().map(|block| block.key).collect();
        let published = self.latch.watch(self.blocks.put(blocks).await)?;
        let mut suspects = self.suspects();
        for key in keys {
            suspects.remove(&key);
        }
        Ok(published)
    }
}

impl Engine {
    /// One database, one block location: two databases over one location would collect each other's blocks.
    async fn check_identity(&self, record: StoreRecord, seen: Seen) -> Result<()> {
        let blocks = &self.core.blocks;
        let mut occupied = None;
        let found = match seen {
            Seen::StoreId(id) => Some(id),
            Seen::NotYet => blocks.store_id().await?,
            // Again, now that the record was read: a store that somebody makes at this moment has an id before it has a place.
            Seen::Nothing => {
                let (found, any) = tokio::join!(blocks.store_id(), blocks.has_blocks());
                occupied = Some(any);
                found?
            }
        };
        match found {
            Some(id) if id == record.id => Ok(()),
            Some(_) => Err(Error::new(
                Code::Config,
                format!("the blocks in {} belong to another database", self.core.blocks.location()),
            )
            .with_advice("open them with the database that they were written with (GRAVITON_MANIFEST_URL), or choose another place")),
            None => {
                let location = self.core.blocks.location();
                if !record.block_location.is_empty() && record.block_location != location {
                    return Err(Error::new(
                        Code::Config,
                        format!("this database's blocks are in {}, not in {location}", record.block_location),
                    )
                    .with_advice("configure the place where the blocks are; if they were moved, move the file store-id along"));
                }
                // The id is written before the location is.
                if !record.block_location.is_empty() && !self.adopt {
                    return Err(Error::new(
                        Code::Config,
                        format!("this database's blocks are in {location}, and the store-id that was there is gone"),
                    )
                    .with_advice("check that the disk or bucket is the right one and has not lost its content; if it has, and the rest is to be used all the same, open the store once with adopt"));
                }
                let occupied = match occupied {
                    Some(occupied) => occupied?,
                    None => blocks.has_blocks().await?,
                };
                if occupied && !self.adopt {
                    return Err(Error::new(
                        Code::Config,
                        format!("there are blocks in {location}, and no store-id says whose they are"),
                    )
                    .with_advice("if they are this database's, open the store once with adopt"));
                }
                Ok(())
            }
        }
    }

    /// What only a store that writes has to do, once.
    async fn prepare_to_write(&self) -> Result<()> {
        let core = &self.core;
        core.latch.check()?;
        if core.read_only {
            return Err(Error::new(Code::Forbidden, "the store was opened only to be read")
                .with_advice("open it for writing"));
        }
        let prepared = self
            .writable
            .get_or_try_init(|| async {
                let record = core.manifests.store().await?;
                if core.blocks.create_store_id(&record.id).await? != record.id {
                    // Somebody else was faster.
                    self.check_identity(core.manifests.store().await?, Seen::NotYet).await?;
                }
                let location = core.blocks.location();
                if record.block_location != location {
                    core.manifests.set_block_location(&location).await?;
                }
                // Without it everything works, but on a full disk.
                let _ = core.blocks.keep_reserve().await;
                match (core.durability, record.durability) {
                    (Durability::Full, Durability::Relaxed) => core.make_durable().await,
                    _ => Ok(()),
                }
            })
            .await;
        core.latch.watch(prepared.map(drop))
    }
}
