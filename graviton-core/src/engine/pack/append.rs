//! Appending to the pack that this open store is writing.
//!
//! Puts of many tasks share the pack and its syncs. A pack that is full is sealed once all that was written
//! to it is marked or given up; the last one is sealed when the store is closed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::task::JoinSet;

use crate::block::pack::record::{self, Header};
use crate::block::{Block, OpenPack, Packs};
use crate::blocking;
use crate::engine::group::{Group, Limits};
use crate::engine::latch::Latch;
use crate::engine::lease::{Lease, Leases};
use crate::error::{Code, Error, Result};
use crate::manifest::{Durability, HeldPack, ManifestRepo};
use crate::place::{Codec, PackName, PackRow, Place};

/// No pack grows longer, but for its last record.
const MOST_BYTES: u64 = 64 << 20;

/// Up to so many bytes are encoded where they are: it takes less time than handing them to another thread.
const ENCODE_HERE: u64 = 64 << 10;

/// Puts that share a sync.
const TOGETHER: usize = 256;

/// How long a store that is closed waits for puts that did not end. A pack that is not sealed by then is left
/// to the next collection.
const CLOSING: Duration = Duration::from_secs(5);

static PADDING: [u8; record::ALIGNMENT as usize] = [0; record::ALIGNMENT as usize];

/// Appends blocks to packs of this open store.
pub(in crate::engine) struct Appender {
    packs: Arc<dyn Packs>,
    manifests: Arc<ManifestRepo>,
    leases: Arc<Leases>,
    latch: Arc<Latch>,
    durability: Durability,
    store_id: Arc<str>,
    current: tokio::sync::Mutex<Option<Arc<OwnPack>>>,
    /// Packs that are full, or whose lease is over, and that are sealed when nothing of them is under way.
    retired: Mutex<JoinSet<()>>,
    syncs: Group<Arc<OwnPack>, Result<()>>,
    closed: AtomicBool,
}

/// A pack that this store writes.
struct OwnPack {
    held: HeldPack,
    name: PackName,
    lease: Arc<Lease>,
    file: Arc<dyn OpenPack>,
    /// Where the next record begins.
    end: AtomicU64,
    /// Held for reading by everything that is under way.
    uses: Arc<RwLock<()>>,
}

/// Blocks that are in packs, durably, and not yet marked. As long as this is kept, the packs are not sealed.
#[derive(Debug, Default)]
pub(in crate::engine) struct Appended {
    /// The places, in the order of the blocks, and who holds the packs.
    pub(in crate::engine) places: Vec<(Place, HeldPack)>,
    uses: Vec<OwnedRwLockReadGuard<()>>,
}

impl Appended {
    /// Takes these blocks behind its own.
    pub(in crate::engine) fn extend(&mut self, other: Appended) {
        self.places.extend(other.places);
        self.uses.extend(other.uses);
    }
}

/// A part of a pack that nobody else writes.
struct Reserved {
    pack: Arc<OwnPack>,
    offset: u64,
    /// How many of the records have room there.
    records: usize,
    using: OwnedRwLockReadGuard<()>,
}

