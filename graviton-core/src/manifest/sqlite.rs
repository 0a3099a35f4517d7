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

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::batch::Batch;
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

/// The schema that this version writes; the number of migrations.
const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/sqlite/0001_first.sql")];

/// How long a process waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Manifests in one SQLite file.
#[derive(Debug)]
pub struct SqliteManifestRepo {
    path: Arc<Path>,
    durability: Durability,
    readers: SqlitePool,
    writer: Arc<Mutex<Option<Writing>>>,
    closed: AtomicBool,
}

/// The connection that writes.
#[derive(Debug)]
struct Writing {
    connection: SqliteConnection,
    /// What `PRAGMA synchronous` was set to last.
    synced: Option<bool>,
}

/// A transaction that writes. Dropped without `commit`, it is rolled back.
struct Transaction {
    writing: Option<OwnedMutexGuard<Option<Writing>>>,
    path: Arc<Path>,
}

impl SqliteManifestRepo {
    /// Opens the database at `path`; with `create`, makes it and its directory if they are missing.
    ///
    /// An existing database of this version is only read until the first write, so that it can be on a
    /// read-only filesystem. One that a newer version wrote is `version`, a file that is no database of
    /// Graviton's is `config`.
    pub async fn open(path: &Path, durability: Durability, create: bool) -> Result<SqliteManifestRepo> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::io(format!("cannot use {}", path.display()), error))?;
        let path: Arc<Path> = path.into();
        let (there, immutable) = {
            let path = Arc::clone(&path);
            blocking::run(move || Ok::<_, Error>((exists(&path)?, is_immutable(&path)))).await??
        };
        if !there && !create {
            return Err(Error::new(
                Code::NotFound,
                format!("there is no store: {} does not exist", path.display()),
            )
            .with_advice("check the directory, or put something to create the store"));
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .immutable(there && immutable)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(BUSY_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let writer = Arc::new(Mutex::new(None));
        let repo = SqliteManifestRepo { path, durability, readers, writer, closed: AtomicBool::new(false) };
        if !there || repo.schema_version().await?.is_none() {
            repo.migrate().await?;
        }
        Ok(repo)
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
                format!("{} is a database of another program", self.path.display()),
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
                    self.path.display()
                ),
            )
            .with_advice("use that version of Graviton")),
            version => Ok(version),
        }
    }

    /// Makes the schema, once, however many processes open the file together.
    async fn migrate(&self) -> Result<()> {
        let path = Arc::clone(&self.path);
        blocking::run(move || make_directory(&path)).await??;
        let mut transaction = self.begin(true).await?;
        let tables =
            transaction.rows(sqlx::query("SELECT count(*) FROM sqlite_schema WHERE name = 'store'")).await?;
        if self.column::<i64>(&tables[0], 0)? == 0 {
            for migration in MIGRATIONS {
                transaction.script(migration).await?;
            }
            let query = sqlx::query(sql::INSERT_STORE).bind(random_id()?).bind(SCHEMA_VERSION);
            transaction.rows(query).await?;
        }
        transaction.commit().await?;
        // SQLite syncs the directory for its journals; the name of the database itself is ours to sync.
        let path = Arc::clone(&self.path);
        blocking::run(move || make_directory(&path)).await??;
        self.schema_version().await.map(drop)
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        failed(&self.path, error)
    }

    fn column<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        &self,
        row: &'r SqliteRow,
        index: usize,
    ) -> Result<T> {
        row.try_get(index).map_err(|error| self.failed(error))
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        Ok(())
    }

    async fn read<'q>(
        &self,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        self.check_open()?;
        bind(sqlx::query(sql)).fetch_all(&self.readers).await.map_err(|error| self.failed(error))
    }

    /// A transaction that writes; synced at its commit if `durable` and the store is.
    async fn begin(&self, durable: bool) -> Result<Transaction> {
        self.check_open()?;
        let mut writing = Arc::clone(&self.writer).lock_owned().await;
        let synced = durable && self.durability == Durability::Full;
        let writer = match writing.as_mut() {
            Some(writer) => writer,
            None => writing.insert(self.connect_writer().await?),
        };
        if writer.synced.replace(synced) != Some(synced) {
            let pragma = if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            let done = sqlx::query(pragma).execute(&mut writer.connection).await;
            done.map_err(|error| self.failed(error))?;
        }
        let mut transaction = Transaction { writing: Some(writing), path: Arc::clone(&self.path) };
        transaction.script("BEGIN IMMEDIATE").await?;
        Ok(transaction)
    }

    async fn connect_writer(&self) -> Result<Writing> {
        let connection = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", "-16384")
            .pragma("temp_store", "memory")
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| self.failed(error))?;
        Ok(Writing { connection, synced: None })
    }

    /// One statement in a transaction of its own.
    async fn write<'q>(
        &self,
        durable: bool,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        let mut transaction = self.begin(durable).await?;
        let rows = transaction.rows(bind(sqlx::query(sql))).await?;
        transaction.commit().await?;
        Ok(rows)
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
                format!("{} holds a row that Graviton never wrote", self.path.display()),
            )
            .with_advice("restore the database from a backup")
        };
        let algo = Algo::from_number(self.column(row, first)?).ok_or_else(damaged)?;
        let digest: &[u8] = self.column(row, first + 1)?;
        let digest = digest.try_into().map_err(|_| damaged())?;
        Ok((algo, Digest::from_bytes(digest), self.column::<i64>(row, first + 2)? as u64))
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

