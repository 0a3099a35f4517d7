//! Deletion, and the operations of the collector.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::batch::Batch;
use super::connection::{Connection, Ending, Problem, Value, text};
use super::operation::Operation;
use super::plan::LIVE;
use super::repo::only;
use super::{
    BlobRow, BlockRow, Collection, DeleteBytes, Doomed, Durability, GarbagePlan, ManifestRepo, Restored, sql,
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

    /// Marks up to `limit` pending blobs of writers whose lease is over as deleted, and removes such writers
    /// that have none. Returns how many blobs. One that is just being committed counts as alive.
    pub async fn expire(&self, limit: usize) -> Result<u64> {
        self.run(Operation::transaction("expire"), limit, |mut connection, limit| {
            Box::pin(async move {
                let expired = connection.execute(sql::EXPIRE_BLOBS, &[Value::limit(*limit)]).await?;
                connection.execute(sql::EXPIRE_WRITERS, &[]).await?;
                Ok(Keep(expired))
            })
        })
        .await
    }

    /// Takes the names of up to `limit` blobs that were deleted at least `grace` ago: from now on nobody
    /// restores them.
    pub async fn take_names(&self, grace: Duration, limit: usize) -> Result<u64> {
        let values = [Value::milliseconds(grace), Value::limit(limit)];
        self.execute(Operation::statement("take_names"), sql::TAKE_NAMES, values).await
    }

    /// Up to `limit` deleted blobs without a name, behind `after`, ordered.
    pub async fn nameless(&self, after: BlobRow, limit: usize) -> Result<Vec<BlobRow>> {
        let values = [Number(after.0), Value::limit(limit)];
        self.rows(Operation::read("nameless"), sql::NAMELESS, values, |row| Ok(BlobRow(row.number(0)?))).await
    }

    /// Drops up to `limit` references of a nameless blob, and marks their blocks as candidates in the same
    /// transaction. True once the blob itself is gone.
    pub async fn reap(&self, blob: BlobRow, limit: usize) -> Result<bool> {
        self.run(Operation::transaction("reap"), (blob, limit), |mut connection, (blob, limit)| {
            Box::pin(async move { reap(&mut connection, *blob, *limit).await })
        })
        .await
    }

    /// Looks at up to `limit` candidates behind `after` that no collector has doomed. Those that nothing
    /// refers to, looked up while their rows are locked, are not stored any more and doomed by this
    /// collection for as long as it `lasts`, in any case durably: until then nobody pins them. The others are
    /// no candidates any more.
    pub async fn doom(
        &self,
        by: Collection,
        after: BlockRow,
        limit: usize,
        lasts: Duration,
    ) -> Result<Doomed> {
        let operation = Operation::transaction("doom").synced(true);
        self.run(operation, (by, after, limit, lasts), |mut connection, (by, after, limit, lasts)| {
            Box::pin(async move { doom(&mut connection, *by, *after, *limit, *lasts).await })
        })
        .await
    }

    /// Removes the rows of those blocks that this collection still dooms and nothing refers to, calls
    /// `delete` with their keys under the locks, and commits if that says that all bytes are gone. Otherwise
    /// it changes nothing. `delete` may be called again, for rows that are locked again and looked at again.
    /// Not to be dropped before it returns.
    pub async fn sweep(
        &self,
        by: Collection,
        rows: Vec<BlockRow>,
        delete: Arc<DeleteBytes>,
    ) -> Result<Vec<BlockKey>> {
        // Given up in the middle, it would lose its locks while bytes are still being deleted.
        let operation = Operation::transaction("sweep").patience(Duration::from_secs(3_600));
        let rows = rows_batch(rows.iter().map(|row| row.0));
        self.run(operation, (by, rows, delete), |mut connection, (by, rows, delete)| {
            Box::pin(async move { sweep(&mut connection, *by, rows, delete).await })
        })
        .await
    }

    /// Ends dooms of this collection before their time: nothing that was begun for them is still under way.
    pub async fn lift(&self, by: Collection, rows: Vec<BlockRow>) -> Result<()> {
        let rows = rows_batch(rows.iter().map(|row| row.0));
        self.run(Operation::transaction("lift"), (by, rows), |mut connection, (by, rows)| {
            Box::pin(async move {
                if connection.is_shared() {
                    connection.execute(sql::LOCK_BLOCKS, &[text(rows)]).await?;
                }
                connection.execute(sql::LIFT, &[text(rows), Number(by.0)]).await?;
                Ok(Keep(()))
            })
        })
        .await
    }

    /// Ends all dooms of a collection whose process is gone.
    pub async fn lift_all(&self, by: Collection) -> Result<()> {
        self.execute(Operation::statement("lift_all"), sql::LIFT_ALL, [Number(by.0)]).await.map(drop)
    }

    /// The collections that doom blocks, and how many each.
    pub async fn dooming(&self) -> Result<Vec<(Collection, u64)>> {
        self.rows(Operation::read("dooming"), sql::DOOMING, [], |row| {
            Ok((Collection(row.number(0)?), row.number(1)? as u64))
        })
        .await
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
                let (blobs, blocks, bytes) = only(totals.await?).unwrap_or_default();
                Ok(Keep(GarbagePlan { named, blobs, blocks, bytes }))
            })
        })
        .await
    }
}

