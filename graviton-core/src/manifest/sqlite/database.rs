//! The connections to one SQLite file: a few that read, one that writes.
//!
//! SQLite is called on the thread that asks (or on a blocking thread, for an asynchronous caller), through
//! `rusqlite`. sqlx, which Postgres has, runs each SQLite connection on a thread of its own, and the two
//! thread switches of a round trip (20 to 50 µs) cost more than the statement: a 4 KiB get took 120 µs with
//! it, of which SQLite needed 10. A transaction runs to its end on that thread, so that no dropped future can
//! leave one open; only a sweep or a second look at a block waits in it, for the block store. What has to
//! wait for another process's transaction does not do so on a thread whose caller may end the call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::checkpoint::{Checkpoints, Due};
use super::forked;
use crate::blocking;
use crate::error::{Code, Error, Result};
use crate::manifest::Connections;
use crate::manifest::connection::{self, Columns, Database, Ending, Problem, Step};
use crate::manifest::sql::Sql;
use crate::runtime;

/// How long a process waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at it, in the end.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// A query asks about so often, in steps of SQLite's machine (some milliseconds), whether anybody still waits
/// for it.
const STEPS_BETWEEN_LOOKS: i32 = 100_000;

/// Queries that run at once.
const READERS: usize = 8;

/// Texts of statements that a connection keeps compiled.
const STATEMENTS: usize = 64;

/// One SQLite file.
#[derive(Debug)]
pub struct SqliteDatabase(Arc<File>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Connections that nobody reads with at the moment.
    readers: Mutex<Vec<Reader>>,
    may_read: Arc<Semaphore>,
    writer: Mutex<Option<Writer>>,
    checkpoints: Checkpoints,
    closed: AtomicBool,
}

/// A connection that reads.
#[derive(Debug)]
struct Reader {
    connection: Connection,
    /// What the file was like, if SQLite was told that it does not change.
    frozen: Option<Stamp>,
}

