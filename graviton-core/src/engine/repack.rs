//! Repack: moves the blocks of a store into packs, or out of them, beside all other work.
//!
//! *To packs*, a batch at a time:
//!
//! 1. Read the files, compare their digests, and append the blocks to an own pack, synced in every mode.
//! 2. *Move*, one synced transaction: a row that says `stored`, and has neither a place nor a doom, gets the
//!    place, and the block's name is doomed. A block that a running put references stays for later: that put
//!    may be about to write the name.
//! 3. *Set aside*, under no transaction: the file moves to `.doomed`, as in a collection ([`remove`]).
//! 4. *Settle*: the file is unlinked if the row still says that the block is in a pack and no running put
//!    references it; otherwise it moves back. The doom is lifted.
//!
//! *To files*: the blocks are pinned under a pending blob, as in a put, so that no collector dooms their
//! names. Then the records are read and compared, and published as files. A row that still has the old place
//! loses it, in a synced transaction that requires the pins. The old bytes stay as they are, as after a
//! compaction.
//!
//! A repack may end anywhere: a row says where its block is, so the next one continues with the others. The
//! next collection finds a file that was left behind, because its block is a candidate; so does the next
//! repack.
//!
//! The model is `tests/model/src/repack`, with a mutant for each rule.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::core::{Core, Engine, Seen};
use super::damage;
use super::pack::append::Appender;
use super::remove::Unnamed;
use super::settings::BlockLayout;
use super::{aside, fetch, pace, remove};
use crate::block::Block;
use crate::blocking::{self, Task};
use crate::collection::Collection;
use crate::error::{Code, Error, Result};
use crate::manifest::{BlobRow, BlockRecord, BlockRow, Durability, ManifestEntry, Mark, Pinned};
use crate::report::RepackReport;

/// Rows of one query or transaction.
const ROWS: usize = 1_024;

/// Bytes of blocks that are moved together; one block at least.
const TOGETHER: u64 = 8 << 20;

/// Blocks that are read at once.
const READS: usize = 4;

/// Recorded as the chunker of the blobs that pin blocks on their way to files. Nobody sees one: they are
/// never live.
const PINNED_BY: &str = "repack";

