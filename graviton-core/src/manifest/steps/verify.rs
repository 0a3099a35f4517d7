//! The database's side of a verification.

use std::sync::Arc;
use std::time::Duration;

use super::{limit, only};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::manifest::batch::{Batch, Row};
use crate::manifest::connection::{Columns, Connection, Ending, Problem, Step, Value};
use crate::manifest::{BlockRecord, BlockRow, LookAgain, sql};

use Ending::{Commit as Keep, RollBack};
use Value::{Number, Text};

fn record<C: Columns>(row: &C) -> Result<BlockRecord, Problem> {
    Ok(BlockRecord {
        row: BlockRow(row.number(0)?),
        key: row.key(1)?,
        stored: row.truth(4)?,
        live: row.truth(5)?,
    })
}

pub(in crate::manifest) struct BlockPage {
    pub(in crate::manifest) after: BlockRow,
    pub(in crate::manifest) limit: usize,
}

impl Step for BlockPage {
    type Answer = Vec<BlockRecord>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Number(self.after.0), limit(self.limit)];
        Ok(Keep(connection.rows(sql::BLOCK_PAGE, &values, |row| record(row)).await?))
    }
}

pub(in crate::manifest) struct BlocksByKey(pub(in crate::manifest) Vec<BlockKey>);

impl Step for BlocksByKey {
    type Answer = Vec<BlockRecord>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let keys = Batch::new().rows("keys", &self.0, Row::key).finish();
        Ok(Keep(connection.rows(sql::BLOCKS_BY_KEY, &[Text(&keys)], |row| record(row)).await?))
    }
}

pub(in crate::manifest) struct BlobsOf {
    pub(in crate::manifest) block: BlockRow,
    pub(in crate::manifest) limit: usize,
}

impl Step for BlobsOf {
    type Answer = Vec<BlobId>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Number(self.block.0), limit(self.limit)];
        Ok(Keep(connection.rows(sql::BLOBS_OF, &values, |row| row.id(0)).await?))
    }
}

/// Marks a block as not stored, if its bytes are still bad while nobody else can write them.
pub(in crate::manifest) struct Recheck {
    pub(in crate::manifest) block: BlockRow,
    pub(in crate::manifest) look: Arc<LookAgain>,
}

impl Step for Recheck {
    type Answer = bool;
    const SINGLE: bool = false;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<bool>, Problem> {
        let row = [Number(self.block.0)];
        let found = connection.rows(sql::RECHECK, &row, |row| Ok((row.key(0)?, row.truth(3)?))).await?;
        let Some((key, stored)) = only(found) else { return Ok(RollBack(false)) };
        if (self.look)(key).await? {
            return Ok(RollBack(false));
        }
        if stored {
            connection.execute(sql::CLEAR_STORED, &row).await?;
        }
        Ok(Keep(true))
    }
}

pub(in crate::manifest) struct Adopt(pub(in crate::manifest) Vec<BlockKey>);

impl Step for Adopt {
    type Answer = u64;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<u64>, Problem> {
        let keys = Batch::new().rows("keys", &self.0, Row::key).finish();
        Ok(Keep(connection.execute(sql::ADOPT, &[Text(&keys)]).await?))
    }
}

pub(in crate::manifest) struct MarkForgotten;

impl Step for MarkForgotten {
    type Answer = u64;
    const PATIENCE: Duration = Duration::from_secs(600);

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<u64>, Problem> {
        Ok(Keep(connection.execute(sql::FORGOTTEN, &[]).await?))
    }
}
