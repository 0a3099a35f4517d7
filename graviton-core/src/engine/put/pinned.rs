//! A put of any size: a pending blob pins its blocks, which are then written, marked and committed.
//!
//! 1. *Begin*: a blob row, pending, under the store's lease.
//! 2. *Pin*, batch by batch: references to the blocks. From here on no collector deletes them.
//! 3. *Store* durably the blocks whose rows do not say `stored`, several batches at a time; then mark them.
//! 4. *Commit*: the row becomes live. The last marks go with it.
//!
//! A put that fails or is dropped marks its row deleted. If its process dies, the collector marks it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::blob::SmallBlob;
use crate::block::Block;
use crate::blocking;
use crate::engine::core::{Core, Engine, StoredBlock};
use crate::engine::lease::{Lease, expired};
use crate::engine::pack::append::Appended;
use crate::engine::settings::Timing;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{BlobRow, Commit, Committed, HeldPack, ManifestEntry, Mark, Pinned, PinnedBlock};
use crate::report::PutReceipt;

/// The blocks of one pin: one round trip of the database, in a transaction that stays short.
pub(crate) const PIN_BLOCKS: usize = 256;

/// How long a put waits for a deletion of the object of one of its blocks. Usually the deletion is done by
/// then; if not, it got no answer.
const DOOM_TIMEOUT: Duration = Duration::from_secs(20);

/// No doom lasts longer; if the database says so, its clock was ahead.
const LONGEST_DOOM: Duration = Timing::USUAL.doom;

/// A put in progress.
pub(crate) struct PinnedPut {
    core: Arc<Core>,
    lease: Arc<Lease>,
    row: BlobRow,
    writes: JoinSet<Result<(Vec<Written>, Appended)>>,
    /// Blocks that are written or being written by this put and not yet marked stored.
    unmarked: HashSet<BlockKey>,
    marks: Vec<Written>,
    /// Keeps the packs of the marks from being sealed.
    appended: Appended,
    blocks: u64,
    fresh_blocks: u64,
    fresh_bytes: u64,
    /// The stored size of the blocks that are marked, or about to be.
    fresh_stored_bytes: u64,
    settled: bool,
    /// Whether the put checks stored blocks even if that costs a request each.
    looks_closer: bool,
}

impl PinnedPut {
    pub(crate) async fn begin(engine: &Engine) -> Result<PinnedPut> {
        PinnedPut::begin_cut_by(engine, &engine.core.chunker_text).await
    }

    /// For blocks that were cut elsewhere, with this setting.
    pub(crate) async fn begin_cut_by(engine: &Engine, chunker: &str) -> Result<PinnedPut> {
        let core = &engine.core;
        let (lease, row) = core.latch.watch(engine.leases.begin(chunker).await)?;
        Ok(PinnedPut::under(core, &lease, row))
    }

    /// A put whose row was begun under this lease.
    pub(crate) fn under(core: &Arc<Core>, lease: &Arc<Lease>, row: BlobRow) -> PinnedPut {
        PinnedPut {
            core: Arc::clone(core),
            lease: Arc::clone(lease),
            row,
            writes: JoinSet::new(),
            unmarked: HashSet::new(),
            marks: Vec::new(),
            appended: Appended::default(),
            blocks: 0,
            fresh_blocks: 0,
            fresh_bytes: 0,
            fresh_stored_bytes: 0,
            settled: false,
            looks_closer: false,
        }
    }

    /// The same put, which checks each block before it relies on it.
    pub(crate) fn looking_closer(mut self, looks_closer: bool) -> PinnedPut {
        self.looks_closer = looks_closer;
        self
    }

    /// A part of a put, which continues after it, whatever the outcome of the part.
    pub(crate) fn resume(core: &Arc<Core>, lease: &Arc<Lease>, row: BlobRow) -> PinnedPut {
        let mut put = PinnedPut::under(core, lease, row);
        put.settled = true;
        put
    }

