//! Deletion, and the operations of the collector.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::batch::{Batch, Row};
use super::connection::{Columns, Connection, Ending, Problem, Value, text};
use super::operation::Operation;
use super::plan::LIVE;
use super::put::lock_blocks;
use super::repo::{only, the_only};
use super::{
    BlobRow, BlockRow, Collection, Doomed, Durability, GarbagePlan, ManifestRepo, Restored, Settled, sql,
};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};

use Ending::{Commit as Keep, RollBack};
use Value::Number;

fn rows_batch(rows: impl IntoIterator<Item = i64>) -> String {
    Batch::new().numbers("rows", rows).finish()
}

impl ManifestRepo {
    /// Deletes the live blob of that id, durably: no query that begins later finds it. False if there is
    /// none.
    pub async fn delete(&self, id: &BlobId) -> Result<bool> {
        let operation = Operation::transaction("delete").synced(self.durability == Durability::Full);
        // The row that an earlier run found: if the answer of its commit was lost, that row may be deleted
        // already.
        let found_before = AtomicI64::new(0);
        self.run(operation, (*id, found_before), |mut connection, (id, found_before)| {
            Box::pin(async move {
                let before = found_before.load(Ordering::Relaxed);
                if before != 0 {
                    let states =
                        connection.rows(sql::BLOB_STATE, &[Number(before)], |row| row.number(0)).await?;
                    if only(states) != Some(LIVE) {
                        return Ok(RollBack(true));
                    }
                }
                let found = connection.rows(sql::DELETE_FIND, &Value::id(id), |row| row.number(0)).await?;
                let Some(row) = only(found) else { return Ok(RollBack(false)) };
                found_before.store(row, Ordering::Relaxed);
                connection.execute(sql::DELETE_BLOB, &[Number(row)]).await?;
                Ok(Keep(true))
            })
        })
        .await
    }

    /// Makes a deleted blob live again, as long as the collector has not begun with it.
    pub async fn restore(&self, id: &BlobId) -> Result<Restored> {
        let operation = Operation::transaction("restore").synced(self.durability == Durability::Full);
        self.run(operation, *id, |mut connection, id| {
            Box::pin(async move {
                let deleted = connection.rows(sql::RESTORE_FIND, &Value::id(id), |row| row.number(0)).await?;
                let [algo, digest, size] = Value::id(id);
                let values = [algo, digest, size, Number(1)];
                let live = connection.rows(sql::FIND, &values, |row| row.number(0)).await?;
                if !live.is_empty() {
                    return Ok(RollBack(Restored::Live));
                }
                let Some(row) = only(deleted) else { return Ok(RollBack(Restored::NotFound)) };
                connection.execute(sql::RESTORE, &[Number(row)]).await?;
                Ok(Keep(Restored::Restored))
            })
        })
        .await
    }

    /// Brings times back that lie further ahead than they can, as they were written by a clock that was
    /// ahead: nothing waits longer than for the time that it stands for, from now on. `lease` and `doom` are
    /// the longest ones. For the first step of a collection. Returns how many times it brought back.
    pub async fn bring_times_back(&self, lease: Duration, doom: Duration) -> Result<u64> {
        // Each by itself, for together they would lock rows in another order than puts do.
        let deletions =
            self.execute(Operation::statement("future_deletions"), sql::FUTURE_DELETIONS, []).await?;
        let lease = [Value::milliseconds(lease)];
        let leases = self.execute(Operation::statement("future_leases"), sql::FUTURE_LEASES, lease).await?;
        Ok(deletions + leases + self.bring_dooms_back(doom).await?)
    }

    /// The same of dooms alone. For a put that meets one that lasts longer than any does.
    pub async fn bring_dooms_back(&self, doom: Duration) -> Result<u64> {
        let doom = [Value::milliseconds(doom)];
        self.execute(Operation::statement("future_dooms"), sql::FUTURE_DOOMS, doom).await
    }

