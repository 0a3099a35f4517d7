//! A block store and a hook for a manifest repository that kill their own process at a chosen call.
//!
//! Both count their changing calls together, in the order in which they begin. Reads do not count: dying at a
//! read is the same as dying after the change before it. The chosen call ends the process, as the system or a
//! `kill -9` would, with nothing flushed and nothing dropped: before it has done anything, in the middle, or
//! once it has taken effect and nobody has seen its answer.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::process::{Signal, getpid, kill_process};

use crate::block::{
    Aside, Asides, Block, BlockStore, Disk, Identity, Listing, OpenPack, Packs, Published, Removal, Removed,
};
use crate::error::Result;
use crate::key::BlockKey;
use crate::manifest::TransactionHook;
use crate::place::PackName;

/// Where in a call the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was done.
    Before,
    /// Of a put or a deletion of blocks the first half was done, of a transaction everything but its commit.
    /// Other calls are done as a whole: for them it is as before.
    Middle,
    /// It was done.
    After,
}

/// Counts calls that change something, and kills the process at one of them. The wrappers of one store share
/// it.
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
}

impl CrashingBlockStore {
    /// Kills when the crash says so.
    pub fn new(inner: Arc<dyn BlockStore>, crash: Arc<Crash>) -> CrashingBlockStore {
        CrashingBlockStore { inner, crash }
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

    async fn prepare_removal(&self, blocks: &[Aside], valid: Duration) -> Result<Box<dyn Removal>> {
        let inner = self.inner.prepare_removal(blocks, valid).await?;
        Ok(Box::new(CrashingRemoval { inner, crash: Arc::clone(&self.crash) }))
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

    async fn list(&self) -> Result<Box<dyn Listing>> {
        self.inner.list().await
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

    fn asides(&self) -> Option<Box<dyn Asides>> {
        let inner = self.inner.asides()?;
        Some(Box::new(CrashingAsides { crash: Arc::clone(&self.crash), inner }))
    }

    fn disk(&self) -> Option<Box<dyn Disk>> {
        let inner = self.inner.disk()?;
        Some(Box::new(CrashingDisk { crash: Arc::clone(&self.crash), inner }))
    }

    fn packs(&self) -> Option<Arc<dyn Packs>> {
        let inner = self.inner.packs()?;
        Some(Arc::new(CrashingPacks { crash: Arc::clone(&self.crash), inner }))
    }
}

#[async_trait]
impl Identity for CrashingBlockStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.inner.store_id().await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        self.crash.around(self.inner.create_store_id(id)).await
    }

    async fn generation(&self) -> Result<u64> {
        self.inner.generation().await
    }

    async fn raise_generation(&self, to: u64) -> Result<()> {
        self.crash.around(self.inner.raise_generation(to)).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        self.inner.has_blocks().await
    }
}

struct CrashingAsides {
    crash: Arc<Crash>,
    inner: Box<dyn Asides>,
}

#[async_trait]
impl Asides for CrashingAsides {
    async fn all(&self) -> Result<Vec<Aside>> {
        self.inner.all().await
    }

    async fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()> {
        let moment = self.crash.begin();
        let (gone, back) = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => (&gone[..gone.len() / 2], &back[..back.len() / 2]),
            Some(Moment::After) | None => (gone, back),
        };
        let ended = self.inner.end_removal(gone, back).await;
        if moment.is_some() {
            die();
        }
        ended
    }
}

struct CrashingDisk {
    crash: Arc<Crash>,
    inner: Box<dyn Disk>,
}

#[async_trait]
impl Disk for CrashingDisk {
    async fn sync_all(&self) -> Result<()> {
        self.crash.around(self.inner.sync_all()).await
    }

    async fn remove_leftovers(&self) -> Result<u64> {
        self.crash.around(self.inner.remove_leftovers()).await
    }

    async fn check_writable(&self) -> Result<()> {
        self.inner.check_writable().await
    }

    async fn directory_share(&self) -> Result<f64> {
        self.inner.directory_share().await
    }

    async fn release_reserve(&self) -> Result<bool> {
        self.crash.around(self.inner.release_reserve()).await
    }

    async fn keep_reserve(&self) -> Result<()> {
        self.crash.around(self.inner.keep_reserve()).await
    }
}

/// A hook for a manifest repository, that kills its process.
pub struct CrashingTransactions {
    crash: Arc<Crash>,
    /// The operation that was chosen, and where in it the process dies.
    chosen: Mutex<Option<(u64, Moment)>>,
}