    /// Pins these blocks and starts to write the missing ones.
    pub(crate) async fn add(&mut self, entries: &[ManifestEntry], bytes: &[Bytes]) -> Result<()> {
        let pinned = self.pin_missing(entries).await?;
        self.store(entries, &pinned, bytes).await
    }

    /// Pins these blocks. Those that are not usable have to be stored: they are missing or damaged.
    pub(crate) async fn pin_missing(&mut self, entries: &[ManifestEntry]) -> Result<Vec<PinnedBlock>> {
        let mut waiting = Waiting::new();
        loop {
            let pinned = self.pin_and_look(entries).await?;
            let in_the_way =
                pinned.iter().filter(|block| !block.is_usable()).filter_map(|block| block.doomed);
            // A block that is damaged in a pack, and its name is doomed.
            let Some(remaining) = in_the_way.max().filter(|_| self.core.new_blocks().is_none()) else {
                return Ok(pinned);
            };
            // It pins them again.
            self.blocks -= entries.len() as u64;
            waiting.wait(&self.core, remaining).await?;
        }
    }

    async fn pin_and_look(&mut self, entries: &[ManifestEntry]) -> Result<Vec<PinnedBlock>> {
        let mut pinned = self.pin(entries).await?;
        let stored: Vec<StoredBlock> = entries
            .iter()
            .zip(&pinned)
            .filter(|(_, block)| block.stored)
            .map(|(entry, block)| (entry.key, block.located))
            .collect();
        let damaged = if self.looks_closer {
            self.core.damaged_at_a_closer_look(&stored).await?
        } else {
            self.core.damaged(&stored).await?
        };
        let damaged: HashSet<BlockKey> = damaged.into_iter().collect();
        for (entry, block) in entries.iter().zip(&mut pinned) {
            block.damaged = damaged.contains(&entry.key);
        }
        Ok(pinned)
    }

    /// Starts to write the pinned blocks that are not usable.
    pub(crate) async fn store(
        &mut self,
        entries: &[ManifestEntry],
        pinned: &[PinnedBlock],
        bytes: &[Bytes],
    ) -> Result<()> {
        let mut named = Fresh::default();
        let mut packed = Fresh::default();
        for ((entry, block), bytes) in entries.iter().zip(pinned).zip(bytes) {
            let key = entry.key;
            if !block.is_usable() && self.unmarked.insert(key) {
                self.fresh_blocks += 1;
                self.fresh_bytes += key.size() as u64;
                // A damaged file is replaced in place. A file under a doomed name would not last.
                let is_file = block.stored && block.located.is_none();
                let has_packs = self.core.new_blocks().is_some();
                if let Some(remaining) = block.doomed.filter(|_| !has_packs) {
                    return Err(doomed(remaining));
                }
                let into_pack = block.doomed.is_some() || has_packs && !is_file;
                let fresh = if into_pack { &mut packed } else { &mut named };
                fresh.blocks.push(Block { key, bytes: bytes.clone() });
                let found = block.located.filter(|_| block.stored).map(|located| located.place);
                fresh.marks.push((key, Mark { row: block.row, place: None, found }));
            }
        }
        if !named.blocks.is_empty() {
            let core = Arc::clone(&self.core);
            self.writes.spawn(async move {
                core.put_blocks(named.blocks).await?;
                let written = |(key, mark)| Written { key, mark, held: None };
                Ok((named.marks.into_iter().map(written).collect(), Appended::default()))
            });
        }
        if let Some(appender) = self.core.new_blocks().filter(|_| !packed.blocks.is_empty()) {
            let (core, to) = (Arc::clone(&self.core), Arc::clone(appender));
            self.writes.spawn(async move {
                let appended = core.append_blocks(&to, packed.blocks).await?;
                let places = packed.marks.into_iter().zip(&appended.places);
                let written = places.map(|((key, mark), (place, held))| Written {
                    key,
                    mark: Mark { place: Some(*place), ..mark },
                    held: Some(*held),
                });
                Ok((written.collect(), appended))
            });
        }
        while let Some(written) = self.writes.try_join_next() {
            self.take(blocking::joined(written)??);
        }
        // A pack that is full is sealed only when all of it is marked.
        let of_several = packs_of(&self.marks).len() > 1;
        self.mark(if of_several { 1 } else { PIN_BLOCKS }).await
    }