impl Transaction {
    fn connection(&mut self) -> Result<&mut SqliteConnection> {
        let writing = self.writing.as_mut().and_then(|guard| guard.as_mut());
        let writing = writing.ok_or_else(|| Error::new(Code::Closed, "the store is closed"))?;
        Ok(&mut writing.connection)
    }

    async fn rows(&mut self, query: Query<'_>) -> Result<Vec<SqliteRow>> {
        let rows = query.fetch_all(&mut *self.connection()?).await;
        rows.map_err(|error| failed(&self.path, error))
    }

    async fn script(&mut self, script: &'static str) -> Result<()> {
        let done = sqlx::query(script).execute(self.connection()?).await;
        done.map(drop).map_err(|error| failed(&self.path, error))
    }

    async fn commit(mut self) -> Result<()> {
        self.script("COMMIT").await?;
        self.writing = None;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut writing) = self.writing.take() else { return };
        let roll_back = async move {
            let Some(inner) = writing.as_mut() else { return };
            if sqlx::query("ROLLBACK").execute(&mut inner.connection).await.is_err() {
                // Nothing was open, or the connection is broken: the next transaction gets a new one.
                *writing = None;
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(roll_back);
        }
    }
}

/// The names of the files that stand beside a database.
fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Whether there is a file with something in it; an empty one is a database that is about to be made.
fn exists(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len() > 0),
        Ok(_) => Err(Error::new(Code::Config, format!("{} is not a file", path.display()))
            .with_advice("choose another directory or another GRAVITON_MANIFEST_URL")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("cannot open {}", path.display()), error)),
    }
}

/// SQLite makes files beside a database that is being read. Where it cannot and there are none, nobody
/// writes to the database either.
fn is_immutable(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok();
    !writable && !wal_of(path).exists()
}

fn make_directory(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), create_durable_directory)
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Io, format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What SQLite's result codes mean to us: <https://sqlite.org/rescode.html>.
fn failed(path: &Path, error: sqlx::Error) -> Error {
    let path = path.display();
    let extended = match &error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse::<i32>().ok()),
        sqlx::Error::PoolTimedOut => Some(5),
        sqlx::Error::PoolClosed => return Error::new(Code::Closed, "the store is closed"),
        _ => None,
    };
    let (code, what, advice) = match extended.map(|code| code & 0xff) {
        Some(5 | 6) => (Code::BackendUnavailable, "is busy", "another process holds it; try again"),
        Some(13) => (
            Code::NoSpace,
            "cannot grow: no space left on the device",
            "free some space on that disk and try again",
        ),
        Some(10) => {
            (Code::Io, "could not be read or written", "look at the kernel's log for the state of that disk")
        }
        Some(8) => {
            (Code::Forbidden, "is read-only", "check the permissions of the file and of its directory")
        }
        Some(3 | 23) => {
            (Code::Forbidden, "may not be opened", "check the permissions of the file and of its directory")
        }
        Some(14) => (
            Code::Forbidden,
            "cannot be opened",
            "check that its directory exists and that you may write there",
        ),
        Some(26) => (
            Code::Config,
            "is not a SQLite database",
            "choose another directory or another GRAVITON_MANIFEST_URL",
        ),
        Some(11) => (Code::Internal, "is damaged", "restore the database from a backup"),
        _ => (Code::Internal, "answered with an unexpected error", "please report this"),
    };
    Error::new(code, format!("the database {path} {what} ({})", reason(&error)))
        .with_advice(advice)
        .with_source(error)
}

fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    }
}

#[async_trait]
impl ManifestRepo for SqliteManifestRepo {
    async fn store(&self) -> Result<StoreRecord> {
        let rows = self.read(sql::STORE, |query| query).await?;
        let row = rows.first().ok_or_else(|| {
            Error::new(Code::Internal, format!("{} has no row in its table store", self.path.display()))
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
        let mut transaction = self.begin(false).await?;
        let query = sqlx::query(sql::RENEW_WRITER).bind(writer.0).bind(lease.as_millis() as i64);
        transaction.rows(query).await?;
        let changes = transaction.rows(sqlx::query("SELECT changes()")).await?;
        transaction.commit().await?;
        Ok(self.column::<i64>(&changes[0], 0)? > 0)
    }

    async fn remove_writer(&self, writer: WriterId) -> Result<()> {
        self.write(false, sql::REMOVE_WRITER, |query| query.bind(writer.0)).await.map(drop)
    }

    async fn begin(&self, writer: WriterId, chunker: &str) -> Result<BlobRow> {
        let rows = self.write(false, sql::BEGIN, |query| query.bind(writer.0).bind(chunker)).await?;
        Ok(BlobRow(self.column(&rows[0], 0)?))
    }

    async fn pin(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned> {
        let batch = Batch::new().rows("keys", entries, |row, entry| {
            row.key(&entry.key);
            row.number(entry.offset as i64);
        });
        let batch = batch.finish();
        let mut transaction = self.begin(false).await?;
        let check = transaction.rows(sqlx::query(sql::PIN_CHECK).bind(&batch).bind(blob.0)).await?;
        if self.column::<Option<i64>>(&check[0], 0)? != Some(PENDING) {
            return Ok(Pinned::Expired);
        }
        if let Some(doomed) = self.column::<Option<i64>>(&check[0], 1)? {
            return Ok(Pinned::Doomed(Duration::from_millis(doomed.max(1) as u64)));
        }
        transaction.rows(sqlx::query(sql::PIN_BLOCKS).bind(&batch)).await?;
        transaction.rows(sqlx::query(sql::PIN_REFERENCES).bind(&batch).bind(blob.0)).await?;
        let rows = transaction.rows(sqlx::query(sql::PIN_ANSWER).bind(&batch)).await?;
        transaction.commit().await?;
        let pinned = rows
            .iter()
            .map(|row| Ok(PinnedBlock { row: BlockRow(self.column(row, 0)?), stored: self.column(row, 1)? }))
            .collect::<Result<Vec<_>>>()?;
        Ok(Pinned::Blocks(pinned))
    }

    async fn mark_stored(&self, blob: BlobRow, blocks: &[BlockRow]) -> Result<bool> {
        let batch = Batch::new().numbers("rows", blocks.iter().map(|row| row.0)).finish();
        let mut transaction = self.begin(false).await?;
        let pending = transaction.rows(sqlx::query(sql::IS_PENDING).bind(blob.0)).await?;
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
        let mut transaction = self.begin(true).await?;
        let found = transaction.rows(sqlx::query(sql::CHECK).bind(plan.question())).await?;
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
        for (statement, batch) in changes.statements() {
            transaction.rows(sqlx::query(statement).bind(batch)).await?;
        }
        transaction.commit().await?;
        Ok(outcome)
    }

    async fn known(&self, ids: &[BlobId], keys: &[BlockKey]) -> Result<Known> {
        let question = Batch::new()
            .rows("ids", ids, |row, id| row.id(id))
            .rows("keys", keys, |row, key| row.key(key))
            .finish();
        let mut known = Known { live: vec![false; ids.len()], stored: vec![None; keys.len()] };
        for row in &self.read(sql::CHECK, |query| query.bind(question)).await? {
            let place = self.column::<i64>(row, 1)? as usize;
            match self.column::<i64>(row, 0)? {
                1 => known.live[place] = true,
                2 => {
                    known.stored[place] = Some(self.column::<bool>(row, 2)? && !self.column::<bool>(row, 3)?)
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
        self.closed.store(true, Ordering::Release);
        self.readers.close().await;
        if let Some(writing) = self.writer.lock().await.take() {
            // What is in the write-ahead log is committed, whether or not it can be checkpointed now.
            let _ = writing.connection.close().await;
        }
    }
}
