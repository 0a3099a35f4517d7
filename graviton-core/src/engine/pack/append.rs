//! Appends to the pack that this open store is writing.
//!
//! Puts of many tasks share the pack and its syncs. A full pack is sealed once all that was written to it is
//! marked or abandoned; the last one is sealed when the store is closed.
//!
//! If packs are objects, a sync sends the whole pack, and the next block goes to another one. A put sends its
//! blocks at once. While [`MOST_SENDS`] packs are being sent, later puts gather in the next one.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock, watch};
use tokio::task::JoinSet;

use crate::block::pack::Compression;
use crate::block::pack::DOUBT;
use crate::block::pack::compress;
use crate::block::pack::record::{self, Header};
use crate::block::{Block, OpenPack, Packs};
use crate::blocking;
use crate::engine::group::{Group, Limits};
use crate::engine::latch::Latch;
use crate::engine::lease::{Lease, Leases, expired};
use crate::error::{Code, Error, Result};
use crate::manifest::{Durability, HeldPack, ManifestRepo};
use crate::place::{PackName, PackRow, Place};

/// Batches of up to this many bytes are encoded on the calling thread, which takes less time than handing
/// them to another one.
const ENCODE_HERE: u64 = 64 << 10;

/// The most puts that share a sync, and the most that share a pack that is sent.
const TOGETHER: usize = 1_024;
const TOGETHER_SENT: usize = 4_096;

/// The most packs that are sent at once.
const MOST_SENDS: usize = 4;

/// How long a store that is closed waits for unfinished puts. A pack that is not sealed by then is left to
/// the next collection.
const CLOSING: Duration = Duration::from_secs(5);

static PADDING: [u8; record::ALIGNMENT as usize] = [0; record::ALIGNMENT as usize];

/// Appends blocks to packs of this open store.
pub(in crate::engine) struct Appender {
    packs: Arc<dyn Packs>,
    manifests: Arc<ManifestRepo>,
    leases: Arc<Leases>,
    latch: Arc<Latch>,
    durability: Durability,
    compression: Compression,
    store_id: Arc<str>,
    current: tokio::sync::Mutex<Option<Arc<OwnPack>>>,
    /// Packs that are full, or whose lease is over. They are sealed when none of their records is in
    /// progress.
    retired: Mutex<JoinSet<()>>,
    syncs: Group<Arc<OwnPack>, Result<()>>,
    closed: watch::Sender<bool>,
}

/// A pack that this store writes.
struct OwnPack {
    held: HeldPack,
    lease: Arc<Lease>,
    file: Arc<dyn OpenPack>,
    /// The offset of the next record.
    end: AtomicU64,
    /// Set by the first sync that fails: the system reports a failed write only once, and a later sync that
    /// succeeds proves nothing.
    failed: OnceLock<Error>,
    /// Held for reading by all work that is not yet marked.
    uses: Arc<RwLock<()>>,
    /// Held for reading by writes.
    writes: Arc<RwLock<()>>,
    /// The outcome of sending the pack, if it is an object.
    sent: OnceCell<Result<()>>,
}

/// Blocks that are durably in packs and not yet marked. While this is kept, the packs are not sealed.
#[derive(Debug, Default)]
pub(in crate::engine) struct Appended {
    /// The places, in the order of the blocks, and the writers that hold the packs.
    pub(in crate::engine) places: Vec<(Place, HeldPack)>,
    uses: Vec<OwnedRwLockReadGuard<()>>,
}

impl Appended {
    /// The packs that the blocks are in, each once.
    pub(in crate::engine) fn packs(&self) -> Vec<HeldPack> {
        HeldPack::each_once(self.places.iter().map(|(_, held)| *held))
    }

    /// Appends these blocks to its own.
    pub(in crate::engine) fn extend(&mut self, other: Appended) {
        self.places.extend(other.places);
        self.uses.extend(other.uses);
    }
}

/// A part of a pack that is reserved for one writer.
struct Reserved {
    pack: Arc<OwnPack>,
    offset: u64,
    /// The number of records that fit there.
    records: usize,
    using: OwnedRwLockReadGuard<()>,
    /// Kept until the bytes are written.
    writing: OwnedRwLockReadGuard<()>,
}

