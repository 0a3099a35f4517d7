//! Verification: checks that everything in the database is really stored, and that no byte has changed.
//!
//! 1. The self-check of the database.
//! 2. *Manifests*: the entries of every live blob tile it exactly.
//! 3. *Packs*, on request: blocks are rebuilt from packs that the database does not know (`rebuild`).
//! 4. *Blocks*: each block whose row says `stored` exists with its length; with `deep`, every byte is hashed
//!    again.
//! 5. *Listing*: blocks in the block store without a row.
//!
//! It runs beside all other work. A finding is checked again under protection from concurrent changes: a
//! block under its row lock, a manifest after its blob was found live again. A block that is still bad is
//! marked as not stored, so that the next put of it writes it again. A failed backend is an error, never a
//! finding.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use async_recursion::async_recursion as boxed;

use super::core::{Core, Engine, not_found};
use super::damage::{Damage, is_unreadable, look, look_together, recheck};
use super::pack::read::Run;
use super::{pace, rebuild, strays};
use crate::block::Listed;
use crate::blocking::Task;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{BlobRecord, BlockRecord, BlockRow};
use crate::place::PackName;
use crate::report::{Place, VerifyCursor, VerifyReport};

const BLOBS: usize = 256;
const ENTRIES: usize = 4_096;
const BLOCKS: usize = 512;

/// Blobs that one bad block names.
const NAMED: usize = 1_000;

/// Blocks that are looked at together, here and over a network; each is in memory.
const TOGETHER_HERE: usize = 4;
const TOGETHER_THERE: usize = 16;

/// The scope and limits of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Hash every byte again; otherwise only lengths are looked at.
    pub deep: bool,
    /// Only these blobs; all of the store if there are none.
    pub ids: Vec<BlobId>,
    /// Read at most so many bytes in a second.
    pub bytes_per_second: Option<u64>,
    /// Go on where an earlier one ended ([`VerifyReport::cursor`]).
    pub from: Option<VerifyCursor>,
    /// Hand blocks that no row knows to the collector. They may be a put's of this moment, which then writes
    /// them again. Packs that no row knows are dropped when the grace is over; with `rebuild`, after blocks
    /// were rebuilt from them.
    pub adopt: bool,
    /// Copy blocks that are missing or damaged from packs that no row knows: after the database was restored
    /// from a backup, and blocks had been moved since.
    pub rebuild: bool,
}

/// Something that a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A block that live blobs need is bad.
    Block {
        /// The block.
        key: BlockKey,
        /// The damage.
        damage: Damage,
        /// The blobs that are hurt, up to a thousand of them.
        blobs: Vec<BlobId>,
    },
    /// The entries of a blob's manifest do not tile it.
    Manifest {
        /// The blob.
        id: BlobId,
        /// The defect, as text.
        why: String,
    },
    /// The database finds something wrong with itself.
    Database(String),
    /// Bytes that no row knows: of a put of this moment, or garbage. Or a file of a block that is in a pack.
    Unreferenced(Listed),
    /// A pack that no row knows: the database is an older copy.
    Pack {
        /// Its name.
        name: PackName,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A part of such a pack that cannot be used: a record from which a block was to be rebuilt, or that the
    /// pack ends before. Or all of a pack, which belongs to another store.
    Record {
        /// The name of the pack.
        pack: PackName,
        /// The offset of the record in bytes; 0 if it is about all of the pack.
        offset: u64,
        /// The block that the record says it is of.
        key: Option<BlockKey>,
        /// The defect, as text.
        why: String,
    },
}

/// An event of a running verification.
#[derive(Debug)]
pub enum VerifyEvent<'a> {
    /// It found something.
    Found(Finding),
    /// Progress: the counts up to now.
    Progress(&'a VerifyReport),
}

/// The damage to each of some blocks.
type Looked = Result<Vec<Option<Damage>>>;

/// Blocks that are read together, up to so many bytes of them.
const NEIGHBOURS: u64 = 4 << 20;

/// The records in groups, each of neighbours in one object, or of one block.
fn neighbours(records: Vec<BlockRecord>) -> Vec<Vec<BlockRecord>> {
    let mut groups: Vec<Vec<BlockRecord>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        bytes += record.key.size() as u64;
        let last = groups.last().and_then(|group| group.last()?.located);
        let goes_on = matches!((last, record.located), (Some(last), Some(next))
            if bytes <= NEIGHBOURS && Run::goes_on(&last.place, &next.place));
        if let Some(group) = groups.last_mut().filter(|_| goes_on) {
            group.push(record);
        } else {
            bytes = record.key.size() as u64;
            groups.push(vec![record]);
        }
    }
    groups
}

