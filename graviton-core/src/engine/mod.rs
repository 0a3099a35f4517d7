//! The engine: [`AsyncStore`], which joins a block store and a manifest repository.
//!
//! ```text
//! put: writer -> small, or pipeline -> pinned      read: manifest windows, blocks fetched ahead, verified
//! session: blocks that a client cut, pinned        delete, collect: unused blobs and blocks are removed
//! verify, copy: damage is found and repaired       core: the base of all of them
//! ```
//! Only the engine decides what is durable, when, and in which order. It runs on the caller's tokio runtime,
//! and its methods never block their thread: work of a few microseconds (a small blob that is in memory) is
//! done at once, everything else on other threads. The synchronous [`crate::Store`] drives it.
//!
//! This file is the facade only: a method checks that the store is open and calls the function that does it.
//!
//! Those functions are `#[boxed]`. Asynchronous code is compiled where its future is known by its type, which
//! is in the program that awaits it. A boxed future is compiled here, once, and not again in each program:
//! the command line takes 21 s to compile so, and took 91.

mod aside;
mod backup;
mod buffer;
mod collect;
mod copy;
mod core;
mod damage;
mod delete;
mod fetch;
mod group;
mod latch;
mod lease;
mod names;
mod owner;
mod pace;
mod pack;
mod put;
mod read;
mod rebuild;
mod remove;
mod repack;
mod session;
mod settings;
mod stat;
mod strays;
mod verify;

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::block::BlockStore;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{Connections, ManifestEntry, ManifestRepo};
use crate::process::Process;
use crate::report::{
    BlobStat, CopyReport, GcReport, PutReceipt, RepackReport, RepairReport, StoreStats, VerifyReport,
};
use core::{Core, Engine};
use lease::Leases;
use put::{commit, small, writer};

pub use collect::GcOptions;
pub use copy::CopyOptions;
pub(crate) use core::Seen;
pub use damage::Damage;
pub use put::options::PutOptions;
pub use put::writer::BlobWriter;
pub(crate) use put::writer::source_failed;
pub use read::BlobReader;
pub use session::{COMMIT_AHEAD, Session, SessionCommit};
pub use settings::{BlockLayout, Settings, Timing};
pub use stat::NEARLY_FULL_DIRECTORY;
pub use verify::{Finding, VerifyEvent, VerifyOptions};

/// A content-addressed blob store, for tokio.
///
/// Cheap to clone; clones are one store. [`close`](AsyncStore::close) ends it cleanly; a store that is
/// dropped or whose process dies loses no committed data.
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
pub struct AsyncStore(Arc<Open>);

struct Open {
    engine: Arc<Engine>,
    /// The process that opened it: after a fork, the child's copy is not to be used.
    process: Process,
    closed: AtomicBool,
}

impl AsyncStore {
    /// A store over these two. Checks that they belong together, and writes nothing if the store was written
    /// to before.
    pub async fn new(
        blocks: Arc<dyn BlockStore>,
        manifests: Arc<ManifestRepo>,
        settings: Settings,
    ) -> Result<AsyncStore> {
        AsyncStore::join(blocks, manifests, settings, Seen::NotYet).await
    }

    /// Like [`new`](AsyncStore::new), for callers that have already read `store-id`.
    #[boxed]
    pub(crate) async fn join(
        blocks: Arc<dyn BlockStore>,
        manifests: Arc<ManifestRepo>,
        settings: Settings,
        seen: Seen,
    ) -> Result<AsyncStore> {
        let record = manifests.store().await?;
        let leases = Arc::new(Leases::new(Arc::clone(&manifests), settings.timing));
        let core = Arc::new(Core::new(blocks, manifests, &leases, &record.id, &settings)?);
        let commits = Arc::new(commit::commits(&core));
        let small_puts = small::small_puts(&core, &commits);
        let engine = Engine::new(core, leases, commits, small_puts, &record, &settings);
        engine.check_identity(record, seen).await?;
        if settings.take_over {
            engine.prepare_to_write().await?;
        }
        let (engine, process) = (Arc::new(engine), Process::this());
        Ok(AsyncStore(Arc::new(Open { engine, process, closed: AtomicBool::new(false) })))
    }