    /// Marks up to `limit` pending blobs of writers whose lease is over as deleted, and removes such writers
    /// that have none. Packs of such writers are found: nobody marks a block in them any more. Returns how
    /// many blobs. One that is just being committed counts as alive.
    pub async fn expire(&self, limit: usize) -> Result<u64> {
        let arguments = (limit, self.has_packs());
        self.run(Operation::transaction("expire"), arguments, |mut connection, (limit, has_packs)| {
            Box::pin(async move {
                if *has_packs {
                    connection.execute(sql::FIND_PACKS, &[Value::limit(*limit)]).await?;
                }
                let expired = connection.execute(sql::EXPIRE_BLOBS, &[Value::limit(*limit)]).await?;
                connection.execute(sql::EXPIRE_WRITERS, &[]).await?;
                Ok(Keep(expired))
            })
        })
        .await
    }

    /// Discards up to `limit` blobs that were deleted at least `grace` ago: they lose their ids, and nobody
    /// restores them.
    pub async fn discard(&self, grace: Duration, limit: usize) -> Result<u64> {
        let values = [Value::milliseconds(grace), Value::limit(limit)];
        self.execute(Operation::statement("discard"), sql::DISCARD, values).await
    }

    /// Up to `limit` discarded blobs, which have no ids, behind `after`, in the order of their rows. They
    /// include abandoned puts.
    pub async fn discarded_blobs(&self, after: BlobRow, limit: usize) -> Result<Vec<BlobRow>> {
        let values = [Number(after.0), Value::limit(limit)];
        self.rows(Operation::read("discarded_blobs"), sql::DISCARDED_BLOBS, values, |row| {
            Ok(BlobRow(row.number(0)?))
        })
        .await
    }

    /// Drops references of these discarded blobs, up to `limit` of all together, and marks their blocks as
    /// candidates in the same transaction. Begins with the first blob, and returns how many blobs are gone.
    pub async fn reap(&self, blobs: &[BlobRow], limit: usize) -> Result<usize> {
        let arguments = (blobs.to_vec(), limit);
        self.run(Operation::transaction("reap"), arguments, |mut connection, (blobs, limit)| {
            Box::pin(async move { reap(&mut connection, blobs, *limit).await })
        })
        .await
    }

    /// Up to `limit` candidates behind `after` that no collector dooms, ordered by row.
    pub async fn candidates(&self, after: BlockRow, limit: usize) -> Result<Vec<(BlockRow, BlockKey)>> {
        let values = [Number(after.0), Value::limit(limit)];
        self.rows(Operation::read("candidates"), sql::CANDIDATES, values, candidate).await
    }

    /// Looks at these candidates again. Those that nothing refers to, looked up while their rows are locked,
    /// are not stored any more and doomed by this collection, in any case durably: for as long as the doom
    /// `lasts`, nobody pins them. Those that something refers to are no candidates any more.
    pub async fn doom(&self, by: Collection, rows: &[BlockRow], lasts: Duration) -> Result<Doomed> {
        let operation = Operation::transaction("doom").synced(true);
        let rows = rows_batch(rows.iter().map(|row| row.0));
        self.run(operation, (by, rows, lasts), |mut connection, (by, rows, lasts)| {
            Box::pin(async move { doom(&mut connection, *by, rows, *lasts).await })
        })
        .await
    }

    /// Decides what becomes of blocks that were removed, after they were. The rows of those in `own` go that
    /// this collection still dooms. Of all blocks, `others` behind `own`, it says which have a row without a
    /// doom: somebody may rely on those.
    ///
    /// It waits for everybody who has a row of them, and also for who has inserted one and not committed. It
    /// need not be synced, because the doom was.
    pub async fn settle(&self, by: Collection, own: &[BlockKey], others: &[BlockKey]) -> Result<Settled> {
        let batch = |keys: &mut dyn Iterator<Item = &BlockKey>| {
            Batch::new().numbers("blocks", []).rows("keys", keys, Row::key).finish()
        };
        let (own, all) = (batch(&mut own.iter()), batch(&mut own.iter().chain(others)));
        self.run(Operation::transaction("settle"), (by, own, all), |mut connection, (by, own, all)| {
            Box::pin(async move { settle(&mut connection, *by, own, all).await })
        })
        .await
    }

