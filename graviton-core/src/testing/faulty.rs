//! A block store that behaves as disks and networks do: it fails now and then, and returns wrong data.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::block::{
    Aside, Asides, Block, BlockStore, Disk, Identity, Listing, OpenPack, Packs, Published, Removal, Removed,
    missing,
};
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::PackName;

/// An operation of a block store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Any of those below.
    Any,
    /// [`BlockStore::put`].
    Put,
    /// [`BlockStore::get`].
    Get,
    /// [`BlockStore::length`] and [`BlockStore::seems_intact`].
    Look,
    /// [`Disk::sync_all`].
    Sync,
    /// [`Removal::remove`] and [`Packs::remove`].
    Remove,
    /// [`Asides::end_removal`].
    EndRemoval,
    /// Any method of [`Identity`].
    Identity,
    /// [`Packs::create`].
    CreatePack,
    /// [`OpenPack::write`](crate::block::OpenPack::write).
    WritePack,
    /// [`OpenPack::sync`](crate::block::OpenPack::sync) and [`Packs::sync`].
    SyncPack,
    /// [`Packs::read`].
    ReadPack,
    /// [`Packs::punch`], which any failure makes impossible.
    Punch,
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error with this code. The first half of a put's blocks is written before.
    Fail(Code),
    /// The whole put is done, and then fails with this code: its answer was lost.
    FailAfter(Code),
    /// A read returns one byte less than requested.
    Short,
    /// A read returns bytes with one wrong bit.
    Flip,
    /// A read finds no block.
    Missing,
    /// A put works, and its answer proves nothing, as if another writer had replaced the blocks since.
    Unproven,
    /// A put waits until the store is mended, and then works.
    Stall,
}