impl CrashingTransactions {
    /// Counts operations that write as calls of this plan. For [`ManifestRepo::with_hook`].
    ///
    /// [`ManifestRepo::with_hook`]: crate::ManifestRepo::with_hook
    pub fn new(crash: Arc<Crash>) -> CrashingTransactions {
        CrashingTransactions { crash, chosen: Mutex::default() }
    }

    fn chosen(&self) -> MutexGuard<'_, Option<(u64, Moment)>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TransactionHook for CrashingTransactions {
    fn before_begin(&self, _operation: &'static str, number: u64) -> Result<()> {
        match self.crash.begin() {
            Some(Moment::Before) => die(),
            Some(moment) => *self.chosen() = Some((number, moment)),
            None => {}
        }
        Ok(())
    }

    fn before_commit(&self, _operation: &'static str, number: u64) -> Result<()> {
        if *self.chosen() == Some((number, Moment::Middle)) {
            die();
        }
        Ok(())
    }

    fn after_end(&self, _operation: &'static str, number: u64) -> Result<()> {
        // Also one that had nothing to commit, or failed: the process dies in the call that was chosen.
        if self.chosen().is_some_and(|(chosen, _)| chosen == number) {
            die();
        }
        Ok(())
    }
}

struct CrashingRemoval {
    inner: Box<dyn Removal>,
    crash: Arc<Crash>,
}

#[async_trait]
impl Removal for CrashingRemoval {
    async fn remove(&self, blocks: &[Aside]) -> Vec<Removed> {
        let moment = self.crash.begin();
        let sent = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => &blocks[..blocks.len() / 2],
            Some(Moment::After) | None => blocks,
        };
        let removed = self.inner.remove(sent).await;
        if moment.is_some() {
            die();
        }
        removed
    }
}

struct CrashingPacks {
    crash: Arc<Crash>,
    inner: Arc<dyn Packs>,
}

impl fmt::Debug for CrashingPacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrashingPacks").field(&self.inner).finish()
    }
}

#[async_trait]
impl Packs for CrashingPacks {
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>> {
        let inner = self.crash.around(self.inner.create(name, header)).await?;
        Ok(Arc::new(CrashingPack { crash: Arc::clone(&self.crash), inner }))
    }

    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.read(name, range).await
    }

    async fn length(&self, name: &PackName) -> Result<Option<u64>> {
        self.inner.length(name).await
    }

    async fn sync(&self, name: &PackName) -> Result<()> {
        self.crash.around(self.inner.sync(name)).await
    }

    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()> {
        self.crash.around(self.inner.cut(name, bytes)).await
    }

    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<u64> {
        let moment = self.crash.begin();
        let ranges = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => &ranges[..ranges.len() / 2],
            Some(Moment::After) | None => ranges,
        };
        let punched = self.inner.punch(name, ranges).await;
        if moment.is_some() {
            die();
        }
        punched
    }

    async fn remove(&self, names: &[PackName]) -> Result<()> {
        let moment = self.crash.begin();
        let names = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => &names[..names.len() / 2],
            Some(Moment::After) | None => names,
        };
        let removed = self.inner.remove(names).await;
        if moment.is_some() {
            die();
        }
        removed
    }

    async fn list(&self) -> Result<Vec<(PackName, u64)>> {
        self.inner.list().await
    }

    fn place(&self, name: &PackName) -> String {
        self.inner.place(name)
    }

    fn most_bytes(&self) -> u64 {
        self.inner.most_bytes()
    }

    fn grows(&self) -> bool {
        self.inner.grows()
    }
}

struct CrashingPack {
    crash: Arc<Crash>,
    inner: Arc<dyn OpenPack>,
}

impl fmt::Debug for CrashingPack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrashingPack").field(&self.inner).finish()
    }
}

#[async_trait]
impl OpenPack for CrashingPack {
    async fn write(&self, offset: u64, mut parts: Vec<Bytes>) -> Result<()> {
        let moment = self.crash.begin();
        match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => parts.truncate(parts.len() / 2),
            Some(Moment::After) | None => {}
        }
        let written = self.inner.write(offset, parts).await;
        if moment.is_some() {
            die();
        }
        written
    }

    async fn sync(&self) -> Result<()> {
        self.crash.around(self.inner.sync()).await
    }

    fn is_in_doubt(&self) -> bool {
        self.inner.is_in_doubt()
    }
}
