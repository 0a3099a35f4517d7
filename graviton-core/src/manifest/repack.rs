//! The operations of a repack. The rules are in `engine::repack`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::batch::{Batch, Row};
use super::connection::{Ending, Value, text};
use super::operation::Operation;
use super::put::{held, is_pending, lock_blocks};
use super::repo::the_only;
use super::{BlobRow, BlockRecord, BlockRow, Collection, HeldPack, ManifestRepo, Mark, sql};
use crate::error::Result;
use crate::key::BlockKey;
use crate::place::{PackRow, record_size};

use Ending::{Commit as Keep, RollBack};
use Value::Number;

fn rows_batch(rows: &[BlockRow]) -> String {
    Batch::new().numbers("rows", rows.iter().map(|row| row.0)).finish()
}

impl ManifestRepo {
    /// How many stored blocks are under their own names, and how many are in packs. Costs time proportional
    /// to what is stored.
    pub async fn layouts(&self) -> Result<(u64, u64)> {
        let operation = Operation::read("layouts").patience(Duration::from_secs(600));
        let counts = self.rows(operation, sql::LAYOUTS, [], |row| Ok((row.number(0)?, row.number(1)?)));
        let (named, packed) = the_only(counts.await?)?;
        Ok((named as u64, packed as u64))
    }

    /// Up to `limit` stored blocks under their own names behind `after`, ordered by row. Whether a live blob
    /// refers to them is not looked at.
    pub async fn named_blocks(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
        let values = [Number(after.0), Value::limit(limit)];
        // It passes over the blocks that are in packs.
        let operation = Operation::read("named_blocks").patience(Duration::from_secs(600));
        self.rows(operation, sql::NAMED_BLOCKS, values, super::verify::record).await
    }

    /// The same of blocks in packs.
    pub async fn packed_blocks(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
        let values = [Number(after.0), Value::limit(limit)];
        let operation = Operation::read("packed_blocks").patience(Duration::from_secs(600));
        self.rows(operation, sql::PACKED_BLOCKS, values, super::verify::record).await
    }

    /// Gives stored blocks that are under their own names the places to which they were copied, and dooms
    /// those names, durably in every mode: the files go behind that. For as long as the doom `lasts`, nobody
    /// writes or relies on the name. Leaves out blocks that have a place or a doom, and those that a put
    /// under way refers to, which may write the name. Returns the rows that have moved; `None` if one of the
    /// packs is not held.
    pub async fn move_to_packs(
        &self,
        by: Collection,
        marks: &[Mark],
        packs: &[HeldPack],
        lasts: Duration,
    ) -> Result<Option<Vec<BlockRow>>> {
        let operation = Operation::transaction("move_to_packs").synced(true);
        let arguments = (by, Batch::of_marks(marks), packs.to_vec(), lasts);
        self.run(operation, arguments, |mut connection, (by, batch, packs, lasts)| {
            Box::pin(async move {
                if held(&mut connection, packs).await?.len() < packs.len() {
                    return Ok(RollBack(None));
                }
                lock_blocks(&mut connection, batch).await?;
                let values = [text(batch), Number(by.0), Value::milliseconds(*lasts)];
                let moved = connection.rows(sql::MOVE_TO_PACKS, &values, |row| Ok(BlockRow(row.number(0)?)));
                Ok(Keep(Some(moved.await?)))
            })
        })
        .await
    }

    /// Takes the places of blocks away that still have them (`found` of each mark): the blocks are under
    /// their own names, durably. They are pinned by this blob, so that nobody dooms the names. Returns the
    /// rows that have moved; `None` if the blob is not pending. The old bytes are dead, and stay as they are.
    pub async fn move_to_files(&self, pins: BlobRow, marks: &[Mark]) -> Result<Option<Vec<BlockRow>>> {
        let left: HashMap<i64, (PackRow, u64)> = marks
            .iter()
            .filter_map(|mark| Some((mark.row.0, mark.found?)))
            .map(|(row, place)| (row, (place.pack, record_size(place.stored_size))))
            .collect();
        let operation = Operation::transaction("move_to_files").synced(true);
        let arguments = (pins, Batch::of_marks(marks), left);
        self.run(operation, arguments, |mut connection, (pins, batch, left)| {
            Box::pin(async move {
                lock_blocks(&mut connection, batch).await?;
                if !is_pending(&mut connection, *pins).await? {
                    return Ok(RollBack(None));
                }
                let moved = connection.rows(sql::MOVE, &[text(batch)], |row| row.number(0)).await?;
                let mut dead: BTreeMap<PackRow, u64> = BTreeMap::new();
                for (pack, bytes) in moved.iter().filter_map(|row| left.get(row)) {
                    *dead.entry(*pack).or_default() += bytes;
                }
                for (pack, bytes) in dead {
                    let values = [Number(bytes as i64), Number(0), Number(pack.0)];
                    connection.execute(sql::ADD_DEAD, &values).await?;
                }
                Ok(Keep(Some(moved.into_iter().map(BlockRow).collect())))
            })
        })
        .await
    }