impl Appender {
    pub(in crate::engine) fn new(
        packs: Arc<dyn Packs>,
        manifests: Arc<ManifestRepo>,
        leases: Arc<Leases>,
        latch: Arc<Latch>,
        (durability, compression): (Durability, Compression),
        store_id: &str,
    ) -> Arc<Appender> {
        let limits = if packs.grows() {
            Limits { weight: TOGETHER, batches: 1 }
        } else {
            Limits { weight: TOGETHER_SENT, batches: MOST_SENDS }
        };
        Arc::new_cyclic(|this: &Weak<Appender>| Appender {
            packs,
            manifests,
            leases,
            latch,
            durability,
            compression,
            store_id: store_id.into(),
            current: tokio::sync::Mutex::new(None),
            retired: Mutex::default(),
            syncs: Group::new(|_| 1, limits, {
                let this = Weak::clone(this);
                move |batch| {
                    let this = this.upgrade();
                    async move {
                        match this {
                            Some(this) => this.sync_each(batch).await,
                            None => batch.iter().map(|_| Err(closed())).collect(),
                        }
                    }
                }
            }),
            closed: watch::Sender::new(false),
        })
    }

    /// Whether this store is writing the pack.
    pub(in crate::engine) async fn is_writing(&self, pack: PackRow) -> bool {
        self.current.lock().await.as_ref().is_some_and(|own| own.held.pack == pack)
    }

    /// Appends the blocks, and returns once they are durable to the degree that the store was opened with.
    pub(in crate::engine) async fn append(self: &Arc<Self>, blocks: Vec<Block>) -> Result<Appended> {
        self.append_synced(blocks, self.durability == Durability::Full).await
    }

    /// Appends the blocks, and returns once they are durable, if requested. An I/O error latches the store.
    pub(in crate::engine) async fn append_synced(
        self: &Arc<Self>,
        blocks: Vec<Block>,
        synced: bool,
    ) -> Result<Appended> {
        let appender = Arc::clone(self);
        let work = async move { appender.latch.watch(appender.append_all(blocks, synced).await) };
        // A dropped call leaves no write behind that nobody waits for. On a thread that may block, the write
        // ends before the call can be dropped.
        if blocking::may_block_here() { work.await } else { blocking::joined(tokio::spawn(work).await)? }
    }

    /// Abandons a pack that this store was found not to hold any more. Later blocks go to another one.
    pub(in crate::engine) async fn forget(&self, packs: &[HeldPack]) {
        if let Some(pack) = self.current.lock().await.take_if(|pack| packs.contains(&pack.held)) {
            self.retire(pack);
        }
    }

    /// Releases the space that is reserved behind the records, and ends the pack: the disk is full.
    pub(in crate::engine) async fn make_room(&self) {
        if let Some(pack) = self.current.lock().await.take() {
            pack.cut_tail(&*self.packs).await;
            self.retire(pack);
        }
    }

    async fn append_all(&self, blocks: Vec<Block>, synced: bool) -> Result<Appended> {
        let mut appended = Appended::default();
        let mut touched: Vec<Arc<OwnPack>> = Vec::new();
        let bytes: u64 = blocks.iter().map(|block| block.key.size() as u64).sum();
        let compression = self.compression;
        let mut rest = if bytes <= ENCODE_HERE {
            encode(compression, blocks)
        } else {
            blocking::run(move || encode(compression, blocks)).await?
        };
        while !rest.is_empty() {
            let sizes: Vec<u64> = rest.iter().map(Record::size).collect();
            let Reserved { pack, offset, records, using, writing } = self.reserve(&sizes).await?;
            let later = rest.split_off(records);
            let mut at = offset;
            let mut parts = Vec::with_capacity(3 * records);
            for record in std::mem::replace(&mut rest, later) {
                let Header { codec, stored_size, .. } = record.header;
                let place =
                    Place { pack: pack.held.pack, name: pack.held.name, offset: at, stored_size, codec };
                appended.places.push((place, pack.held));
                at += record.size();
                record.write_to(&mut parts);
            }
            if let Err(error) = pack.file.write(offset, parts).await {
                drop(writing);
                self.leave(pack, offset..at).await;
                return Err(error);
            }
            drop(writing);
            appended.uses.push(using);
            touched.push(pack);
        }
        // An unsent object would not outlive this process.
        if synced || !self.packs.grows() {
            for synced in self.syncs.join_all(touched).await? {
                synced?;
            }
        }
        Ok(appended)
    }