    fn engine(&self) -> Result<&Arc<Engine>> {
        self.0.process.check("this store")?;
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        Ok(&self.0.engine)
    }

    fn core(&self) -> Result<&Arc<Core>> {
        Ok(&self.engine()?.core)
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
        AsyncPut { store: self, options }
    }

    /// Puts all bytes of the source, with default options.
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

    /// Opens a writer for a blob, with default options.
    pub async fn writer(&self) -> Result<BlobWriter> {
        self.put_with(&PutOptions::new()).writer().await
    }

    /// Opens a session that ends this long after its last call; 1 s to a day.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> graviton_core::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = graviton_core::Config::for_directory(directory.path()).open_async().await?;
    /// use graviton_core::{Algo, BlobId, BlockKey, SessionCommit};
    /// use std::time::Duration;
    ///
    /// let (first, second) = (&b"what a client "[..], &b"cut by itself"[..]);
    /// let keys = [BlockKey::of(Algo::Blake3, first)?, BlockKey::of(Algo::Blake3, second)?];
    /// let id = BlobId::of(Algo::Blake3, b"what a client cut by itself");
    ///
    /// let session = store.open_session(Duration::from_secs(600)).await?;
    /// let token = session.token();
    /// let session = store.session(&token)?;               // in another request, on any host
    /// assert_eq!(session.missing(&keys).await?, keys);
    /// session.put_block(&keys[0], first.into()).await?;
    /// session.put_block(&keys[1], second.into()).await?;
    /// assert!(matches!(session.commit(&keys, &id).await?, SessionCommit::Committed(_)));
    /// assert_eq!(&store.read_range(&id, 0..100).await?[..], b"what a client cut by itself");
    /// session.close().await?;
    /// # Ok(()) }
    /// ```
    pub async fn open_session(&self, lifetime: Duration) -> Result<Session> {
        session::open(self.engine()?, lifetime).await
    }

    /// The session with this token, from any store over the same database. An invalid token is
    /// `invalid-argument`; the next call of the session shows whether it is still alive.
    pub fn session(&self, token: &str) -> Result<Session> {
        session::with_token(self.engine()?, token)
    }

    /// Opens a blob for reading.
    pub async fn reader(&self, id: &BlobId) -> Result<BlobReader> {
        read::open(self.core()?, id).await
    }