    fn take(&mut self, (written, appended): (Vec<Written>, Appended)) {
        self.fresh_stored_bytes += written.iter().map(Written::stored_size).sum::<u64>();
        self.marks.extend(written);
        self.appended.extend(appended);
    }

    /// Pins these blocks, and returns which of them the database calls stored.
    pub(crate) async fn pin(&mut self, entries: &[ManifestEntry]) -> Result<Vec<PinnedBlock>> {
        let mut waiting = Waiting::new();
        loop {
            self.check_lease().await?;
            let manifests = &self.core.manifests;
            let pinned = if self.core.new_blocks().is_some() {
                manifests.pin_into_packs(self.row, entries).await
            } else {
                manifests.pin(self.row, entries).await
            };
            match self.core.latch.watch(pinned)? {
                Pinned::Blocks(blocks) => {
                    self.blocks += entries.len() as u64;
                    return Ok(blocks);
                }
                Pinned::Expired => return Err(self.give_up().await),
                Pinned::Doomed { remaining } => waiting.wait(&self.core, remaining).await?,
            }
        }
    }

    async fn check_lease(&mut self) -> Result<()> {
        match self.lease.check() {
            Err(_) => Err(self.give_up().await),
            held => held,
        }
    }

    /// Ends a put whose lease has run out. A collection may have deleted the rows of its blocks before their
    /// files existed. These blocks get rows again, as candidates, so that the next collection finds them.
    async fn give_up(&mut self) -> Error {
        while self.writes.join_next().await.is_some() {}
        let keys: Vec<BlockKey> = self.unmarked.drain().collect();
        for keys in keys.chunks(PIN_BLOCKS) {
            // If this fails, a verification finds them.
            let _ = self.core.manifests.adopt(keys.to_vec()).await;
        }
        expired()
    }

    /// Marks the written blocks, as long as there are at least this many.
    async fn mark(&mut self, at_least: usize) -> Result<()> {
        while self.marks.len() >= at_least.max(1) {
            let part = self.marks.split_off(self.marks.len() - self.marks.len().min(4 * PIN_BLOCKS));
            let marks: Vec<Mark> = part.iter().map(|written| written.mark).collect();
            let packs = packs_of(&part);
            let marked = self.core.manifests.mark_stored(self.row, &marks, &packs).await;
            if !self.core.latch.watch(marked)? {
                self.core.forget_packs(&packs).await;
                return Err(self.give_up().await);
            }
            for written in part {
                self.unmarked.remove(&written.key);
            }
        }
        if self.marks.is_empty() {
            // None of this put's work uses these packs any more.
            self.appended = Appended::default();
        }
        Ok(())
    }

    /// Waits until at most this many batches are being written. This bounds the memory of callers without a
    /// window.
    pub(crate) async fn wait_for_batches(&mut self, most: usize) -> Result<()> {
        while self.writes.len() > most
            && let Some(written) = self.writes.join_next().await
        {
            self.take(blocking::joined(written)??);
        }
        Ok(())
    }

    /// Waits until everything is durable and marked, for a put that continues. Returns whether anything was
    /// written.
    pub(crate) async fn keep(mut self) -> Result<bool> {
        self.wait_for_batches(0).await?;
        self.mark(1).await?;
        Ok(self.fresh_blocks > 0)
    }

    /// Waits until everything is durable and marked, and releases the pins: for blocks of blobs that are
    /// live. Returns how many blocks and bytes were written.
    pub(crate) async fn release(mut self) -> Result<(u64, u64)> {
        self.wait_for_batches(0).await?;
        self.mark(1).await?;
        self.core.latch.watch(self.core.manifests.release_pins(self.row).await)?;
        self.settled = true;
        Ok((self.fresh_blocks, self.fresh_bytes))
    }

