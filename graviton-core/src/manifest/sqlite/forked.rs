//! The SQLite files that this process and its parents have open.
//!
//! SQLite keeps its locks for each process and file in memory, and a forked child inherits that memory but
//! not the locks (<https://sqlite.org/howtocorrupt.html>, section 2.6). A child that opened the same file
//! again would believe that it holds its parent's locks. When the parent then closes, it removes the
//! write-ahead log of the child, and the child's commits are lost. So a child is refused the files that were
//! open when it was forked, and may open any other, also one that its parent had closed by then.
//!
//! The list has no locks, because a lock that another thread held at the fork would never be released in the
//! child. Its entries are reused, so its length is the largest number of simultaneous connections.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::in_place::Files;
use crate::error::{Code, Error, Result};
use crate::repeated::again;

/// A connection, from before it is opened until after it is closed.
#[derive(Debug)]
pub(super) struct Opened(&'static Entry);

/// A connection, and the note that its file is open, which outlives it.
#[derive(Debug)]
pub(super) struct Connected {
    connection: Connection,
    _opened: Opened,
    files: Arc<Files>,
}

impl Connected {
    pub(super) fn new(connection: Connection, opened: Opened, files: &Arc<Files>) -> Connected {
        Connected { connection, _opened: opened, files: Arc::clone(files) }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if self.files.is_log_anothers() {
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl Deref for Connected {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Connected {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// The process that has the file open; 0 if the entry is free.
    process: AtomicU64,
    /// Written by that process before anybody may look at them: see [`READY`].
    device: AtomicU64,
    inode: AtomicU64,
    next: Next,
}

type Next = OnceLock<Box<Entry>>;

/// Set in `process` once the other fields are written. A child that was forked in between finds it unset: the
/// file was not open yet.
const READY: u64 = 1 << 32;

static ENTRIES: Next = OnceLock::new();

/// Takes note that this process opens the file, which exists; fails if a parent has it open.
pub(super) fn note(path: &Path) -> Result<Opened> {
    let metadata = again(|| std::fs::metadata(path));
    let metadata = metadata.map_err(|error| Error::io_at("cannot open", path, error))?;
    let (process, device, inode) = (u64::from(std::process::id()), metadata.dev(), metadata.ino());
    let (mut place, mut own) = (&ENTRIES, None);
    // To the end of the list, and on until there is an entry of one's own.
    while let Some(entry) = next(place, own.is_none()) {
        let owner = entry.process.load(Ordering::SeqCst);
        let file = (entry.device.load(Ordering::SeqCst), entry.inode.load(Ordering::SeqCst));
        if owner & READY != 0 && owner != process | READY && file == (device, inode) {
            drop(own);
            return Err(Error::new(
                Code::Forked,
                format!("cannot open {}: the process that forked this one has it open", path.display()),
            )
            .with_advice("close the store before the fork, or start the child as a new program (spawn)"));
        }
        let claim = || entry.process.compare_exchange(0, process, Ordering::SeqCst, Ordering::SeqCst);
        if own.is_none() && owner == 0 && claim().is_ok() {
            entry.device.store(device, Ordering::SeqCst);
            entry.inode.store(inode, Ordering::SeqCst);
            entry.process.store(process | READY, Ordering::SeqCst);
            own = Some(Opened(entry));
        }
        place = &entry.next;
    }
    own.ok_or_else(|| Error::new(Code::Internal, "the list of open databases has no end"))
}

/// The entry of this place; a new one if there is none and one is wanted.
fn next(place: &'static Next, wanted: bool) -> Option<&'static Entry> {
    if wanted { Some(place.get_or_init(Box::default)) } else { place.get().map(|entry| &**entry) }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A child that drops what its parent opened leaves it: SQLite's memory of it stays.
        let this = u64::from(std::process::id()) | READY;
        let _ = self.0.process.compare_exchange(this, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length() -> usize {
        std::iter::successors(ENTRIES.get(), |entry| entry.next.get()).count()
    }

    #[test]
    fn an_entry_is_used_again_and_threads_have_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..8).map(|number| directory.path().join(number.to_string())).collect();
        for path in &paths {
            std::fs::write(path, "").unwrap();
        }
        std::thread::scope(|scope| {
            for path in &paths {
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        let (one, other) = (note(path).unwrap(), note(path).unwrap());
                        assert!(!std::ptr::eq(one.0, other.0));
                        for opened in [&one, &other] {
                            let inode = opened.0.inode.load(Ordering::SeqCst);
                            assert_eq!(inode, std::fs::metadata(path).unwrap().ino());
                        }
                    }
                });
            }
        });
        // Other tests of this process have databases open, too.
        assert!(length() < 1_000, "{}", length());
    }
}