    /// This range of a blob, cut to its size. Reads only the blocks that contain it.
    pub async fn read_range(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes> {
        read::range(self.core()?, id, range).await
    }

    /// The bytes of a stored block, verified; `not-found` if there is none.
    pub async fn block(&self, key: &BlockKey) -> Result<Bytes> {
        fetch::block(self.core()?, key).await
    }

    /// Whether the block is stored. Unless a session or a blob holds it, it may be collected the next moment.
    pub async fn has_block(&self, key: &BlockKey) -> Result<bool> {
        fetch::has_block(self.core()?, key).await
    }

    /// A blob's size, number of blocks, chunker and time; `not-found` if there is no such blob.
    pub async fn stat(&self, id: &BlobId) -> Result<BlobStat> {
        stat::stat(self.core()?, id).await
    }

    /// Whether the blob exists.
    pub async fn exists(&self, id: &BlobId) -> Result<bool> {
        Ok(stat::find(self.core()?, id).await?.is_some())
    }

    /// Up to `limit` entries of the blob's manifest, starting with the one that contains the byte at `from`.
    /// The next page starts at the [`end`](ManifestEntry::end) of the last entry; beyond the end of the blob
    /// there are none.
    pub async fn manifest(&self, id: &BlobId, from: u64, limit: usize) -> Result<Vec<ManifestEntry>> {
        stat::manifest(self.core()?, id, from, limit).await
    }

    /// Up to `limit` blobs after `after`, ordered by algorithm, digest and size. The next page starts after
    /// the last one, whether or not that is deleted meanwhile.
    pub async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobStat>> {
        stat::list(self.core()?, after, limit).await
    }

    /// Sums over the store. Takes time proportional to the number of blobs and blocks.
    pub async fn stats(&self) -> Result<StoreStats> {
        stat::stats(self.core()?).await
    }

    /// Deletes a blob: once this has returned, no process finds it any more. For the grace, running reads
    /// continue, and [`restore`](AsyncStore::restore) can bring it back. An absent blob is `not-found`.
    ///
    /// The next [`gc`](AsyncStore::gc) after the grace frees its space.
    pub async fn delete(&self, id: &BlobId) -> Result<()> {
        delete::delete(self.engine()?, id).await
    }

    /// Restores a deleted blob, unless a collection has begun with it; within the grace none has. A live blob
    /// stays as it is; an absent or collected one is `not-found`.
    pub async fn restore(&self, id: &BlobId) -> Result<()> {
        delete::restore(self.engine()?, id).await
    }

    /// Deletes unreferenced blocks: those of blobs that were deleted longer than the grace ago, and those of
    /// puts whose process is gone. Any number of collections may run at once, beside all other work. A
    /// collection may be stopped at any moment, by `progress` (called after each step with the work so far)
    /// or by being dropped.
    ///
    /// On a full disk it first releases the space that is reserved for this.
    pub async fn gc(
        &self,
        options: &GcOptions,
        mut progress: impl FnMut(&GcReport) -> ControlFlow<()> + Send,
    ) -> Result<GcReport> {
        collect::gc(self.engine()?, options, &mut progress).await
    }

    /// Moves all stored blocks into packs, or out of them into files of their own, beside all other work.
    /// `progress` may end it; another call continues with the rest. A damaged block is no error: it is marked
    /// as not stored, and counted. Blocks that a running put uses stay where they are, and are counted as
    /// [`remaining`](RepackReport::remaining).
    ///
    /// New blocks go where the store is configured to write them (`GRAVITON_BLOCK_LAYOUT`), independent of a
    /// repack. A store that an older version made must be upgraded first
    /// ([`Config::upgrade`](crate::Config::upgrade)).
    ///
    /// In S3 the objects of moved blocks are deleted. One whose deletion got no answer is counted as
    /// [`kept_failed`](RepackReport::kept_failed) and stays for half an hour; then another repack or a
    /// collection removes it. Until then its block does not move back.
    pub async fn repack(
        &self,
        to: BlockLayout,
        mut progress: impl FnMut(&RepackReport) -> ControlFlow<()> + Send,
    ) -> Result<RepackReport> {
        repack::repack(self.engine()?, to, &mut progress).await
    }

    /// Checks that everything is there and intact, and reports the rest. `tell` may end it early.
    ///
    /// Nothing is changed, except that a bad block is marked as not stored, so that the next put of it writes
    /// it again. A store that was opened read-only, or that may not be written to, is not changed at all.
    pub async fn verify(
        &self,
        options: &VerifyOptions,
        mut tell: impl FnMut(VerifyEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<VerifyReport> {
        verify::verify(self.engine()?, options, &mut tell).await
    }

    /// Copies blobs with their manifests from another store, and verifies every block and each whole blob.
    /// For a blob that already exists here, it checks the length of each block (in S3, a request each), and
    /// copies the missing ones; so an interrupted copy can be called again. A blob that is damaged in the
    /// other store is named in the report, and the others are copied. `progress` may end it.
    pub async fn copy_from(
        &self,
        other: &AsyncStore,
        options: &CopyOptions,
        mut progress: impl FnMut(&CopyReport) -> ControlFlow<()> + Send,
    ) -> Result<CopyReport> {
        copy::copy(self.engine()?, other.core()?, options, &mut progress).await
    }

    /// Checks every block that a live blob needs, and replaces missing and damaged ones by verified blocks of
    /// another store. `progress` may end it.
    pub async fn repair_from(
        &self,
        other: &AsyncStore,
        mut progress: impl FnMut(&RepairReport) -> ControlFlow<()> + Send,
    ) -> Result<RepairReport> {
        copy::repair(self.engine()?, other.core()?, &mut progress).await
    }

    /// Writes a consistent copy of the manifests to a new file, while the store is in use. Only for manifests
    /// in SQLite: elsewhere it is `unsupported`.
    ///
    /// The copy can be read at once. Beside the same blocks, it is refused for writing and collecting until
    /// it is told to [take over](crate::Config::take_over).
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        backup::backup(self.engine()?, to.as_ref().to_owned()).await
    }

    /// Sends a small query to the database and to the block store: checks that they answer, and that the
    /// blocks of this database are there (`config` if not, as when a disk is not mounted).
    pub async fn ping(&self) -> Result<()> {
        stat::ping(self.engine()?).await
    }

    /// Whether a put would be accepted now: the database accepts changes and owns the blocks, and the disk of
    /// the blocks is neither full nor read-only. Waits for a running write in SQLite. For blocks in S3 it
    /// cannot tell whether they may be written.
    pub async fn check_writes(&self) -> Result<()> {
        stat::check_writes(self.engine()?).await
    }

    /// How full the index of the fullest directory of blocks is, as in [`stats`](AsyncStore::stats), without
    /// the rest. Warn from [`NEARLY_FULL_DIRECTORY`] on.
    pub async fn directory_share(&self) -> Result<f64> {
        stat::directory_share(self.core()?).await
    }

    /// The connections to the database; for SQLite, the reading ones.
    pub fn connections(&self) -> Connections {
        self.0.engine.core.manifests.connections()
    }

    /// Ends the lease and closes the database in an orderly way. Later calls, on any clone, are `closed`;
    /// puts in progress fail.
    pub async fn close(&self) {
        if self.0.process.is_this() && !self.0.closed.swap(true, Ordering::AcqRel) {
            if let Some(appender) = &self.0.engine.core.appender {
                appender.close().await;
            }
            self.0.engine.leases.close().await;
            self.0.engine.core.manifests.close().await;
        }
    }
}

impl fmt::Debug for AsyncStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncStore")
            .field("blocks", &self.0.engine.core.blocks)
            .field("manifests", &self.0.engine.core.manifests)
            .finish_non_exhaustive()
    }
}

/// A put that has its options and still needs its content; made by [`AsyncStore::put_with`].
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is put before the content is given"]
pub struct AsyncPut<'a> {
    store: &'a AsyncStore,
    options: &'a PutOptions,
}

impl AsyncPut<'_> {
    /// Puts all bytes of the source.
    pub async fn source(self, source: impl AsyncRead + Unpin) -> Result<PutReceipt> {
        writer::fill(self.writer().await?, source).await
    }

    /// Puts these bytes without copying them. Their owner is kept until the call has ended. If the call fails
    /// or is dropped, they may be kept a moment longer, until the work that was begun is done.
    pub async fn bytes(self, bytes: impl Into<Bytes>) -> Result<PutReceipt> {
        self.writer().await?.put_bytes(bytes.into()).await
    }

    /// Puts the content of a file.
    pub async fn file(self, path: impl AsRef<Path>) -> Result<PutReceipt> {
        let path = path.as_ref().to_owned();
        writer::fill_from_file(self.writer().await?, path).await
    }

    /// Opens a writer for a blob.
    pub async fn writer(self) -> Result<BlobWriter> {
        BlobWriter::open(self.store.engine()?, self.options).await
    }
}
