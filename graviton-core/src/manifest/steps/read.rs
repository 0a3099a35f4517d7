//! The store itself, and reading.

use std::time::Duration;

use super::{limit, only};
use crate::key::{BlobId, BlockKey};
use crate::manifest::batch::{self, Batch};
use crate::manifest::connection::{Columns, Connection, Ending, Problem, Step, Value};
use crate::manifest::{BlobRecord, BlobRow, Durability, Known, ManifestEntry, StoreRecord, Totals, sql};

use Ending::Commit as Keep;
use Value::{Bytes, Number, Text};

pub(in crate::manifest) struct ReadStore;

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

pub(in crate::manifest) struct SetBlockLocation(pub(in crate::manifest) String);

impl Step for SetBlockLocation {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::SET_BLOCK_LOCATION, &[Text(&self.0)]).await?;
        Ok(Keep(()))
    }
}

pub(in crate::manifest) struct SetDurability(pub(in crate::manifest) Durability);

impl Step for SetDurability {
    type Answer = ();

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.execute(sql::SET_DURABILITY, &[Text(self.0.name())]).await?;
        Ok(Keep(()))
    }
}

pub(in crate::manifest) struct LookUp {
    ids: usize,
    keys: usize,
    question: String,
}

impl LookUp {
    pub(in crate::manifest) fn new(ids: &[BlobId], keys: &[BlockKey]) -> LookUp {
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

/// The values of a query for a blob by its id: `$1`, `$2`, `$3`, and `$4` for how many rows.
fn up_to(rows: usize, id: &BlobId) -> [Value<'_>; 4] {
    [Number(id.algo().number()), Bytes(id.digest().as_bytes()), Number(id.size() as i64), limit(rows)]
}

pub(in crate::manifest) struct Find {
    pub(in crate::manifest) id: BlobId,
    pub(in crate::manifest) entries: usize,
}

impl Step for Find {
    type Answer = Option<(BlobRecord, Vec<ManifestEntry>)>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = up_to(self.entries.max(1), &self.id);
        let mut record = None;
        let mut manifest = Vec::new();
        connection
            .rows(sql::FIND, &values, |row| {
                if record.is_none() {
                    record = Some(BlobRecord {
                        row: BlobRow(row.number(0)?),
                        id: self.id,
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

pub(in crate::manifest) struct FindBlocks {
    pub(in crate::manifest) id: BlobId,
    pub(in crate::manifest) limit: usize,
    pub(in crate::manifest) durability: Durability,
}

impl Step for FindBlocks {
    type Answer = Option<Vec<BlockKey>>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = up_to(self.limit + 1, &self.id);
        let blocks = connection.rows(sql::FIND_BLOCKS, &values, |row| {
            let trusted = self.durability == Durability::Relaxed || !row.truth(0)?;
            let Some(stored) = row.optional(4)? else { return Ok((trusted, None)) };
            Ok((trusted && stored != 0, Some(row.key(1)?)))
        });
        let blocks = blocks.await?;
        let all = (1..=self.limit).contains(&blocks.len()) && blocks.iter().all(|(stored, _)| *stored);
        Ok(Keep(all.then(|| blocks.into_iter().filter_map(|(_, key)| key).collect())))
    }
}

pub(in crate::manifest) struct Entries {
    pub(in crate::manifest) blob: BlobRow,
    pub(in crate::manifest) from: u64,
    pub(in crate::manifest) limit: usize,
}

impl Step for Entries {
    type Answer = Vec<ManifestEntry>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let values = [Number(self.blob.0), Number(self.from as i64), limit(self.limit)];
        Ok(Keep(connection.rows(sql::ENTRIES, &values, |row| row.entry(0)).await?))
    }
}

pub(in crate::manifest) struct List {
    pub(in crate::manifest) after: Option<BlobId>,
    pub(in crate::manifest) limit: usize,
}

impl Step for List {
    type Answer = Vec<BlobRecord>;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        let (algo, digest, size) = match &self.after {
            Some(id) => (id.algo().number(), id.digest().as_bytes().as_slice(), id.size() as i64),
            None => (0, [].as_slice(), 0),
        };
        let values = [Number(algo), Bytes(digest), Number(size), limit(self.limit)];
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

pub(in crate::manifest) struct CountTotals;

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
                dead_blobs: row.number(4)? as u64,
                dead_bytes: row.number(5)? as u64,
                reclaimable_bytes: row.number(6)? as u64,
            })
        });
        Ok(Keep(only(totals.await?)))
    }
}
