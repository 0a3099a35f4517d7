//! Manifests in SQLite: the embedded default, shared by any number of processes on one host.
//!
//! One connection writes and a few read, in WAL mode. Within a process writers queue for the one
//! connection, for SQLite's own busy handler sleeps; between processes it decides. Transactions that write
//! are `BEGIN IMMEDIATE`, so that none has to be repeated half-way, and stay short.
//!
//! Only what must survive a power cut is synced. Pins serve living processes, so their transactions are
//! left to the next sync of the write-ahead log (`synchronous = NORMAL`), which a commit (`FULL`) makes.
//!
//! The lease of a writer is renewed over the same connection: a transaction holds it for milliseconds, and
//! a second connection would only wait for the same lock.

mod database;
mod forked;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Params, Row, params};

use super::batch::{self, Batch};
use super::plan::{Facts, PENDING, Plan};
use super::{
    BlobRecord, BlobRow, BlockRow, Commit, Committed, Durability, Known, ManifestEntry, ManifestRepo, Pinned,
    PinnedBlock, StoreRecord, Totals, WriterId, sql,
};
use crate::block::fs::create_durable_directory;
use crate::blocking;
use crate::digest::{Algo, Digest};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use database::{Database, Problem};

/// The schema that this version writes; the number of migrations.
const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_first.sql")];

/// Manifests in one SQLite file.
#[derive(Debug)]
pub struct SqliteManifestRepo {
    database: Arc<Database>,
    durability: Durability,
}

impl SqliteManifestRepo {
    /// Opens the database at `path`; with `create`, makes it and its directory if they are missing.
    ///
    /// An existing database of this version is only read until the first write, so that it can be on a
    /// read-only filesystem. One that a newer version wrote is `version`, a file that is no database of
    /// Graviton's is `config`.
    pub async fn open(path: &Path, durability: Durability, create: bool) -> Result<SqliteManifestRepo> {
        let (database, there) = Database::new(path).await?;
        let repo = SqliteManifestRepo { database, durability };
        if !there && !create {
            let why = format!("there is no store: {} does not exist", repo.database.path().display());
            return Err(Error::new(Code::NotFound, why)
                .with_advice("check the directory, or put something to create the store"));
        }
        if !there || repo.schema_version().await?.is_none() {
            repo.migrate().await?;
        }
        Ok(repo)
    }

    /// The version of the schema in the file; `None` for a file without a schema.
    async fn schema_version(&self) -> Result<Option<i64>> {
        let path = self.database.path().to_owned();
        self.database
            .read(move |connection| {
                let names: Vec<String> =
                    rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?;
                if names.is_empty() {
                    return Ok(None);
                }
                let path = path.display();
                if !names.iter().any(|name| name == "store") {
                    let error = Error::new(Code::Config, format!("{path} is a database of another program"));
                    let error = error.with_advice("choose another directory or another GRAVITON_MANIFEST_URL");
                    return Err(error.into());
                }
                let version: i64 =
                    connection.query_row("SELECT schema_version FROM store", [], |row| row.get(0))?;
                if version > SCHEMA_VERSION {
                    let why = format!(
                        "{path} was written by a newer version of Graviton (schema {version}; this version knows {SCHEMA_VERSION})"
                    );
                    return Err(Error::new(Code::Version, why).with_advice("use that version of Graviton").into());
                }
                Ok(Some(version))
            })
            .await
    }

    /// Makes the schema, once, however many processes open the file together.
    async fn migrate(&self) -> Result<()> {
        self.make_directory().await?;
        self.write(true, |connection| {
            let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'store'";
            if connection.query_row(exists, [], |row| row.get::<_, i64>(0))? == 0 {
                for migration in MIGRATIONS {
                    connection.execute_batch(migration)?;
                }
                connection.execute(sql::INSERT_STORE, params![random_id()?, SCHEMA_VERSION])?;
            }
            Ok(())
        })
        .await?;
        // SQLite syncs the directory for its journals; the name of the database itself is ours to sync.
        self.make_directory().await?;
        self.schema_version().await.map(drop)
    }

    async fn make_directory(&self) -> Result<()> {
        let path = self.database.path().to_owned();
        blocking::run(move || path.parent().map_or(Ok(()), create_durable_directory)).await?
    }

    /// A transaction that writes; synced at its commit if it has to be `durable` and the store is.
    async fn write<T: Send + 'static>(
        &self,
        durable: bool,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T> {
        self.database.write(durable && self.durability == Durability::Full, work).await
    }

    async fn execute(
        &self,
        durable: bool,
        sql: &'static str,
        values: impl Params + Send + 'static,
    ) -> Result<()> {
        self.write(durable, move |connection| {
            connection.prepare_cached(sql)?.execute(values)?;
            Ok(())
        })
        .await
    }
}

/// The rows of a query.
fn rows<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(values)?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

