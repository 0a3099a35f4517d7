//! Verification: is everything there that the database says, and is it what it was?
//!
//! 1. The database's own check of itself.
//! 2. *Manifests*: the entries of every live blob tile it exactly.
//! 3. *Blocks*: each one that is said to be stored is there with its length; deep, every byte is hashed again.
//! 4. *Listing*: what the block store holds that no row knows.
//!
//! Runs beside everything else. What is found wrong is looked at once more where nobody can have changed it meanwhile:
//! a block under its row lock, a manifest after its blob was found live again. A block that is bad there is marked as
//! not stored, so that the next put of it writes it anew. A failed backend is an error, never a finding.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{AsyncStore, Core, not_found, pace};
use crate::block::Listed;
use crate::blocking::{self, Task};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{BlobRecord, BlockRecord, BlockRow, LookAgain};
use crate::report::{Place, VerifyCursor, VerifyReport};

const BLOBS: usize = 256;
const ENTRIES: usize = 4_096;
const BLOCKS: usize = 512;

/// For how long a block may be read from over a network while its row is locked.
const UNDER_LOCK: Duration = Duration::from_secs(10);

/// Blobs that one bad block names.
const NAMED: usize = 1_000;

/// Blocks that are looked at together, here and over a network; each is in memory.
const TOGETHER_HERE: usize = 4;
const TOGETHER_THERE: usize = 16;

/// What a verification is to do.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Hash every byte again; otherwise only lengths are looked at.
    pub deep: bool,
    /// Only these blobs; all of the store if there are none.
    pub ids: Vec<BlobId>,
    /// Read at most so many bytes in a second.
    pub bytes_per_second: Option<u64>,
    /// Go on where an earlier one ended ([`VerifyReport::cursor`]).
    pub from: Option<VerifyCursor>,
    /// Hand blocks that no row knows to the collector. They may be a put's of this moment, which then writes them again.
    pub adopt: bool,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It has another length than its key says.
    WrongLength {
        /// That length in bytes.
        length: u64,
    },
    /// Its bytes are others than those that were put.
    Corrupt,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => f.write_str("missing"),
            Damage::WrongLength { length } => write!(f, "has {length} bytes"),
            Damage::Corrupt => f.write_str("corrupt"),
        }
    }
}

/// Something that a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A block that live blobs need is bad.
    Block {
        /// The block.
        key: BlockKey,
        /// What is wrong with it.
        damage: Damage,
        /// The blobs that are hurt, up to a thousand of them.
        blobs: Vec<BlobId>,
    },
    /// The entries of a blob's manifest do not tile it.
    Manifest {
        /// The blob.
        id: BlobId,
        /// What is wrong.
        why: String,
    },
    /// The database finds something wrong with itself.
    Database(String),
    /// Bytes that no row knows: of a put of this moment, or garbage.
    Unreferenced(Listed),
}

/// What a verification tells while it runs.
#[derive(Debug)]
pub enum VerifyEvent<'a> {
    /// It found something.
    Found(Finding),
    /// So far it has got.
    Progress(&'a VerifyReport),
}

