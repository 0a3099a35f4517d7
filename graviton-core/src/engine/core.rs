//! The base of all parts of the engine: [`Core`], which reads and writes blocks and rows, and [`Engine`],
//! which adds the groups and buffers that puts share and the identity of the store.
//!
//! One database, one block location: two databases over one location would collect each other's blocks. So
//! the id of the database is stored beside the blocks (`store-id`), and is compared before anything is
//! written or collected.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::aside;
use super::buffer::Buffers;
use super::group::Group;
use super::latch::Latch;
use super::lease::Leases;
use super::owner::Owner;
use super::pack::append::{Appended, Appender};
use super::pack::read;
use super::put::blob::{Small, SmallBlob};
use super::settings::{BlockLayout, Settings, Timing};
use crate::block::{Block, BlockStore, Packs, Published};
use crate::chunker::ChunkerSpec;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{Commit, Committed, Durability, HeldPack, ManifestRepo, StoreRecord};
use crate::place::{Located, PackName, Place};

/// The most requests for lengths of blocks at once.
const LOOKS: usize = 32;

/// The part that reading and writing share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) blocks: Arc<dyn BlockStore>,
    pub(super) manifests: Arc<ManifestRepo>,
    pub(super) algo: Algo,
    pub(super) spec: ChunkerSpec,
    pub(super) chunker_text: Arc<str>,
    pub(super) durability: Durability,
    pub(super) verify_reads: bool,
    pub(super) read_only: bool,
    pub(super) latch: Arc<Latch>,
    pub(super) packs: Option<Arc<dyn Packs>>,
    /// Writes blocks into packs, if the store has packs.
    pub(super) appender: Option<Arc<Appender>>,
    layout: BlockLayout,
    /// Blocks that a read found altered: the next put of them writes them again.
    suspects: Mutex<HashSet<BlockKey>>,
}

/// The last step of every put: the rows of several blobs become live in one transaction.
pub(super) type Commits = Group<Commit, Result<Committed>>;

/// Small blobs that are put together.
pub(super) type SmallPuts = Group<Arc<SmallBlob>, Result<Small>>;

/// An open store.
pub(super) struct Engine {
    pub(super) core: Arc<Core>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) leases: Arc<Leases>,
    pub(super) commits: Arc<Commits>,
    pub(super) small_puts: SmallPuts,
    /// The random id of the store.
    pub(super) store_id: String,
    pub(super) grace: Duration,
    pub(super) timing: Timing,
    pub(super) owner: Owner,
    adopt: bool,
    /// Set once the identity of the block location is established for writing.
    writable: OnceCell<()>,
}

/// The `store-id` beside the blocks, as known before the database is queried.
pub(crate) enum Seen {
    /// Nobody has looked for it.
    NotYet,
    /// There was no `store-id`.
    Nothing,
    StoreId(String),
}

/// A block whose row says `stored`, and where it is.
pub(super) type StoredBlock = (BlockKey, Option<Located>);

fn in_no_pack(blocks: &[StoredBlock]) -> impl Iterator<Item = BlockKey> {
    blocks.iter().filter(|(_, located)| located.is_none()).map(|(key, _)| *key)
}

fn no_packs_here(location: &str) -> Error {
    Error::new(Code::Config, format!("GRAVITON_BLOCK_LAYOUT=packs: there are no packs in {location}"))
        .with_advice("use files there; packs are for blocks on a filesystem or in S3")
}

fn too_old_for_packs() -> Error {
    Error::new(Code::Config, "GRAVITON_BLOCK_LAYOUT=packs: an older version made this store, without packs")
        .with_advice("end the programs that use it, and run graviton upgrade (in Rust: Config::upgrade)")
}

/// The error for an absent blob.
pub(super) fn not_found(id: &BlobId) -> Error {
    Error::new(Code::NotFound, format!("there is no blob {id} in this store")).with_advice("check the id")
}

impl Core {
    pub(super) fn new(
        blocks: Arc<dyn BlockStore>,
        manifests: Arc<ManifestRepo>,
        leases: &Arc<Leases>,
        store_id: &str,
        settings: &Settings,
    ) -> Result<Core> {
        let (packs, latch) = (blocks.packs(), Arc::<Latch>::default());
        if settings.layout == BlockLayout::Packs {
            if packs.is_none() {
                return Err(no_packs_here(&blocks.location()));
            }
            if !manifests.has_packs() && !settings.read_only {
                return Err(too_old_for_packs());
            }
        }
        let appender = packs.as_ref().filter(|_| manifests.has_packs()).map(|packs| {
            let (packs, latch) = (Arc::clone(packs), Arc::clone(&latch));
            let (manifests, leases) = (Arc::clone(&manifests), Arc::clone(leases));
            let how = (settings.durability, settings.compression);
            Appender::new(packs, manifests, leases, latch, how, store_id)
        });
        Ok(Core {
            layout: settings.layout,
            packs,
            appender,
            blocks,
            manifests,
            algo: settings.algo,
            chunker_text: settings.chunker.to_string().into(),
            durability: settings.durability,
            verify_reads: settings.verify_reads,
            read_only: settings.read_only,
            latch,
            suspects: Mutex::default(),
            spec: settings.chunker.clone(),
        })
    }