    /// Ends a pack after a failed write. None of its offsets is written again, and the space that the write
    /// took on a full disk is released.
    async fn leave(&self, pack: Arc<OwnPack>, wrote: Range<u64>) {
        let mut current = self.current.lock().await;
        if pack.end.load(Ordering::Relaxed) == wrote.end {
            pack.end.store(wrote.start, Ordering::Relaxed);
            pack.cut_tail(&*self.packs).await;
        } else {
            // Other writes follow behind it.
            let _ = self.packs.punch(&pack.held.name, &[wrote]).await;
        }
        if let Some(pack) = current.take_if(|own| own.held == pack.held) {
            self.retire(pack);
        }
    }

    /// Reserves room for the first of the records of these sizes, and for as many more as fit after it.
    async fn reserve(&self, sizes: &[u64]) -> Result<Reserved> {
        let mut current = self.current.lock().await;
        let first = sizes.first().copied().unwrap_or_default();
        let most_bytes = self.packs.most_bytes();
        let is_usable = |pack: &OwnPack| {
            pack.lease.check().is_ok()
                && pack.failed.get().is_none()
                && pack.end.load(Ordering::Relaxed) + first <= most_bytes
        };
        if let Some(pack) = current.take_if(|pack| !is_usable(pack)) {
            self.retire(pack);
        }
        let pack = match &*current {
            Some(pack) => Arc::clone(pack),
            None => Arc::clone(current.insert(Arc::new(self.create().await?))),
        };
        let offset = pack.end.load(Ordering::Relaxed);
        let (mut end, mut records) = (offset, 0);
        for size in sizes {
            if records > 0 && end + size > most_bytes {
                break;
            }
            end += size;
            records += 1;
        }
        // Taken before another call can take the pack to seal or send it.
        let held = |lock: &Arc<RwLock<()>>| {
            let held = Arc::clone(lock).try_read_owned();
            held.map_err(|_| Error::new(Code::Internal, "a pack is sealed that is being written"))
        };
        let (using, writing) = (held(&pack.uses)?, held(&pack.writes)?);
        pack.end.store(end, Ordering::Relaxed);
        Ok(Reserved { pack, offset, records, using, writing })
    }

    /// Creates a pack: its row first, synced in every mode, so that no file is without one.
    async fn create(&self) -> Result<OwnPack> {
        if *self.closed.borrow() {
            return Err(closed());
        }
        let name = PackName::random()?;
        let header = record::pack_header(&self.store_id, &name)?;
        let (lease, pack) = self.leases.insert_pack(&name).await?;
        let held = HeldPack { pack, writer: lease.writer(), name };
        let file = match self.packs.create(&name, header).await {
            Ok(file) => file,
            Err(error) => {
                // If that fails too, a collection finds the row when the lease is over.
                let _ = self.manifests.give_up_pack(pack).await;
                return Err(error);
            }
        };
        // An object does not exist yet.
        if self.packs.grows() {
            self.check_held(held).await?;
        }
        Ok(OwnPack {
            held,
            lease,
            file,
            end: AtomicU64::new(record::HEADER),
            failed: OnceLock::new(),
            uses: Arc::default(),
            writes: Arc::default(),
            sent: OnceCell::new(),
        })
    }

    /// Removes a pack that was just created, if this store does not hold it any more: after a pause longer
    /// than the lease, a collection may have forgotten it before it existed.
    async fn check_held(&self, held: HeldPack) -> Result<()> {
        if self.manifests.is_held(held).await? {
            return Ok(());
        }
        self.packs.remove(&[held.name]).await?;
        Err(expired())
    }

