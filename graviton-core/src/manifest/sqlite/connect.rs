//! Opens connections to the file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, CWD, RenameFlags, access};
use rustix::io::retry_on_intr;

use super::checkpoint::Checkpoints;
use super::failure::{is_about_locks, is_about_other_files, is_busy, repeated};
use super::filesystem::{check_locks, check_locks_beside};
use super::forked::{self, Connected};
use super::in_place::Files;
use crate::blocking;
use crate::descriptor::occupy_standard;
use crate::error::Error;
use crate::manifest::connection::Problem;
use crate::repeated::again;

/// How long a process waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest pause between two looks at it.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// Looks at another's transaction before somebody asks whether there is one: after 0.3 s.
const LOOKS_AT_FIRST: i32 = 16;

/// After so many steps of SQLite's machine (some milliseconds) a query asks whether anybody still waits for
/// it.
const STEPS_BETWEEN_LOOKS: i32 = 100_000;

/// Texts of statements that a connection keeps compiled.
const STATEMENTS: usize = 64;

/// The beginning of the names of new databases that have not got their own yet.
pub(super) const UNFINISHED: &str = ".manifests-";

/// A connection that reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: Connected,
    /// The stamp of the file, if SQLite was told that it does not change.
    frozen: Option<Stamp>,
}

/// When the file was changed, and its length.
type Stamp = (std::time::SystemTime, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = again(|| std::fs::metadata(path)).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Reader {
    /// Connects; waits while another process makes or closes the database.
    pub(super) fn connect(files: &Arc<Files>) -> Result<Reader, Problem> {
        patiently(files.path(), || connect_reader(files))
    }

    /// Whether it is known without a look at the file that it sees the current content.
    pub(super) fn follows_the_log(&self) -> bool {
        self.frozen.is_none()
    }

    /// Whether it sees the current content. A connection that takes the file for frozen does not notice that
    /// somebody writes after all: another process, or this one once a full disk has room again.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        self.follows_the_log() || !has_log(path) && stamp(path) == self.frozen
    }
}

