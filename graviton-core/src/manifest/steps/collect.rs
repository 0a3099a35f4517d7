//! Deletion, and the steps of the collector.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{limit, only};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::manifest::batch::Batch;
use crate::manifest::connection::{Columns, Connection, Ending, Problem, Step, Value};
use crate::manifest::plan::LIVE;
use crate::manifest::{BlobRow, BlockRow, Collection, DeleteBytes, Doomed, GarbagePlan, Restored, sql};

use Ending::{Commit as Keep, RollBack};
use Value::{Bytes, Number, Text};

fn name(id: &BlobId) -> [Value<'_>; 3] {
    [Number(id.algo().number()), Bytes(id.digest().as_bytes()), Number(id.size() as i64)]
}

/// A duration that is longer than the database can count is for ever.
fn milliseconds(duration: Duration) -> Value<'static> {
    Number(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn rows_batch(rows: impl IntoIterator<Item = i64>) -> String {
    Batch::new().numbers("rows", rows).finish()
}

pub(in crate::manifest) struct Delete {
    id: BlobId,
    /// The row that an earlier run of this step found: if its answer was lost, it may be deleted already.
    row: AtomicI64,
}

impl Delete {
    pub(in crate::manifest) fn new(id: BlobId) -> Delete {
        Delete { id, row: AtomicI64::new(0) }
    }
}

impl Step for Delete {
    type Answer = bool;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<bool>, Problem> {
        let before = self.row.load(Ordering::Relaxed);
        if before != 0 {
            let states = connection.rows(sql::BLOB_STATE, &[Number(before)], |row| row.number(0)).await?;
            if only(states) != Some(LIVE) {
                return Ok(RollBack(true));
            }
        }
        let found = connection.rows(sql::DELETE_FIND, &name(&self.id), |row| row.number(0)).await?;
        let Some(row) = only(found) else { return Ok(RollBack(false)) };
        self.row.store(row, Ordering::Relaxed);
        connection.execute(sql::DELETE_BLOB, &[Number(row)]).await?;
        Ok(Keep(true))
    }
}

pub(in crate::manifest) struct Restore(pub(in crate::manifest) BlobId);

impl Step for Restore {
    type Answer = Restored;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Restored>, Problem> {
        let [algo, digest, size] = name(&self.0);
        let deleted = connection.rows(sql::RESTORE_FIND, &[algo, digest, size], |row| row.number(0)).await?;
        let live = connection.rows(sql::FIND, &[algo, digest, size, Number(1)], |row| row.number(0)).await?;
        if !live.is_empty() {
            return Ok(RollBack(Restored::Live));
        }
        let Some(row) = only(deleted) else { return Ok(RollBack(Restored::NotFound)) };
        connection.execute(sql::RESTORE, &[Number(row)]).await?;
        Ok(Keep(Restored::Restored))
    }
}

/// Pending blobs of dead writers become deleted, then those writers go.
pub(in crate::manifest) struct Expire {
    pub(in crate::manifest) limit: usize,
}

impl Step for Expire {
    type Answer = u64;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<u64>, Problem> {
        let expired = connection.execute(sql::EXPIRE_BLOBS, &[limit(self.limit)]).await?;
        connection.execute(sql::EXPIRE_WRITERS, &[]).await?;
        Ok(Keep(expired))
    }
}

/// Deleted blobs whose grace is over lose their names.
pub(in crate::manifest) struct TakeNames {
    pub(in crate::manifest) grace: Duration,
    pub(in crate::manifest) limit: usize,
}

impl Step for TakeNames {
    type Answer = u64;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<u64>, Problem> {
        let values = [milliseconds(self.grace), limit(self.limit)];
        Ok(Keep(connection.execute(sql::TAKE_NAMES, &values).await?))
    }
}

pub(in crate::manifest) struct Nameless {
    pub(in crate::manifest) after: BlobRow,
    pub(in crate::manifest) limit: usize,
}

impl Step for Nameless {
    type Answer = Vec<BlobRow>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Number(self.after.0), limit(self.limit)];
        Ok(Keep(connection.rows(sql::NAMELESS, &values, |row| Ok(BlobRow(row.number(0)?))).await?))
    }
}

/// Drops some references of a nameless blob and marks their blocks; the blob goes with its last ones.
pub(in crate::manifest) struct Reap {
    pub(in crate::manifest) blob: BlobRow,
    pub(in crate::manifest) limit: usize,
}

impl Step for Reap {
    /// Whether the blob is gone.
    type Answer = bool;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<bool>, Problem> {
        let mut last = -1;
        let values = [Number(self.blob.0), limit(self.limit)];
        let blocks = connection.rows(sql::REAP_REFERENCES, &values, |row| {
            last = last.max(row.number(0)?);
            row.number(1)
        });
        let mut blocks = blocks.await?;
        let all = blocks.len() < self.limit;
        if !blocks.is_empty() {
            blocks.sort_unstable();
            blocks.dedup();
            let rows = rows_batch(blocks);
            if C::SHARED {
                connection.execute(sql::LOCK_BLOCKS, &[Text(&rows)]).await?;
            }
            connection.execute(sql::MARK_CANDIDATES, &[Text(&rows)]).await?;
            connection.execute(sql::DROP_REFERENCES, &[Number(self.blob.0), Number(last)]).await?;
        }
        if all {
            connection.execute(sql::DROP_BLOB, &[Number(self.blob.0)]).await?;
        }
        Ok(Keep(all))
    }
}