/// When the file was changed, and its length.
type Stamp = (std::time::SystemTime, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Reader {
    /// Whether it still sees what there is. One that takes the file for frozen does not notice that somebody
    /// writes after all: another process, or this one once a full disk has room again.
    fn is_current(&self, path: &Path) -> bool {
        self.frozen.is_none() || !has_log(path) && stamp(path) == self.frozen
    }
}

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    connection: Connection,
    /// What `PRAGMA synchronous` was set to last.
    synced: Option<bool>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing if another thread has it.
pub(super) fn try_locked<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl SqliteDatabase {
    /// The file at `path`, and whether it is there. Opens nothing yet.
    pub(super) async fn new(path: &Path) -> Result<(SqliteDatabase, bool)> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::io(format!("cannot use {}", path.display()), error))?;
        blocking::run(move || {
            let there = exists(&path)?;
            let file = File {
                path,
                readers: Mutex::default(),
                may_read: Arc::new(Semaphore::new(READERS)),
                writer: Mutex::default(),
                checkpoints: Checkpoints::default(),
                closed: AtomicBool::new(false),
            };
            Ok((SqliteDatabase(Arc::new(file)), there))
        })
        .await?
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Database for SqliteDatabase {
    async fn read<S: Step>(&self, step: S) -> Result<S::Answer> {
        let permit = Arc::clone(&self.0.may_read).acquire_owned().await;
        let file = Arc::clone(&self.0);
        blocking::run_waiting(move || {
            // Given back when the query is done, whether or not anybody still polls for its result.
            let _permit = &permit;
            file.unless_it_waits(file.read_here(&step))
        })
        .await?
    }

    /// With a connection that is there and free. Where SQLite has to wait, which a reader hardly ever has to,
    /// or fails, the usual way does so.
    fn read_at_once<S: Step>(&self, step: &S) -> Option<S::Answer> {
        let file = &self.0;
        let _permit = file.may_read.try_acquire().ok()?;
        if file.closed.load(Ordering::Acquire) {
            return None;
        }
        // One that takes the file for frozen would have to look at it first.
        let mut reader = locked(&file.readers).pop_if(|reader| reader.frozen.is_none())?;
        let answer = at_once(&mut reader.connection, step);
        locked(&file.readers).push(reader);
        answer
    }

    fn read_to_write_at_once<S: Step>(&self, step: &S) -> Option<S::Answer> {
        match try_locked(&self.0.writer)?.as_mut() {
            Some(writer) if !self.0.closed.load(Ordering::Acquire) => at_once(&mut writer.connection, step),
            _ => self.read_at_once(step),
        }
    }

    /// Over the connection that writes, if it is free: it remembers what it wrote, while what it wrote makes
    /// the others read their pages again, which takes as long as the query.
    async fn read_to_write<S: Step>(&self, step: S) -> Result<S::Answer> {
        let permit = Arc::clone(&self.0.may_read).acquire_owned().await;
        let file = Arc::clone(&self.0);
        blocking::run_waiting(move || {
            let _permit = &permit;
            let mut writer = try_locked(&file.writer);
            let result = match writer.as_deref_mut() {
                Some(Some(writer)) => file.read_over(&mut writer.connection, &step),
                _ => file.read_here(&step),
            };
            file.unless_it_waits(result)
        })
        .await?
    }

    async fn write<S: Step>(&self, durable: bool, step: S) -> Result<S::Answer> {
        let file = Arc::clone(&self.0);
        blocking::run_waiting(move || {
            let writer = if blocking::may_wait() { locked(&file.writer) } else { try_locked(&file.writer)? };
            let answer = file.unless_it_waits(file.write_here(writer, durable, &step));
            if let Some(due) = file.checkpoints.due() {
                checkpoint_elsewhere(&file, due);
            }
            answer
        })
        .await?
    }

    const LOCAL: bool = true;

    fn connections(&self) -> Connections {
        Connections { busy: READERS - self.0.may_read.available_permits(), most: READERS }
    }

    async fn integrity(&self) -> Result<Vec<String>> {
        self.read(Integrity).await
    }

    /// `VACUUM INTO`: a copy of one moment, made while others write. It gets its name when it is whole and
    /// durable.
    async fn backup(&self, to: &Path) -> Result<()> {
        let directory = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let failed = |error: io::Error| Error::io(format!("cannot write {}", to.display()), error);
        let work = tempfile::Builder::new().prefix(".backup-").tempdir_in(directory).map_err(failed)?;
        let copy = work.path().join("copy");
        let Some(name) = copy.to_str().map(str::to_owned) else {
            return Err(Error::new(Code::InvalidArgument, format!("{} is not Unicode text", to.display()))
                .with_advice("choose another name"));
        };
        let (file, to, directory) = (Arc::clone(&self.0), to.to_owned(), directory.to_owned());
        let copied = Arc::clone(&file);
        blocking::run_waiting(move || copied.unless_it_waits(copied.copy_into(&name))).await??;
        blocking::run(move || {
            let failed = |error: io::Error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::new(Code::InvalidArgument, format!("{} is there already", to.display()))
                        .with_advice("name a file that does not exist yet")
                }
                _ => Error::io(format!("cannot write {}", to.display()), error),
            };
            std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(failed)?;
            std::fs::hard_link(&copy, &to).map_err(failed)?;
            drop(work);
            std::fs::File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)
        })
        .await?
    }

    /// What is in the write-ahead log is committed, whether or not it can be checkpointed now, so that
    /// nothing that fails here matters.
    async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        // Those who are reading now finish first.
        let _all = self.0.may_read.acquire_many(READERS as u32).await;
        let file = Arc::clone(&self.0);
        let closing = blocking::run(move || {
            locked(&file.readers).clear();
            file.checkpoints.close();
            drop(locked(&file.writer).take());
        });
        let _ = closing.await;
    }
}

/// SQLite's own look at its file, and at the references between tables.
struct Integrity;

impl Step for Integrity {
    type Answer = Vec<String>;

    async fn run<C: connection::Connection>(
        &self,
        connection: &mut C,
    ) -> Result<Ending<Self::Answer>, Problem> {
        let found = connection.rows(INTEGRITY_CHECK, &[], |row| row.text(0)).await;
        let mut found = damage_is_found(found)?;
        found.retain(|line| line != "ok");
        let dangling = connection.rows(FOREIGN_KEY_CHECK, &[], |row| {
            Ok(format!("a row of {} refers to a row of {} that is not there", row.text(0)?, row.text(1)?))
        });
        found.extend(damage_is_found(dangling.await)?);
        Ok(Ending::Commit(found))
    }
}

/// Damage that keeps SQLite from looking further is what was looked for, and no failure.
fn damage_is_found(found: Result<Vec<String>, Problem>) -> Result<Vec<String>, Problem> {
    match found {
        Err(Problem::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            Ok(vec![error.to_string()])
        }
        found => found,
    }
}

const INTEGRITY_CHECK: Sql = Sql { sqlite: "PRAGMA integrity_check(100)", postgres: "" };
const FOREIGN_KEY_CHECK: Sql =
    Sql { sqlite: "SELECT \"table\", parent FROM pragma_foreign_key_check LIMIT 100", postgres: "" };

/// Nothing if it fails or would have to wait.
fn at_once<S: Step>(connection: &mut Connection, step: &S) -> Option<S::Answer> {
    Some(blocking::at_once(step.run(connection))?.ok()?.answer())
}

