//! A block store and a manifest repository that kill their own process at the call they are told to.
//!
//! The calls of both that change something are counted together, in the order in which they begin; to die at a read is to
//! die after the change before it. The one that was chosen ends the process, as
//! the system or a `kill -9` would, with nothing flushed and nothing dropped: before it has done anything, in its middle,
//! or once it has taken effect and nobody has seen its answer.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::process::{Signal, getpid, kill_process};

use crate::block::{Block, BlockStore, CollectionLock, Deadline, Deleted, Listing, Published};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::manifest::{
    BlobRecord, BlobRow, BlockRecord, BlockRow, Collection, Commit, Committed, Connections, DeleteBytes,
    Doomed, Durability, GarbagePlan, Known, LookAgain, ManifestEntry, ManifestRepo, Pinned, Restored,
    StoreRecord, Totals, WriterId,
};

/// Where in a call the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was done.
    Before,
    /// Of a put or a deletion of blocks the first half was done. Other calls are as a whole: for them it is as before.
    Middle,
    /// It was done.
    After,
}

/// Counts calls that change something, and kills the process at one of them. The wrappers of one store share it.
#[derive(Debug, Default)]
pub struct Crash(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    at: Option<(u64, Moment)>,
}

impl Crash {
    /// Kills nothing until it is armed.
    pub fn new() -> Arc<Crash> {
        Arc::default()
    }

    /// Kills at the `nth` call from now on, the next of which is 1.
    pub fn arm(&self, nth: u64, moment: Moment) {
        let mut plan = self.plan();
        plan.at = Some((plan.calls + nth, moment));
    }

    /// How many calls have begun.
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call; where in it the process is to die, if it is the one.
    fn begin(&self) -> Option<Moment> {
        let mut plan = self.plan();
        plan.calls += 1;
        let calls = plan.calls;
        plan.at.filter(|(at, _)| *at == calls).map(|(_, moment)| moment)
    }

    /// A call that is done as a whole or not at all.
    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        let moment = self.begin();
        if matches!(moment, Some(Moment::Before | Moment::Middle)) {
            die();
        }
        let answer = call.await;
        if moment.is_some() {
            die();
        }
        answer
    }
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // The signal is there before this thread runs on, or soon after.
    loop {
        std::thread::park();
    }
}

/// A block store over another one, that kills its process.
pub struct CrashingBlockStore {
    inner: Arc<dyn BlockStore>,
    crash: Arc<Crash>,
    deletion_takes: Duration,
}

impl CrashingBlockStore {
    /// `deletion_takes` is said instead of what the inner store says: with short times for dooms, a store that grants a
    /// deletion 10 s would never begin one. Only true where the server is near.
    pub fn new(
        inner: Arc<dyn BlockStore>,
        crash: Arc<Crash>,
        deletion_takes: Duration,
    ) -> CrashingBlockStore {
        CrashingBlockStore { inner, crash, deletion_takes }
    }
}