    /// The appender, if new blocks go into packs.
    pub(super) fn new_blocks(&self) -> Option<&Arc<Appender>> {
        self.appender.as_ref().filter(|_| self.layout == BlockLayout::Packs)
    }

    /// Whether packs are objects, where every check of one is a request.
    pub(super) fn has_objects_of_packs(&self) -> bool {
        self.packs.as_ref().is_some_and(|packs| !packs.grows())
    }

    fn suspects(&self) -> MutexGuard<'_, HashSet<BlockKey>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a read found the block altered.
    pub(super) fn suspect(&self, key: BlockKey) {
        self.suspects().insert(key);
    }

    /// The blocks whose rows say `stored` and that a put must write again nevertheless.
    pub(super) async fn damaged(&self, blocks: &[StoredBlock]) -> Result<Vec<BlockKey>> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let named: Vec<BlockKey> = in_no_pack(blocks).collect();
        let intact = if named.is_empty() { Vec::new() } else { self.blocks.seems_intact(&named).await? };
        let mut damaged: Vec<BlockKey> =
            named.into_iter().zip(intact).filter(|(_, intact)| !intact).map(|(key, _)| key).collect();
        for (key, located) in blocks {
            if let Some(located) = located
                && !self.has_objects_of_packs()
                && !self.is_intact_in_pack(key, located).await?
            {
                damaged.push(*key);
            }
        }
        let suspects = self.suspects();
        damaged.extend(blocks.iter().map(|(key, _)| *key).filter(|key| suspects.contains(key)));
        Ok(damaged)
    }

    /// Whether a put may rely on the record. In a pack that is neither sealed nor the store's own, the whole
    /// record is verified: its maker may have been a relaxed store that a power cut ended.
    async fn is_intact_in_pack(&self, key: &BlockKey, located: &Located) -> Result<bool> {
        let packs = self.packs(key)?;
        let own = match &self.appender {
            Some(appender) if !located.is_sealed => appender.is_writing(located.place.pack).await,
            _ => false,
        };
        let looked = if located.is_sealed || own {
            read::look(&**packs, key, &located.place).await
        } else {
            read::verified(&**packs, key, &located.place).await.map(drop)
        };
        match looked {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.code(), Code::MissingBlock | Code::CorruptBlock) => Ok(false),
            // A sector that cannot be read, or a file that this user may not read.
            Err(error) if self.blocks.is_local() && matches!(error.code(), Code::Io | Code::Forbidden) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The packs, for a block that is in one.
    pub(super) fn packs(&self, key: &BlockKey) -> Result<&Arc<dyn Packs>> {
        self.packs.as_ref().ok_or_else(|| read::no_packs(key))
    }

    /// The whole block, or this range of one that is under its own name; the digest is not compared.
    pub(super) async fn get(
        &self,
        key: &BlockKey,
        located: Option<&Located>,
        range: Option<Range<usize>>,
    ) -> Result<Bytes> {
        let Some(located) = located else { return self.blocks.get(key, range).await };
        let bytes = read::payload(&**self.packs(key)?, key, &located.place, self.verify_reads).await?;
        Ok(range.map_or_else(|| bytes.clone(), |range| bytes.slice(range)))
    }

    /// The place of the block, whether it exists or not, for messages.
    pub(super) fn place(&self, key: &BlockKey, located: Option<&Located>) -> String {
        match (located, &self.packs) {
            (Some(Located { place, .. }), Some(packs)) => {
                format!("the record at {} in {}", place.offset, packs.place(&place.name))
            }
            _ => self.blocks.place(key),
        }
    }

    /// Like [`damaged`](Core::damaged), but checks the length of each block even if that is a request.
    pub(super) async fn damaged_at_a_closer_look(&self, blocks: &[StoredBlock]) -> Result<Vec<BlockKey>> {
        let mut damaged = self.damaged(blocks).await?;
        if self.blocks.is_local() {
            return Ok(damaged);
        }
        let keys: Vec<BlockKey> = in_no_pack(blocks).collect();
        let looking = futures_util::stream::iter(keys).map(|key| {
            let blocks = Arc::clone(&self.blocks);
            async move {
                let length = blocks.length(&key).await?;
                Ok::<_, Error>((key, length == Some(key.size() as u64)))
            }
        });
        let found: Vec<(BlockKey, bool)> = looking.buffer_unordered(LOOKS).try_collect().await?;
        damaged.extend(found.into_iter().filter(|(_, intact)| !intact).map(|(key, _)| key));
        damaged.extend(self.damaged_in_objects(blocks).await?);
        Ok(damaged)
    }

    /// The blocks whose packs are gone or too short, found with one request for each pack.
    async fn damaged_in_objects(&self, blocks: &[StoredBlock]) -> Result<Vec<BlockKey>> {
        let placed: Vec<(BlockKey, Place)> =
            blocks.iter().filter_map(|(key, located)| Some((*key, located.as_ref()?.place))).collect();
        let names: BTreeSet<PackName> = placed.iter().map(|(_, place)| place.name).collect();
        let Some(packs) = self.packs.as_ref().filter(|_| !names.is_empty()) else { return Ok(Vec::new()) };
        let looking = futures_util::stream::iter(names).map(|name| {
            let packs = Arc::clone(packs);
            async move { Ok::<_, Error>((name, packs.length(&name).await?.unwrap_or_default())) }
        });
        let lengths: HashMap<PackName, u64> = looking.buffer_unordered(LOOKS).try_collect().await?;
        let is_cut_off = |place: &Place| lengths[&place.name] < read::end_of(place);
        Ok(placed.into_iter().filter(|(_, place)| is_cut_off(place)).map(|(key, _)| key).collect())
    }

    /// Writes blocks, durably. A failed sync latches the store.
    pub(super) async fn put_blocks(&self, blocks: Vec<Block>) -> Result<Published> {
        self.latch.check()?;
        let keys: Vec<BlockKey> = blocks.iter().map(|block| block.key).collect();
        let published = self.latch.watch(self.blocks.put(blocks).await)?;
        self.trust(&keys);
        Ok(published)
    }

    /// Writes blocks into packs, durably. A failed write or sync latches the store.
    pub(super) async fn append_blocks(
        &self,
        appender: &Arc<Appender>,
        blocks: Vec<Block>,
    ) -> Result<Appended> {
        self.latch.check()?;
        let keys: Vec<BlockKey> = blocks.iter().map(|block| block.key).collect();
        let result = appender.append(blocks).await?;
        self.trust(&keys);
        Ok(result)
    }

    /// Abandons packs that this store was found not to hold any more.
    pub(super) async fn forget_packs(&self, packs: &[HeldPack]) {
        if let Some(appender) = self.appender.as_ref().filter(|_| !packs.is_empty()) {
            appender.forget(packs).await;
        }
    }

    fn trust(&self, keys: &[BlockKey]) {
        let mut suspects = self.suspects();
        for key in keys {
            suspects.remove(key);
        }
    }

    /// Makes a store durable that was written to with `relaxed`. It syncs before it records that, and again
    /// for blocks that were written in between.
    pub(super) async fn make_durable(&self) -> Result<()> {
        self.latch.watch(self.sync_blocks().await)?;
        self.latch.watch(self.manifests.set_durability(Durability::Full).await)?;
        self.latch.watch(self.sync_blocks().await)
    }

    async fn sync_blocks(&self) -> Result<()> {
        match self.blocks.disk() {
            Some(disk) => disk.sync_all().await,
            // Each answer of a server means that the block is durable.
            None => Ok(()),
        }
    }

    /// Fails if the store takes no writes.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.latch.check()?;
        if self.read_only {
            return Err(Error::new(Code::Forbidden, "the store was opened only to be read")
                .with_advice("open it for writing"));
        }
        Ok(())
    }

    /// Whether the error is a full disk and the space that is reserved for deletions could be freed.
    pub(super) async fn makes_room(&self, error: &Error) -> bool {
        let (Code::NoSpace, Some(disk)) = (error.code(), self.blocks.disk()) else { return false };
        if let Some(appender) = &self.appender {
            appender.make_room().await;
        }
        disk.release_reserve().await.unwrap_or(false)
    }

    /// Errors are ignored: only a full disk needs the reserve.
    pub(super) async fn keep_reserve(&self) {
        if let Some(disk) = self.blocks.disk() {
            let _ = disk.keep_reserve().await;
        }
    }

    /// Whether every process that uses the store is on this host.
    pub(super) fn is_on_one_host(&self) -> bool {
        self.manifests.is_local() && self.blocks.is_local()
    }
}