/// In a relaxed store whatever says `stored` may not be durable, and the store has to say so.
fn note_durability(connection: &Connection, durability: Durability) -> Result<(), Problem> {
    if durability == Durability::Relaxed {
        connection.prepare_cached(sql::SET_DURABILITY)?.execute([durability.name()])?;
    }
    Ok(())
}

/// Algorithm, digest and size from three columns.
fn parts(row: &Row<'_>, first: usize) -> Result<(Algo, Digest, u64), Problem> {
    let algo = Algo::from_number(row.get(first)?).ok_or_else(|| {
        Error::new(Code::Internal, "the database holds a row that Graviton never wrote")
            .with_advice("restore the database from a backup")
    })?;
    Ok((algo, Digest::from_bytes(row.get(first + 1)?), row.get::<_, i64>(first + 2)? as u64))
}

fn entry(row: &Row<'_>, first: usize) -> Result<ManifestEntry, Problem> {
    let (algo, digest, size) = parts(row, first + 1)?;
    let offset = row.get::<_, i64>(first)? as u64;
    Ok(ManifestEntry { offset, key: BlockKey::new(algo, digest, size)? })
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Io, format!("the system gives no random numbers: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[async_trait]
impl ManifestRepo for SqliteManifestRepo {
    async fn store(&self) -> Result<StoreRecord> {
        self.database
            .read(|connection| {
                let record = connection.prepare_cached(sql::STORE)?.query_row([], |row| {
                    let relaxed = row.get::<_, String>(2)? == Durability::Relaxed.name();
                    Ok(StoreRecord {
                        id: row.get(0)?,
                        block_location: row.get(1)?,
                        durability: if relaxed { Durability::Relaxed } else { Durability::Full },
                    })
                })?;
                Ok(record)
            })
            .await
    }

    async fn set_block_location(&self, location: &str) -> Result<()> {
        self.execute(true, sql::SET_BLOCK_LOCATION, [location.to_owned()]).await
    }

    async fn set_durability(&self, durability: Durability) -> Result<()> {
        self.execute(true, sql::SET_DURABILITY, [durability.name()]).await
    }

    async fn register_writer(&self, lease: Duration) -> Result<WriterId> {
        let lease = lease.as_millis() as i64;
        self.write(false, move |connection| {
            let id = connection.prepare_cached(sql::REGISTER_WRITER)?.query_row([lease], |row| row.get(0))?;
            Ok(WriterId(id))
        })
        .await
    }

    async fn renew_writer(&self, writer: WriterId, lease: Duration) -> Result<bool> {
        let values = (writer.0, lease.as_millis() as i64);
        self.write(false, move |connection| {
            Ok(connection.prepare_cached(sql::RENEW_WRITER)?.execute(values)? > 0)
        })
        .await
    }

    async fn remove_writer(&self, writer: WriterId) -> Result<()> {
        self.execute(false, sql::REMOVE_WRITER, [writer.0]).await
    }

    async fn begin(&self, writer: WriterId, chunker: &str) -> Result<Option<BlobRow>> {
        let values = (writer.0, chunker.to_owned());
        self.write(false, move |connection| {
            let rows = rows(connection, sql::BEGIN, values, |row| Ok::<_, Problem>(BlobRow(row.get(0)?)))?;
            Ok(rows.first().copied())
        })
        .await
    }

    async fn pin(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned> {
        let batch = Batch::new().rows("keys", entries, |row, entry| {
            row.key(&entry.key);
            row.number(entry.offset as i64);
        });
        let batch = batch.finish();
        self.write(false, move |connection| {
            let (state, doomed): (Option<i64>, Option<i64>) = connection
                .prepare_cached(sql::PIN_CHECK)?
                .query_row(params![batch, blob.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if state != Some(PENDING) {
                return Ok(Pinned::Expired);
            }
            if let Some(doomed) = doomed {
                return Ok(Pinned::Doomed(Duration::from_millis(doomed.max(1) as u64)));
            }
            connection.prepare_cached(sql::PIN_BLOCKS)?.execute([&batch])?;
            connection.prepare_cached(sql::PIN_REFERENCES)?.execute(params![batch, blob.0])?;
            let pinned = rows(connection, sql::PIN_ANSWER, [&batch], |row| {
                Ok::<_, Problem>(PinnedBlock { row: BlockRow(row.get(0)?), stored: row.get(1)? })
            })?;
            Ok(Pinned::Blocks(pinned))
        })
        .await
    }

    async fn mark_stored(&self, blob: BlobRow, blocks: &[BlockRow]) -> Result<bool> {
        let batch = Batch::new().numbers("rows", blocks.iter().map(|row| row.0)).finish();
        let durability = self.durability;
        self.write(false, move |connection| {
            let pending: i64 =
                connection.prepare_cached(sql::IS_PENDING)?.query_row([blob.0], |row| row.get(0))?;
            if pending == 0 {
                return Ok(false);
            }
            note_durability(connection, durability)?;
            connection.prepare_cached(sql::MARK_STORED)?.execute(params![batch, blob.0])?;
            Ok(true)
        })
        .await
    }

    async fn abort(&self, blob: BlobRow) -> Result<()> {
        self.execute(false, sql::ABORT, [blob.0]).await
    }

    async fn commit(&self, commits: Arc<[Commit]>) -> Result<Vec<Committed>> {
        let durability = self.durability;
        self.write(true, move |connection| {
            let plan = Plan::new(&commits);
            let mut facts = Facts::default();
            rows(connection, sql::CHECK, [plan.question()], |row| {
                let place = row.get::<_, i64>(1)? as usize;
                plan.learn(&mut facts, row.get(0)?, place, row.get(2)?, row.get(3)?);
                Ok::<_, Problem>(())
            })?;
            if facts.relaxed && durability == Durability::Full {
                return Ok(vec![Committed::NotDurable; commits.len()]);
            }
            note_durability(connection, durability)?;
            let (outcome, changes) = plan.decide(&facts);
            let (statements, batch) = changes.statements();
            for statement in statements {
                connection.prepare_cached(statement)?.execute([&batch])?;
            }
            Ok(outcome)
        })
        .await
    }

    async fn known(&self, ids: &[BlobId], keys: &[BlockKey]) -> Result<Known> {
        let question =
            Batch::new().rows("ids", ids, batch::Row::id).rows("keys", keys, batch::Row::key).finish();
        let mut known =
            Known { live: vec![false; ids.len()], stored: vec![None; keys.len()], relaxed: false };
        self.database
            .read(move |connection| {
                rows(connection, sql::CHECK, [question], |row| {
                    let place = row.get::<_, i64>(1)? as usize;
                    match row.get::<_, i64>(0)? {
                        1 => known.live[place] = true,
                        2 => known.stored[place] = Some(row.get::<_, bool>(2)? && !row.get::<_, bool>(3)?),
                        3 => known.relaxed = row.get(2)?,
                        _ => {}
                    }
                    Ok::<_, Problem>(())
                })?;
                Ok(known)
            })
            .await
    }

    async fn find(&self, id: &BlobId, entries: usize) -> Result<Option<(BlobRecord, Vec<ManifestEntry>)>> {
        let id = *id;
        self.database
            .read(move |connection| {
                let values = params![
                    id.algo().number(),
                    id.digest().as_bytes(),
                    id.size() as i64,
                    entries.max(1) as i64
                ];
                let mut record = None;
                let mut manifest = Vec::new();
                rows(connection, sql::FIND, values, |row| {
                    if record.is_none() {
                        record = Some(BlobRecord {
                            row: BlobRow(row.get(0)?),
                            id,
                            block_count: row.get::<_, i64>(1)? as u64,
                            chunker: row.get(2)?,
                            created_at_ms: row.get(3)?,
                        });
                    }
                    // The empty blob has one row, without a block.
                    if manifest.len() < entries && row.get::<_, Option<i64>>(4)?.is_some() {
                        manifest.push(entry(row, 4)?);
                    }
                    Ok::<_, Problem>(())
                })?;
                Ok(record.map(|record| (record, manifest)))
            })
            .await
    }

    async fn entries(&self, blob: BlobRow, from: u64, limit: usize) -> Result<Vec<ManifestEntry>> {
        let values = (blob.0, from as i64, limit as i64);
        self.database
            .read(move |connection| rows(connection, sql::ENTRIES, values, |row| entry(row, 0)))
            .await
    }

    async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobRecord>> {
        let after = after.copied();
        self.database
            .read(move |connection| {
                let (algo, digest, size) = match &after {
                    Some(id) => (id.algo().number(), id.digest().as_bytes().as_slice(), id.size() as i64),
                    None => (0, [].as_slice(), 0),
                };
                rows(connection, sql::LIST, params![algo, digest, size, limit as i64], |row| {
                    let (algo, digest, size) = parts(row, 1)?;
                    Ok(BlobRecord {
                        row: BlobRow(row.get(0)?),
                        id: BlobId::new(algo, digest, size)?,
                        block_count: row.get::<_, i64>(4)? as u64,
                        chunker: row.get(5)?,
                        created_at_ms: row.get(6)?,
                    })
                })
            })
            .await
    }

    async fn totals(&self) -> Result<Totals> {
        self.database
            .read(|connection| {
                let totals = connection.prepare_cached(sql::TOTALS)?.query_row([], |row| {
                    let number = |index| row.get::<_, i64>(index).map(|number| number as u64);
                    Ok(Totals {
                        blobs: number(0)?,
                        logical_bytes: number(1)?,
                        blocks: number(2)?,
                        stored_bytes: number(3)?,
                    })
                })?;
                Ok(totals)
            })
            .await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}
