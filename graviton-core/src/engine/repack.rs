//! Repack: moves the blocks of a store into packs, or out of them, beside all other work. Objects in S3 move
//! as files do.
//!
//! *To packs*, a batch at a time:
//!
//! 1. Read the files, compare their digests, and append the blocks to an own pack, synced in every mode.
//! 2. *Move*, one synced transaction: a row that says `stored`, and has neither a place nor a doom, gets the
//!    place, and the block's name is doomed. A block that a running put references stays for later: that put
//!    may be about to write the name.
//! 3. *Remove* the files, under no transaction, and lift the dooms (`names`).
//!
//! *To files*: the blocks are pinned under a pending blob, as in a put, so that no collector dooms their
//! names. Then the records are read and compared, and published as files. A row that still has the old place
//! loses it, in a synced transaction that requires the pins. The old bytes stay as they are, as after a
//! compaction. An object whose name is doomed stays for later, because a late deletion could remove it.
//!
//! A repack may end anywhere: a row says where its block is, so the next one continues with the others. The
//! next collection finds a file that was left behind, because its block is a candidate; so does the next
//! repack.
//!
//! The models are `tests/model/src/repack` and, of objects, `tests/model/src/moves`, with a mutant for each
//! rule.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use async_recursion::async_recursion as boxed;
use bytes::Bytes;

use super::core::{Core, Engine, Seen};
use super::fetch::{self, Fetched};
use super::names::{self, Removal, Unnamed};
use super::pack::append::Appender;
use super::settings::BlockLayout;
use super::{aside, remove};
use crate::block::Block;
use crate::blocking;
use crate::collection::Collection;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::manifest::{BlobRow, BlockRecord, BlockRow, Durability, HeldPack, ManifestEntry, Mark, Pinned};
use crate::place::Place;
use crate::report::RepackReport;

/// Rows of one query or transaction.
const ROWS: usize = 1_024;

/// Recorded as the chunker of the blobs that pin blocks on their way to files. Nobody sees one: they are
/// never live.
const PINNED_BY: &str = "repack";

/// Moves all stored blocks into this layout.
#[boxed]
pub(super) async fn repack(
    engine: &Engine,
    to: BlockLayout,
    progress: &mut (dyn FnMut(&RepackReport) -> ControlFlow<()> + Send),
) -> Result<RepackReport> {
    let core = &engine.core;
    core.check_writable()?;
    let appender = appender_of(core)?;
    engine.prepare_to_write().await?;
    engine.check_identity(core.manifests.store().await?, Seen::NotYet).await?;
    let by = remove::collection()?;
    let mut run = Run {
        engine,
        appender,
        to,
        by,
        removals: 0,
        failure: None,
        report: RepackReport::default(),
        progress,
        started: Instant::now(),
    };
    core.latch.watch(run.all().await)?;
    run.report.failure = run.failure.map(|error| error.to_string()).unwrap_or_default();
    run.report.seconds = run.started.elapsed().as_secs_f64();
    Ok(run.report)
}

/// The writer of packs, where there are any.
fn appender_of(core: &Core) -> Result<&Arc<Appender>> {
    if core.packs.is_none() {
        let why = format!("cannot repack the blocks in {}: there are no packs", core.blocks.location());
        return Err(Error::new(Code::Unsupported, why)
            .with_advice("copy the store to one whose GRAVITON_BLOCK_LAYOUT is as wanted (graviton copy)"));
    }
    core.appender.as_ref().ok_or_else(|| {
        Error::new(Code::Config, "cannot repack: an older version made this store, without packs")
            .with_advice("end the programs that use it, and run graviton upgrade (in Rust: Config::upgrade)")
    })
}

/// One repack.
struct Run<'a> {
    engine: &'a Engine,
    appender: &'a Arc<Appender>,
    to: BlockLayout,
    /// Its number, in the dooms of names.
    by: Collection,
    /// The removals so far.
    removals: u64,
    /// Why the first file was kept that could not be removed.
    failure: Option<Error>,
    report: RepackReport,
    progress: &'a mut (dyn FnMut(&RepackReport) -> ControlFlow<()> + Send),
    started: Instant,
}

/// The outcome of some blocks.
#[derive(Default)]
struct Moved {
    blocks: u64,
    bytes: u64,
    damaged: u64,
    /// Blocks that are still where they were.
    skipped: u64,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<()> {
        let core = &self.engine.core;
        self.engine.owner.raise().await?;
        // Pins of processes that died keep no block where it is.
        while core.manifests.expire(ROWS).await? == ROWS as u64 {}
        aside::tidy(&core.blocks, &core.manifests).await?;
        let (named, packed) = core.manifests.layouts().await?;
        (self.report.remaining, self.report.present) = match self.to {
            BlockLayout::Packs => (named, packed),
            BlockLayout::Files => (packed, named),
        };
        if self.moves().await?.is_break() {
            return Ok(());
        }
        if self.to == BlockLayout::Packs && self.leftovers().await?.is_break() {
            return Ok(());
        }
        let (named, packed) = core.manifests.layouts().await?;
        self.report.remaining = if self.to == BlockLayout::Packs { named } else { packed };
        self.report.complete = self.report.remaining == 0 && self.report.kept_failed == 0;
        Ok(())
    }