/// Runs a verification.
#[boxed]
pub(super) async fn verify(
    engine: &Engine,
    options: &VerifyOptions,
    tell: &mut (dyn FnMut(VerifyEvent<'_>) -> ControlFlow<()> + Send),
) -> Result<VerifyReport> {
    let core = &engine.core;
    if options.rebuild && !options.ids.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "blocks of single blobs cannot be rebuilt")
            .with_advice("rebuild without naming blobs: it looks at all blocks of the packs that it reads"));
    }
    if options.rebuild || options.adopt && !core.read_only {
        // The place itself may have to be adopted.
        engine.prepare_to_write().await?;
    }
    let mut check = Check {
        engine,
        core,
        options,
        tell,
        report: VerifyReport::default(),
        started: Instant::now(),
        may_write: !core.read_only,
    };
    let ended = if options.ids.is_empty() { check.everything().await } else { check.some_blobs().await };
    match ended {
        Ok(()) | Err(Stop::Ended) => {
            check.report.seconds = check.started.elapsed().as_secs_f64();
            Ok(check.report)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why a verification does not go on.
enum Stop {
    /// The caller ended it.
    Ended,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

struct Check<'a> {
    engine: &'a Engine,
    core: &'a Arc<Core>,
    options: &'a VerifyOptions,
    tell: &'a mut (dyn FnMut(VerifyEvent<'_>) -> ControlFlow<()> + Send),
    report: VerifyReport,
    started: Instant,
    /// Whether bad blocks can be marked.
    may_write: bool,
}