async fn reap(connection: &mut Connection<'_>, blob: BlobRow, limit: usize) -> Result<Ending<bool>, Problem> {
    let mut last = -1;
    let values = [Number(blob.0), Value::limit(limit)];
    let blocks = connection.rows(sql::REAP_REFERENCES, &values, |row| {
        last = last.max(row.number(0)?);
        row.number(1)
    });
    let mut blocks = blocks.await?;
    let all = blocks.len() < limit;
    if !blocks.is_empty() {
        blocks.sort_unstable();
        blocks.dedup();
        let rows = rows_batch(blocks);
        if connection.is_shared() {
            connection.execute(sql::LOCK_BLOCKS, &[text(&rows)]).await?;
        }
        connection.execute(sql::MARK_CANDIDATES, &[text(&rows)]).await?;
        connection.execute(sql::DROP_REFERENCES, &[Number(blob.0), Number(last)]).await?;
    }
    if all {
        connection.execute(sql::DROP_BLOB, &[Number(blob.0)]).await?;
    }
    Ok(Keep(all))
}

async fn doom(
    connection: &mut Connection<'_>,
    by: Collection,
    after: BlockRow,
    limit: usize,
    lasts: Duration,
) -> Result<Ending<Doomed>, Problem> {
    let values = [Number(after.0), Value::limit(limit)];
    let candidates =
        connection.rows(sql::CANDIDATES, &values, |row| Ok((BlockRow(row.number(0)?), row.key(1)?))).await?;
    let last = candidates.last().map(|(row, _)| *row);
    if last.is_none() {
        return Ok(RollBack(Doomed::default()));
    }
    // Looked up while they are locked: a put that refers to one of them from now on waits for that lock
    // first.
    let all = rows_batch(candidates.iter().map(|(row, _)| row.0));
    let referenced = connection.rows(sql::REFERENCED, &[text(&all)], |row| row.number(0)).await?;
    if !referenced.is_empty() {
        connection.execute(sql::UNMARK, &[text(rows_batch(referenced.iter().copied()))]).await?;
    }
    let referenced: HashSet<i64> = referenced.into_iter().collect();
    let mut blocks = candidates;
    blocks.retain(|(row, _)| !referenced.contains(&row.0));
    let doomed = Doomed { blocks, referenced: referenced.len() as u64, last };
    if !doomed.blocks.is_empty() {
        let rows = rows_batch(doomed.blocks.iter().map(|(row, _)| row.0));
        let values = [text(rows), Number(by.0), Value::milliseconds(lasts)];
        connection.execute(sql::DOOM, &values).await?;
    }
    Ok(Keep(doomed))
}

async fn sweep(
    connection: &mut Connection<'_>,
    by: Collection,
    rows: &str,
    delete: &Arc<DeleteBytes>,
) -> Result<Ending<Vec<BlockKey>>, Problem> {
    if connection.is_shared() {
        connection.execute(sql::SWEEP_IN_PEACE, &[]).await?;
        connection.execute(sql::LOCK_BLOCKS, &[text(rows)]).await?;
    }
    let values = [text(rows), Number(by.0)];
    let ours = connection.rows(sql::SWEEPABLE, &values, |row| Ok((row.number(0)?, row.key(1)?))).await?;
    if ours.is_empty() {
        return Ok(RollBack(Vec::new()));
    }
    let rows = rows_batch(ours.iter().map(|(row, _)| *row));
    let keys: Vec<BlockKey> = ours.into_iter().map(|(_, key)| key).collect();
    connection.execute(sql::DROP_BLOCKS, &[text(rows)]).await?;
    let all_gone = delete(keys.clone()).await;
    // Otherwise the rows stay, and their dooms last until they are lifted or run out.
    Ok(if all_gone { Keep(keys) } else { RollBack(Vec::new()) })
}
