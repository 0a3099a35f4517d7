//! The connections to one SQLite file: a few for reading, one for writing.
//!
//! SQLite is called through `rusqlite`, on the caller's thread, or on a blocking thread for an asynchronous
//! caller. sqlx, which serves PostgreSQL, runs each SQLite connection on its own thread. The two thread
//! switches of a round trip (20 to 50 µs) cost more than the statement: with it a 4 KiB get took 120 µs, of
//! which SQLite needed 10. A transaction runs to its end on its thread, so that no dropped future can leave
//! one open; it waits for the block store only to check a block again. A wait for the transaction of another
//! process moves to another thread if the caller may end the call.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::checkpoint::{Checkpoints, Due};
use super::connect::{Reader, UNFINISHED, check_writable, connect_checkpointer, connect_writer};
use super::failure::{failed, is_busy, repeated};
use super::forked::Connected;
use super::in_place::Files;
use super::mutex::{locked, try_locked};
use crate::error::{Code, Error, Result};
use crate::manifest::Connections;
use crate::manifest::connection::{self, Ending, Problem};
use crate::manifest::operation::{Access, Operation, Watch};
use crate::manifest::prepared::Prepared;
use crate::manifest::sql::Tables;
use crate::repeated::again;
use crate::{blocking, durable, runtime};

/// The most queries that run at once.
const READERS: usize = 8;

/// One SQLite file.
#[derive(Debug)]
pub(in crate::manifest) struct SqliteDatabase(pub(super) Arc<File>);

#[derive(Debug)]
pub(super) struct File {
    pub(super) files: Arc<Files>,
    /// Idle connections for reading.
    readers: Mutex<Vec<Reader>>,
    may_read: Arc<Semaphore>,
    writer: Mutex<Option<Writer>>,
    checkpoints: Checkpoints,
    closed: AtomicBool,
}

/// The connection for writing.
#[derive(Debug)]
struct Writer {
    connection: Connected,
    /// The last value of `PRAGMA synchronous`.
    synced: Option<bool>,
}

impl SqliteDatabase {
    /// The file at `path`, and whether it exists. Opens nothing yet.
    pub(in crate::manifest) async fn new(path: &Path) -> Result<(SqliteDatabase, bool)> {
        let path = std::path::absolute(path).map_err(|error| Error::io_at("cannot use", path, error))?;
        blocking::run(move || {
            let exists = exists(&path)?;
            let file = File {
                files: Arc::new(Files::new(path)),
                readers: Mutex::default(),
                may_read: Arc::new(Semaphore::new(READERS)),
                writer: Mutex::default(),
                checkpoints: Checkpoints::default(),
                closed: AtomicBool::new(false),
            };
            Ok((SqliteDatabase(Arc::new(file)), exists))
        })
        .await?
    }

    pub(in crate::manifest) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Creates the directory of the file if it does not exist, and makes it durable.
    pub(in crate::manifest) async fn make_directory(&self) -> Result<()> {
        let path = self.path().to_owned();
        blocking::run(move || path.parent().map_or(Ok(()), durable::create_directory)).await?
    }

    /// Removes files of processes that died while they created the database. Returns how many.
    pub(in crate::manifest) async fn remove_leftovers(&self) -> Result<u64> {
        let file = Arc::clone(&self.0);
        blocking::run(move || {
            let directory = file.path().parent();
            directory.map_or(Ok(0), |directory| durable::remove_abandoned(directory, UNFINISHED, 0))
        })
        .await?
    }

    /// Runs an operation. A transaction runs twice only if a signal ended one of its system calls: it has the
    /// database to itself from its first statement on.
    pub(in crate::manifest) async fn run(
        &self,
        operation: Operation,
        watch: Watch,
        prepared: Arc<dyn Prepared>,
    ) -> Result<()> {
        let file = Arc::clone(&self.0);
        if operation.only_reads() {
            let permit = Arc::clone(&file.may_read).acquire_owned().await;
            return blocking::run_waiting(move || {
                // The permit is given back when the query is done, even if nobody polls for its result any
                // more.
                let _permit = &permit;
                let result = match operation.access {
                    Access::ReadBeforeWrite => file.read_before_write(operation.tables, &*prepared),
                    _ => file.read(operation.tables, &*prepared),
                };
                file.unless_it_waits(result?)
            })
            .await?;
        }
        blocking::run_waiting(move || {
            let writer = if blocking::may_wait() { locked(&file.writer) } else { try_locked(&file.writer)? };
            let ended = file.unless_it_waits(file.write(writer, operation, &watch, &*prepared));
            if let Some(due) = file.checkpoints.due() {
                checkpoint_elsewhere(&file, due);
            }
            ended
        })
        .await?
    }