    /// Ends dooms of this collection before their time: nothing that was begun for them is still under way.
    pub async fn lift(&self, by: Collection, rows: Vec<BlockRow>) -> Result<()> {
        let rows = rows_batch(rows.iter().map(|row| row.0));
        self.run(Operation::transaction("lift"), (by, rows), |mut connection, (by, rows)| {
            Box::pin(async move {
                lock_blocks(&mut connection, rows).await?;
                connection.execute(sql::LIFT, &[text(rows), Number(by.0)]).await?;
                Ok(Keep(()))
            })
        })
        .await
    }

    /// Gives some pages of the file back that nothing needs, as long as there are many: puts that follow need
    /// some again. False if there are few, and for a database that an older version made, where they are kept
    /// for what is written next. PostgreSQL does it by itself.
    pub async fn give_pages_back(&self) -> Result<bool> {
        const FEW: i64 = 256;
        self.run(Operation::transaction("give_pages_back"), (), |mut connection, ()| {
            Box::pin(async move {
                let read = |row: &Columns<'_>| Ok((row.number(0)?, row.number(1)?, row.number(2)?));
                let found = only(connection.rows(sql::FREE_PAGES, &[], read).await?);
                let (free, all, how) = found.unwrap_or_default();
                if how != 2 || free <= FEW.max(all / 8) {
                    return Ok(RollBack(false));
                }
                connection.rows(sql::GIVE_PAGES_BACK, &[], |_| Ok(())).await?;
                Ok(Keep(true))
            })
        })
        .await
    }

    /// How many blocks other collections doom.
    pub async fn doomed_by_others(&self, by: Collection) -> Result<u64> {
        let operation = Operation::read("doomed_by_others");
        let counts = self.rows(operation, sql::DOOMED_BY_OTHERS, [Number(by.0)], |row| row.number(0)).await?;
        the_only(counts).map(|count| count as u64)
    }

    /// Returns the plan of a collection with this grace; names up to `limit` blobs.
    pub async fn plan_garbage(&self, grace: Duration, limit: usize) -> Result<GarbagePlan> {
        let operation = Operation::read("plan_garbage").patience(Duration::from_secs(600));
        self.run(operation, (grace, limit), |mut connection, (grace, limit)| {
            Box::pin(async move {
                let values = [Value::milliseconds(*grace), Value::limit(*limit)];
                let named = connection.rows(sql::PLAN_BLOBS, &values, |row| row.id(0)).await?;
                let totals = connection.rows(sql::PLAN_TOTALS, &values[..1], |row| {
                    Ok((row.number(0)? as u64, row.number(1)? as u64, row.number(2)? as u64))
                });
                let (blobs, blocks, bytes) = the_only(totals.await?)?;
                Ok(Keep(GarbagePlan { named, blobs, blocks, bytes }))
            })
        })
        .await
    }
}

async fn reap(
    connection: &mut Connection<'_>,
    blobs: &[BlobRow],
    limit: usize,
) -> Result<Ending<usize>, Problem> {
    let mut blocks = Vec::new();
    let mut gone = 0;
    // The blob that keeps some of its references, and where the others end.
    let mut rest = None;
    for blob in blobs {
        let (mut last, left) = (-1, limit - blocks.len());
        let values = [Number(blob.0), Value::limit(left)];
        let found = connection.rows(sql::REAP_REFERENCES, &values, |row| {
            last = last.max(row.number(0)?);
            row.number(1)
        });
        let found = found.await?;
        let is_all = found.len() < left;
        blocks.extend(found);
        if !is_all {
            rest = Some((*blob, last));
            break;
        }
        gone += 1;
    }
    let whole = rows_batch(blobs[..gone].iter().map(|blob| blob.0));
    if !blocks.is_empty() {
        blocks.sort_unstable();
        blocks.dedup();
        let rows = rows_batch(blocks);
        lock_blocks(connection, &rows).await?;
        connection.execute(sql::MARK_CANDIDATES, &[text(&rows)]).await?;
        if let Some((blob, last)) = rest {
            connection.execute(sql::DROP_SOME_REFERENCES, &[Number(blob.0), Number(last)]).await?;
        }
        connection.execute(sql::DROP_REFERENCES, &[text(&whole)]).await?;
    }
    if gone > 0 {
        connection.execute(sql::DROP_BLOBS, &[text(&whole)]).await?;
    }
    Ok(Keep(gone))
}

