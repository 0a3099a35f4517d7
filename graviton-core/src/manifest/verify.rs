//! The database's part of a verification.

use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, Row};
use super::connection::{Columns, Connection, Ending, Problem, Value, text};
use super::operation::Operation;
use super::repo::only;
use super::sql::Sql;
use super::{BlockRecord, BlockRow, LookAgain, ManifestRepo, sql, sqlite};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};

use Ending::{Commit as Keep, RollBack};
use Value::Number;

impl ManifestRepo {
    /// Up to `limit` blocks behind `after`, ordered by row.
    pub async fn blocks(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
        let values = [Number(after.0), Value::limit(limit)];
        self.rows(Operation::read("blocks"), sql::BLOCK_PAGE, values, record).await
    }

    /// Returns the rows of these blocks: those that have one, in any order.
    pub async fn blocks_by_key(&self, keys: Vec<BlockKey>) -> Result<Vec<BlockRecord>> {
        let keys = Batch::new().rows("keys", &keys, Row::key).finish();
        self.rows(Operation::read("blocks_by_key"), sql::BLOCKS_BY_KEY, [text(keys)], record).await
    }

    /// Returns the rows of these blocks: those that a blob refers to which is live, or which can be
    /// restored. In any order.
    pub async fn wanted_blocks(&self, keys: &[BlockKey]) -> Result<Vec<BlockRecord>> {
        let keys = Batch::new().rows("keys", keys, Row::key).finish();
        self.rows(Operation::read("wanted_blocks"), sql::WANTED_BLOCKS, [text(keys)], record).await
    }

    /// Up to `limit` live blobs that refer to a block.
    pub async fn blobs_of(&self, block: BlockRow, limit: usize) -> Result<Vec<BlobId>> {
        let values = [Number(block.0), Value::limit(limit)];
        self.rows(Operation::read("blobs_of"), sql::BLOBS_OF, values, |row| row.id(0)).await
    }

    /// Locks the row of a block and calls `look`; if that says that the bytes are not right, marks the block
    /// as not stored, so that the next put of it writes it anew. True if so. A block that is doomed or gone
    /// is left alone.
    pub async fn recheck(&self, block: BlockRow, look: Arc<LookAgain>) -> Result<bool> {
        let operation = Operation::transaction("recheck").synced(true);
        self.run(operation, (block, look), |mut connection, (block, look)| {
            Box::pin(async move {
                let row = [Number(block.0)];
                let found = connection
                    .rows(sql::RECHECK, &row, |row| Ok((row.key(0)?, row.truth(3)?, row.located(4)?)));
                let Some((key, stored, located)) = only(found.await?) else { return Ok(RollBack(false)) };
                if look(key, located).await? {
                    return Ok(RollBack(false));
                }
                if stored {
                    connection.execute(sql::CLEAR_STORED, &row).await?;
                }
                Ok(Keep(true))
            })
        })
        .await
    }

    /// Inserts rows for blocks that have none, as candidates that are not stored.
    pub async fn adopt(&self, keys: Vec<BlockKey>) -> Result<u64> {
        let keys = Batch::new().rows("keys", &keys, Row::key).finish();
        self.execute(Operation::statement("adopt"), sql::ADOPT, [text(keys)]).await
    }

    /// Marks blocks that nothing refers to as candidates, wherever that was not done. Costs time proportional
    /// to what is stored.
    pub async fn mark_forgotten(&self) -> Result<u64> {
        let operation = Operation::statement("mark_forgotten").patience(Duration::from_secs(600));
        self.execute(operation, sql::FORGOTTEN, []).await
    }

    /// Lists what the database itself finds wrong with its file or indexes, as lines for people. SQLite
    /// checks its file. A PostgreSQL server with checksums checks its pages as it reads them. References
    /// between tables are checked in both.
    pub async fn integrity(&self) -> Result<Vec<String>> {
        let operation = Operation::read("integrity").patience(Duration::from_secs(3_600));
        self.run(operation, (), |mut connection, ()| {
            Box::pin(async move {
                let mut found = Vec::new();
                if let Connection::Sqlite(..) = &connection {
                    found = or_damage(connection.rows(CHECK_FILE, &[], |row| row.text(0)).await)?;
                    found.retain(|line| line != "ok");
                }
                found
                    .extend(or_damage(connection.rows(sql::CHECK_REFERENCES, &[], |row| row.text(0)).await)?);
                Ok(Keep(found))
            })
        })
        .await
    }
}

pub(super) fn record(row: &Columns<'_>) -> Result<BlockRecord, Problem> {
    Ok(BlockRecord {
        row: BlockRow(row.number(0)?),
        key: row.key(1)?,
        stored: row.truth(4)?,
        live: row.truth(5)?,
        located: row.located(6)?,
    })
}

/// Damage that keeps SQLite from going on is a finding and no failure.
fn or_damage(found: Result<Vec<String>, Problem>) -> Result<Vec<String>, Problem> {
    match found {
        Err(Problem::Sqlite(error)) if sqlite::is_damage(&error) => Ok(vec![error.to_string()]),
        found => found,
    }
}

const CHECK_FILE: Sql = Sql::new("PRAGMA integrity_check(100)", "");