/// Moves all stored blocks into this layout.
pub(super) async fn repack(
    engine: &Engine,
    to: BlockLayout,
    progress: impl FnMut(&RepackReport) -> ControlFlow<()> + Send,
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

/// The writer of packs, where blocks can be moved into packs and out of them. Files can be set aside; an
/// object that is deleted does not come back.
fn appender_of(core: &Core) -> Result<&Arc<Appender>> {
    if core.packs.is_none() || core.blocks.asides().is_none() {
        let why =
            format!("cannot repack the blocks in {}: they are not on a filesystem", core.blocks.location());
        return Err(Error::new(Code::Unsupported, why)
            .with_advice("copy the store to one whose GRAVITON_BLOCK_LAYOUT is as wanted (graviton copy)"));
    }
    core.appender.as_ref().ok_or_else(|| {
        Error::new(Code::Config, "cannot repack: an older version made this store, without packs")
            .with_advice("end the programs that use it, and run graviton upgrade (in Rust: Config::upgrade)")
    })
}

/// One repack.
struct Run<'a, P> {
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
    progress: P,
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

impl<P: FnMut(&RepackReport) -> ControlFlow<()> + Send> Run<'_, P> {
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
                    let rest = records.split_off(together(&records));
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
            BlockLayout::Files => move_to_files(self.engine, records).await?,
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
        let mut moved = Moved::default();
        let (mut blocks, mut marks) = (Vec::new(), Vec::new());
        for (record, bytes) in verified(core, records, &mut moved).await? {
            blocks.push(Block { key: record.key, bytes });
            marks.push((Mark::named(record.row), record));
        }
        if blocks.is_empty() {
            return Ok(moved);
        }
        let first = self.removals;
        self.removals += blocks.len() as u64;
        let (core, appender, by) = (Arc::clone(core), Arc::clone(self.appender), self.by);
        // A task of its own, which nobody cancels: what is set aside is settled at once.
        let moving = tokio::spawn(async move {
            let moving = append_and_move(&core, &appender, by, blocks, &mut marks).await;
            let rows = core.latch.watch(moving)?;
            let keys: Vec<_> =
                marks.iter().filter(|(mark, _)| rows.contains(&mark.row)).map(|(_, r)| r.key).collect();
            let sizes: u64 = keys.iter().map(|key| key.size() as u64).sum();
            let skipped = marks.len() - keys.len();
            let removed = remove::remove_names(&core, by, first, &keys).await;
            Ok::<_, Error>((keys.len() as u64, sizes, skipped as u64, core.latch.watch(removed)?))
        });
        let (blocks, bytes, skipped, removed) = blocking::joined(moving.await)??;
        moved.blocks = blocks;
        moved.bytes = bytes;
        moved.skipped += skipped;
        self.report.kept_failed += removed.failed;
        self.failure = self.failure.take().or(removed.failure);
        Ok(moved)
    }

    /// Removes files of blocks that are in packs: of repacks that died, and of those that had to move back.
    async fn leftovers(&mut self) -> Result<ControlFlow<()>> {
        let core = &self.engine.core;
        // It tries those again that could not be removed.
        self.report.kept_failed = 0;
        self.failure = None;
        let mut listing = core.blocks.list().await?;
        loop {
            let page = listing.next().await?;
            if page.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            for part in page.chunks(ROWS) {
                let keys = part.iter().map(|listed| listed.key).collect();
                let mut records = core.manifests.blocks_by_key(keys).await?;
                records.retain(|record| record.stored && record.located.is_some());
                if !records.is_empty() {
                    self.engine.owner.check_generation().await?;
                    let removed = remove_leftovers(core, self.by, self.removals, records).await?;
                    self.removals += part.len() as u64;
                    self.report.leftovers += removed.files;
                    self.report.kept_failed += removed.failed;
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

/// How many of the blocks are moved together.
fn together(records: &[BlockRecord]) -> usize {
    pace::fitting(records, TOGETHER, |record| record.key.size() as u64)
}

/// The bytes of the blocks, compared with their digests. A damaged one is marked as not stored, and counted.
async fn verified(
    core: &Arc<Core>,
    records: Vec<BlockRecord>,
    moved: &mut Moved,
) -> Result<Vec<(BlockRecord, Bytes)>> {
    let mut found = Vec::with_capacity(records.len());
    for part in records.chunks(READS) {
        let reads: Vec<(BlockRecord, Task<Result<Bytes>>)> = part
            .iter()
            .map(|record| {
                let (core, record) = (Arc::clone(core), *record);
                let task =
                    Task::spawn(
                        async move { fetch::fetch_verified(&core, record.key, record.located).await },
                    );
                (record, task)
            })
            .collect();
        for (record, read) in reads {
            match read.join().await? {
                Ok(bytes) => found.push((record, bytes)),
                Err(error) if is_damage(&error, &record) => {
                    // The read has noted it, unless the database was slow.
                    if damage::recheck(core, record.row).await? {
                        moved.damaged += 1;
                    } else {
                        moved.skipped += 1;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// A sector that cannot be read is damage, and so is a file that this user may not read; a pack has many
/// blocks.
fn is_damage(error: &Error, record: &BlockRecord) -> bool {
    match error.code() {
        Code::MissingBlock | Code::CorruptBlock | Code::Io => true,
        Code::Forbidden => record.located.is_none(),
        _ => false,
    }
}

/// Copies blocks into an own pack, and moves their rows there. Returns those that have moved.
async fn append_and_move(
    core: &Core,
    appender: &Arc<Appender>,
    by: Collection,
    blocks: Vec<Block>,
    marks: &mut [(Mark, BlockRecord)],
) -> Result<HashSet<BlockRow>> {
    let copies = appender.append_synced(blocks, true).await?;
    for ((mark, _), (place, _)) in marks.iter_mut().zip(&copies.places) {
        mark.place = Some(*place);
    }
    let held = copies.packs();
    let marks: Vec<Mark> = marks.iter().map(|(mark, _)| *mark).collect();
    let moved = core.manifests.move_to_packs(by, &marks, &held).await?;
    if moved.is_none() {
        // The lease was lost: the next walk goes to another pack.
        appender.forget(&held).await;
    }
    Ok(moved.unwrap_or_default().into_iter().collect())
}

async fn move_to_files(engine: &Engine, records: Vec<BlockRecord>) -> Result<Moved> {
    let core = &engine.core;
    let mut moved = Moved::default();
    let blocks = verified(core, records, &mut moved).await?;
    if blocks.is_empty() {
        return Ok(moved);
    }
    let (core, leases) = (Arc::clone(core), Arc::clone(&engine.leases));
    // A task of its own, which nobody cancels: the pins end with the batch.
    let moving = tokio::spawn(async move {
        let moving = async {
            let (_lease, pins) = leases.begin(PINNED_BY).await?;
            let moving = move_pinned(&core, pins, &blocks).await;
            // If it fails, the row stays pending until the lease has run out.
            let ended = core.manifests.abort(pins).await;
            moving.and_then(|rows| ended.map(|()| rows))
        };
        core.latch.watch(moving.await).map(|rows| (blocks, rows))
    });
    let (blocks, rows) = blocking::joined(moving.await)??;
    for (record, _) in &blocks {
        if rows.contains(&record.row) {
            moved.blocks += 1;
            moved.bytes += record.key.size() as u64;
        } else {
            moved.skipped += 1;
        }
    }
    Ok(moved)
}

/// Pins the blocks, publishes their files, and moves their rows. Returns those that have moved.
async fn move_pinned(
    core: &Core,
    pins: BlobRow,
    blocks: &[(BlockRecord, Bytes)],
) -> Result<HashSet<BlockRow>> {
    let entries = ManifestEntry::tiling(0, blocks.iter().map(|(record, _)| record.key));
    // Doomed or expired: they stay for the next walk.
    let Pinned::Blocks(pinned) = core.manifests.pin(pins, &entries).await? else { return Ok(HashSet::new()) };
    let (mut files, mut marks) = (Vec::new(), Vec::new());
    for ((record, bytes), pinned) in blocks.iter().zip(pinned) {
        let (Some(was), Some(is)) = (record.located, pinned.located) else { continue };
        if pinned.stored && pinned.row == record.row && is.place.is(&was.place) {
            files.push(Block { key: record.key, bytes: bytes.clone() });
            marks.push(Mark { row: record.row, place: None, found: Some(was.place) });
        }
    }
    if files.is_empty() {
        return Ok(HashSet::new());
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

/// Removes the files of blocks whose rows say that they are in packs, if their records are right: otherwise a
/// file may be the last good copy. The removals are numbered from `first` on.
pub(super) async fn remove_leftovers(
    core: &Arc<Core>,
    by: Collection,
    first: u64,
    mut records: Vec<BlockRecord>,
) -> Result<Unnamed> {
    let mut moved = Moved::default();
    let mut rows: Vec<BlockRow> = Vec::new();
    while !records.is_empty() {
        let rest = records.split_off(together(&records));
        let part = std::mem::replace(&mut records, rest);
        rows.extend(verified(core, part, &mut moved).await?.iter().map(|(record, _)| record.row));
    }
    let core = Arc::clone(core);
    // A task of its own, which nobody cancels.
    let removing = tokio::spawn(async move {
        let removing = async {
            let keys = core.manifests.doom_names(by, &rows).await?;
            remove::remove_names(&core, by, first, &keys).await
        };
        core.latch.watch(removing.await)
    });
    blocking::joined(removing.await)?
}