impl Appender {
    pub(in crate::engine) fn new(
        packs: Arc<dyn Packs>,
        manifests: Arc<ManifestRepo>,
        leases: Arc<Leases>,
        latch: Arc<Latch>,
        durability: Durability,
        store_id: &str,
    ) -> Appender {
        Appender {
            packs,
            manifests,
            leases,
            latch,
            durability,
            store_id: store_id.into(),
            current: tokio::sync::Mutex::new(None),
            retired: Mutex::default(),
            syncs: Group::new(|_| 1, Limits { weight: TOGETHER, batches: 1 }, sync_each),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether this store is writing the pack.
    pub(in crate::engine) async fn is_writing(&self, pack: PackRow) -> bool {
        self.current.lock().await.as_ref().is_some_and(|own| own.held.pack == pack)
    }

    /// Appends the blocks, and returns once they are durable to the degree that the store was opened with.
    pub(in crate::engine) async fn append(self: &Arc<Self>, blocks: Vec<Block>) -> Result<Appended> {
        self.append_synced(blocks, self.durability == Durability::Full).await
    }

    /// Appends the blocks, and returns once they are durable, if they are to be.
    pub(in crate::engine) async fn append_synced(
        self: &Arc<Self>,
        blocks: Vec<Block>,
        synced: bool,
    ) -> Result<Appended> {
        let appender = Arc::clone(self);
        let work = async move { appender.append_all(blocks, synced).await };
        // A call that is dropped leaves no write behind that nobody waits for. On a thread that may block,
        // the write ends before the call can be dropped.
        if blocking::may_block_here() { work.await } else { blocking::joined(tokio::spawn(work).await)? }
    }

    async fn append_all(&self, blocks: Vec<Block>, synced: bool) -> Result<Appended> {
        let mut appended = Appended::default();
        let mut touched: Vec<Arc<OwnPack>> = Vec::new();
        let mut rest = blocks;
        while !rest.is_empty() {
            let sizes: Vec<u64> =
                rest.iter().map(|block| record::record_size(block.key.size() as u32)).collect();
            let Reserved { pack, offset, records, using } = self.reserve(&sizes).await?;
            let later = rest.split_off(records);
            let now = std::mem::replace(&mut rest, later);
            let mut at = offset;
            for block in &now {
                let stored_size = block.key.size() as u32;
                let place = Place {
                    pack: pack.held.pack,
                    name: pack.name,
                    offset: at,
                    stored_size,
                    codec: Codec::Raw,
                };
                appended.places.push((place, pack.held));
                at += record::record_size(stored_size);
            }
            let parts = if at - offset <= ENCODE_HERE {
                encode(now)
            } else {
                blocking::run(move || encode(now)).await?
            };
            pack.file.write(offset, parts).await?;
            appended.uses.push(using);
            touched.push(pack);
        }
        if synced {
            for synced in self.syncs.join_all(touched).await? {
                synced?;
            }
        }
        Ok(appended)
    }

    /// Finds room for the first of records of these sizes, and for as many more as follow it there.
    async fn reserve(&self, sizes: &[u64]) -> Result<Reserved> {
        let mut current = self.current.lock().await;
        let first = sizes.first().copied().unwrap_or_default();
        let is_usable = |pack: &OwnPack| {
            pack.lease.check().is_ok() && pack.end.load(Ordering::Relaxed) + first <= MOST_BYTES
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
            if records > 0 && end + size > MOST_BYTES {
                break;
            }
            end += size;
            records += 1;
        }
        let using = Arc::clone(&pack.uses).try_read_owned();
        let using =
            using.map_err(|_| Error::new(Code::Internal, "a pack is sealed that is being written"))?;
        pack.end.store(end, Ordering::Relaxed);
        Ok(Reserved { pack, offset, records, using })
    }

    /// Makes a pack: its row first, synced in every mode, so that no file is without one.
    async fn create(&self) -> Result<OwnPack> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        let name = PackName::random()?;
        let (lease, pack) = self.leases.insert_pack(&name).await?;
        let file = self.packs.create(&name, record::pack_header(&self.store_id, &name)).await?;
        Ok(OwnPack {
            held: HeldPack { pack, writer: lease.writer() },
            name,
            lease,
            file,
            end: AtomicU64::new(record::HEADER),
            uses: Arc::default(),
        })
    }

    /// Seals a pack in a while.
    fn retire(&self, pack: Arc<OwnPack>) {
        let (packs, manifests) = (Arc::clone(&self.packs), Arc::clone(&self.manifests));
        let latch = Arc::clone(&self.latch);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        while retired.try_join_next().is_some() {}
        retired.spawn(async move {
            // Waits for everything that is under way.
            let _alone = pack.uses.write().await;
            // If it fails, the next collection does it.
            let _ = latch.watch(pack.seal(&*packs, &manifests).await);
        });
    }

    /// Seals what this store has written. Puts that go on fail.
    pub(in crate::engine) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
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
    /// Seals it, in every mode after a sync: a sealed pack is relied on without a look at its bytes.
    async fn seal(&self, packs: &dyn Packs, manifests: &ManifestRepo) -> Result<()> {
        self.file.sync().await?;
        let end = self.end.load(Ordering::Relaxed);
        if manifests.seal_own(self.held, end).await? {
            packs.cut(&self.name, end).await?;
        }
        Ok(())
    }
}

/// One sync of each pack; the answers are in the order of the members.
async fn sync_each(members: Vec<Arc<OwnPack>>) -> Vec<Result<()>> {
    let mut done: Vec<(PackRow, Result<()>)> = Vec::new();
    let mut answers = Vec::with_capacity(members.len());
    for member in members {
        let pack = member.held.pack;
        let known = done.iter().find(|(synced, _)| *synced == pack).map(|(_, result)| result.clone());
        answers.push(if let Some(result) = known {
            result
        } else {
            let result = member.file.sync().await;
            done.push((pack, result.clone()));
            result
        });
    }
    answers
}

/// The bytes of the blocks' records.
fn encode(blocks: Vec<Block>) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(3 * blocks.len());
    for block in blocks {
        let header = Header::of(block.key, Codec::Raw, &block.bytes).encode();
        let padding =
            record::record_size(block.bytes.len() as u32) - record::HEADER - block.bytes.len() as u64;
        parts.push(Bytes::copy_from_slice(&header));
        parts.push(block.bytes);
        parts.push(Bytes::from_static(&PADDING[..padding as usize]));
    }
    parts
}