    /// Fails if the file or its log was removed or replaced.
    pub(in crate::manifest) async fn check_in_place(&self) -> Result<()> {
        let file = Arc::clone(&self.0);
        blocking::run(move || {
            let checked = file.files.check();
            if let Some(mut writer) = try_locked(&file.writer) {
                file.close_if_log_is_lost(&mut writer);
            }
            checked
        })
        .await?
    }

    /// Like [`check_in_place`](Self::check_in_place), but does not close the connections, for a caller that
    /// must not wait.
    pub(in crate::manifest) fn look_in_place(&self) -> Result<()> {
        self.0.files.check()
    }

    /// Fails if the file or its directory is not writable. A transaction that changes nothing would not
    /// notice.
    pub(in crate::manifest) async fn check_writable(&self) -> Result<()> {
        let file = Arc::clone(&self.0);
        blocking::run(move || check_writable(file.path())).await?
    }

    pub(in crate::manifest) fn connections(&self) -> Connections {
        Connections { busy: READERS - self.0.may_read.available_permits(), most: READERS }
    }

    /// The write-ahead log is committed, whether or not it can be checkpointed now, so failures here do not
    /// matter.
    pub(in crate::manifest) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        // Waits for running queries.
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

/// Runs a checkpoint on another thread, if there is one; otherwise a commit runs it.
fn checkpoint_elsewhere(file: &Arc<File>, due: Due) {
    // A caller that drops the store does not wait for it.
    let file = Arc::downgrade(file);
    blocking::run_beside(move || {
        if let Some(file) = file.upgrade() {
            file.checkpoint(&due);
        }
    });
}

impl File {
    pub(super) fn path(&self) -> &Path {
        self.files.path()
    }

    /// The result for the caller; `None` if the call would have had to wait for another process, and may not.
    pub(super) fn unless_it_waits<T>(&self, result: Result<T, Problem>) -> Option<Result<T>> {
        match result {
            Err(Problem::Sqlite(error)) if is_busy(&error) && !blocking::may_wait() => None,
            result => Some(result.map_err(|problem| failed(self.path(), problem))),
        }
    }