/// Runs a checkpoint on another thread, if there is one; otherwise the commits come to it.
fn checkpoint_elsewhere(file: &Arc<File>, due: Due) {
    if let Ok(runtime) = Handle::try_current() {
        // Whoever drops the store does not wait for it.
        let file = Arc::downgrade(file);
        runtime.spawn_blocking(move || file.upgrade().map(|file| file.checkpoint(&due)));
    }
}

impl File {
    /// The result for the caller; nothing if it would have had to wait for another process, and may not.
    fn unless_it_waits<T>(&self, result: Result<T, Problem>) -> Option<Result<T>> {
        match result {
            Err(Problem::Sqlite(error)) if is_busy(&error) && !blocking::may_wait() => None,
            result => Some(result.map_err(|problem| self.failed(problem))),
        }
    }

    fn read_here<S: Step>(&self, step: &S) -> Result<S::Answer, Problem> {
        self.check_open()?;
        let free = locked(&self.readers).pop().filter(|reader| reader.is_current(&self.path));
        let mut reader = match free {
            Some(reader) => reader,
            None => patiently(|| self.connect_reader())?,
        };
        let result = self.read_over(&mut reader.connection, step);
        locked(&self.readers).push(reader);
        result
    }

    fn read_over<S: Step>(&self, connection: &mut Connection, step: &S) -> Result<S::Answer, Problem> {
        self.check_open()?;
        Ok(runtime::drive(step.run(connection))?.answer())
    }

    /// Over a connection of its own: those that read refuse everything that writes, be it to another file.
    fn copy_into(&self, name: &str) -> Result<(), Problem> {
        self.check_open()?;
        let Reader { connection, .. } = patiently(|| self.connect_reader())?;
        connection.pragma_update(None, "query_only", false)?;
        connection.execute("VACUUM INTO ?1", [name])?;
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        Ok(())
    }

    /// Runs a transaction; its commit is synced if asked. Rolled back on an error.
    fn write_here<S: Step>(
        &self,
        mut writer: MutexGuard<'_, Option<Writer>>,
        synced: bool,
        step: &S,
    ) -> Result<S::Answer, Problem> {
        self.check_open()?;
        if let Some(failure) = self.checkpoints.failure() {
            return Err(failure.into());
        }
        let writer = match writer.as_mut() {
            Some(writer) => writer,
            None => writer.insert(Writer { connection: patiently(|| self.connect_writer())?, synced: None }),
        };
        if writer.synced != Some(synced) {
            writer.synced = None;
            writer.connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
            writer.synced = Some(synced);
        }
        let transaction = Transaction::begin(&mut writer.connection)?;
        match runtime::drive(step.run(&mut *transaction.0))? {
            Ending::Commit(answer) => transaction.commit().map(|()| answer),
            // Rolled back when it is dropped.
            Ending::RollBack(answer) => Ok(answer),
        }
    }

    fn checkpoint(&self, due: &Due) {
        let connect = || {
            self.check_open()?;
            let connection = self.connect(OpenFlags::empty())?;
            // Looks at the file, and so at what kind of log it has.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok::<_, Problem>(connection)
        };
        // The log stays as it is, and is as good as the database.
        let _ = due.run(connect);
    }

