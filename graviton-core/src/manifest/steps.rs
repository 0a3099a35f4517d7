//! The steps of the put protocol and of reading, each one transaction, once for both databases.
//!
//! With row locks the order is always: blocks in key order, then blobs. What a step decides on, it looks up in a
//! statement after the locks are held.

use std::sync::Arc;
use std::time::Duration;

use super::batch::{self, Batch};
use super::connection::{Columns, Connection, Ending, Problem, Step, Value};
use super::plan::{Facts, PENDING, Plan};
use super::sql;
use super::{
    BlobRecord, BlobRow, BlockRow, Commit, Committed, Durability, Known, ManifestEntry, Pinned, PinnedBlock,
    StoreRecord, Totals, WriterId,
};
use crate::key::{BlobId, BlockKey};

use Ending::{Commit as Keep, RollBack};
use Value::{Bytes, Number, Text};

/// The only row of an answer that has one.
fn only<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

pub(super) struct ReadStore;

impl Step for ReadStore {
    type Answer = Option<StoreRecord>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let found = connection.rows(sql::STORE, &[], |row| {
            let relaxed = row.text(2)? == Durability::Relaxed.name();
            let durability = if relaxed { Durability::Relaxed } else { Durability::Full };
            Ok(StoreRecord { id: row.text(0)?, block_location: row.text(1)?, durability })
        });
        Ok(Keep(only(found.await?)))
    }
}

pub(super) struct SetBlockLocation(pub(super) String);

impl Step for SetBlockLocation {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::SET_BLOCK_LOCATION, &[Text(&self.0)]).await?;
        Ok(Keep(()))
    }
}

pub(super) struct SetDurability(pub(super) Durability);

impl Step for SetDurability {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::SET_DURABILITY, &[Text(self.0.name())]).await?;
        Ok(Keep(()))
    }
}

/// In a relaxed store whatever says `stored` may not be durable, and the store has to say so.
async fn note_durability<C: Connection>(connection: &mut C, durability: Durability) -> Result<(), Problem> {
    if durability == Durability::Relaxed {
        connection.execute(sql::SET_DURABILITY, &[Text(durability.name())]).await?;
    }
    Ok(())
}

pub(super) struct RegisterWriter(pub(super) Duration);

impl Step for RegisterWriter {
    type Answer = Option<WriterId>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let lease = self.0.as_millis() as i64;
        let rows = connection.rows(sql::REGISTER_WRITER, &[Number(lease)], |row| row.number(0)).await?;
        Ok(Keep(only(rows).map(WriterId)))
    }
}

pub(super) struct RenewWriter(pub(super) WriterId, pub(super) Duration);

impl Step for RenewWriter {
    type Answer = bool;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<bool>, Problem> {
        let values = [Number(self.1.as_millis() as i64), Number(self.0.0)];
        Ok(Keep(connection.execute(sql::RENEW_WRITER, &values).await? > 0))
    }
}

pub(super) struct RemoveWriter(pub(super) WriterId);

impl Step for RemoveWriter {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::REMOVE_WRITER, &[Number(self.0.0)]).await?;
        Ok(Keep(()))
    }
}

pub(super) struct Begin {
    pub(super) writer: WriterId,
    pub(super) chunker: String,
}

impl Step for Begin {
    type Answer = Option<BlobRow>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Text(&self.chunker), Number(self.writer.0)];
        let rows = connection.rows(sql::BEGIN, &values, |row| row.number(0)).await?;
        Ok(Keep(only(rows).map(BlobRow)))
    }
}

pub(super) struct Abort(pub(super) BlobRow);

impl Step for Abort {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::ABORT, &[Number(self.0.0)]).await?;
        Ok(Keep(()))
    }
}

/// Whether the blob is pending, and remains so until the transaction ends.
async fn is_pending<C: Connection>(connection: &mut C, blob: BlobRow) -> Result<bool, Problem> {
    let states = connection.rows(sql::BLOB_STATE, &[Number(blob.0)], |row| row.number(0)).await?;
    Ok(states == [PENDING])
}

pub(super) struct Pin {
    blob: BlobRow,
    batch: String,
}