fn candidate(row: &Columns<'_>) -> Result<(BlockRow, BlockKey), Problem> {
    Ok((BlockRow(row.number(0)?), row.key(1)?))
}

async fn doom(
    connection: &mut Connection<'_>,
    by: Collection,
    rows: &str,
    lasts: Duration,
) -> Result<Ending<Doomed>, Problem> {
    let mut blocks = connection.rows(sql::CANDIDATES_AGAIN, &[text(rows), Number(by.0)], candidate).await?;
    // Looked up while they are locked: a put that refers to one of them from now on waits for that lock
    // first.
    let locked = rows_batch(blocks.iter().map(|(row, _)| row.0));
    let referenced = connection.rows(sql::REFERENCED, &[text(&locked)], |row| row.number(0)).await?;
    if !referenced.is_empty() {
        connection.execute(sql::UNMARK, &[text(rows_batch(referenced.iter().copied()))]).await?;
    }
    let referenced: HashSet<i64> = referenced.into_iter().collect();
    blocks.retain(|(row, _)| !referenced.contains(&row.0));
    if !blocks.is_empty() {
        let rows = rows_batch(blocks.iter().map(|(row, _)| row.0));
        let values = [text(rows), Number(by.0), Value::milliseconds(lasts)];
        connection.execute(sql::DOOM, &values).await?;
    }
    Ok(Keep(Doomed { blocks, referenced: referenced.len() as u64 }))
}

async fn settle(
    connection: &mut Connection<'_>,
    by: Collection,
    own: &str,
    all: &str,
) -> Result<Ending<Settled>, Problem> {
    let claimed = claim(connection, all).await?;
    let gone = connection.rows(sql::SETTLE, &[text(own), Number(by.0)], |row| row.key(0)).await?;
    disclaim(connection, claimed).await?;
    let undoomed = connection.rows(sql::UNDOOMED, &[text(all)], |row| Ok(row.number(0)? as usize)).await?;
    Ok(Keep(Settled { gone, undoomed }))
}

/// The places of blocks whose files somebody may rely on, while their rows are locked.
pub(super) async fn undoomed(connection: &mut Connection<'_>, keys: &str) -> Result<Vec<usize>, Problem> {
    let claimed = claim(connection, keys).await?;
    disclaim(connection, claimed).await?;
    connection.rows(sql::UNDOOMED, &[text(keys)], |row| Ok(row.number(0)? as usize)).await
}

/// Locks the rows of these blocks. One that somebody has inserted and not committed cannot be seen, and this
/// waits for it. Returns the rows that it had to insert for that.
async fn claim(connection: &mut Connection<'_>, keys: &str) -> Result<Vec<i64>, Problem> {
    if !connection.is_shared() {
        return Ok(Vec::new());
    }
    connection.execute(sql::COMMIT_LOCK_BLOCKS, &[text(keys)]).await?;
    connection.rows(sql::COMMIT_CLAIM, &[text(keys)], |row| row.number(0)).await
}

async fn disclaim(connection: &mut Connection<'_>, claimed: Vec<i64>) -> Result<(), Problem> {
    if !claimed.is_empty() {
        connection.execute(sql::COMMIT_DISCLAIM, &[text(rows_batch(claimed))]).await?;
    }
    Ok(())
}