    /// Runs a query over a connection for reading. Returns `None` if the connection must be opened first, and
    /// may not be opened here.
    fn read(&self, tables: Tables, prepared: &dyn Prepared) -> Option<Result<(), Problem>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error.into()));
        }
        let free = if blocking::is_at_once() {
            Some(locked(&self.readers).pop_if(|reader| reader.follows_the_log())?)
        } else {
            locked(&self.readers).pop().filter(|reader| reader.is_current(self.path()))
        };
        let connect = || {
            self.files.check()?;
            let reader = Reader::connect(&self.files)?;
            self.files.check_database()?;
            Ok(reader)
        };
        let mut reader = match free.map_or_else(connect, Ok) {
            Ok(reader) => reader,
            Err(problem) => return Some(Err(problem)),
        };
        let result = repeated(|| self.read_over(&mut reader.connection, tables, prepared));
        if !self.files.is_log_lost() {
            locked(&self.readers).push(reader);
        }
        Some(result)
    }

    /// Runs a query over the connection for writing, if it is free. That connection has cached the pages that
    /// it wrote; the others would have to read them again, which takes as long as the query.
    fn read_before_write(&self, tables: Tables, prepared: &dyn Prepared) -> Option<Result<(), Problem>> {
        match try_locked(&self.writer).as_deref_mut() {
            Some(Some(writer)) => Some(repeated(|| self.read_over(&mut writer.connection, tables, prepared))),
            _ => self.read(tables, prepared),
        }
    }

    fn read_over(
        &self,
        connection: &mut Connection,
        tables: Tables,
        prepared: &dyn Prepared,
    ) -> Result<(), Problem> {
        self.check_open()?;
        let answered = prepared.run_on(connection::Connection::Sqlite(connection, tables)).now_or_never();
        let waited = || Error::new(Code::Internal, "a query of SQLite waited for something else");
        answered.ok_or_else(waited)??;
        Ok(())
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Closed, "the store is closed"));
        }
        Ok(())
    }

    /// Runs a transaction; rolls it back on an error.
    fn write(
        &self,
        mut writer: MutexGuard<'_, Option<Writer>>,
        operation: Operation,
        watch: &Watch,
        prepared: &dyn Prepared,
    ) -> Result<(), Problem> {
        let result = repeated(|| self.transact(&mut writer, operation, watch, prepared));
        self.close_if_log_is_lost(&mut writer);
        result
    }

    fn transact(
        &self,
        writer: &mut Option<Writer>,
        operation: Operation,
        watch: &Watch,
        prepared: &dyn Prepared,
    ) -> Result<(), Problem> {
        self.check_open()?;
        if let Some(failure) = self.checkpoints.failure() {
            return Err(failure.into());
        }
        let writer = if let Some(writer) = writer.as_mut() {
            writer
        } else {
            self.files.check()?;
            let connection = connect_writer(&self.files, &self.checkpoints)?;
            writer.insert(Writer { connection, synced: None })
        };
        let synced = operation.synced;
        if writer.synced != Some(synced) {
            writer.synced = None;
            writer.connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
            writer.synced = Some(synced);
        }
        let transaction = Transaction::begin(&mut writer.connection)?;
        // Nothing is written yet.
        self.files.check_log_to_write()?;
        let connection = connection::Connection::Sqlite(transaction.0, operation.tables);
        match runtime::drive(prepared.run_on(connection))? {
            Ending::Commit(()) => {
                watch.before_commit()?;
                transaction.commit()?;
                // A later opener of the store finds the same file.
                self.files.check_database()?;
                self.files.check_log_to_write()?;
                Ok(())
            }
            // Rolled back when it is dropped.
            Ending::RollBack(()) => Ok(()),
        }
    }

    /// Closes the connections, so that the last one saves the content of the log. Connections with running
    /// queries follow.
    fn close_if_log_is_lost(&self, writer: &mut Option<Writer>) {
        if self.files.is_log_lost() {
            locked(&self.readers).clear();
            self.checkpoints.close();
            *writer = None;
        }
    }

    fn checkpoint(&self, due: &Due) {
        // If it fails, the log stays as it is, and is as good as the database.
        let _ = due.run(|| {
            self.check_open()?;
            self.files.check()?;
            connect_checkpointer(&self.files)
        });
    }
}

/// A transaction that is rolled back unless it was committed. `rusqlite`'s own type does not lend out a `&mut
/// Connection`, which is what a future can be sent with.
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

/// Whether the file exists and is not empty; an empty file is a database that is about to be created.
fn exists(path: &Path) -> Result<bool> {
    match again(|| std::fs::metadata(path)) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len() > 0),
        Ok(_) => Err(Error::new(Code::Config, format!("{} is not a file", path.display()))
            .with_advice("choose another directory or another GRAVITON_MANIFEST_URL")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io_at("cannot open", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::manifest::repo::Database;
    use crate::manifest::{Durability, ManifestRepo, Opening};

    #[tokio::test]
    async fn after_a_checkpoint_that_failed_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests.db");
        let repo = ManifestRepo::open_sqlite(&path, Durability::Relaxed, Opening::Create).await.unwrap();
        let lease = Duration::from_secs(60);
        repo.register_writer(lease).await.unwrap();
        let failed = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
            None,
        );
        let Database::Sqlite(database) = &repo.database else { panic!("not SQLite") };
        database.0.checkpoints.note(Err(failed));
        assert_eq!(repo.register_writer(lease).await.unwrap_err().code(), Code::Io);
        repo.store().await.unwrap();
    }
}