impl AsyncStore {
    /// Looks whether everything is there and intact, and tells of what is not. `tell` may end it early.
    ///
    /// Nothing is changed, except that a bad block is marked as not stored, so that the next put of it writes it anew (in
    /// a store that was opened only to be read, or that may not be written to, not even that).
    pub async fn verify(
        &self,
        options: &VerifyOptions,
        tell: impl FnMut(VerifyEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<VerifyReport> {
        let core = &self.engine()?.core;
        let mut check = Check {
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

struct Check<'a, T> {
    core: &'a Arc<Core>,
    options: &'a VerifyOptions,
    tell: T,
    report: VerifyReport,
    started: Instant,
    /// Whether bad blocks can be marked.
    may_write: bool,
}

impl<T: FnMut(VerifyEvent<'_>) -> ControlFlow<()> + Send> Check<'_, T> {
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
            for problem in blocking::aside(async move { manifests.integrity().await }).await?? {
                self.report.database_problems += 1;
                self.found(Finding::Database(problem))?;
            }
        }
        let place = from.unwrap_or(Place::Manifests(None));
        if let Place::Manifests(after) = &place {
            self.all_manifests(*after).await?;
        }
        if let Place::Manifests(_) | Place::Blocks(_) = &place {
            let after = if let Place::Blocks(row) = place { row } else { BlockRow(0) };
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
                self.blocks(records, false).await?;
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

    async fn all_blocks(&mut self, mut after: BlockRow) -> Result<(), Stop> {
        loop {
            let records = self.core.manifests.blocks(after, BLOCKS).await?;
            let Some(last) = records.last() else { return Ok(()) };
            after = last.row;
            self.blocks(records, true).await?;
            self.reached(Some(Place::Blocks(after)))?;
        }
    }

    /// Looks at these blocks, several at a time. With `in_order` one can go on behind each of them.
    async fn blocks(&mut self, records: Vec<BlockRecord>, in_order: bool) -> Result<(), Stop> {
        let together = if self.core.blocks.is_local() { TOGETHER_HERE } else { TOGETHER_THERE };
        let mut waiting = records.into_iter().filter(|record| record.stored || record.live);
        let mut looking: VecDeque<(BlockRecord, Task<Result<Option<Damage>>>)> = VecDeque::new();
        loop {
            while looking.len() < together
                && let Some(record) = waiting.next()
            {
                self.slow_down().await?;
                if self.options.deep {
                    self.report.bytes += record.key.size() as u64;
                }
                let (core, deep) = (Arc::clone(self.core), self.options.deep);
                let task = tokio::spawn(async move { look(&core, record.key, deep).await });
                looking.push_back((record, Task::new(task)));
            }
            let Some((record, looked)) = looking.pop_front() else { return Ok(()) };
            self.report.blocks += 1;
            if let Some(damage) = looked.join().await?? {
                self.damaged(&record, damage).await?;
            }
            self.reached(in_order.then_some(Place::Blocks(record.row)))?;
        }
    }

    async fn damaged(&mut self, record: &BlockRecord, damage: Damage) -> Result<(), Stop> {
        let core = self.core;
        let rechecked = if self.may_write { core.recheck(record.row).await } else { Ok(true) };
        let bad = match rechecked {
            Err(error) if error.code() == Code::Forbidden => {
                // Who may only read the store can find out about it all the same.
                self.may_write = false;
                true
            }
            bad => bad?,
        };
        // Without the lock, the same look again has to do.
        if !bad || !self.may_write && look(core, record.key, true).await?.is_none() {
            return Ok(());
        }
        let blobs = core.manifests.blobs_of(record.row, NAMED).await?;
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
                let known = self.core.manifests.known(&[], &keys).await?.stored;
                let unknown =
                    part.iter().zip(known).filter(|(_, row)| row.is_none()).map(|(listed, _)| *listed);
                let unknown: Vec<Listed> = unknown.collect();
                for listed in &unknown {
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
        if self.options.adopt && !self.core.read_only {
            self.core.latch.watch(self.core.manifests.mark_forgotten().await)?;
        }
        Ok(())
    }

    /// Waits until it may read on, and lets the caller end it meanwhile.
    async fn slow_down(&mut self) -> Result<(), Stop> {
        let Some(rate) = self.options.bytes_per_second else { return Ok(()) };
        let due = pace::due(self.started, self.report.bytes, rate);
        while pace::glance(due).await {
            self.tell_progress()?;
        }
        Ok(())
    }
}

/// What is wrong with the manifest of a blob.
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

/// What is wrong with the bytes of a block.
pub(super) async fn look(core: &Arc<Core>, key: BlockKey, deep: bool) -> Result<Option<Damage>> {
    if !deep {
        return Ok(match core.blocks.length(&key).await? {
            None => Some(Damage::Missing),
            Some(length) if length == key.size() as u64 => None,
            Some(length) => Some(Damage::WrongLength { length }),
        });
    }
    let bytes = match core.blocks.get(&key, None).await {
        Ok(bytes) => bytes,
        Err(error) if error.code() == Code::MissingBlock => return Ok(Some(Damage::Missing)),
        Err(error) if error.code() == Code::CorruptBlock => {
            return Ok(Some(match core.blocks.length(&key).await? {
                None => Damage::Missing,
                Some(length) => Damage::WrongLength { length },
            }));
        }
        // A sector that cannot be read is damage like any other.
        Err(error) if error.code() == Code::Io && core.blocks.is_local() => return Ok(Some(Damage::Corrupt)),
        Err(error) => return Err(error),
    };
    // Where a lock is held, on the thread that holds it: all others may be waiting for it.
    let same = blocking::run(move || key.algo().digest(&bytes) == *key.digest()).await?;
    Ok((!same).then_some(Damage::Corrupt))
}

impl Core {
    /// Looks at a block again while nobody else can write it; true if it is bad, and marked so.
    pub(super) async fn recheck(self: &Arc<Core>, row: BlockRow) -> Result<bool> {
        let core = Arc::clone(self);
        let again: Arc<LookAgain> = Arc::new(move |key| {
            let core = Arc::clone(&core);
            Box::pin(async move {
                let looking = look(&core, key, true);
                if core.blocks.is_local() {
                    return Ok(looking.await?.is_none());
                }
                // Others wait for the lock.
                let looked = tokio::time::timeout(UNDER_LOCK, looking).await.map_err(|_| {
                    let why =
                        format!("{} was not read within {} s", core.blocks.place(&key), UNDER_LOCK.as_secs());
                    Error::new(Code::BackendUnavailable, why).with_advice("try again later")
                })?;
                Ok(looked?.is_none())
            })
        });
        self.manifests.recheck(row, again).await
    }
}
