//! The synchronous API of the engine: [`Store`], and its reader and writer.
//!
//! Every call drives the engine on the caller's thread until it is done. Errors of `Read`, `Write` and `Seek`
//! contain the [`Error`], which `Error::from(io_error)` returns.

mod in_process;
mod reader;
mod writer;

use std::fmt;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use bytes::Bytes;

use crate::config::Config;
use crate::engine::{
    AsyncStore, BlockLayout, CopyOptions, GcOptions, PutOptions, VerifyEvent, VerifyOptions,
};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::manifest::ManifestEntry;
use crate::report::{
    BlobStat, CopyReport, GcReport, PutReceipt, RepackReport, RepairReport, StoreStats, VerifyReport,
};
use crate::runtime;
use in_process::InProcess;

pub use reader::Reader;
pub use writer::Writer;

/// A content-addressed blob store: streams go in, are cut into blocks that are stored once each, and come
/// back verified.
///
/// `Send + Sync` and cheap to clone; clones are one store. Any number of processes may open one directory
/// at once. [`close`](Store::close) leaves it tidy; dropping the last clone does as much of that as it can
/// without waiting. Either way nothing that was committed is lost.
///
/// After `fork`, a store that the parent opened is `forked` in the child, and does nothing when dropped
/// there. A child may open stores of its own, but not the very SQLite file that its parent had open: that
/// is `forked` too, since SQLite's locks would not hold.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use graviton_core::Store;
/// let store = Store::open(directory.path())?;
/// let put = store.put(&b"some bytes"[..])?;
/// assert_eq!(store.read_range(&put.id, 5..10)?, &b"bytes"[..]);
/// store.close();
/// # Ok::<(), graviton_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    inner: InProcess<AsyncStore>,
}

impl Store {
    /// Opens the store in this directory, with blocks as files and manifests in SQLite; creates it if it is
    /// not there. Everything else is as [`Config`] has it by default.
    pub fn open(directory: impl AsRef<Path>) -> Result<Store> {
        Config::for_directory(directory).open()
    }

    fn new(inner: AsyncStore) -> Store {
        Store { inner: InProcess::new(inner) }
    }

    /// The engine below, for use with tokio.
    pub fn as_async(&self) -> &AsyncStore {
        &self.inner
    }

    fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.inner.check()?;
        runtime::block_on(future)?
    }

    /// A put with options: `store.put_with(&options).bytes(bytes)`, or [`source`](Put::source),
    /// [`file`](Put::file), [`writer`](Put::writer).
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = graviton_core::Store::open(directory.path())?;
    /// use graviton_core::{Algo, BlobId, Code, PutOptions};
    /// let expected = PutOptions::new().expect(BlobId::of(Algo::Blake3, b"hello"));
    /// assert!(store.put_with(&expected).source(&b"hello"[..])?.created);
    /// assert_eq!(store.put_with(&expected).bytes("jello").unwrap_err().code(), Code::DigestMismatch);
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn put_with<'a>(&'a self, options: &'a PutOptions) -> Put<'a> {
        Put { store: self, options }
    }

    /// Puts everything that the source gives, with default options. Nothing is visible before this returns,
    /// and nothing at all if it fails.
    pub fn put(&self, source: impl Read) -> Result<PutReceipt> {
        self.put_with(&PutOptions::new()).source(source)
    }

    /// Puts these bytes without copying them, with default options: the fastest way for bytes in memory; see
    /// [`Put::bytes`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = graviton_core::Store::open(directory.path())?;
    /// let checkpoint: Vec<u8> = vec![7; 10 << 20];
    /// let put = store.put_bytes(checkpoint)?;
    /// assert_eq!(put.id.size(), 10 << 20);
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn put_bytes(&self, bytes: impl Into<Bytes>) -> Result<PutReceipt> {
        self.put_with(&PutOptions::new()).bytes(bytes)
    }

    /// Puts the content of a file, with default options.
    pub fn put_file(&self, path: impl AsRef<Path>) -> Result<PutReceipt> {
        self.put_with(&PutOptions::new()).file(path)
    }

    /// A blob to be written piece by piece, with default options.
    pub fn writer(&self) -> Result<Writer> {
        self.put_with(&PutOptions::new()).writer()
    }

    /// A blob to be read; `not-found` if it is not there.
    pub fn reader(&self, id: &BlobId) -> Result<Reader> {
        let reader = self.run(self.inner.reader(id))?;
        Ok(Reader::new(reader))
    }

    /// These bytes of a blob, as many of them as it has; a range that starts behind the end is
    /// `range-not-satisfiable`. Touches only the blocks that hold them.
    pub fn read_range(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes> {
        self.run(self.inner.read_range(id, range))
    }

    /// A blob's size, number of blocks, chunker and time; `not-found` if it is not there.
    pub fn stat(&self, id: &BlobId) -> Result<BlobStat> {
        self.run(self.inner.stat(id))
    }

    /// Whether the blob is there.
    pub fn exists(&self, id: &BlobId) -> Result<bool> {
        self.run(self.inner.exists(id))
    }

    /// Up to `limit` entries of the blob's manifest, from the one that holds the byte at `from` on. The next
    /// page starts at the [`end`](ManifestEntry::end) of the last entry.
    pub fn manifest(&self, id: &BlobId, from: u64, limit: usize) -> Result<Vec<ManifestEntry>> {
        self.run(self.inner.manifest(id, from, limit))
    }

    /// The bytes of a stored block, verified; `not-found` if there is none. Unless a blob refers to it, it
    /// may be collected the next moment.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = graviton_core::Store::open(directory.path())?;
    /// let put = store.put(&b"of one block"[..])?;
    /// let entries = store.manifest(&put.id, 0, 1)?;
    /// assert_eq!(store.block(&entries[0].key)?, &b"of one block"[..]);
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn block(&self, key: &BlockKey) -> Result<Bytes> {
        self.run(self.inner.block(key))
    }

    /// Up to `limit` blobs behind `after`, ordered by algorithm, digest and size.
    pub fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobStat>> {
        self.run(self.inner.list(after, limit))
    }

    /// Sums over the store. Costs time proportional to what is stored.
    pub fn stats(&self) -> Result<StoreStats> {
        self.run(self.inner.stats())
    }

    /// Deletes a blob: once this has returned, no process finds it any more; `not-found` if it is not there.
    /// It can be [`restore`](Store::restore)d for the grace; its space comes back with the next
    /// [`gc`](Store::gc) after that.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use graviton_core::{Code, Config, GcOptions, Store};
    /// use std::ops::ControlFlow;
    /// use std::time::Duration;
    ///
    /// let store = Store::open(directory.path())?;
    /// let put = store.put(&b"no longer wanted"[..])?;
    /// store.delete(&put.id)?;
    /// assert_eq!(store.delete(&put.id).unwrap_err().code(), Code::NotFound);
    /// store.restore(&put.id)?;
    /// store.delete(&put.id)?;
    /// let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    /// let report = store.gc(&options, |_| ControlFlow::Continue(()))?;
    /// assert_eq!((report.blobs, report.blocks, report.bytes), (1, 1, 16));
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn delete(&self, id: &BlobId) -> Result<()> {
        self.run(self.inner.delete(id))
    }

    /// Brings a deleted blob back, as long as no collection has begun with it: within the grace it is
    /// certain.
    pub fn restore(&self, id: &BlobId) -> Result<()> {
        self.run(self.inner.restore(id))
    }

    /// Deletes what nothing refers to, beside everything else that goes on. `progress` is called after each
    /// step with what was done so far, on this thread, and may end it.
    pub fn gc(
        &self,
        options: &GcOptions,
        progress: impl FnMut(&GcReport) -> ControlFlow<()> + Send,
    ) -> Result<GcReport> {
        self.run(self.inner.gc(options, progress))
    }

    /// Moves all stored blocks into packs, or out of them, beside everything else. `progress` is called on
    /// this thread, and may end it; another call goes on with the rest.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use graviton_core::{BlockLayout, Store};
    /// use std::ops::ControlFlow;
    ///
    /// let store = Store::open(directory.path())?;
    /// let put = store.put(&b"a block that is a file"[..])?;
    /// let report = store.repack(BlockLayout::Packs, |_| ControlFlow::Continue(()))?;
    /// assert_eq!((report.blocks, report.bytes, report.complete), (1, 22, true));
    /// assert_eq!(&store.read_range(&put.id, 0..100)?[..], b"a block that is a file");
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn repack(
        &self,
        to: BlockLayout,
        progress: impl FnMut(&RepackReport) -> ControlFlow<()> + Send,
    ) -> Result<RepackReport> {
        self.run(self.inner.repack(to, progress))
    }

    /// Looks whether everything is there and intact, and tells of what is not, on this thread. `tell` may end
    /// it.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use graviton_core::{Store, VerifyEvent, VerifyOptions};
    /// use std::ops::ControlFlow;
    ///
    /// let store = Store::open(directory.path())?;
    /// store.put(&b"intact"[..])?;
    /// let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    /// let report = store.verify(&options, |event| {
    ///     if let VerifyEvent::Found(finding) = event {
    ///         println!("{finding:?}");
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(report.is_clean() && report.blocks == 1);
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn verify(
        &self,
        options: &VerifyOptions,
        tell: impl FnMut(VerifyEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<VerifyReport> {
        self.run(self.inner.verify(options, tell))
    }

    /// Replaces blocks that are missing or damaged by those of another store, after verifying them.
    pub fn repair_from(
        &self,
        other: &Store,
        progress: impl FnMut(&RepairReport) -> ControlFlow<()> + Send,
    ) -> Result<RepairReport> {
        other.inner.check()?;
        self.run(self.inner.repair_from(&other.inner, progress))
    }

    /// Brings blobs with their manifests from another store, verified; moves only blocks that are missing
    /// here. A call that was interrupted can be repeated.
    pub fn copy_from(
        &self,
        other: &Store,
        options: &CopyOptions,
        progress: impl FnMut(&CopyReport) -> ControlFlow<()> + Send,
    ) -> Result<CopyReport> {
        other.inner.check()?;
        self.run(self.inner.copy_from(&other.inner, options, progress))
    }

    /// Writes a consistent copy of the manifests to a new file, while the store is in use. Only for manifests
    /// in SQLite: elsewhere it is `unsupported`.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        self.run(self.inner.backup(to))
    }

    /// Closes the store in an orderly way and waits for it. Later calls, on any clone, are `closed`.
    pub fn close(&self) {
        let closing = async {
            self.inner.close().await;
            Ok(())
        };
        // A forked child has nothing to close.
        let _ = self.run(closing);
    }
}

/// The ways to open a [`Store`].
impl Config {
    /// Opens the store, and creates it if it does not exist.
    pub fn open(&self) -> Result<Store> {
        runtime::block_on(self.open_async())?.map(Store::new)
    }

    /// Opens an existing store. If there is none, this is `not-found` and creates nothing.
    pub fn open_existing(&self) -> Result<Store> {
        runtime::block_on(self.open_existing_async())?.map(Store::new)
    }

    /// Brings the database of a store that an older version made up to date, so that it can hold packs; false
    /// if it can. An ordinary opening does not do that: programs of the older version that use the store get
    /// an error from then on. As long as one of them puts, it is `backend-unavailable`, and nothing is
    /// changed.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use graviton_core::{Config, Store};
    /// Store::open(directory.path())?.close();
    /// assert!(!Config::for_directory(directory.path()).upgrade()?); // a new store is up to date
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    pub fn upgrade(&self) -> Result<bool> {
        runtime::block_on(self.upgrade_async())?
    }

    /// Opens an existing store for reading only: nothing is written, and its directory may be read-only. If
    /// there is none, this is `not-found`.
    pub fn open_read_only(&self) -> Result<Store> {
        runtime::block_on(self.open_read_only_async())?.map(Store::new)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.inner, f)
    }
}

/// A put that has its options and waits for its content; made by [`Store::put_with`].
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is put before the content is given"]
pub struct Put<'a> {
    store: &'a Store,
    options: &'a PutOptions,
}

impl Put<'_> {
    /// Puts everything that the source gives. Nothing is visible before this returns, and nothing at all if
    /// it fails.
    pub fn source(self, source: impl Read) -> Result<PutReceipt> {
        self.writer()?.fill(source)
    }

    /// Puts these bytes without copying them. Their owner is held until this returns. If it fails or
    /// is ended, they may be held a moment longer, until the work that was begun is done.
    pub fn bytes(self, bytes: impl Into<Bytes>) -> Result<PutReceipt> {
        self.store.run(self.store.inner.put_with(self.options).bytes(bytes))
    }

    /// Puts the content of a file.
    pub fn file(self, path: impl AsRef<Path>) -> Result<PutReceipt> {
        self.store.run(self.store.inner.put_with(self.options).file(path))
    }

    /// A blob to be written piece by piece.
    pub fn writer(self) -> Result<Writer> {
        let writer = self.store.run(self.store.inner.put_with(self.options).writer())?;
        Ok(Writer::new(writer))
    }
}