pub(in crate::manifest) struct Doom {
    pub(in crate::manifest) collection: Collection,
    pub(in crate::manifest) after: BlockRow,
    pub(in crate::manifest) limit: usize,
    pub(in crate::manifest) lasts: Duration,
}

impl Step for Doom {
    type Answer = Doomed;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Doomed>, Problem> {
        let values = [Number(self.after.0), limit(self.limit)];
        let candidates = connection
            .rows(sql::CANDIDATES, &values, |row| Ok((BlockRow(row.number(0)?), row.key(1)?)))
            .await?;
        let last = candidates.last().map(|(row, _)| *row);
        if last.is_none() {
            return Ok(RollBack(Doomed::default()));
        }
        // Looked up while they are locked: a put that refers to one of them from now on waits for that lock first.
        let all = rows_batch(candidates.iter().map(|(row, _)| row.0));
        let referenced = connection.rows(sql::REFERENCED, &[Text(&all)], |row| row.number(0)).await?;
        if !referenced.is_empty() {
            connection.execute(sql::UNMARK, &[Text(&rows_batch(referenced.iter().copied()))]).await?;
        }
        let referenced: HashSet<i64> = referenced.into_iter().collect();
        let mut blocks = candidates;
        blocks.retain(|(row, _)| !referenced.contains(&row.0));
        let doomed = Doomed { blocks, referenced: referenced.len() as u64, last };
        if !doomed.blocks.is_empty() {
            let rows = rows_batch(doomed.blocks.iter().map(|(row, _)| row.0));
            let lasts = Number(self.lasts.as_millis() as i64);
            connection.execute(sql::DOOM, &[Text(&rows), Number(self.collection.0), lasts]).await?;
        }
        Ok(Keep(doomed))
    }
}

pub(in crate::manifest) struct Sweep {
    pub(in crate::manifest) collection: Collection,
    pub(in crate::manifest) rows: Vec<BlockRow>,
    pub(in crate::manifest) delete: Arc<DeleteBytes>,
}

impl Step for Sweep {
    type Answer = Vec<BlockKey>;
    const SINGLE: bool = false;
    /// Given up in the middle, it would lose its locks while bytes are still being deleted.
    const PATIENCE: Duration = Duration::from_secs(3_600);

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let rows = rows_batch(self.rows.iter().map(|row| row.0));
        if C::SHARED {
            connection.execute(sql::SWEEP_IN_PEACE, &[]).await?;
            connection.execute(sql::LOCK_BLOCKS, &[Text(&rows)]).await?;
        }
        let values = [Text(&rows), Number(self.collection.0)];
        let ours = connection.rows(sql::SWEEPABLE, &values, |row| Ok((row.number(0)?, row.key(1)?))).await?;
        if ours.is_empty() {
            return Ok(RollBack(Vec::new()));
        }
        let rows = rows_batch(ours.iter().map(|(row, _)| *row));
        let keys: Vec<BlockKey> = ours.into_iter().map(|(_, key)| key).collect();
        connection.execute(sql::DROP_BLOCKS, &[Text(&rows)]).await?;
        let all_gone = (self.delete)(keys.clone()).await;
        // Otherwise the rows stay, and their dooms until somebody knows better.
        Ok(if all_gone { Keep(keys) } else { RollBack(Vec::new()) })
    }
}

pub(in crate::manifest) struct Lift {
    pub(in crate::manifest) collection: Collection,
    pub(in crate::manifest) rows: Vec<BlockRow>,
}

impl Step for Lift {
    type Answer = ();
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        let rows = rows_batch(self.rows.iter().map(|row| row.0));
        if C::SHARED {
            connection.execute(sql::LOCK_BLOCKS, &[Text(&rows)]).await?;
        }
        connection.execute(sql::LIFT, &[Text(&rows), Number(self.collection.0)]).await?;
        Ok(Keep(()))
    }
}

/// Ends the dooms of a collector that is known to be gone.
pub(in crate::manifest) struct LiftAll(pub(in crate::manifest) Collection);

impl Step for LiftAll {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::LIFT_ALL, &[Number(self.0.0)]).await?;
        Ok(Keep(()))
    }
}

pub(in crate::manifest) struct Dooming;

impl Step for Dooming {
    type Answer = Vec<(Collection, u64)>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let dooming = connection
            .rows(sql::DOOMING, &[], |row| Ok((Collection(row.number(0)?), row.number(1)? as u64)))
            .await?;
        Ok(Keep(dooming))
    }
}

pub(in crate::manifest) struct PlanGarbage {
    pub(in crate::manifest) grace: Duration,
    pub(in crate::manifest) limit: usize,
}

impl Step for PlanGarbage {
    type Answer = GarbagePlan;
    const PATIENCE: Duration = Duration::from_secs(600);

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<GarbagePlan>, Problem> {
        let grace = milliseconds(self.grace);
        let named = connection.rows(sql::PLAN_BLOBS, &[grace, limit(self.limit)], |row| row.id(0)).await?;
        let totals = connection
            .rows(sql::PLAN_TOTALS, &[grace], |row| {
                Ok((row.number(0)? as u64, row.number(1)? as u64, row.number(2)? as u64))
            })
            .await?;
        let (blobs, blocks, bytes) = only(totals).unwrap_or_default();
        Ok(Keep(GarbagePlan { named, blobs, blocks, bytes }))
    }
}