impl Check<'_> {
    fn found(&mut self, finding: Finding) -> Result<(), Stop> {
        if (self.tell)(VerifyEvent::Found(finding)).is_break() { Err(Stop::Ended) } else { Ok(()) }
    }

    /// Ends the verification.
    fn completed(&mut self) -> Result<(), Stop> {
        self.report.complete = true;
        self.reached(None)
    }

    /// Notes how far it got; it can go on from there.
    fn reached(&mut self, place: Option<Place>) -> Result<(), Stop> {
        self.report.cursor = place.map(VerifyCursor);
        self.tell_progress()
    }

    fn tell_progress(&mut self) -> Result<(), Stop> {
        self.report.seconds = self.started.elapsed().as_secs_f64();
        if (self.tell)(VerifyEvent::Progress(&self.report)).is_break() { Err(Stop::Ended) } else { Ok(()) }
    }

    async fn everything(&mut self) -> Result<(), Stop> {
        let from = self.options.from.as_ref().map(|cursor| cursor.0.clone());
        if from.is_none() {
            let manifests = Arc::clone(&self.core.manifests);
            for problem in Task::spawn(async move { manifests.integrity().await }).join().await?? {
                self.report.database_problems += 1;
                self.found(Finding::Database(problem))?;
            }
        }
        let place = from.unwrap_or(Place::Manifests(None));
        if let Place::Manifests(after) = &place {
            self.all_manifests(*after).await?;
        }
        if self.options.rebuild
            && let Place::Manifests(_) | Place::Packs(_) = &place
        {
            self.rebuild(if let Place::Packs(at) = &place { *at } else { None }).await?;
        }
        if !matches!(place, Place::Listing) {
            let after = BlockRow(if let Place::Blocks(row) = place { row } else { 0 });
            self.all_blocks(after).await?;
        }
        self.listing().await?;
        self.completed()
    }

    async fn some_blobs(&mut self) -> Result<(), Stop> {
        let core = self.core;
        for id in &self.options.ids {
            let (record, _) = core.manifests.find(id, 0).await?.ok_or_else(|| not_found(id))?;
            self.manifest(&record).await?;
            let mut from = 0;
            while from < id.size() {
                let entries = core.manifests.entries(record.row, from, BLOCKS).await?;
                let Some(last) = entries.last() else { break };
                from = last.end();
                let mut keys: Vec<BlockKey> = entries.iter().map(|entry| entry.key).collect();
                keys.sort_unstable();
                keys.dedup();
                let records = core.manifests.blocks_by_key(keys).await?;
                self.blocks(records, None).await?;
            }
        }
        self.completed()
    }

    async fn all_manifests(&mut self, mut after: Option<BlobId>) -> Result<(), Stop> {
        loop {
            let records = self.core.manifests.list(after.as_ref(), BLOBS).await?;
            let Some(last) = records.last() else { return Ok(()) };
            after = Some(last.id);
            for record in &records {
                self.manifest(record).await?;
            }
            self.reached(Some(Place::Manifests(after)))?;
        }
    }

    async fn manifest(&mut self, record: &BlobRecord) -> Result<(), Stop> {
        self.report.blobs += 1;
        if tiles(self.core, record).await?.is_none() {
            return Ok(());
        }
        // It may have been deleted and collected meanwhile.
        let Some((again, _)) = self.core.manifests.find(&record.id, 0).await? else { return Ok(()) };
        let Some(why) = tiles(self.core, &again).await? else { return Ok(()) };
        if self.core.manifests.find(&record.id, 0).await?.is_none_or(|(now, _)| now.row != again.row) {
            return Ok(());
        }
        self.report.broken_manifests += 1;
        self.found(Finding::Manifest { id: record.id, why })
    }

    /// Rebuilds blocks from packs, from this offset of this one on.
    async fn rebuild(&mut self, mut from: Option<(PackName, u64)>) -> Result<(), Stop> {
        self.reached(Some(Place::Packs(from)))?;
        for source in rebuild::sources(self.engine, from.map(|(name, _)| name)).await? {
            let mut next = Some(from.take().filter(|(name, _)| *name == source.name).map_or(0, |(_, at)| at));
            while let Some(at) = next {
                self.slow_down().await?;
                let step = rebuild::step(self.engine, source, at, self.options.deep).await?;
                self.report.rebuilt += step.rebuilt.0;
                self.report.rebuilt_bytes += step.rebuilt.1;
                self.report.bytes += step.hashed;
                for rebuild::Unusable { offset, key, why } in step.unusable {
                    self.unusable(Finding::Record { pack: source.name, offset, key, why })?;
                }
                next = step.next;
                self.reached(Some(Place::Packs(Some((source.name, next.unwrap_or(source.length))))))?;
            }
        }
        Ok(())
    }

    fn unusable(&mut self, finding: Finding) -> Result<(), Stop> {
        self.report.unusable += 1;
        self.found(finding)
    }

    async fn all_blocks(&mut self, mut after: BlockRow) -> Result<(), Stop> {
        loop {
            let records = self.core.manifests.blocks(after, BLOCKS).await?;
            let Some(last) = records.last() else { return Ok(()) };
            let behind = std::mem::replace(&mut after, last.row);
            self.blocks(records, Some(behind)).await?;
            self.reached(Some(Place::Blocks(after.0)))?;
        }
    }

    /// Looks at these blocks, several at a time. Of a page of all blocks that begins behind this row, so that
    /// one can go on there.
    async fn blocks(&mut self, records: Vec<BlockRecord>, behind: Option<BlockRow>) -> Result<(), Stop> {
        let core = self.core;
        let mut together = if core.blocks.is_local() { TOGETHER_HERE } else { TOGETHER_THERE };
        let mut records: Vec<BlockRecord> =
            records.into_iter().filter(|record| record.stored || record.live).collect();
        // Where a look is a request, neighbours share it.
        let in_objects = core.has_objects_of_packs() && records.iter().any(|record| record.located.is_some());
        if in_objects {
            let place = |record: &BlockRecord| record.located.map(|at| (at.place.pack, at.place.offset));
            records.sort_unstable_by_key(place);
            together = TOGETHER_HERE;
        }
        let groups =
            if in_objects { neighbours(records) } else { records.into_iter().map(|one| vec![one]).collect() };
        let mut waiting = groups.into_iter();
        let mut looking: VecDeque<(Vec<BlockRecord>, Task<Looked>)> = VecDeque::new();
        loop {
            while looking.len() < together
                && let Some(group) = waiting.next()
            {
                self.slow_down().await?;
                if self.options.deep {
                    self.report.bytes += group.iter().map(|record| record.key.size() as u64).sum::<u64>();
                }
                let (core, deep, blocks) = (Arc::clone(core), self.options.deep, group.clone());
                let look = Task::spawn(async move { look_together(&core, &blocks, deep).await });
                looking.push_back((group, look));
            }
            let Some((group, looked)) = looking.pop_front() else { return Ok(()) };
            let looked = looked.join().await?;
            // A pack that this user may not read. Others can read its many blocks, so their rows stay as they
            // are. A put by this user writes a block again.
            let is_unreadable = matches!(&looked, Err(error) if is_unreadable(core, error));
            let looked = if is_unreadable { vec![Some(Damage::Corrupt); group.len()] } else { looked? };
            for (record, damage) in group.iter().zip(looked) {
                self.report.blocks += 1;
                if let Some(damage) = damage
                    && (is_unreadable || self.is_still_bad(record).await?)
                {
                    self.hurt(record, damage).await?;
                }
                let at = if in_objects { behind } else { behind.map(|_| record.row) };
                self.reached(at.map(|row| Place::Blocks(row.0)))?;
            }
        }
    }

    /// Looks again where nobody can have changed the block meanwhile.
    async fn is_still_bad(&mut self, record: &BlockRecord) -> Result<bool, Stop> {
        let core = self.core;
        let rechecked = if self.may_write { recheck(core, record.row).await } else { Ok(true) };
        let bad = match rechecked {
            Err(error) if error.code() == Code::Forbidden => {
                // A caller that may only read the store still gets the finding.
                self.may_write = false;
                true
            }
            bad => bad?,
        };
        // Without the lock, the same look again has to do.
        Ok(bad && (self.may_write || look(core, record.key, record.located, true).await?.is_some()))
    }

    async fn hurt(&mut self, record: &BlockRecord, damage: Damage) -> Result<(), Stop> {
        let blobs = self.core.manifests.blobs_of(record.row, NAMED).await?;
        if blobs.is_empty() {
            // No live blob needs it.
            return Ok(());
        }
        match damage {
            Damage::Missing => self.report.missing += 1,
            Damage::WrongLength { .. } | Damage::Corrupt => self.report.corrupt += 1,
        }
        self.found(Finding::Block { key: record.key, damage, blobs })
    }

    async fn listing(&mut self) -> Result<(), Stop> {
        let mut listing = self.core.blocks.list().await?;
        loop {
            let page = listing.next().await?;
            if page.is_empty() {
                break;
            }
            for part in page.chunks(BLOCKS) {
                let keys: Vec<BlockKey> = part.iter().map(|listed| listed.key).collect();
                let known = self.core.manifests.known(&[], &keys).await?;
                let (mut unknown, mut elsewhere) = (Vec::new(), Vec::new());
                for ((listed, row), located) in part.iter().zip(known.stored).zip(known.located) {
                    match (row, located) {
                        (None, _) => unknown.push(*listed),
                        (Some(_), Some(_)) => elsewhere.push(*listed),
                        (Some(_), None) => {}
                    }
                }
                for listed in unknown.iter().chain(&elsewhere) {
                    self.report.unreferenced += 1;
                    self.report.unreferenced_bytes += listed.length;
                    self.found(Finding::Unreferenced(*listed))?;
                }
                if self.options.adopt && !self.core.read_only && !unknown.is_empty() {
                    let keys = unknown.iter().map(|listed| listed.key).collect();
                    self.core.latch.watch(self.core.manifests.adopt(keys).await)?;
                }
            }
            self.reached(Some(Place::Listing))?;
        }
        self.unknown_packs().await?;
        if self.options.adopt && !self.core.read_only {
            self.core.latch.watch(self.core.manifests.mark_forgotten().await)?;
        }
        Ok(())
    }

    /// Packs without a row.
    async fn unknown_packs(&mut self) -> Result<(), Stop> {
        let manifests = &self.core.manifests;
        let Some(packs) = self.core.packs.as_ref().filter(|_| manifests.has_packs()) else { return Ok(()) };
        let listed = packs.list().await?;
        for part in listed.chunks(BLOCKS) {
            let mut unknown: Vec<(PackName, u64)> = Vec::new();
            for (name, bytes) in strays::packs(self.core, part).await? {
                self.report.unreferenced += 1;
                self.report.unreferenced_bytes += bytes;
                self.found(Finding::Pack { name, bytes })?;
                match rebuild::stranger(&**packs, &self.engine.store_id, name).await? {
                    // It is not for this store to drop.
                    Some(store) => {
                        let why = format!("the pack belongs to store {store}");
                        self.unusable(Finding::Record { pack: name, offset: 0, key: None, why })?;
                    }
                    None => unknown.push((name, bytes)),
                }
            }
            if self.options.adopt && !self.core.read_only && !unknown.is_empty() {
                self.core.latch.watch(manifests.adopt_packs(&unknown).await)?;
            }
        }
        Ok(())
    }

    /// Waits until it may read on, and lets the caller end it meanwhile.
    async fn slow_down(&mut self) -> Result<(), Stop> {
        let Some(rate) = self.options.bytes_per_second else { return Ok(()) };
        let due = pace::due(self.started, self.report.bytes, rate);
        while pace::sleep_a_step(due).await {
            self.tell_progress()?;
        }
        Ok(())
    }
}

/// The defect of a blob's manifest, if it has one.
async fn tiles(core: &Core, record: &BlobRecord) -> Result<Option<String>> {
    let size = record.id.size();
    let (mut end, mut count) = (0, 0);
    while end < size {
        let entries = core.manifests.entries(record.row, end, ENTRIES).await?;
        if entries.is_empty() {
            break;
        }
        for entry in &entries {
            if entry.offset != end {
                return Ok(Some(format!("an entry starts at {} where one should at {end}", entry.offset)));
            }
            end = entry.end();
            count += 1;
        }
    }
    if end != size {
        return Ok(Some(format!("its entries cover {end} bytes")));
    }
    if count != record.block_count {
        return Ok(Some(format!("it has {count} entries and should have {}", record.block_count)));
    }
    Ok(None)
}
