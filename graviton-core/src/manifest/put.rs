//! The put protocol.
//!
//! Rows are always locked in this order: packs that are marked in, shared; blocks in key order; blobs. An
//! operation reads the rows that it decides on in a statement after the locks are held.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::connection::{Columns, Connection, Ending, Problem, Value, text};
use super::operation::Operation;
use super::plan::{Facts, PENDING, Plan, Statement};
use super::repo::{only, the_only};
use super::{
    BlobRow, BlockRow, Commit, Committed, Durability, HeldPack, ManifestEntry, ManifestRepo, Mark, Pinned,
    PinnedBlock, WriterId, sql,
};
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::PackRow;

use Ending::{Commit as Keep, RollBack};
use Value::Number;

impl ManifestRepo {
    /// A new writer whose lease ends so much from now, by the database's clock.
    pub async fn register_writer(&self, lease: Duration) -> Result<WriterId> {
        let operation = Operation::statement("register_writer");
        let values = [Value::milliseconds(lease)];
        let rows = self.rows(operation, sql::REGISTER_WRITER, values, |row| row.number(0)).await?;
        the_only(rows).map(WriterId)
    }

    /// Moves the end of the lease; false if the writer is gone.
    pub async fn renew_writer(&self, writer: WriterId, lease: Duration) -> Result<bool> {
        let values = [Value::milliseconds(lease), Number(writer.0)];
        Ok(self.execute(Operation::renewal("renew_writer"), sql::RENEW_WRITER, values).await? > 0)
    }

    /// Removes a writer that has nothing pending.
    pub async fn remove_writer(&self, writer: WriterId) -> Result<()> {
        let operation = Operation::statement("remove_writer");
        self.execute(operation, sql::REMOVE_WRITER, [Number(writer.0)]).await.map(drop)
    }

    /// Inserts a pending blob; `None` if the writer is gone.
    pub async fn begin(&self, writer: WriterId, chunker: &str) -> Result<Option<BlobRow>> {
        let values = [text(chunker.to_owned()), Number(writer.0)];
        let rows = self.rows(Operation::statement("begin"), sql::BEGIN, values, |row| row.number(0)).await?;
        Ok(only(rows).map(BlobRow))
    }