    /// Seals a pack once none of its records is in progress; in a closed store, once nothing is being written
    /// to it.
    fn retire(&self, pack: Arc<OwnPack>) {
        let (packs, manifests) = (Arc::clone(&self.packs), Arc::clone(&self.manifests));
        let (latch, mut closed) = (Arc::clone(&self.latch), self.closed.subscribe());
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        while retired.try_join_next().is_some() {}
        retired.spawn(async move {
            tokio::select! {
                _ = pack.uses.write() => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            let _alone = pack.writes.write().await;
            // If it fails, the next collection seals it.
            let _ = latch.watch(pack.seal(&*packs, &manifests).await);
        });
    }

    /// One sync of each pack; the answers are in the order of the members.
    async fn sync_each(&self, members: Vec<Arc<OwnPack>>) -> Vec<Result<()>> {
        let mut done: Vec<(PackRow, Result<()>)> = Vec::new();
        let mut answers = Vec::with_capacity(members.len());
        for member in members {
            let pack = member.held.pack;
            let known = done.iter().find(|(synced, _)| *synced == pack).map(|(_, result)| result.clone());
            answers.push(if let Some(result) = known {
                result
            } else {
                let result = if self.packs.grows() { member.sync().await } else { self.send(&member).await };
                done.push((pack, result.clone()));
                result
            });
        }
        answers
    }

    /// Sends a pack that is an object, once: later blocks go to another one.
    async fn send(&self, pack: &Arc<OwnPack>) -> Result<()> {
        if let Some(pack) = self.current.lock().await.take_if(|own| own.held == pack.held) {
            self.retire(pack);
        }
        let sending = async {
            // Waits for writes that began before.
            let _alone = pack.writes.write().await;
            pack.lease.check()?;
            pack.sync().await?;
            self.check_held(pack.held).await
        };
        pack.sent.get_or_init(|| sending).await.clone()
    }

    /// Seals the packs that this store has written. Running puts fail.
    pub(in crate::engine) async fn close(&self) {
        self.closed.send_replace(true);
        if let Some(pack) = self.current.lock().await.take() {
            self.retire(pack);
        }
        let mut retired = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::time::timeout(CLOSING, async { while retired.join_next().await.is_some() {} }).await;
    }
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender").field("packs", &self.packs).finish_non_exhaustive()
    }
}

impl OwnPack {
    /// Truncates the pack after its last record. If that fails, only space is lost.
    async fn cut_tail(&self, packs: &dyn Packs) {
        let _ = packs.cut(&self.held.name, self.end.load(Ordering::Relaxed)).await;
    }

    async fn sync(&self) -> Result<()> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        self.file.sync().await.inspect_err(|error| drop(self.failed.set(error.clone())))
    }

    /// Seals the pack, in every mode after a sync: puts rely on a sealed pack without a check of its bytes.
    async fn seal(&self, packs: &dyn Packs, manifests: &ManifestRepo) -> Result<()> {
        if packs.grows() {
            self.sync().await?;
        } else if !matches!(self.sent.get(), Some(Ok(()))) {
            // The object may be in transit for a while. A collection finds it when the lease is over.
            return Ok(());
        }
        let end = self.end.load(Ordering::Relaxed);
        let in_doubt = if self.file.is_in_doubt() { DOUBT } else { Duration::ZERO };
        if manifests.seal_own(self.held, end, in_doubt).await? {
            packs.cut(&self.held.name, end).await?;
        }
        Ok(())
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the store is closed")
}

/// A block as a record.
struct Record {
    header: Header,
    payload: Bytes,
}

impl Record {
    /// The bytes that it takes.
    fn size(&self) -> u64 {
        record::record_size(self.header.stored_size)
    }

    fn write_to(self, parts: &mut Vec<Bytes>) {
        let padding = self.size() - record::HEADER - self.payload.len() as u64;
        parts.push(Bytes::copy_from_slice(&self.header.encode()));
        parts.push(self.payload);
        parts.push(Bytes::from_static(&PADDING[..padding as usize]));
    }
}

fn encode(compression: Compression, blocks: Vec<Block>) -> Vec<Record> {
    let record = |Block { key, bytes }| {
        let (codec, payload) = compress::encode(compression, &bytes);
        Record { header: Header::of(key, codec, &payload), payload }
    };
    blocks.into_iter().map(record).collect()
}
