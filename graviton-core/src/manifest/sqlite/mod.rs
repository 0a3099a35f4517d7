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
use sqlx::sqlite::SqliteRow;

use super::batch::{Batch, Row};
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
use database::{Database, Query, Transaction};

/// The schema that this version writes; the number of migrations.
const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_first.sql")];

/// Manifests in one SQLite file.
#[derive(Debug)]
pub struct SqliteManifestRepo {
    database: Database,
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
            let why = format!("there is no store: {} does not exist", repo.path().display());
            return Err(Error::new(Code::NotFound, why)
                .with_advice("check the directory, or put something to create the store"));
        }
        if !there || repo.schema_version().await?.is_none() {
            repo.migrate().await?;
        }
        Ok(repo)
    }

    fn path(&self) -> &Arc<Path> {
        self.database.path()
    }

    /// The version of the schema in the file; `None` for a file without a schema.
    async fn schema_version(&self) -> Result<Option<i64>> {
        let tables: Vec<SqliteRow> =
            self.read("SELECT name FROM sqlite_schema WHERE type = 'table'", |query| query).await?;
        let names: Vec<String> = tables.iter().map(|row| self.column(row, 0)).collect::<Result<_>>()?;
        if names.is_empty() {
            return Ok(None);
        }
        if !names.iter().any(|name| name == "store") {
            return Err(Error::new(
                Code::Config,
                format!("{} is a database of another program", self.path().display()),
            )
            .with_advice("choose another directory or another GRAVITON_MANIFEST_URL"));
        }
        let rows = self.read("SELECT schema_version FROM store", |query| query).await?;
        let version = rows.first().map(|row| self.column(row, 0)).transpose()?;
        match version {
            Some(version) if version > SCHEMA_VERSION => Err(Error::new(
                Code::Version,
                format!(
                    "{} was written by a newer version of Graviton (schema {version}; this version knows {SCHEMA_VERSION})",
                    self.path().display()
                ),
            )
            .with_advice("use that version of Graviton")),
            version => Ok(version),
        }
    }

    /// Makes the schema, once, however many processes open the file together.
    async fn migrate(&self) -> Result<()> {
        self.make_directory().await?;
        let exists = "BEGIN IMMEDIATE; SELECT count(*) FROM sqlite_schema WHERE name = 'store'";
        let (mut transaction, tables) = self.database.begin(self.synced(true), exists, |query| query).await?;
        if self.column::<i64>(&tables[0], 0)? == 0 {
            for migration in MIGRATIONS {
                transaction.rows(sqlx::query(*migration)).await?;
            }
            let query = sqlx::query(sql::INSERT_STORE).bind(random_id()?).bind(SCHEMA_VERSION);
            transaction.rows(query).await?;
        }
        transaction.commit().await?;
        // SQLite syncs the directory for its journals; the name of the database itself is ours to sync.
        self.make_directory().await?;
        self.schema_version().await.map(drop)
    }

    async fn make_directory(&self) -> Result<()> {
        let path = Arc::clone(self.path());
        blocking::run(move || path.parent().map_or(Ok(()), create_durable_directory)).await?
    }

    /// Whether a commit that has to be durable is to be synced.
    fn synced(&self, durable: bool) -> bool {
        durable && self.durability == Durability::Full
    }

    fn column<'r, T>(&self, row: &'r SqliteRow, index: usize) -> Result<T>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        database::column(self.path(), row, index)
    }

    async fn read<'q>(
        &self,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        self.database.read(sql, bind).await
    }

    async fn write<'q>(
        &self,
        durable: bool,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        self.database.write(self.synced(durable), sql, bind).await
    }

    /// In a relaxed store whatever says `stored` may not be durable, and the store has to say so.
    async fn note_durability(&self, transaction: &mut Transaction) -> Result<()> {
        if self.durability == Durability::Relaxed {
            transaction.rows(sqlx::query(sql::SET_DURABILITY).bind("relaxed")).await?;
        }
        Ok(())
    }

    fn entry(&self, row: &SqliteRow, first: usize) -> Result<ManifestEntry> {
        let offset = self.column::<i64>(row, first)? as u64;
        let key = self.key(row, first + 1)?;
        Ok(ManifestEntry { offset, key })
    }

    fn key(&self, row: &SqliteRow, first: usize) -> Result<BlockKey> {
        let (algo, digest, size) = self.parts(row, first)?;
        BlockKey::new(algo, digest, size)
    }

    fn parts(&self, row: &SqliteRow, first: usize) -> Result<(Algo, Digest, u64)> {
        let damaged = || {
            Error::new(
                Code::Internal,
                format!("{} holds a row that Graviton never wrote", self.path().display()),
            )
            .with_advice("restore the database from a backup")
        };
        let algo = Algo::from_number(self.column(row, first)?).ok_or_else(damaged)?;
        let digest: &[u8] = self.column(row, first + 1)?;
        let digest = digest.try_into().map_err(|_| damaged())?;
        Ok((algo, Digest::from_bytes(digest), self.column::<i64>(row, first + 2)? as u64))
    }
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
        let rows = self.read(sql::STORE, |query| query).await?;
        let row = rows.first().ok_or_else(|| {
            Error::new(Code::Internal, format!("{} has no row in its table store", self.path().display()))
                .with_advice("restore the database from a backup")
        })?;
        let relaxed = self.column::<&str>(row, 2)? == "relaxed";
        Ok(StoreRecord {
            id: self.column(row, 0)?,
            block_location: self.column(row, 1)?,
            durability: if relaxed { Durability::Relaxed } else { Durability::Full },
        })
    }

    async fn set_block_location(&self, location: &str) -> Result<()> {
        self.write(true, sql::SET_BLOCK_LOCATION, |query| query.bind(location)).await.map(drop)
    }

    async fn set_durability(&self, durability: Durability) -> Result<()> {
        self.write(true, sql::SET_DURABILITY, |query| query.bind(durability.name())).await.map(drop)
    }

    async fn register_writer(&self, lease: Duration) -> Result<WriterId> {
        let lease = lease.as_millis() as i64;
        let rows = self.write(false, sql::REGISTER_WRITER, |query| query.bind(lease)).await?;
        Ok(WriterId(self.column(&rows[0], 0)?))
    }

    async fn renew_writer(&self, writer: WriterId, lease: Duration) -> Result<bool> {
        let lease = lease.as_millis() as i64;
        let rows = self.write(false, sql::RENEW_WRITER, |query| query.bind(writer.0).bind(lease)).await?;
        Ok(!rows.is_empty())
    }

    async fn remove_writer(&self, writer: WriterId) -> Result<()> {
        self.write(false, sql::REMOVE_WRITER, |query| query.bind(writer.0)).await.map(drop)
    }

    async fn begin(&self, writer: WriterId, chunker: &str) -> Result<Option<BlobRow>> {
        let rows = self.write(false, sql::BEGIN, |query| query.bind(writer.0).bind(chunker)).await?;
        rows.first().map(|row| Ok(BlobRow(self.column(row, 0)?))).transpose()
    }

    async fn pin(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned> {
        let batch = Batch::new().rows("keys", entries, |row, entry| {
            row.key(&entry.key);
            row.number(entry.offset as i64);
        });
        let batch = batch.finish();
        let bind = |query: Query<'static>| query.bind(batch).bind(blob.0);
        let (transaction, check) = self.database.begin(false, sql::PIN_CHECK, bind.clone()).await?;
        if self.column::<Option<i64>>(&check[0], 0)? != Some(PENDING) {
            return Ok(Pinned::Expired);
        }
        if let Some(doomed) = self.column::<Option<i64>>(&check[0], 1)? {
            return Ok(Pinned::Doomed(Duration::from_millis(doomed.max(1) as u64)));
        }
        let rows = transaction.finish(sql::PIN, bind).await?;
        let pinned = rows
            .iter()
            .map(|row| Ok(PinnedBlock { row: BlockRow(self.column(row, 0)?), stored: self.column(row, 1)? }))
            .collect::<Result<Vec<_>>>()?;
        Ok(Pinned::Blocks(pinned))
    }

    async fn mark_stored(&self, blob: BlobRow, blocks: &[BlockRow]) -> Result<bool> {
        let batch = Batch::new().numbers("rows", blocks.iter().map(|row| row.0)).finish();
        let (mut transaction, pending) =
            self.database.begin(false, sql::IS_PENDING, |query| query.bind(blob.0)).await?;
        if self.column::<i64>(&pending[0], 0)? == 0 {
            return Ok(false);
        }
        self.note_durability(&mut transaction).await?;
        transaction.rows(sqlx::query(sql::MARK_STORED).bind(batch).bind(blob.0)).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn abort(&self, blob: BlobRow) -> Result<()> {
        self.write(false, sql::ABORT, |query| query.bind(blob.0)).await.map(drop)
    }

    async fn commit(&self, commits: &[Commit<'_>]) -> Result<Vec<Committed>> {
        let plan = Plan::new(commits);
        let (mut transaction, found) = self
            .database
            .begin(self.synced(true), sql::BEGIN_CHECK, |query| query.bind(plan.question()))
            .await?;
        let mut facts = Facts::default();
        for row in &found {
            let place = self.column::<i64>(row, 1)? as usize;
            plan.learn(&mut facts, self.column(row, 0)?, place, self.column(row, 2)?, self.column(row, 3)?);
        }
        if facts.relaxed && self.durability == Durability::Full {
            return Ok(vec![Committed::NotDurable; commits.len()]);
        }
        self.note_durability(&mut transaction).await?;
        let (outcome, changes) = plan.decide(&facts);
        let (statements, batch) = changes.statements();
        transaction.finish(statements, |query| query.bind(batch)).await?;
        Ok(outcome)
    }

    async fn known(&self, ids: &[BlobId], keys: &[BlockKey]) -> Result<Known> {
        let question = Batch::new().rows("ids", ids, Row::id).rows("keys", keys, Row::key).finish();
        let mut known = Known { live: vec![false; ids.len()], stored: vec![None; keys.len()] };
        for row in &self.read(sql::CHECK, |query| query.bind(question)).await? {
            let place = self.column::<i64>(row, 1)? as usize;
            match self.column::<i64>(row, 0)? {
                1 => known.live[place] = true,
                2 => {
                    known.stored[place] = Some(self.column::<bool>(row, 2)? && !self.column::<bool>(row, 3)?);
                }
                _ => {}
            }
        }
        Ok(known)
    }

    async fn find(&self, id: &BlobId, entries: usize) -> Result<Option<(BlobRecord, Vec<ManifestEntry>)>> {
        let digest = id.digest().as_bytes().as_slice();
        let rows = self
            .read(sql::FIND, |query| {
                query.bind(id.algo().number()).bind(digest).bind(id.size() as i64).bind(entries.max(1) as i64)
            })
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let record = BlobRecord {
            row: BlobRow(self.column(first, 0)?),
            id: *id,
            block_count: self.column::<i64>(first, 1)? as u64,
            chunker: self.column(first, 2)?,
            created_at_ms: self.column(first, 3)?,
        };
        let mut manifest = Vec::new();
        for row in rows.iter().take(entries) {
            // The empty blob has one row, without a block.
            if self.column::<Option<i64>>(row, 4)?.is_some() {
                manifest.push(self.entry(row, 4)?);
            }
        }
        Ok(Some((record, manifest)))
    }

    async fn entries(&self, blob: BlobRow, from: u64, limit: usize) -> Result<Vec<ManifestEntry>> {
        let rows =
            self.read(sql::ENTRIES, |query| query.bind(blob.0).bind(from as i64).bind(limit as i64)).await?;
        rows.iter().map(|row| self.entry(row, 0)).collect()
    }

    async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobRecord>> {
        let (algo, digest, size) = match after {
            Some(id) => (id.algo().number(), id.digest().as_bytes().to_vec(), id.size() as i64),
            None => (0, Vec::new(), 0),
        };
        let rows =
            self.read(sql::LIST, |query| query.bind(algo).bind(digest).bind(size).bind(limit as i64)).await?;
        rows.iter()
            .map(|row| {
                let (algo, digest, size) = self.parts(row, 1)?;
                Ok(BlobRecord {
                    row: BlobRow(self.column(row, 0)?),
                    id: BlobId::new(algo, digest, size)?,
                    block_count: self.column::<i64>(row, 4)? as u64,
                    chunker: self.column(row, 5)?,
                    created_at_ms: self.column(row, 6)?,
                })
            })
            .collect()
    }

    async fn totals(&self) -> Result<Totals> {
        let rows = self.read(sql::TOTALS, |query| query).await?;
        let number = |index| self.column::<i64>(&rows[0], index).map(|number| number as u64);
        Ok(Totals {
            blobs: number(0)?,
            logical_bytes: number(1)?,
            blocks: number(2)?,
            stored_bytes: number(3)?,
        })
    }

    async fn close(&self) {
        self.database.close().await;
    }
}