impl Pin {
    pub(super) fn new(blob: BlobRow, entries: &[ManifestEntry]) -> Pin {
        let batch = Batch::new().rows("keys", entries, |row, entry| {
            row.key(&entry.key);
            row.number(entry.offset as i64);
        });
        Pin { blob, batch: batch.finish() }
    }
}

impl Step for Pin {
    type Answer = Pinned;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Pinned>, Problem> {
        let keys = [Text(&self.batch)];
        connection.execute(sql::PIN_BLOCKS, &keys).await?;
        if !is_pending(connection, self.blob).await? {
            return Ok(RollBack(Pinned::Expired));
        }
        let mut doomed = 0;
        let pinned = connection.rows(sql::PIN_ANSWER, &keys, |row| {
            doomed = doomed.max(row.optional(2)?.unwrap_or(0));
            Ok(PinnedBlock { row: BlockRow(row.number(0)?), stored: row.truth(1)? })
        });
        let pinned = pinned.await?;
        if doomed > 0 {
            return Ok(RollBack(Pinned::Doomed(Duration::from_millis(doomed as u64))));
        }
        connection.execute(sql::PIN_REFERENCES, &[keys[0], Number(self.blob.0)]).await?;
        Ok(Keep(Pinned::Blocks(pinned)))
    }
}

pub(super) struct MarkStored {
    blob: BlobRow,
    batch: String,
    durability: Durability,
}

impl MarkStored {
    pub(super) fn new(blob: BlobRow, blocks: &[BlockRow], durability: Durability) -> MarkStored {
        let batch = Batch::new().numbers("rows", blocks.iter().map(|row| row.0)).finish();
        MarkStored { blob, batch, durability }
    }
}

impl Step for MarkStored {
    type Answer = bool;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<bool>, Problem> {
        if C::SHARED {
            connection.execute(sql::LOCK_BLOCKS, &[Text(&self.batch)]).await?;
        }
        if !is_pending(connection, self.blob).await? {
            return Ok(RollBack(false));
        }
        note_durability(connection, self.durability).await?;
        connection.execute(sql::MARK_STORED, &[Text(&self.batch)]).await?;
        Ok(Keep(true))
    }
}

pub(super) struct CommitAll {
    pub(super) commits: Arc<[Commit]>,
    pub(super) durability: Durability,
}

impl Step for CommitAll {
    type Answer = Vec<Committed>;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let plan = Plan::new(&self.commits);
        let claimed = if C::SHARED { lock(connection, &plan).await? } else { Vec::new() };
        let mut facts = Facts::default();
        let question = plan.question();
        connection
            .rows(sql::CHECK, &[Text(&question)], |row| {
                let place = row.number(1)? as usize;
                plan.learn(&mut facts, row.number(0)?, place, row.number(2)?, row.number(3)?);
                Ok(())
            })
            .await?;
        if facts.relaxed && self.durability == Durability::Full {
            return Ok(RollBack(vec![Committed::NotDurable; self.commits.len()]));
        }
        note_durability(connection, self.durability).await?;
        let (outcome, changes) = plan.decide(&facts);
        let (statements, batch) = changes.statements();
        for statement in statements {
            connection.execute(statement, &[Text(&batch)]).await?;
        }
        if !claimed.is_empty() && outcome.contains(&Committed::NotInPlace) {
            let rows = Batch::new().numbers("rows", claimed).finish();
            connection.execute(sql::COMMIT_DISCLAIM, &[Text(&rows)]).await?;
        }
        Ok(Keep(outcome))
    }
}

/// Locks what the commits are about. Blocks that are not there yet get a row, so that it can be locked: nobody
/// else can then begin to store or collect them. Returns those rows.
async fn lock<C: Connection>(connection: &mut C, plan: &Plan<'_>) -> Result<Vec<i64>, Problem> {
    let (blocks, rows) = plan.to_lock();
    let mut claimed = Vec::new();
    if plan.has_blocks() {
        connection.execute(sql::COMMIT_LOCK_BLOCKS, &[Text(&blocks)]).await?;
        if plan.has_keys() {
            claimed = connection.rows(sql::COMMIT_CLAIM, &[Text(&blocks)], |row| row.number(0)).await?;
        }
    }
    if plan.has_rows() {
        connection.execute(sql::COMMIT_LOCK_BLOBS, &[Text(&rows)]).await?;
    }
    Ok(claimed)
}