impl Engine {
    /// The store of this `record`. Its identity is not checked yet.
    pub(super) fn new(
        core: Arc<Core>,
        leases: Arc<Leases>,
        commits: Arc<Commits>,
        small_puts: SmallPuts,
        record: &StoreRecord,
        settings: &Settings,
    ) -> Engine {
        let (blocks, manifests) = (Arc::clone(&core.blocks), Arc::clone(&core.manifests));
        Engine {
            owner: Owner::new(blocks, manifests, settings.take_over, settings.timing.generation),
            buffers: Arc::new(Buffers::new(core.spec.max_size(), settings.window, settings.shared_window)),
            leases,
            core,
            commits,
            small_puts,
            store_id: record.id.clone(),
            grace: settings.grace,
            timing: settings.timing,
            adopt: settings.adopt,
            writable: OnceCell::new(),
        }
    }

    /// Fails unless the blocks belong to the database whose record this is.
    pub(super) async fn check_identity(&self, record: StoreRecord, seen: Seen) -> Result<()> {
        let blocks = &self.core.blocks;
        let mut occupied = None;
        let found = match seen {
            Seen::StoreId(id) => Some(id),
            Seen::NotYet => blocks.store_id().await?,
            // Looked up again now that the record was read: a store that is being created writes its id
            // before its location.
            Seen::Nothing => {
                let (found, any) = tokio::join!(blocks.store_id(), blocks.has_blocks());
                occupied = Some(any);
                found?
            }
        };
        let location = || blocks.location();
        match found {
            Some(id) if id == record.id => return Ok(()),
            Some(_) => {
                let why = format!("the blocks in {} belong to another database", location());
                return Err(wrong_place(
                    why,
                    "open them with the database that they were written with (GRAVITON_MANIFEST_URL), or choose another place",
                ));
            }
            None => {}
        }
        if !record.block_location.is_empty() && record.block_location != location() {
            let why =
                format!("this database's blocks are in {}, not in {}", record.block_location, location());
            return Err(wrong_place(
                why,
                "configure the place where the blocks are; if they were moved, move the file store-id along",
            ));
        }
        // The id is written before the location is.
        if !record.block_location.is_empty() && !self.adopt {
            return Err(store_id_gone(&location()));
        }
        let occupied = match occupied {
            Some(occupied) => occupied?,
            None => blocks.has_blocks().await?,
        };
        if occupied && !self.adopt {
            // Another process may have created the store meanwhile. It writes the id before its first block.
            if blocks.store_id().await?.as_deref() == Some(record.id.as_str()) {
                return Ok(());
            }
            let why = format!("there are blocks in {}, and no store-id says whose they are", location());
            return Err(wrong_place(
                why,
                "if they are this database's, open the store once with adopt (on the command line: graviton verify --adopt)",
            ));
        }
        Ok(())
    }

