//! Blocks in memory: for tests, and as the simplest [`BlockStore`].

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Aside, Asides, Block, BlockStore, Disk, Identity, Listed, Listing, Packs, Published, Removal, Removed,
};
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;

/// Blocks in memory. Clones share their blocks; nothing survives the process.
#[derive(Debug, Clone, Default)]
pub struct MemoryBlockStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<BlockKey, Bytes>,
    aside: BTreeMap<Aside, Bytes>,
    store_id: Option<String>,
    generation: u64,
}

impl State {
    fn find(&self, key: &BlockKey) -> Option<&Bytes> {
        let aside = || self.aside.iter().find(|(aside, _)| aside.key == *key).map(|(_, bytes)| bytes);
        self.blocks.get(key).or_else(aside)
    }
}

impl MemoryBlockStore {
    /// An empty store.
    pub fn new() -> MemoryBlockStore {
        MemoryBlockStore::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts any bytes under a key, or takes them away: what a test does to damage a block.
    pub fn damage(&self, key: &BlockKey, bytes: Option<Bytes>) {
        let mut state = self.state();
        match bytes {
            Some(bytes) => state.blocks.insert(*key, bytes),
            None => state.blocks.remove(key),
        };
    }

    /// The keys of all blocks, in order.
    pub fn keys(&self) -> Vec<BlockKey> {
        let mut keys: Vec<_> = self.state().blocks.keys().copied().collect();
        keys.sort();
        keys
    }
}

#[async_trait]
impl BlockStore for MemoryBlockStore {
    async fn put(&self, blocks: Vec<Block>) -> Result<Published> {
        // Copied, so that a test sees what a real store does: it keeps none of the caller's memory.
        let mut state = self.state();
        let mut written = HashMap::new();
        for Block { key, bytes } in blocks {
            let copy = Bytes::copy_from_slice(&bytes);
            written.insert(key, copy.clone());
            state.blocks.insert(key, copy);
        }
        let store = self.clone();
        // The proof keeps what was written, so that nothing else can be at its address.
        Ok(Published::proven_by(move |key| {
            let now = store.state().blocks.get(key).map(|bytes| bytes.as_ptr());
            now.is_some() && now == written.get(key).map(|bytes| bytes.as_ptr())
        }))
    }

    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        let bytes = self.state().find(key).cloned();
        let bytes = bytes.ok_or_else(|| super::missing(key, "memory"))?;
        if bytes.len() != key.size() {
            return Err(super::wrong_length(key, "memory", bytes.len() as u64));
        }
        match range {
            None => Ok(bytes),
            Some(range) if range.start <= range.end && range.end <= bytes.len() => Ok(bytes.slice(range)),
            Some(range) => {
                Err(Error::new(Code::InvalidArgument, format!("block {key} has no range {range:?}")))
            }
        }
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        Ok(self.state().find(key).map(|bytes| bytes.len() as u64))
    }

    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        let state = self.state();
        Ok(keys
            .iter()
            .map(|key| state.blocks.get(key).is_some_and(|bytes| bytes.len() == key.size()))
            .collect())
    }

    fn place(&self, key: &BlockKey) -> String {
        format!("memory:{}", key.name())
    }

    async fn prepare_removal(&self, _blocks: &[Aside], _valid: Duration) -> Result<Box<dyn Removal>> {
        Ok(Box::new(self.clone()))
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        let listed = |(key, bytes): (&BlockKey, &Bytes)| Listed { key: *key, length: bytes.len() as u64 };
        Ok(Box::new(Page(self.state().blocks.iter().map(listed).collect())))
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
        None
    }

    fn packs(&self) -> Option<Arc<dyn Packs>> {
        None
    }
}

#[async_trait]
impl Identity for MemoryBlockStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn store_id(&self) -> Result<Option<String>> {
        Ok(self.state().store_id.clone())
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        Ok(self.state().store_id.get_or_insert_with(|| id.to_owned()).clone())
    }

    async fn generation(&self) -> Result<u64> {
        Ok(self.state().generation)
    }

    async fn raise_generation(&self, to: u64) -> Result<()> {
        let mut state = self.state();
        state.generation = state.generation.max(to);
        Ok(())
    }

    async fn has_blocks(&self) -> Result<bool> {
        let state = self.state();
        Ok(!state.blocks.is_empty() || !state.aside.is_empty())
    }
}

#[async_trait]
impl Asides for MemoryBlockStore {
    async fn all(&self) -> Result<Vec<Aside>> {
        Ok(self.state().aside.keys().copied().collect())
    }

    async fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()> {
        let mut state = self.state();
        for aside in gone {
            state.aside.remove(aside);
        }
        for aside in back {
            let Some(bytes) = state.aside.remove(aside) else { continue };
            // A damaged one replaces nothing.
            if aside.key.algo().digest(&bytes) == *aside.key.digest()
                || !state.blocks.contains_key(&aside.key)
            {
                state.blocks.insert(aside.key, bytes);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Removal for MemoryBlockStore {
    async fn remove(&self, blocks: &[Aside]) -> Vec<Removed> {
        let mut state = self.state();
        let mut remove = |aside: &Aside| {
            let Some(bytes) = state.blocks.remove(&aside.key) else { return Removed::Absent };
            state.aside.insert(*aside, bytes);
            Removed::Gone
        };
        blocks.iter().map(&mut remove).collect()
    }
}

struct Page(Vec<Listed>);

#[async_trait]
impl Listing for Page {
    async fn next(&mut self) -> Result<Vec<Listed>> {
        Ok(std::mem::take(&mut self.0))
    }
}