fn connect_reader(files: &Arc<Files>) -> Result<Reader, Problem> {
    let path = files.path();
    let opened = forked::note(path)?;
    let open = |path: &Path, how: OpenFlags| {
        let mut connection = Connection::open_with_flags(path, how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        prepare(&mut connection)?;
        // Only on connections that read: a transaction that writes is short, and may be shared by several
        // callers.
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(blocking::is_given_up))?;
        connection.pragma_update(None, "query_only", true)?;
        // Makes SQLite look at the file and at what stands beside it.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        connection.busy_handler(Some(wait_a_moment))?;
        Ok(connection)
    };
    // SQLite makes two files beside a database that is read, and takes them away again if it may write.
    let how = if check_writable(path).is_ok() {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    match open(path, how) {
        // They cannot be made: no permission, or a full disk. Without a log, nobody writes, and nobody can
        // begin to. Where only nothing can be locked, others can, and it would not be noticed.
        Err(error)
            if is_about_other_files(&error)
                && !has_log(path)
                && !(is_about_locks(&error) && how.contains(OpenFlags::SQLITE_OPEN_READ_WRITE)) =>
        {
            let how = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            let frozen = stamp(path);
            let connection = open(Path::new(&immutable_uri(path)), how)?;
            Ok(Reader { connection: Connected::new(connection, opened, files), frozen })
        }
        result => {
            let connection = Connected::new(result?, opened, files);
            files.note_log();
            Ok(Reader { connection, frozen: None })
        }
    }
}

/// The connection that writes; makes the file. Waits while another process makes or closes the database.
pub(super) fn connect_writer(files: &Arc<Files>, checkpoints: &Checkpoints) -> Result<Connected, Problem> {
    make_file(files.path())?;
    patiently(files.path(), || {
        let mut connection = connect(files, OpenFlags::SQLITE_OPEN_CREATE)?;
        // A collection gives pages back that nothing needs. It is decided when the database is made; later it
        // would be written each time.
        if connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0 {
            connection.pragma_update(None, "auto_vacuum", "incremental")?;
        }
        use_the_log(&connection)?;
        checkpoints.watch(&mut connection)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.busy_handler(Some(wait_a_moment))?;
        Ok(connection)
    })
}

/// Lets SQLite write to a log. The change is committed behind the row with the answer, and where that fails,
/// whoever reads the row alone is not told.
fn use_the_log(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Makes the file with the mode that the umask asks for, so that a group can share it; the files beside it
/// get the same. SQLite itself makes one that its owner alone may write. If it fails, SQLite says why; but it
/// would take a filesystem without locks for one on which others have locks.
///
/// It gets its name when no descriptor of it is open any more: to close one gives up all locks that this
/// process has on the file, and another thread may hold some as soon as there is a name.
fn make_file(path: &Path) -> Result<(), Error> {
    let (false, Some(directory)) = (exists(path), path.parent()) else { return Ok(()) };
    occupy_standard();
    let mode: std::fs::Permissions = PermissionsExt::from_mode(0o666);
    let make =
        || tempfile::Builder::new().prefix(UNFINISHED).permissions(mode.clone()).tempfile_in(directory);
    // A new file may have the number of one that a parent had open when it forked this process. It is kept
    // until there is one with another number.
    let mut refused = Vec::new();
    while let Ok(file) = make() {
        check_locks(file.as_file(), path)?;
        let closed = file.into_temp_path();
        if forked::note(&closed).is_err() && refused.len() < 10 {
            refused.push(closed);
            continue;
        }
        let _ = retry_on_intr(|| rustix::fs::renameat_with(CWD, &*closed, CWD, path, RenameFlags::NOREPLACE));
        break;
    }
    Ok(())
}

/// The connection that moves what was written into the database.
pub(super) fn connect_checkpointer(files: &Arc<Files>) -> Result<Connected, Problem> {
    let mut connection = connect(files, OpenFlags::empty())?;
    // Looks at the file, and so at what kind of log it has.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    connection.busy_handler(Some(wait_a_moment))?;
    Ok(connection)
}

/// A connection that may write.
fn connect(files: &Arc<Files>, more: OpenFlags) -> Result<Connected, Problem> {
    let path = files.path();
    // Where there is no file, SQLite makes one, or says why it cannot.
    let before = if exists(path) { Some(forked::note(path)?) } else { None };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let mut connection = Connection::open_with_flags(path, flags)?;
    prepare(&mut connection)?;
    let opened = before.map_or_else(|| forked::note(path), Ok)?;
    Ok(Connected::new(connection, opened, files))
}

/// Opens a connection, again and again while another process makes or closes the database. SQLite does not
/// wait for the change to a write-ahead log, where to wait could be a deadlock, and says at once that it is
/// busy. It says so, too, where nothing can be locked.
fn patiently<T>(path: &Path, connect: impl Fn() -> Result<T, Problem>) -> Result<T, Problem> {
    let started = Instant::now();
    let mut has_locks = false;
    loop {
        match repeated(&connect) {
            Err(Problem::Sqlite(error))
                if is_busy(&error) && blocking::may_wait() && started.elapsed() < BUSY_TIMEOUT =>
            {
                if !has_locks {
                    check_locks_beside(path)?;
                    has_locks = true;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Waits a moment for another process's transaction, at which SQLite has looked so often; `false` gives up.
fn wait_a_moment(looks: i32) -> bool {
    if !blocking::may_wait() || BUSY_PAUSE * looks.unsigned_abs() >= BUSY_TIMEOUT {
        return false;
    }
    std::thread::sleep(BUSY_PAUSE.min(Duration::from_millis(1 << looks.clamp(0, 5))));
    true
}

/// A look at a database for the first time waits as long by [`patiently`].
fn wait_briefly(looks: i32) -> bool {
    looks < LOOKS_AT_FIRST && wait_a_moment(looks)
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(wait_briefly))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise every statement that could use a partial index is compiled again for each set of values,
    // which was half the time of a small get.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Fails if the file may not be written to, or its directory, where the log is.
pub(super) fn check_writable(path: &Path) -> Result<(), Error> {
    for path in [path, path.parent().unwrap_or(Path::new("/"))] {
        retry_on_intr(|| access(path, Access::WRITE_OK))
            .map_err(|error| Error::io_at("cannot write to", path, error.into()))?;
    }
    Ok(())
}

fn exists(path: &Path) -> bool {
    again(|| std::fs::metadata(path)).is_ok()
}

/// Whether something is in the write-ahead log.
fn has_log(path: &Path) -> bool {
    // A link leads to a database that has its log beside it.
    let mut log = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    log.push("-wal");
    again(|| std::fs::metadata(&log)).is_ok_and(|metadata| metadata.len() > 0)
}

/// <https://sqlite.org/uri.html>: escapes every byte that has a meaning in a URI.
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/.-_".contains(byte);
        uri.extend(if plain { vec![char::from(*byte)] } else { format!("%{byte:02x}").chars().collect() });
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_a_database_that_is_there_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.db");
        let connect_writer = |path: &Path| {
            connect_writer(&Arc::new(Files::new(path.to_owned())), &Checkpoints::default()).ok().unwrap()
        };
        let mode = |connection: &Connection| -> i64 {
            connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap()
        };
        let first = connect_writer(&path);
        first.execute_batch("CREATE TABLE t (x)").unwrap();
        assert_eq!(mode(&first), 2);
        let log = || std::fs::metadata(directory.path().join("m.db-wal")).unwrap().len();
        let before = log();
        // Not even while somebody else writes.
        first.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        let second = connect_writer(&path);
        assert_eq!((log(), mode(&second)), (before, 2));
        // One that an older version made stays as it is.
        let old = directory.path().join("old.db");
        Connection::open(&old).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert_eq!(mode(&connect_writer(&old)), 0);
    }
}