    /// Waits until everything is durable, and makes the blob live.
    pub(crate) async fn commit(mut self, engine: &Engine, id: BlobId) -> Result<PutReceipt> {
        self.wait_for_batches(0).await?;
        self.mark(2 * PIN_BLOCKS).await?;
        self.check_lease().await?;
        let marks = self.marks.iter().map(|written| written.mark).collect();
        let packs = packs_of(&self.marks);
        let ready = Commit::Pinned { row: self.row, id, block_count: self.blocks, marks, packs };
        let committed = engine.commits.join(ready).await??;
        self.settled = true;
        let created = match committed {
            Committed::Created => true,
            Committed::Existed => false,
            Committed::Expired => return Err(self.give_up().await),
            Committed::NotInPlace | Committed::NotDurable => {
                return Err(Error::new(
                    Code::Internal,
                    "the commit of a pinned blob has the outcome of another kind",
                ));
            }
        };
        Ok(PutReceipt {
            id,
            blocks: self.blocks,
            fresh_blocks: self.fresh_blocks,
            fresh_bytes: self.fresh_bytes,
            fresh_stored_bytes: self.fresh_stored_bytes,
            created,
        })
    }
}

/// A put that waits for the end of a doom.
struct Waiting {
    left: Duration,
    pauses: u32,
}

impl Waiting {
    fn new() -> Waiting {
        Waiting { left: DOOM_TIMEOUT, pauses: 0 }
    }

    /// Waits for a while. The error, if it has waited for long enough.
    async fn wait(&mut self, core: &Core, remaining: Duration) -> Result<()> {
        if remaining > LONGEST_DOOM {
            // By a clock that was ahead.
            core.manifests.bring_dooms_back(LONGEST_DOOM).await?;
            return self.spend(Duration::from_millis(1), LONGEST_DOOM);
        }
        // Each look costs the database a transaction.
        let pause = remaining.min(Duration::from_millis((20_u64 << self.pauses.min(5)).min(500)));
        self.pauses = self.pauses.saturating_add(1);
        self.spend(pause, remaining)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn spend(&mut self, pause: Duration, remaining: Duration) -> Result<()> {
        self.left = self.left.checked_sub(pause).ok_or_else(|| doomed(remaining))?;
        Ok(())
    }
}

fn doomed(remaining: Duration) -> Error {
    let seconds = remaining.as_secs() + 1;
    let why = format!(
        "cannot store a block of this blob for {seconds} s: a collection or a repack is deleting its object, and a \
         deletion that got no answer may still be carried out"
    );
    Error::new(Code::BackendUnavailable, why)
        .with_advice(format!("put it again in {} min", seconds.div_ceil(60)))
}

/// A block that this put has written durably.
#[derive(Debug, Clone, Copy)]
struct Written {
    key: BlockKey,
    mark: Mark,
    /// The pack that it is in.
    held: Option<HeldPack>,
}

impl Written {
    fn stored_size(&self) -> u64 {
        self.mark.place.map_or(self.key.size() as u64, |place| place.stored_size.into())
    }
}

/// Blocks that are to be written together.
#[derive(Default)]
struct Fresh {
    blocks: Vec<Block>,
    marks: Vec<(BlockKey, Mark)>,
}

/// The packs of these blocks, each once.
fn packs_of(written: &[Written]) -> Vec<HeldPack> {
    HeldPack::each_once(written.iter().filter_map(|written| written.held))
}

impl Drop for PinnedPut {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (core, row) = (Arc::clone(&self.core), self.row);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // If it fails, the row stays pending until the lease has run out.
                let _ = core.latch.watch(core.manifests.abort(row).await);
            });
        }
    }
}

/// Puts a small blob that could not be committed in one transaction.
pub(crate) async fn put(engine: &Engine, blob: &SmallBlob, looks_closer: bool) -> Result<PutReceipt> {
    let mut put = PinnedPut::begin(engine).await?.looking_closer(looks_closer);
    for (entries, bytes) in blob.entries.chunks(PIN_BLOCKS).zip(blob.bytes.chunks(PIN_BLOCKS)) {
        put.add(entries, bytes).await?;
    }
    put.commit(engine, blob.id).await
}