impl fmt::Debug for CrashingBlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashingBlockStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlockStore for CrashingBlockStore {
    async fn put(&self, mut blocks: Vec<Block>) -> Result<Published> {
        let moment = self.crash.begin();
        match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => blocks.truncate(blocks.len() / 2),
            Some(Moment::After) | None => {}
        }
        let published = self.inner.put(blocks).await;
        if moment.is_some() {
            die();
        }
        published
    }

    async fn delete(&self, keys: &[BlockKey], until: Deadline) -> Vec<Deleted> {
        let moment = self.crash.begin();
        let sent = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => &keys[..keys.len() / 2],
            Some(Moment::After) | None => keys,
        };
        let deleted = self.inner.delete(sent, until).await;
        if moment.is_some() {
            die();
        }
        deleted
    }

    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        self.inner.get(key, range).await
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        self.inner.length(key).await
    }

    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        self.inner.seems_intact(keys).await
    }

    async fn sync_all(&self) -> Result<()> {
        self.crash.around(self.inner.sync_all()).await
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.inner.store_id().await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        self.crash.around(self.inner.create_store_id(id)).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        self.inner.has_blocks().await
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        self.inner.list().await
    }

    async fn remove_leftovers(&self) -> Result<u64> {
        self.crash.around(self.inner.remove_leftovers()).await
    }

    async fn release_reserve(&self) -> Result<bool> {
        self.crash.around(self.inner.release_reserve()).await
    }

    async fn keep_reserve(&self) -> Result<()> {
        self.crash.around(self.inner.keep_reserve()).await
    }

    fn deletion_takes(&self) -> Duration {
        self.deletion_takes
    }

    fn lock_collection(&self, by: Collection) -> Result<Option<CollectionLock>> {
        self.inner.lock_collection(by)
    }

    fn is_collection_gone(&self, by: Collection) -> bool {
        self.inner.is_collection_gone(by)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn place(&self, key: &BlockKey) -> String {
        self.inner.place(key)
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn proves_publication(&self) -> bool {
        self.inner.proves_publication()
    }
}

/// A manifest repository over another one, that kills its process.
pub struct CrashingManifestRepo {
    inner: Arc<dyn ManifestRepo>,
    crash: Arc<Crash>,
}

impl CrashingManifestRepo {
    /// Over this one.
    pub fn new(inner: Arc<dyn ManifestRepo>, crash: Arc<Crash>) -> CrashingManifestRepo {
        CrashingManifestRepo { inner, crash }
    }
}

impl fmt::Debug for CrashingManifestRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashingManifestRepo").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Methods that are one call each.
macro_rules! pass_on {
    (
        changes { $($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+ }
        reads { $($read:ident($($place:ident: $kind:ty),*) -> $found:ty;)+ }
    ) => {
        #[async_trait]
        impl ManifestRepo for CrashingManifestRepo {
            $(async fn $name(&self, $($argument: $type),*) -> $answer {
                self.crash.around(self.inner.$name($($argument),*)).await
            })+

            $(async fn $read(&self, $($place: $kind),*) -> $found {
                self.inner.$read($($place),*).await
            })+

            fn find_at_once(
                &self,
                id: &BlobId,
                entries: usize,
            ) -> Option<Option<(BlobRecord, Vec<ManifestEntry>)>> {
                self.inner.find_at_once(id, entries)
            }

            fn stored_at_once(&self, id: &BlobId, limit: usize) -> Option<Vec<BlockKey>> {
                self.inner.stored_at_once(id, limit)
            }

            fn is_local(&self) -> bool {
                self.inner.is_local()
            }

            fn connections(&self) -> Connections {
                self.inner.connections()
            }
        }
    };
}

pass_on! {
    changes {
        set_block_location(location: &str) -> Result<()>;
        set_durability(durability: Durability) -> Result<()>;
        register_writer(lease: Duration) -> Result<WriterId>;
        renew_writer(writer: WriterId, lease: Duration) -> Result<bool>;
        remove_writer(writer: WriterId) -> Result<()>;
        begin(writer: WriterId, chunker: &str) -> Result<Option<BlobRow>>;
        pin(blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned>;
        mark_stored(blob: BlobRow, blocks: &[BlockRow]) -> Result<bool>;
        abort(blob: BlobRow) -> Result<()>;
        commit(commits: Arc<[Commit]>) -> Result<Vec<Committed>>;
        delete(id: &BlobId) -> Result<bool>;
        restore(id: &BlobId) -> Result<Restored>;
        expire(limit: usize) -> Result<u64>;
        take_names(grace: Duration, limit: usize) -> Result<u64>;
        reap(blob: BlobRow, limit: usize) -> Result<bool>;
        doom(by: Collection, after: BlockRow, limit: usize, lasts: Duration) -> Result<Doomed>;
        sweep(by: Collection, rows: Vec<BlockRow>, delete: Arc<DeleteBytes>) -> Result<Vec<BlockKey>>;
        lift(by: Collection, rows: Vec<BlockRow>) -> Result<()>;
        lift_all(by: Collection) -> Result<()>;
        recheck(block: BlockRow, look: Arc<LookAgain>) -> Result<bool>;
        adopt(keys: Vec<BlockKey>) -> Result<u64>;
        mark_forgotten() -> Result<u64>;
    }
    reads {
        store() -> Result<StoreRecord>;
        known(ids: &[BlobId], keys: &[BlockKey]) -> Result<Known>;
        find(id: &BlobId, entries: usize) -> Result<Option<(BlobRecord, Vec<ManifestEntry>)>>;
        entries(blob: BlobRow, from: u64, limit: usize) -> Result<Vec<ManifestEntry>>;
        list(after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobRecord>>;
        nameless(after: BlobRow, limit: usize) -> Result<Vec<BlobRow>>;
        dooming() -> Result<Vec<(Collection, u64)>>;
        plan_garbage(grace: Duration, limit: usize) -> Result<GarbagePlan>;
        blocks(after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>>;
        blocks_by_key(keys: Vec<BlockKey>) -> Result<Vec<BlockRecord>>;
        blobs_of(block: BlockRow, limit: usize) -> Result<Vec<BlobId>>;
        integrity() -> Result<Vec<String>>;
        backup(to: &Path) -> Result<()>;
        totals() -> Result<Totals>;
        close() -> ();
    }
}