    /// Pins up to 1,024 blocks under a pending blob: inserts their references, and rows for those that have
    /// none. The answers are in the order of the entries. Pinning the same entries again is no error. Nothing
    /// is pinned if the name of a block is doomed that is not stored in a pack.
    pub async fn pin(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned> {
        self.pin_some(blob, entries, false).await
    }

    /// The same for a caller that writes blocks into packs whose names are doomed ([`PinnedBlock::doomed`]):
    /// they are pinned too.
    pub async fn pin_into_packs(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned> {
        self.pin_some(blob, entries, true).await
    }

    async fn pin_some(&self, blob: BlobRow, entries: &[ManifestEntry], into_packs: bool) -> Result<Pinned> {
        let batch = Batch::new().rows("keys", entries, |row, entry| {
            row.key(&entry.key);
            row.number(entry.offset as i64);
        });
        let arguments = (blob, batch.finish(), into_packs);
        self.run(Operation::transaction("pin"), arguments, |mut connection, (blob, batch, into_packs)| {
            Box::pin(async move { pin(&mut connection, *blob, batch, *into_packs).await })
        })
        .await
    }

    /// Marks up to 1,024 pinned blocks as stored. Returns false, having changed nothing, if the blob is not
    /// pending any more, or one of the packs is not held.
    pub async fn mark_stored(&self, blob: BlobRow, marks: &[Mark], packs: &[HeldPack]) -> Result<bool> {
        let arguments = (blob, Batch::of_marks(marks), packs.to_vec(), self.durability);
        let operation = Operation::transaction("mark_stored");
        self.run(operation, arguments, |mut connection, (blob, batch, packs, durability)| {
            Box::pin(async move {
                if held(&mut connection, packs).await?.len() < packs.len() {
                    return Ok(RollBack(false));
                }
                lock_blocks(&mut connection, batch).await?;
                if !is_pending(&mut connection, *blob).await? {
                    return Ok(RollBack(false));
                }
                note_durability(&mut connection, *durability).await?;
                connection.execute(sql::MARK_STORED, &[text(batch)]).await?;
                Ok(Keep(true))
            })
        })
        .await
    }

    /// Marks a pending blob as deleted, for the collector; nothing if it is not pending.
    pub async fn abort(&self, blob: BlobRow) -> Result<()> {
        self.execute(Operation::statement("abort"), sql::ABORT, [Number(blob.0)]).await.map(drop)
    }

    /// The same of a pending blob whose blocks were put for live ones. The marks before it are as durable as
    /// a commit then.
    pub async fn release_pins(&self, blob: BlobRow) -> Result<()> {
        let operation = Operation::statement("release_pins").synced(self.durability == Durability::Full);
        self.execute(operation, sql::ABORT, [Number(blob.0)]).await.map(drop)
    }

    /// Commits several blobs in one transaction and one sync, durably. A member whose condition does not
    /// hold drops out and does not hurt the others; an error is of all of them. Doing it again after an
    /// unknown outcome is safe: a pinned blob that was committed is `Created`, a whole one `Existed`.
    pub async fn commit(&self, commits: Arc<[Commit]>) -> Result<Vec<Committed>> {
        let operation = Operation::transaction("commit").synced(self.durability == Durability::Full);
        self.run(operation, (commits, self.durability), |mut connection, (commits, durability)| {
            Box::pin(async move { commit(&mut connection, commits, *durability).await })
        })
        .await
    }
}

/// Locks the blocks whose rows are in the batch. They are looked at in a later statement.
pub(super) async fn lock_blocks(connection: &mut Connection<'_>, batch: &str) -> Result<(), Problem> {
    if connection.is_shared() {
        connection.execute(sql::LOCK_BLOCKS, &[text(batch)]).await?;
    }
    Ok(())
}

/// Those of the packs that their writers hold, until the transaction ends. Packs are locked first.
pub(super) async fn held(
    connection: &mut Connection<'_>,
    packs: &[HeldPack],
) -> Result<HashSet<HeldPack>, Problem> {
    if packs.is_empty() {
        return Ok(HashSet::new());
    }
    let batch = Batch::new().numbers("packs", packs.iter().map(|held| held.pack.0)).finish();
    let read = |row: &Columns<'_>| {
        Ok(HeldPack {
            pack: PackRow(row.number(0)?),
            writer: WriterId(row.number(1)?),
            name: row.text(2)?.parse()?,
        })
    };
    let found: HashSet<HeldPack> =
        connection.rows(sql::LOCK_PACKS, &[text(batch)], read).await?.into_iter().collect();
    Ok(packs.iter().copied().filter(|pack| found.contains(pack)).collect())
}

/// In a relaxed store a block that is marked `stored` may not be durable, and the store has to say so.
async fn note_durability(connection: &mut Connection<'_>, durability: Durability) -> Result<(), Problem> {
    if durability == Durability::Relaxed {
        connection.execute(sql::SET_DURABILITY, &[text(durability.name())]).await?;
    }
    Ok(())
}

/// Whether the blob is pending, and remains so until the transaction ends.
pub(super) async fn is_pending(connection: &mut Connection<'_>, blob: BlobRow) -> Result<bool, Problem> {
    let states = connection.rows(sql::BLOB_STATE, &[Number(blob.0)], |row| row.number(0)).await?;
    Ok(only(states) == Some(PENDING))
}

async fn pin(
    connection: &mut Connection<'_>,
    blob: BlobRow,
    batch: &str,
    into_packs: bool,
) -> Result<Ending<Pinned>, Problem> {
    let keys = [text(batch)];
    let pin = if into_packs { sql::PIN_BLOCKS_INTO_PACKS } else { sql::PIN_BLOCKS };
    connection.execute(pin, &keys).await?;
    if !is_pending(connection, blob).await? {
        return Ok(RollBack(Pinned::Expired));
    }
    let mut doomed = None;
    let pinned = connection.rows(sql::PIN_ANSWER, &keys, |row| {
        let (stored, located) = (row.truth(1)?, row.located(3)?);
        let remaining = row.optional(2)?.filter(|remaining| *remaining > 0);
        let remaining = remaining.map(|remaining| Duration::from_millis(remaining as u64));
        // A doom is one of the block's own name.
        doomed = doomed.max(remaining.filter(|_| !stored || located.is_none()));
        Ok(PinnedBlock { row: BlockRow(row.number(0)?), stored, located, damaged: false, doomed: remaining })
    });
    let pinned = pinned.await?;
    if let Some(remaining) = doomed.filter(|_| !into_packs) {
        return Ok(RollBack(Pinned::Doomed { remaining }));
    }
    connection.execute(sql::PIN_REFERENCES, &[text(batch), Number(blob.0)]).await?;
    Ok(Keep(Pinned::Blocks(pinned)))
}

async fn commit(
    connection: &mut Connection<'_>,
    commits: &[Commit],
    durability: Durability,
) -> Result<Ending<Vec<Committed>>, Problem> {
    let plan = Plan::new(commits);
    let is_shared = connection.is_shared();
    let held = held(connection, &plan.packs()).await?;
    let claimed = if is_shared { lock(connection, &plan).await? } else { Vec::new() };
    let mut facts = Facts::of(held);
    let question = plan.question();
    connection
        .rows(sql::CHECK, &[text(&question)], |row| {
            let place = row.number(1)? as usize;
            plan.learn(&mut facts, row.number(0)?, place, row.number(2)?, row.number(3)?);
            Ok(())
        })
        .await?;
    // Rows that were inserted only to be locked say nothing.
    facts.disregard(claimed.iter().map(|(_, key)| key));
    if facts.relaxed && durability == Durability::Full {
        return Ok(RollBack(vec![Committed::NotDurable; commits.len()]));
    }
    // Where others write at the same time, what was read may have changed.
    if is_shared || !facts.relaxed {
        note_durability(connection, durability).await?;
    }
    let (outcome, changes) = plan.decide(&facts);
    let (statements, batch) = changes.statements();
    for Statement { sql, rows } in statements {
        let touched = connection.execute(sql, &[text(&batch)]).await?;
        if rows.is_some_and(|rows| touched != rows as u64) {
            return Err(incomplete().into());
        }
    }
    if !claimed.is_empty() {
        // Those that no member uses go; what is stored by now stays.
        let rows = Batch::new().numbers("rows", claimed.iter().map(|(row, _)| *row)).finish();
        connection.execute(sql::COMMIT_DISCLAIM, &[text(rows)]).await?;
    }
    Ok(Keep(outcome))
}

fn incomplete() -> Error {
    Error::new(Code::Internal, "a commit was given up that would have left a blob with a hole")
}

/// Locks the rows that the commits depend on. A block without a row gets one, so that it can be locked:
/// nobody else can then begin to store or collect it. Returns those rows.
async fn lock(connection: &mut Connection<'_>, plan: &Plan<'_>) -> Result<Vec<(i64, BlockKey)>, Problem> {
    let (blocks, rows) = plan.to_lock();
    let mut claimed = Vec::new();
    if plan.has_blocks() {
        connection.execute(sql::COMMIT_LOCK_BLOCKS, &[text(&blocks)]).await?;
        if plan.has_keys() {
            claimed = connection
                .rows(sql::COMMIT_CLAIM, &[text(&blocks)], |row| Ok((row.number(0)?, row.key(1)?)))
                .await?;
        }
    }
    if plan.has_rows() {
        connection.execute(sql::COMMIT_LOCK_BLOBS, &[text(&rows)]).await?;
    }
    Ok(claimed)
}