/// A block store over another one that fails at a chosen operation. Clones share one store.
///
/// ```
/// use std::sync::Arc;
/// use graviton_core::{BlockStore, Code, block::memory::MemoryBlockStore};
/// use graviton_core::testing::{Fault, FaultyBlockStore, Operation};
/// # #[tokio::main] async fn main() {
/// let blocks = FaultyBlockStore::new(Arc::new(MemoryBlockStore::new()));
/// blocks.break_at(Operation::Any, 2, Fault::Fail(Code::NoSpace));
/// assert!(blocks.put(Vec::new()).await.is_ok());
/// assert_eq!(blocks.put(Vec::new()).await.unwrap_err().code(), Code::NoSpace);
/// assert!(blocks.put(Vec::new()).await.is_ok());
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyBlockStore {
    inner: Arc<dyn BlockStore>,
    plan: Arc<Mutex<Plan>>,
    mended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Plan {
    fault: Option<Armed>,
    hits: u64,
    mended: u64,
    /// The operations so far: each kind with its count.
    asked: Vec<(Operation, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Armed {
    operation: Operation,
    /// The number of operations of that kind that still succeed.
    left: u64,
    fault: Fault,
    lasting: bool,
}

impl FaultyBlockStore {
    /// A store that works until it is broken.
    pub fn new(inner: Arc<dyn BlockStore>) -> FaultyBlockStore {
        FaultyBlockStore { inner, plan: Arc::default(), mended: Arc::default() }
    }

    /// Breaks the `nth` such operation from now on (1 is the next one), and no other.
    pub fn break_at(&self, operation: Operation, nth: u64, fault: Fault) {
        self.arm(operation, nth, fault, false);
    }

    /// Breaks the `nth` such operation from now on and all later ones, until the store is mended.
    pub fn break_from(&self, operation: Operation, nth: u64, fault: Fault) {
        self.arm(operation, nth, fault, true);
    }

    /// From now on everything works.
    pub fn mend(&self) {
        let mut plan = self.plan();
        plan.fault = None;
        plan.mended += 1;
        drop(plan);
        self.mended.notify_waiters();
    }

    /// The number of operations that were broken so far.
    pub fn hits(&self) -> u64 {
        self.plan().hits
    }

    /// Waits until that many operations were broken.
    pub async fn wait_for_hits(&self, hits: u64) {
        while self.hits() < hits {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The number of such operations so far, broken or not.
    pub fn count(&self, operation: Operation) -> u64 {
        let asked = |(kind, count): &(Operation, u64)| {
            if operation == Operation::Any || operation == *kind { *count } else { 0 }
        };
        self.plan().asked.iter().map(asked).sum()
    }

    fn arm(&self, operation: Operation, nth: u64, fault: Fault, lasting: bool) {
        self.plan().fault = Some(Armed { operation, left: nth.saturating_sub(1), fault, lasting });
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, and returns its fault.
    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.plan();
        match plan.asked.iter_mut().find(|(kind, _)| *kind == operation) {
            Some((_, count)) => *count += 1,
            None => plan.asked.push((operation, 1)),
        }
        let armed = plan.fault.as_mut()?;
        if armed.operation != Operation::Any && armed.operation != operation {
            return None;
        }
        if armed.left > 0 {
            armed.left -= 1;
            return None;
        }
        let fault = armed.fault;
        if !armed.lasting {
            plan.fault = None;
        }
        plan.hits += 1;
        Some(fault)
    }

    async fn stall(&self) {
        let before = self.plan().mended;
        loop {
            // Created before the check, so that it notices everything that happens after it.
            let notified = self.mended.notified();
            if self.plan().mended != before {
                return;
            }
            notified.await;
        }
    }

    /// For operations where only a failure makes sense.
    fn fail(&self, operation: Operation) -> Result<()> {
        match self.next(operation) {
            Some(Fault::Fail(code) | Fault::FailAfter(code)) => Err(failure(code)),
            _ => Ok(()),
        }
    }
}

fn failure(code: Code) -> Error {
    Error::new(code, "the block store was told to fail")
}

impl fmt::Debug for FaultyBlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBlockStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlockStore for FaultyBlockStore {
    async fn put(&self, mut blocks: Vec<Block>) -> Result<Published> {
        match self.next(Operation::Put) {
            Some(Fault::Fail(code)) => {
                blocks.truncate(blocks.len() / 2);
                self.inner.put(blocks).await?;
                Err(failure(code))
            }
            Some(Fault::FailAfter(code)) => {
                self.inner.put(blocks).await?;
                Err(failure(code))
            }
            Some(Fault::Unproven) => {
                self.inner.put(blocks).await?;
                Ok(Published::without_proof())
            }
            Some(Fault::Stall) => {
                self.stall().await;
                self.inner.put(blocks).await
            }
            _ => self.inner.put(blocks).await,
        }
    }

    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        let fault = self.next(Operation::Get);
        if let Some(Fault::Fail(code) | Fault::FailAfter(code)) = fault {
            return Err(failure(code));
        }
        let bytes = self.inner.get(key, range).await?;
        match fault {
            Some(Fault::Missing) => Err(missing(key, "a faulty block store")),
            Some(Fault::Short) => Ok(bytes.slice(..bytes.len().saturating_sub(1))),
            Some(Fault::Flip) => {
                let mut flipped = bytes.to_vec();
                let middle = flipped.len() / 2;
                if let Some(byte) = flipped.get_mut(middle) {
                    *byte ^= 1;
                }
                Ok(flipped.into())
            }
            _ => Ok(bytes),
        }
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        self.fail(Operation::Look)?;
        self.inner.length(key).await
    }

    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        self.fail(Operation::Look)?;
        self.inner.seems_intact(keys).await
    }

    async fn prepare_removal(&self, blocks: &[Aside], valid: Duration) -> Result<Box<dyn Removal>> {
        let inner = self.inner.prepare_removal(blocks, valid).await?;
        Ok(Box::new(FaultyRemoval { store: self.clone(), inner }))
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        self.fail(Operation::Look)?;
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
        Some(Box::new(FaultyAsides { store: self.clone(), inner }))
    }

    fn disk(&self) -> Option<Box<dyn Disk>> {
        let inner = self.inner.disk()?;
        Some(Box::new(FaultyDisk { store: self.clone(), inner }))
    }

    fn packs(&self) -> Option<Arc<dyn Packs>> {
        let inner = self.inner.packs()?;
        Some(Arc::new(FaultyPacks { store: self.clone(), inner }))
    }
}

#[async_trait]
impl Identity for FaultyBlockStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.fail(Operation::Identity)?;
        self.inner.store_id().await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        self.fail(Operation::Identity)?;
        self.inner.create_store_id(id).await
    }

    async fn generation(&self) -> Result<u64> {
        self.fail(Operation::Identity)?;
        self.inner.generation().await
    }

    async fn raise_generation(&self, to: u64) -> Result<()> {
        self.fail(Operation::Identity)?;
        self.inner.raise_generation(to).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        self.fail(Operation::Identity)?;
        self.inner.has_blocks().await
    }
}

struct FaultyAsides {
    store: FaultyBlockStore,
    inner: Box<dyn Asides>,
}

#[async_trait]
impl Asides for FaultyAsides {
    async fn all(&self) -> Result<Vec<Aside>> {
        self.inner.all().await
    }

    async fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()> {
        match self.store.next(Operation::EndRemoval) {
            Some(Fault::Fail(code) | Fault::FailAfter(code)) => return Err(failure(code)),
            Some(Fault::Stall) => self.store.stall().await,
            _ => {}
        }
        self.inner.end_removal(gone, back).await
    }
}

struct FaultyDisk {
    store: FaultyBlockStore,
    inner: Box<dyn Disk>,
}

#[async_trait]
impl Disk for FaultyDisk {
    async fn sync_all(&self) -> Result<()> {
        self.store.fail(Operation::Sync)?;
        self.inner.sync_all().await
    }

    async fn remove_leftovers(&self) -> Result<u64> {
        self.inner.remove_leftovers().await
    }

    async fn check_writable(&self) -> Result<()> {
        self.inner.check_writable().await
    }

    async fn directory_share(&self) -> Result<f64> {
        self.inner.directory_share().await
    }

    async fn release_reserve(&self) -> Result<bool> {
        self.inner.release_reserve().await
    }

    async fn keep_reserve(&self) -> Result<()> {
        self.inner.keep_reserve().await
    }
}

struct FaultyRemoval {
    store: FaultyBlockStore,
    inner: Box<dyn Removal>,
}

#[async_trait]
impl Removal for FaultyRemoval {
    /// A failure first removes half of the blocks, or all of them, and reports none of them as gone.
    async fn remove(&self, blocks: &[Aside]) -> Vec<Removed> {
        let (sent, code) = match self.store.next(Operation::Remove) {
            Some(Fault::Fail(code)) => (&blocks[..blocks.len() / 2], code),
            Some(Fault::FailAfter(code)) => (blocks, code),
            Some(Fault::Stall) => {
                self.store.stall().await;
                return self.inner.remove(blocks).await;
            }
            _ => return self.inner.remove(blocks).await,
        };
        self.inner.remove(sent).await;
        let removed = if self.store.asides().is_some() { Removed::Kept } else { Removed::Unknown };
        blocks.iter().map(|_| removed(failure(code))).collect()
    }
}

#[derive(Debug)]
struct FaultyPacks {
    store: FaultyBlockStore,
    inner: Arc<dyn Packs>,
}

#[async_trait]
impl Packs for FaultyPacks {
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>> {
        self.store.fail(Operation::CreatePack)?;
        let inner = self.inner.create(name, header).await?;
        Ok(Arc::new(FaultyPack { store: self.store.clone(), inner }))
    }

    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        let fault = self.store.next(Operation::ReadPack);
        if let Some(Fault::Fail(code) | Fault::FailAfter(code)) = fault {
            return Err(failure(code));
        }
        let Some(bytes) = self.inner.read(name, range).await? else { return Ok(None) };
        Ok(match fault {
            Some(Fault::Missing) => None,
            Some(Fault::Short) => Some(bytes.slice(..bytes.len().saturating_sub(1))),
            Some(Fault::Flip) => {
                let mut flipped = bytes.to_vec();
                if let Some(byte) = flipped.last_mut() {
                    *byte ^= 1;
                }
                Some(flipped.into())
            }
            _ => Some(bytes),
        })
    }

    async fn length(&self, name: &PackName) -> Result<Option<u64>> {
        self.store.fail(Operation::Look)?;
        self.inner.length(name).await
    }

    async fn sync(&self, name: &PackName) -> Result<()> {
        self.store.fail(Operation::SyncPack)?;
        self.inner.sync(name).await
    }

    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()> {
        self.inner.cut(name, bytes).await
    }

    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<u64> {
        match self.store.next(Operation::Punch) {
            // Some filesystems cannot punch holes.
            Some(Fault::Fail(_)) => Ok(0),
            _ => self.inner.punch(name, ranges).await,
        }
    }

    async fn remove(&self, names: &[PackName]) -> Result<()> {
        self.store.fail(Operation::Remove)?;
        self.inner.remove(names).await
    }

    async fn list(&self) -> Result<Vec<(PackName, u64)>> {
        self.store.fail(Operation::Look)?;
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

#[derive(Debug)]
struct FaultyPack {
    store: FaultyBlockStore,
    inner: Arc<dyn OpenPack>,
}

#[async_trait]
impl OpenPack for FaultyPack {
    /// A failure first writes the first half.
    async fn write(&self, offset: u64, mut parts: Vec<Bytes>) -> Result<()> {
        match self.store.next(Operation::WritePack) {
            Some(Fault::Fail(code)) => {
                parts.truncate(parts.len() / 2);
                self.inner.write(offset, parts).await?;
                Err(failure(code))
            }
            Some(Fault::FailAfter(code)) => {
                self.inner.write(offset, parts).await?;
                Err(failure(code))
            }
            Some(Fault::Stall) => {
                self.store.stall().await;
                self.inner.write(offset, parts).await
            }
            _ => self.inner.write(offset, parts).await,
        }
    }

    async fn sync(&self) -> Result<()> {
        match self.store.next(Operation::SyncPack) {
            Some(Fault::Fail(code) | Fault::FailAfter(code)) => return Err(failure(code)),
            Some(Fault::Stall) => self.store.stall().await,
            _ => {}
        }
        self.inner.sync().await
    }

    fn is_in_doubt(&self) -> bool {
        self.inner.is_in_doubt()
    }
}