    /// Walks over the blocks until a walk leaves none of those that it found, or moves none.
    async fn moves(&mut self) -> Result<ControlFlow<()>> {
        loop {
            let before = self.report.blocks;
            self.report.skipped = 0;
            let mut after = BlockRow(0);
            loop {
                let manifests = &self.engine.core.manifests;
                let mut records = match self.to {
                    BlockLayout::Packs => manifests.named_blocks(after, ROWS).await?,
                    BlockLayout::Files => manifests.packed_blocks(after, ROWS).await?,
                };
                let Some(last) = records.last() else { break };
                after = last.row;
                while !records.is_empty() {
                    let rest = records.split_off(names::together(&records));
                    self.move_batch(std::mem::replace(&mut records, rest)).await?;
                    if self.tell().is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            if self.report.skipped == 0 || self.report.blocks == before {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    async fn move_batch(&mut self, records: Vec<BlockRecord>) -> Result<()> {
        self.engine.core.latch.check()?;
        // A repack may take hours.
        self.engine.owner.check_generation().await?;
        let moved = match self.to {
            BlockLayout::Packs => self.move_to_packs(records).await?,
            BlockLayout::Files => move_to_files(self.engine, self.by, records).await?,
        };
        let report = &mut self.report;
        report.blocks += moved.blocks;
        report.bytes += moved.bytes;
        report.damaged += moved.damaged;
        report.skipped += moved.skipped;
        report.remaining = report.remaining.saturating_sub(moved.blocks + moved.damaged);
        Ok(())
    }

    async fn move_to_packs(&mut self, records: Vec<BlockRecord>) -> Result<Moved> {
        let core = &self.engine.core;
        let fetched = fetch::fetch_several(core, &records).await?;
        let mut moved = Moved::of(&fetched);
        if fetched.blocks.is_empty() {
            return Ok(moved);
        }
        let removal = self.removal(fetched.blocks.len());
        let (core, appender) = (Arc::clone(core), Arc::clone(self.appender));
        // A task of its own, which nobody cancels: what is set aside is settled at once.
        let moving = tokio::spawn(async move {
            let moving = move_appended(&core, &appender, removal, fetched.blocks).await;
            core.latch.watch(moving)
        });
        let (keys, removed) = blocking::joined(moving.await)??;
        moved.add(records.len(), &keys);
        self.report.kept_failed += removed.failed + removed.unanswered;
        self.failure = self.failure.take().or(removed.failure);
        Ok(moved)
    }

    /// The next removals: so many.
    fn removal(&mut self, count: usize) -> Removal {
        let first = self.removals;
        self.removals += count as u64;
        Removal { by: self.by, first, doom: self.engine.timing.doom }
    }

    /// Removes files of blocks that are in packs: of repacks that died, of those that had to move back, and
    /// those that could not be removed.
    async fn leftovers(&mut self) -> Result<ControlFlow<()>> {
        let core = &self.engine.core;
        // It looks at all of them.
        self.report.kept_failed = 0;
        let first_failure = self.failure.take();
        let mut listing = core.blocks.list().await?;
        loop {
            let page = listing.next().await?;
            if page.is_empty() {
                if self.report.kept_failed > 0 {
                    self.failure = self.failure.take().or(first_failure);
                }
                return Ok(ControlFlow::Continue(()));
            }
            for part in page.chunks(ROWS) {
                let keys = part.iter().map(|listed| listed.key).collect();
                let mut records = core.manifests.blocks_by_key(keys).await?;
                records.retain(|record| record.stored && record.located.is_some());
                if !records.is_empty() {
                    self.engine.owner.check_generation().await?;
                    let removal = self.removal(records.len());
                    let mut removed = names::remove_left(core, removal, &records).await?;
                    self.report.leftovers += removed.files;
                    self.report.kept_failed += removed.failed + removed.unanswered;
                    if core.blocks.asides().is_none() && removed.in_use > 0 {
                        // Where a deletion may still be carried out, the repack is not over.
                        self.report.kept_failed += removed.in_use;
                        removed.failure = removed.failure.or_else(|| Some(in_use()));
                    }
                    self.failure = self.failure.take().or(removed.failure);
                }
                if self.tell().is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    fn tell(&mut self) -> ControlFlow<()> {
        self.report.seconds = self.started.elapsed().as_secs_f64();
        (self.progress)(&self.report)
    }
}

impl Moved {
    /// Of blocks that were fetched, and have not moved yet.
    fn of(fetched: &Fetched) -> Moved {
        Moved { damaged: fetched.damaged, skipped: fetched.changed, ..Moved::default() }
    }

    /// These have moved, and none of the others of `all`.
    fn add(&mut self, all: usize, keys: &[BlockKey]) {
        self.blocks = keys.len() as u64;
        self.bytes = keys.iter().map(|key| key.size() as u64).sum();
        self.skipped = all as u64 - self.blocks - self.damaged;
    }
}

fn in_use() -> Error {
    let why = "objects of blocks in packs stay for now: puts use the blocks, or a deletion that got no answer \
               may still be carried out";
    Error::new(Code::BackendUnavailable, why).with_advice("run it again in half an hour")
}

/// Copies blocks into an own pack, moves their rows there, and removes their files. Returns the blocks that
/// have moved.
async fn move_appended(
    core: &Arc<Core>,
    appender: &Arc<Appender>,
    removal: Removal,
    fetched: Vec<(BlockRecord, Bytes)>,
) -> Result<(Vec<BlockKey>, Unnamed)> {
    let (records, blocks): (Vec<BlockRecord>, Vec<Block>) =
        fetched.into_iter().map(|(record, bytes)| (record, Block { key: record.key, bytes })).unzip();
    let keys: Vec<BlockKey> = records.iter().map(|record| record.key).collect();
    let copies = appender.append_synced(blocks, true).await?;
    let mark = |(record, (place, _)): (&BlockRecord, &(Place, HeldPack))| Mark {
        place: Some(*place),
        ..Mark::named(record.row)
    };
    let marks: Vec<Mark> = records.iter().zip(&copies.places).map(mark).collect();
    let held = copies.packs();
    let mut moved = Vec::new();
    let doom = async |lasts| {
        let Some(rows) = core.manifests.move_to_packs(removal.by, &marks, &held, lasts).await? else {
            // The lease was lost: the next walk goes to another pack.
            appender.forget(&held).await;
            return Ok(Vec::new());
        };
        let rows: HashSet<BlockRow> = rows.into_iter().collect();
        let those = records.iter().filter(|record| rows.contains(&record.row)).map(|record| record.key);
        moved = those.collect();
        Ok(moved.clone())
    };
    let removed = names::remove(core, removal, &keys, doom).await?;
    Ok((moved, removed))
}

async fn move_to_files(engine: &Engine, by: Collection, records: Vec<BlockRecord>) -> Result<Moved> {
    let core = &engine.core;
    let all = records.len();
    let fetched = fetch::fetch_several(core, &records).await?;
    let mut moved = Moved::of(&fetched);
    let blocks = fetched.blocks;
    if blocks.is_empty() {
        return Ok(moved);
    }
    let (core, leases) = (Arc::clone(core), Arc::clone(&engine.leases));
    // A task of its own, which nobody cancels: the pins end with the batch.
    let moving = tokio::spawn(async move {
        let moving = async {
            let (_lease, pins) = leases.begin(PINNED_BY).await?;
            let moving = move_pinned(&core, by, pins, &blocks).await;
            // If it fails, the row stays pending until the lease has run out.
            let ended = core.manifests.abort(pins).await;
            moving.and_then(|rows| ended.map(|()| rows))
        };
        core.latch.watch(moving.await).map(|rows| (blocks, rows))
    });
    let (blocks, rows) = blocking::joined(moving.await)??;
    let those = blocks.iter().filter(|(record, _)| rows.contains(&record.row));
    let keys: Vec<BlockKey> = those.map(|(record, _)| record.key).collect();
    moved.add(all, &keys);
    Ok(moved)
}

/// Pins the blocks, publishes their files, and moves their rows. Returns those that have moved.
async fn move_pinned(
    core: &Core,
    by: Collection,
    pins: BlobRow,
    blocks: &[(BlockRecord, Bytes)],
) -> Result<HashSet<BlockRow>> {
    let entries = ManifestEntry::tiling(0, blocks.iter().map(|(record, _)| record.key));
    // Those whose names are doomed, and all of them if the pins have expired, stay for the next walk.
    let pinned = core.manifests.pin_into_packs(pins, &entries).await?;
    let Pinned::Blocks(pinned) = pinned else { return Ok(HashSet::new()) };
    let (mut files, mut marks) = (Vec::new(), Vec::new());
    for ((record, bytes), pinned) in blocks.iter().zip(pinned) {
        let (Some(was), Some(is)) = (record.located, pinned.located) else { continue };
        let is_there = pinned.stored && pinned.row == record.row && is.place.is(&was.place);
        if is_there && pinned.doomed.is_none() {
            files.push(Block { key: record.key, bytes: bytes.clone() });
            marks.push(Mark { row: record.row, place: None, found: Some(was.place) });
        }
    }
    if files.is_empty() {
        return Ok(HashSet::new());
    }
    if core.blocks.asides().is_none() {
        // A collection looks for files of all candidates, and for objects only where a row says so.
        let rows: Vec<BlockRow> = marks.iter().map(|mark| mark.row).collect();
        core.manifests.mark_names(by, &rows).await?;
    }
    core.put_blocks(files).await?;
    if core.durability == Durability::Relaxed
        && let Some(disk) = core.blocks.disk()
    {
        // Blocks that were durable in a pack stay durable, in every mode.
        disk.sync_all().await?;
    }
    let rows = core.manifests.move_to_files(pins, &marks).await?;
    Ok(rows.unwrap_or_default().into_iter().collect())
}
