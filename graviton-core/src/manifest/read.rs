//! The store's own row, and queries for blobs and their manifests.

use std::time::Duration;

use super::batch::{Batch, Row};
use super::connection::{Columns, Ending, Problem, Value, text};
use super::operation::Operation;
use super::repo::{Database, the_only};
use super::{BlobRecord, BlobRow, Durability, Known, ManifestRepo, PlacedEntry, StoreRecord, sql};
use crate::digest::Digest;
use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::place::Located;
use crate::report::StoreStats;

use Value::Number;

/// Whether a live blob and all its blocks are known to be stored, and where they are.
type StoredBlocks = Option<Vec<(BlockKey, Option<Located>)>>;

/// The first columns of [`sql::STORE`].
pub(super) fn record(row: &Columns<'_>) -> Result<StoreRecord, Problem> {
    let relaxed = row.text(2)? == Durability::Relaxed.name();
    let durability = if relaxed { Durability::Relaxed } else { Durability::Full };
    Ok(StoreRecord { id: row.text(0)?, block_location: row.text(1)?, durability })
}

impl ManifestRepo {
    /// The `store` row.
    pub async fn store(&self) -> Result<StoreRecord> {
        the_only(self.rows(Operation::read("store"), sql::STORE, [], record).await?)
    }

    /// Records the degree of durability, durably.
    pub async fn set_durability(&self, durability: Durability) -> Result<()> {
        let operation = Operation::statement("set_durability").synced(self.durability == Durability::Full);
        self.execute(operation, sql::SET_DURABILITY, [text(durability.name())]).await.map(drop)
    }

    /// Fails unless the database takes changes now. Changes nothing, and waits its turn among those that do.
    pub async fn check_writable(&self) -> Result<()> {
        if let Database::Sqlite(database) = &self.database {
            database.check_writable().await?;
        }
        self.execute(Operation::statement("check_writable"), sql::CHANGE_NOTHING, []).await.map(drop)
    }

    /// Looks up ids and keys, in one query.
    pub async fn known(&self, ids: &[BlobId], keys: &[BlockKey]) -> Result<Known> {
        let question = Batch::new().rows("ids", ids, Row::id).rows("keys", keys, Row::key).finish();
        let operation = Operation::read_before_write("known");
        let found = self.rows(operation, sql::CHECK, [text(question)], |row| {
            Ok((row.number(0)?, row.number(1)? as usize, row.truth(2)?, row.truth(3)?, row.located(4)?))
        });
        let mut known = Known {
            live: vec![false; ids.len()],
            stored: vec![None; keys.len()],
            located: vec![None; keys.len()],
            relaxed: false,
        };
        for (what, place, first, second, located) in found.await? {
            match what {
                1 => known.live[place] = true,
                2 => {
                    known.stored[place] = Some(first && !second);
                    known.located[place] = located;
                }
                3 => known.relaxed = first,
                _ => {}
            }
        }
        Ok(known)
    }

