//! The put protocol.

use std::sync::Arc;
use std::time::Duration;

use super::only;
use crate::key::BlockKey;
use crate::manifest::batch::Batch;
use crate::manifest::connection::Columns;
use crate::manifest::connection::{Connection, Ending, Problem, Step, Value};
use crate::manifest::plan::{Facts, PENDING, Plan};
use crate::manifest::{
    BlobRow, BlockRow, Collection, Commit, Committed, Durability, ManifestEntry, Pinned, PinnedBlock,
    WriterId, sql,
};

use Ending::{Commit as Keep, RollBack};
use Value::{Number, Text};

/// In a relaxed store whatever says `stored` may not be durable, and the store has to say so.
async fn note_durability<C: Connection>(connection: &mut C, durability: Durability) -> Result<(), Problem> {
    if durability == Durability::Relaxed {
        connection.execute(sql::SET_DURABILITY, &[Text(durability.name())]).await?;
    }
    Ok(())
}

pub(in crate::manifest) struct RegisterWriter(pub(in crate::manifest) Duration);

impl Step for RegisterWriter {
    type Answer = Option<WriterId>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let lease = self.0.as_millis() as i64;
        let rows = connection.rows(sql::REGISTER_WRITER, &[Number(lease)], |row| row.number(0)).await?;
        Ok(Keep(only(rows).map(WriterId)))
    }
}

pub(in crate::manifest) struct RenewWriter(
    pub(in crate::manifest) WriterId,
    pub(in crate::manifest) Duration,
);

impl Step for RenewWriter {
    type Answer = bool;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<bool>, Problem> {
        let values = [Number(self.1.as_millis() as i64), Number(self.0.0)];
        Ok(Keep(connection.execute(sql::RENEW_WRITER, &values).await? > 0))
    }
}

pub(in crate::manifest) struct RemoveWriter(pub(in crate::manifest) WriterId);

impl Step for RemoveWriter {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::REMOVE_WRITER, &[Number(self.0.0)]).await?;
        Ok(Keep(()))
    }
}

pub(in crate::manifest) struct Begin {
    pub(in crate::manifest) writer: WriterId,
    pub(in crate::manifest) chunker: String,
}

impl Step for Begin {
    type Answer = Option<BlobRow>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Text(&self.chunker), Number(self.writer.0)];
        let rows = connection.rows(sql::BEGIN, &values, |row| row.number(0)).await?;
        Ok(Keep(only(rows).map(BlobRow)))
    }
}

pub(in crate::manifest) struct Abort(pub(in crate::manifest) BlobRow);

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

pub(in crate::manifest) struct Pin {
    blob: BlobRow,
    batch: String,
}

impl Pin {
    pub(in crate::manifest) fn new(blob: BlobRow, entries: &[ManifestEntry]) -> Pin {
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
        let mut doomed = None;
        let pinned = connection.rows(sql::PIN_ANSWER, &keys, |row| {
            if let (Some(remaining @ 1..), Some(by)) = (row.optional(2)?, row.optional(3)?) {
                let remaining = Duration::from_millis(remaining as u64);
                doomed = doomed.max(Some((remaining, by)));
            }
            Ok(PinnedBlock { row: BlockRow(row.number(0)?), stored: row.truth(1)? })
        });
        let pinned = pinned.await?;
        if let Some((remaining, by)) = doomed {
            return Ok(RollBack(Pinned::Doomed { remaining, by: Collection(by) }));
        }
        connection.execute(sql::PIN_REFERENCES, &[keys[0], Number(self.blob.0)]).await?;
        Ok(Keep(Pinned::Blocks(pinned)))
    }
}

pub(in crate::manifest) struct MarkStored {
    blob: BlobRow,
    batch: String,
    durability: Durability,
}

impl MarkStored {
    pub(in crate::manifest) fn new(blob: BlobRow, blocks: &[BlockRow], durability: Durability) -> MarkStored {
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

pub(in crate::manifest) struct CommitAll {
    pub(in crate::manifest) commits: Arc<[Commit]>,
    pub(in crate::manifest) durability: Durability,
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
        // Rows that were made only to be locked say nothing.
        facts.disregard(claimed.iter().map(|(_, key)| key));
        if facts.relaxed && self.durability == Durability::Full {
            return Ok(RollBack(vec![Committed::NotDurable; self.commits.len()]));
        }
        // Where others write at the same time, what was seen may have changed.
        if C::SHARED || !facts.relaxed {
            note_durability(connection, self.durability).await?;
        }
        let (outcome, changes) = plan.decide(&facts);
        let (statements, batch) = changes.statements();
        for statement in statements {
            connection.execute(statement, &[Text(&batch)]).await?;
        }
        if !claimed.is_empty() {
            // Those that no member uses go; what is stored by now stays.
            let rows = Batch::new().numbers("rows", claimed.iter().map(|(row, _)| *row)).finish();
            connection.execute(sql::COMMIT_DISCLAIM, &[Text(&rows)]).await?;
        }
        Ok(Keep(outcome))
    }
}

/// Locks what the commits are about. Blocks that are not there yet get a row, so that it can be locked: nobody
/// else can then begin to store or collect them. Returns those rows.
async fn lock<C: Connection>(connection: &mut C, plan: &Plan<'_>) -> Result<Vec<(i64, BlockKey)>, Problem> {
    let (blocks, rows) = plan.to_lock();
    let mut claimed = Vec::new();
    if plan.has_blocks() {
        connection.execute(sql::COMMIT_LOCK_BLOCKS, &[Text(&blocks)]).await?;
        if plan.has_keys() {
            claimed = connection
                .rows(sql::COMMIT_CLAIM, &[Text(&blocks)], |row| Ok((row.number(0)?, row.key(1)?)))
                .await?;
        }
    }
    if plan.has_rows() {
        connection.execute(sql::COMMIT_LOCK_BLOBS, &[Text(&rows)]).await?;
    }
    Ok(claimed)
}