pub(super) struct LookUp {
    ids: usize,
    keys: usize,
    question: String,
}

impl LookUp {
    pub(super) fn new(ids: &[BlobId], keys: &[BlockKey]) -> LookUp {
        let question =
            Batch::new().rows("ids", ids, batch::Row::id).rows("keys", keys, batch::Row::key).finish();
        LookUp { ids: ids.len(), keys: keys.len(), question }
    }
}

impl Step for LookUp {
    type Answer = Known;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Known>, Problem> {
        let mut known = Known { live: vec![false; self.ids], stored: vec![None; self.keys], relaxed: false };
        connection
            .rows(sql::CHECK, &[Text(&self.question)], |row| {
                let place = row.number(1)? as usize;
                match row.number(0)? {
                    1 => known.live[place] = true,
                    2 => known.stored[place] = Some(row.truth(2)? && !row.truth(3)?),
                    3 => known.relaxed = row.truth(2)?,
                    _ => {}
                }
                Ok(())
            })
            .await?;
        Ok(Keep(known))
    }
}

pub(super) struct Find {
    pub(super) id: BlobId,
    pub(super) entries: usize,
}

impl Step for Find {
    type Answer = Option<(BlobRecord, Vec<ManifestEntry>)>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let id = &self.id;
        let values = [
            Number(id.algo().number()),
            Bytes(id.digest().as_bytes()),
            Number(id.size() as i64),
            Number(self.entries.max(1) as i64),
        ];
        let mut record = None;
        let mut manifest = Vec::new();
        connection
            .rows(sql::FIND, &values, |row| {
                if record.is_none() {
                    record = Some(BlobRecord {
                        row: BlobRow(row.number(0)?),
                        id: *id,
                        block_count: row.number(1)? as u64,
                        chunker: row.text(2)?,
                        created_at_ms: row.number(3)?,
                    });
                }
                // The empty blob has one row, without a block.
                if manifest.len() < self.entries && row.optional(4)?.is_some() {
                    manifest.push(row.entry(4)?);
                }
                Ok(())
            })
            .await?;
        Ok(Keep(record.map(|record| (record, manifest))))
    }
}

pub(super) struct Entries {
    pub(super) blob: BlobRow,
    pub(super) from: u64,
    pub(super) limit: usize,
}

impl Step for Entries {
    type Answer = Vec<ManifestEntry>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Number(self.blob.0), Number(self.from as i64), Number(self.limit as i64)];
        Ok(Keep(connection.rows(sql::ENTRIES, &values, |row| row.entry(0)).await?))
    }
}

pub(super) struct List {
    pub(super) after: Option<BlobId>,
    pub(super) limit: usize,
}

impl Step for List {
    type Answer = Vec<BlobRecord>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let (algo, digest, size) = match &self.after {
            Some(id) => (id.algo().number(), id.digest().as_bytes().as_slice(), id.size() as i64),
            None => (0, [].as_slice(), 0),
        };
        let values = [Number(algo), Bytes(digest), Number(size), Number(self.limit as i64)];
        let records = connection.rows(sql::LIST, &values, |row| {
            Ok(BlobRecord {
                row: BlobRow(row.number(0)?),
                id: row.id(1)?,
                block_count: row.number(4)? as u64,
                chunker: row.text(5)?,
                created_at_ms: row.number(6)?,
            })
        });
        Ok(Keep(records.await?))
    }
}

pub(super) struct CountTotals;

impl Step for CountTotals {
    type Answer = Option<Totals>;
    /// It counts everything.
    const PATIENCE: Duration = Duration::from_secs(3_600);

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let totals = connection.rows(sql::TOTALS, &[], |row| {
            Ok(Totals {
                blobs: row.number(0)? as u64,
                logical_bytes: row.number(1)? as u64,
                blocks: row.number(2)? as u64,
                stored_bytes: row.number(3)? as u64,
            })
        });
        Ok(Keep(only(totals.await?)))
    }
}