    /// The live blob of that id with the first `entries` entries of its manifest, in one query.
    pub async fn find(&self, id: &BlobId, entries: usize) -> Result<Option<(BlobRecord, Vec<PlacedEntry>)>> {
        self.run(Operation::read("find"), (*id, entries), |mut connection, (id, entries)| {
            Box::pin(async move {
                let mut record = None;
                let mut manifest = Vec::new();
                let [algo, digest, size] = Value::id(id);
                let values = [algo, digest, size, Value::limit((*entries).max(1))];
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
                        if manifest.len() < *entries && row.optional(4)?.is_some() {
                            manifest.push(row.entry(4)?);
                        }
                        Ok(())
                    })
                    .await?;
                Ok(Ending::Commit(record.map(|record| (record, manifest))))
            })
        })
        .await
    }

    /// Calls [`find`](ManifestRepo::find), if the database is a file of this host and nothing has to be
    /// waited for; otherwise `None`, and `find` says why. For threads that drive futures, which must not
    /// block.
    pub fn find_at_once(
        &self,
        id: &BlobId,
        entries: usize,
    ) -> Option<Option<(BlobRecord, Vec<PlacedEntry>)>> {
        self.at_once(self.find(id, entries))
    }

    /// The blocks of the live blob of that id, if there are no more than `limit` and all of them are
    /// `stored`, as durably as this store promises. For a caller that is about to put it.
    pub async fn stored(&self, id: &BlobId, limit: usize) -> Result<StoredBlocks> {
        let [algo, digest, size] = Value::id(id);
        let values = [algo, digest, size, Value::limit(limit + 1)];
        let is_relaxed = self.durability == Durability::Relaxed;
        let operation = Operation::read_before_write("stored");
        let blocks = self.rows(operation, sql::FIND_BLOCKS, values, move |row| {
            let trusted = is_relaxed || !row.truth(0)?;
            let Some(stored) = row.optional(4)? else { return Ok((trusted, None)) };
            Ok((trusted && stored != 0, Some((row.key(1)?, row.located(5)?))))
        });
        let blocks = blocks.await?;
        let all = (1..=limit).contains(&blocks.len()) && blocks.iter().all(|(stored, _)| *stored);
        Ok(all.then(|| blocks.into_iter().filter_map(|(_, key)| key).collect()))
    }

    /// Calls [`stored`](ManifestRepo::stored); `None` also if that cannot be told without waiting.
    pub fn stored_at_once(&self, id: &BlobId, limit: usize) -> StoredBlocks {
        self.at_once(self.stored(id, limit))?
    }

    /// Up to `limit` entries of a blob's manifest, from the one that holds the byte at `from` on, in order.
    /// Also of a blob that was deleted since it was found, until its grace is over.
    pub async fn entries(&self, blob: BlobRow, from: u64, limit: usize) -> Result<Vec<PlacedEntry>> {
        let values = [Number(blob.0), Number(from as i64), Value::limit(limit)];
        self.rows(Operation::read("entries"), sql::ENTRIES, values, |row| row.entry(0)).await
    }

    /// Up to `limit` live blobs behind `after`, ordered by algorithm, digest and size.
    pub async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobRecord>> {
        // No algorithm has the number 0: every blob is behind that.
        let first = [Number(0), Value::Digest(Digest::from_bytes([0; 32])), Number(0)];
        let [algo, digest, size] = after.map_or(first, Value::id);
        let values = [algo, digest, size, Value::limit(limit)];
        self.rows(Operation::read("list"), sql::LIST, values, |row| {
            Ok(BlobRecord {
                row: BlobRow(row.number(0)?),
                id: row.id(1)?,
                block_count: row.number(4)? as u64,
                chunker: row.text(5)?,
                created_at_ms: row.number(6)?,
            })
        })
        .await
    }

    /// How many blocks this blob refers to, pending or not; a block counts as often as it occurs.
    pub async fn references(&self, blob: BlobRow) -> Result<u64> {
        let values = [Number(blob.0)];
        let counts = self.rows(Operation::read("references"), sql::REFERENCES, values, |row| row.number(0));
        the_only(counts.await?).map(|count| count as u64)
    }

    /// Counts everything that the database knows. Costs time proportional to what is stored.
    pub async fn totals(&self) -> Result<StoreStats> {
        let operation = Operation::read("totals").patience(Duration::from_secs(3_600));
        let rows = self.rows(operation, sql::TOTALS, [], |row| {
            Ok(StoreStats {
                blobs: row.number(0)? as u64,
                logical_bytes: row.number(1)? as u64,
                blocks: row.number(2)? as u64,
                stored_bytes: row.number(3)? as u64,
                dead_blobs: row.number(4)? as u64,
                dead_bytes: row.number(5)? as u64,
                reclaimable_bytes: row.number(6)? as u64,
                references: row.number(7)? as u64,
                // The block store knows the others.
                ..StoreStats::default()
            })
        });
        the_only(rows.await?)
    }
}
