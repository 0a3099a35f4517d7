//! Checks whether the files of an open database are still the ones under their paths.
//!
//! A database is three files: the database itself, its log (`-wal`) and the index of the log (`-shm`), which
//! all processes share. **A transaction is written, and acknowledged, only while the three files that were
//! opened are the ones under the three paths.** A commit in a file without a name is lost when the last
//! process has closed it, and two processes with different indexes of one log overwrite each other's commits.
//! SQLite itself removes log and index only when the last connection of all processes closes. So they stay
//! the same for as long as this process has a connection, and a reading connection is kept until the store is
//! closed.
//!
//! The paths are compared when a connection is opened, before a commit writes anything, after it, and before
//! a put is answered by a look-up alone. Between the check before a commit and that commit, another process
//! may still remove a file. That commit is then not acknowledged, and may have overwritten one that another
//! process made in that moment.
//!
//! Once the log or its index is lost, every connection is closed. The last one to close moves the content of
//! the log into the database, under SQLite's exclusive lock. If there is another log or index by then,
//! another process has written: a connection then closes without that step, which would overwrite the commits
//! in the new log, and remove it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Code, Error, Result};
use crate::repeated::again;

/// Device and inode.
type FileId = (u64, u64);

/// One file of a database.
#[derive(Debug)]
struct Part {
    /// In messages.
    what: &'static str,
    path: PathBuf,
    /// The file that was there when a connection had it open first.
    opened: OnceLock<FileId>,
}

/// The files of one open database.
#[derive(Debug)]
pub(super) struct Files {
    database: Part,
    /// Log and index, beside the database itself where the path is a link.
    beside: OnceLock<[Part; 2]>,
    /// Why the log is not used any more.
    lost: OnceLock<Error>,
}

impl Part {
    fn new(what: &'static str, path: PathBuf) -> Part {
        Part { what, path, opened: OnceLock::new() }
    }

    fn found(&self) -> Result<Option<FileId>> {
        match again(|| std::fs::metadata(&self.path)) {
            Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io_at("cannot look at", &self.path, error)),
        }
    }

    /// Takes note of the file that is there, if there is one.
    fn note(&self) {
        if !self.is_opened()
            && let Ok(Some(found)) = self.found()
        {
            let _ = self.opened.set(found);
        }
    }

    /// How the file was lost that was opened, if it was.
    fn lost(&self) -> Result<Option<&'static str>> {
        Ok(match self.found()? {
            Some(found) if *self.opened.get_or_init(|| found) == found => None,
            Some(_) => Some("replaced"),
            None => Some("removed"),
        })
    }

    fn is_opened(&self) -> bool {
        self.opened.get().is_some()
    }

    fn error(&self, how: &str, advice: &str) -> Error {
        let why = format!("the {} {} was {how} while the store was open", self.what, self.path.display());
        Error::new(Code::Io, why).with_advice(advice)
    }
}

impl Files {
    pub(super) fn new(path: PathBuf) -> Files {
        Files { database: Part::new("database", path), beside: OnceLock::new(), lost: OnceLock::new() }
    }

    fn beside(&self) -> &[Part; 2] {
        self.beside.get_or_init(|| {
            let path = self.path();
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            [
                Part::new("log of the database", with_end(&path, "-wal")),
                Part::new("index of the log of the database", with_end(&path, "-shm")),
            ]
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.database.path
    }

    /// Fails if a file was removed or replaced that was open.
    pub(super) fn check(&self) -> Result<()> {
        // Nothing is open before the database is there.
        if !self.database.is_opened() {
            return Ok(());
        }
        self.check_database()?;
        self.check_log(Part::is_opened)
    }

    /// The same of the log, for a connection that is in a transaction which writes: it has the log open.
    pub(super) fn check_log_to_write(&self) -> Result<()> {
        self.check_log(|_| true)
    }

    /// Fails if the database is not there, or not the one that was opened first.
    pub(super) fn check_database(&self) -> Result<()> {
        const LOST: &str = "what was put since is lost; bring the file back if something else removed it, then open the store again";
        self.database.lost()?.map_or(Ok(()), |how| Err(self.database.error(how, LOST)))
    }

    fn check_log(&self, is_open: impl Fn(&Part) -> bool) -> Result<()> {
        const LOST: &str = "what else was put may be lost with it: open the store again, and verify it; let nothing remove this file, which is part of the database";
        if let Some(lost) = self.lost.get() {
            return Err(lost.clone());
        }
        for part in self.beside().iter().filter(|part| is_open(part)) {
            if let Some(how) = part.lost()? {
                return Err(self.lost.get_or_init(|| part.error(how, LOST)).clone());
            }
        }
        Ok(())
    }

    /// Takes note of the log and its index. For a connection that has looked at the database and follows its
    /// log.
    pub(super) fn note_log(&self) {
        self.beside().iter().for_each(Part::note);
    }

    /// Whether the connections must be closed.
    pub(super) fn is_log_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Whether the log or its index are those of another process now.
    pub(super) fn is_log_anothers(&self) -> bool {
        let is_anothers = |part: &Part| {
            let (opened, found) = (part.opened.get(), part.found());
            matches!((opened, found), (Some(opened), Ok(Some(found))) if *opened != found)
        };
        self.beside.get().into_iter().flatten().any(is_anothers)
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}
