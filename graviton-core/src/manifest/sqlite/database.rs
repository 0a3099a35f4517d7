//! The connections to one SQLite file: a few that read, one that writes.
//!
//! Each sqlx connection is a thread, and a round trip to it costs more than most of these statements do.
//! So several statements go over as one text where they can, and reading connections are kept here rather
//! than in sqlx's pool, which hands each one back through a task of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, Sqlite};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use super::forked;
use crate::blocking;
use crate::error::{Code, Error, Result};

/// How long a process waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Queries that run at once.
const READERS: usize = 4;

pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// One SQLite file.
#[derive(Debug)]
pub(super) struct Database {
    path: Arc<Path>,
    reading: SqliteConnectOptions,
    /// Connections that nobody reads with at the moment.
    readers: SyncMutex<Vec<SqliteConnection>>,
    may_read: Semaphore,
    writer: Arc<Mutex<Option<Writer>>>,
    closed: AtomicBool,
}

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    connection: SqliteConnection,
    /// What `PRAGMA synchronous` was set to last.
    synced: Option<bool>,
}

/// A transaction that writes. Dropped before `finish`, it is rolled back.
pub(super) struct Transaction {
    writer: Option<OwnedMutexGuard<Option<Writer>>>,
    path: Arc<Path>,
}

impl Database {
    /// The file at `path`, and whether it is there. Opens nothing yet.
    pub(super) async fn new(path: &Path) -> Result<(Database, bool)> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::io(format!("cannot use {}", path.display()), error))?;
        let path: Arc<Path> = path.into();
        let (there, immutable) = {
            let path = Arc::clone(&path);
            blocking::run(move || Ok::<_, Error>((exists(&path)?, is_immutable(&path)))).await??
        };
        let reading = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .immutable(there && immutable)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let database = Database {
            path,
            reading,
            readers: SyncMutex::default(),
            may_read: Semaphore::new(READERS),
            writer: Arc::default(),
            closed: AtomicBool::new(false),
        };
        Ok((database, there))
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        Ok(())
    }

    fn readers(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of one query that only reads.
    pub(super) async fn read<'q>(
        &self,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        let _permit = self.may_read.acquire().await;
        self.check_open()?;
        let free = self.readers().pop();
        let mut connection = if let Some(connection) = free {
            connection
        } else {
            forked::note(&self.path)?;
            self.reading.connect().await.map_err(|error| failed(&self.path, error))?
        };
        let rows = bind(sqlx::query(sql)).fetch_all(&mut connection).await;
        self.readers().push(connection);
        rows.map_err(|error| failed(&self.path, error))
    }

    /// Begins a transaction that writes, synced at its commit if asked, with its first statement, which has to
    /// start with `BEGIN IMMEDIATE;`. Returns the rows of that.
    pub(super) async fn begin<'q>(
        &self,
        synced: bool,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<(Transaction, Vec<SqliteRow>)> {
        let mut guard = Arc::clone(&self.writer).lock_owned().await;
        self.check_open()?;
        let writer = match guard.as_mut() {
            Some(writer) => writer,
            None => guard.insert(Writer { connection: self.connect_writer().await?, synced: None }),
        };
        // Unknown while it is being changed, for this future may be dropped half-way.
        if writer.synced.take() != Some(synced) {
            let pragma = if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            let done = sqlx::query(pragma).execute(&mut writer.connection).await;
            done.map_err(|error| failed(&self.path, error))?;
        }
        writer.synced = Some(synced);
        let mut transaction = Transaction { writer: Some(guard), path: Arc::clone(&self.path) };
        let rows = transaction.rows(bind(sqlx::query(sql))).await?;
        Ok((transaction, rows))
    }

    /// One statement in a transaction of its own.
    pub(super) async fn write<'q>(
        &self,
        synced: bool,
        sql: &'static str,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        let (mut transaction, _) = self.begin(synced, "BEGIN IMMEDIATE", |query| query).await?;
        let rows = transaction.rows(bind(sqlx::query(sql))).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    async fn connect_writer(&self) -> Result<SqliteConnection> {
        if self.path.exists() {
            forked::note(&self.path)?;
        }
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
            .map_err(|error| failed(&self.path, error))?;
        forked::note(&self.path)?;
        Ok(connection)
    }

    /// Closes the connections. What is in the write-ahead log is committed, whether or not it can be
    /// checkpointed now, so that nothing that fails here matters.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Those who are reading now finish first.
        let _all = self.may_read.acquire_many(READERS as u32).await;
        let readers = std::mem::take(&mut *self.readers());
        for reader in readers {
            let _ = reader.close().await;
        }
        if let Some(writer) = self.writer.lock().await.take() {
            let _ = writer.connection.close().await;
        }
    }
}

impl Transaction {
    pub(super) async fn rows(&mut self, query: Query<'_>) -> Result<Vec<SqliteRow>> {
        let writer = self.writer.as_mut().and_then(|guard| guard.as_mut());
        let writer = writer.ok_or_else(|| Error::new(Code::Closed, "the store is closed"))?;
        query.fetch_all(&mut writer.connection).await.map_err(|error| failed(&self.path, error))
    }

    pub(super) async fn commit(self) -> Result<()> {
        self.finish("COMMIT", |query| query).await.map(drop)
    }

    /// Runs the last statements, of which the very last is `COMMIT`, and returns their rows.
    pub(super) async fn finish<'q>(
        mut self,
        sql: impl Into<String>,
        bind: impl FnOnce(Query<'q>) -> Query<'q>,
    ) -> Result<Vec<SqliteRow>> {
        // The texts are put together from constants; what comes from outside is bound.
        let rows = self.rows(bind(sqlx::query(AssertSqlSafe(sql.into())))).await?;
        self.writer = None;
        Ok(rows)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut guard) = self.writer.take() else { return };
        let roll_back = async move {
            let Some(writer) = guard.as_mut() else { return };
            match sqlx::query("ROLLBACK").execute(&mut writer.connection).await {
                // An error of the database's is that there was nothing to roll back.
                Ok(_) | Err(sqlx::Error::Database(_)) => {}
                // The connection is broken: the next transaction gets a new one.
                Err(_) => *guard = None,
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(roll_back);
        }
    }
}

/// A column of a row.
pub(super) fn column<'r, T>(path: &Path, row: &'r SqliteRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(index).map_err(|error| failed(path, error))
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
    let mut log = PathBuf::from(path).into_os_string();
    log.push("-wal");
    !writable && !Path::new(&log).exists()
}

/// What SQLite's result codes mean to us: <https://sqlite.org/rescode.html>.
pub(super) fn failed(path: &Path, error: sqlx::Error) -> Error {
    let path = path.display();
    let extended = match &error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse::<i32>().ok()),
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
    let reason = match &error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    Error::new(code, format!("the database {path} {what} ({reason})")).with_advice(advice).with_source(error)
}