    /// Dooms the names of stored blocks that are in packs, durably in every mode, for as long as the doom
    /// `lasts`. Leaves out those that a running put references, and those with a doom that has not ended.
    /// Returns the blocks.
    pub async fn doom_names(
        &self,
        by: Collection,
        rows: &[BlockRow],
        lasts: Duration,
    ) -> Result<Vec<BlockKey>> {
        let operation = Operation::transaction("doom_names").synced(true);
        self.run(operation, (by, rows_batch(rows), lasts), |mut connection, (by, batch, lasts)| {
            Box::pin(async move {
                lock_blocks(&mut connection, batch).await?;
                let values = [text(batch), Number(by.0), Value::milliseconds(*lasts)];
                Ok(Keep(connection.rows(sql::DOOM_NAMES, &values, |row| row.key(0)).await?))
            })
        })
        .await
    }

    /// Up to `limit` stored candidates in packs behind `after`, ordered by row. A repack that died leaves its
    /// blocks as candidates, with files under their names.
    pub async fn candidates_in_packs(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
        let values = [Number(after.0), Value::limit(limit)];
        let operation = Operation::read("candidates_in_packs");
        self.rows(operation, sql::CANDIDATES_IN_PACKS, values, super::verify::record).await
    }

    /// Up to `limit` candidates in packs behind `after`, ordered by row, whose dooms have ended and were not
    /// lifted. There may be objects under their names: of a deletion that got no answer, or was not carried
    /// out.
    pub async fn left_names(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
        let values = [Number(after.0), Value::limit(limit)];
        self.rows(Operation::read("left_names"), sql::LEFT_NAMES, values, super::verify::record).await
    }

    /// Gives blocks in packs a doom of the name that has ended, durably in every mode: they are about to get
    /// objects under their names. [`left_names`](ManifestRepo::left_names) finds them, if the process dies.
    pub async fn mark_names(&self, by: Collection, rows: &[BlockRow]) -> Result<()> {
        let operation = Operation::transaction("mark_names").synced(true);
        self.run(operation, (by, rows_batch(rows)), |mut connection, (by, batch)| {
            Box::pin(async move {
                lock_blocks(&mut connection, batch).await?;
                connection.execute(sql::MARK_NAMES, &[text(batch), Number(by.0)]).await?;
                Ok(Keep(()))
            })
        })
        .await
    }

    /// Lifts dooms of blocks in packs that have ended: nothing is under their names. Leaves out those that a
    /// running put references, which may be about to write the name.
    pub async fn lift_ended(&self, rows: &[BlockRow]) -> Result<()> {
        self.run(Operation::transaction("lift_ended"), rows_batch(rows), |mut connection, batch| {
            Box::pin(async move {
                lock_blocks(&mut connection, batch).await?;
                connection.execute(sql::LIFT_ENDED, &[text(batch)]).await?;
                Ok(Keep(()))
            })
        })
        .await
    }

    /// Ends dooms of names of this collection before their time: no request for them is running, and the
    /// objects are still there. [`left_names`](ManifestRepo::left_names) finds them.
    pub async fn end_names(&self, by: Collection, keys: &[BlockKey]) -> Result<()> {
        let batch = Batch::new().numbers("blocks", []).rows("keys", keys, Row::key).finish();
        self.run(Operation::transaction("end_names"), (by, batch), |mut connection, (by, batch)| {
            Box::pin(async move {
                if connection.is_shared() {
                    connection.execute(sql::COMMIT_LOCK_BLOCKS, &[text(batch)]).await?;
                }
                connection.execute(sql::END_NAMES, &[text(batch), Number(by.0)]).await?;
                Ok(Keep(()))
            })
        })
        .await
    }

    /// Decides what becomes of files that were set aside and whose blocks are in packs, and lifts the dooms
    /// of this collection. Returns the places, among the keys, of blocks whose file is to move back: somebody
    /// may rely on it. It need not be synced, because the doom was.
    pub async fn settle_names(&self, by: Collection, keys: &[BlockKey]) -> Result<Vec<usize>> {
        let batch = Batch::new().numbers("blocks", []).rows("keys", keys, Row::key).finish();
        self.run(Operation::transaction("settle_names"), (by, batch), |mut connection, (by, batch)| {
            Box::pin(async move {
                let back = super::collect::undoomed(&mut connection, batch).await?;
                connection.execute(sql::LIFT_NAMES, &[text(batch), Number(by.0)]).await?;
                Ok(Keep(back))
            })
        })
        .await
    }
}