    fn connect_reader(&self) -> Result<Reader, Problem> {
        forked::note(&self.path)?;
        let open = |path: &Path, how: OpenFlags| {
            let mut connection = Connection::open_with_flags(path, how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            prepare(&mut connection)?;
            // A transaction that writes is short, and may be others' too.
            connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(blocking::is_given_up))?;
            connection.pragma_update(None, "query_only", true)?;
            // Makes SQLite look at the file and at what stands beside it.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        };
        // SQLite makes two files beside a database that is read, and takes them away again if it may write.
        let may_write = is_writable(&self.path) && is_writable(self.path.parent().unwrap_or(Path::new("/")));
        let how =
            if may_write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        match open(&self.path, how) {
            // They cannot be made: no permission, or a full disk. If there is no log, nobody writes, and
            // nobody can begin to.
            Err(error) if is_about_other_files(&error) && !has_log(&self.path) => {
                let how = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
                let frozen = stamp(&self.path);
                Ok(Reader { connection: open(Path::new(&immutable_uri(&self.path)), how)?, frozen })
            }
            result => Ok(Reader { connection: result?, frozen: None }),
        }
    }

    fn connect_writer(&self) -> Result<Connection, Problem> {
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        self.checkpoints.watch(&mut connection)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        forked::note(&self.path)?;
        Ok(connection)
    }

    /// A connection that may write.
    fn connect(&self, more: OpenFlags) -> Result<Connection, Problem> {
        if self.path.exists() {
            forked::note(&self.path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        prepare(&mut connection)?;
        Ok(connection)
    }

    fn failed(&self, problem: Problem) -> Error {
        match problem {
            Problem::Ours(error) => error,
            Problem::Sqlite(error) => failed(&self.path, error),
            #[cfg(feature = "postgres")]
            Problem::Postgres(error) => Error::new(Code::Internal, error.to_string()),
        }
    }
}

/// Opens a connection, again and again while another process makes or closes the database: SQLite does not
/// wait for the change to a write-ahead log, where to wait could be a deadlock, and says at once that it is
/// busy.
fn patiently<T>(connect: impl Fn() -> Result<T, Problem>) -> Result<T, Problem> {
    let started = Instant::now();
    loop {
        match connect() {
            Err(Problem::Sqlite(error))
                if is_busy(&error) && blocking::may_wait() && started.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// A transaction, rolled back unless it was committed. `rusqlite`'s own lends out no `&mut Connection`, which
/// is what can be sent with a future.
struct Transaction<'a>(&'a mut Connection);

impl Transaction<'_> {
    fn begin(connection: &mut Connection) -> Result<Transaction<'_>, Problem> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Transaction(connection))
    }

    fn commit(self) -> Result<(), Problem> {
        self.0.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite rolls back by itself after some errors.
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Waits a moment for another process's transaction, of which the caller has seen so many; `false` gives up.
fn wait_a_moment(looks: i32) -> bool {
    if !blocking::may_wait() || BUSY_PAUSE * looks.unsigned_abs() >= BUSY_TIMEOUT {
        return false;
    }
    std::thread::sleep(BUSY_PAUSE.min(Duration::from_millis(1 << looks.clamp(0, 5))));
    true
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(wait_a_moment))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise every statement that could use a partial index is compiled again for each set of values,
    // which was half the time of a small get.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
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

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Whether something is in the write-ahead log.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
}

fn is_about_other_files(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly)
    )
}

/// SQLite reports a full disk as an I/O error where it is not about the database itself.
fn is_full(path: &Path) -> bool {
    let free = rustix::fs::statvfs(path).map(|disk| disk.f_bavail * disk.f_frsize);
    free.is_ok_and(|free| free < 64 << 10)
}

/// <https://sqlite.org/uri.html>: what has a meaning in a URI is escaped.
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/.-_".contains(byte);
        uri.extend(if plain { vec![char::from(*byte)] } else { format!("%{byte:02x}").chars().collect() });
    }
    uri + "?immutable=1"
}

/// What SQLite's result codes mean to us: <https://sqlite.org/rescode.html>.
fn failed(path: &Path, error: rusqlite::Error) -> Error {
    const PERMISSIONS: &str = "check the permissions of the file and of its directory";
    const FULL: (Code, &str, &str) = (
        Code::NoSpace,
        "cannot grow: no space left on the device",
        "free some space on that disk and try again",
    );
    let (code, what, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FULL,
        Some(ErrorCode::OperationInterrupted) => {
            (Code::Cancelled, "was told to stop", "nobody waited for it any more")
        }
        Some(ErrorCode::SystemIoFailure) if is_full(path.parent().unwrap_or(path)) => FULL,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Code::BackendUnavailable, "is busy", "another process holds it; try again")
        }
        Some(ErrorCode::SystemIoFailure) => {
            (Code::Io, "could not be read or written", "look at the kernel's log for the state of that disk")
        }
        Some(ErrorCode::ReadOnly) => (Code::Forbidden, "is read-only", PERMISSIONS),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (Code::Forbidden, "may not be opened", PERMISSIONS)
        }
        Some(ErrorCode::CannotOpen) => (
            Code::Forbidden,
            "cannot be opened",
            "check that its directory exists and that you may write there",
        ),
        Some(ErrorCode::NotADatabase) => (
            Code::Config,
            "is not a SQLite database",
            "choose another directory or another GRAVITON_MANIFEST_URL",
        ),
        Some(ErrorCode::DatabaseCorrupt) => {
            (Code::CorruptDatabase, "is damaged", "restore the database from a backup")
        }
        _ => (Code::Internal, "answered with an unexpected error", "please report this"),
    };
    Error::new(code, format!("the database {} {what} ({error})", path.display()))
        .with_advice(advice)
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Durability, ManifestRepo, Opening, SqliteManifestRepo};

    #[tokio::test]
    async fn after_a_checkpoint_that_failed_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests.db");
        let repo = SqliteManifestRepo::open(&path, Durability::Relaxed, Opening::Create).await.unwrap();
        let lease = Duration::from_secs(60);
        repo.register_writer(lease).await.unwrap();
        let failed = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
            None,
        );
        repo.database.0.checkpoints.note(Err(failed));
        assert_eq!(repo.register_writer(lease).await.unwrap_err().code(), Code::Io);
        repo.store().await.unwrap();
    }
}