    /// Does once what only a writing store needs.
    pub(super) async fn prepare_to_write(&self) -> Result<()> {
        let core = &self.core;
        core.check_writable()?;
        let prepared = self.writable.get_or_try_init(|| self.establish_identity()).await;
        core.latch.watch(prepared.map(drop))?;
        self.check_owner().await
    }

    /// Fails if the database is a copy of the one that owns the blocks.
    pub(super) async fn check_owner(&self) -> Result<()> {
        self.core.latch.watch(self.owner.check().await)
    }

    /// The same check, repeated during long work.
    pub(super) async fn check_owner_again(&self) -> Result<()> {
        self.core.latch.watch(self.owner.check_generation().await)
    }

    async fn establish_identity(&self) -> Result<()> {
        let core = &self.core;
        let record = core.manifests.store().await?;
        let location = core.blocks.location();
        let is_recorded = record.block_location == location;
        if is_recorded {
            self.owner.check().await?;
            // The id was there when the store was opened. A disk that was unmounted since gets no new one.
            if !self.adopt && core.blocks.store_id().await?.is_none() {
                return Err(store_id_gone(&location));
            }
        }
        if core.blocks.create_store_id(&record.id).await? != record.id {
            // Another process was faster.
            self.check_identity(core.manifests.store().await?, Seen::NotYet).await?;
        }
        if !is_recorded {
            self.owner.record().await?;
        }
        // No put relies on it: a file that could not be moved must not prevent puts.
        if let Err(error) = aside::tidy(&core.blocks, &core.manifests).await
            && error.code() == Code::Io
        {
            return Err(error);
        }
        core.keep_reserve().await;
        match (core.durability, record.durability) {
            (Durability::Full, Durability::Relaxed) => core.make_durable().await,
            _ => Ok(()),
        }
    }
}

fn store_id_gone(location: &str) -> Error {
    wrong_place(
        format!("this database's blocks are in {location}, and the store-id that was there is gone"),
        "check that the disk or bucket is the right one and has not lost its content; if it has, and the rest is to be used all the same, open the store once with adopt (on the command line: graviton verify --adopt)",
    )
}

fn wrong_place(why: String, advice: &str) -> Error {
    Error::new(Code::Config, why).with_advice(advice)
}
