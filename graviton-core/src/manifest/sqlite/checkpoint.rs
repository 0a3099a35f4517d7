//! How what was committed gets from the write-ahead log into the database: beside the commits, on another thread.
//!
//! SQLite by itself does it within the commit that fills the log, which then waits for two syncs. In a store that syncs
//! nothing else, that was a third of what small puts took (68 of 200 µs each).
//!
//! The log begins anew only when a commit finds that all of it is in the database. Commits that do not pause always are
//! ahead of the other thread; so that the log does not grow without end, a commit does the rest itself when the log is
//! [`MOST_PAGES`] long, as SQLite would. What fails is tried again with the next pages: until then the log has them.

use std::os::raw::c_int;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::hooks::Wal;
use rusqlite::{Connection, MAIN_DB, wal::CheckpointMode};

use super::database::locked;

/// The other thread begins after so many pages, and after so many more; SQLite by itself would let a log have as many.
const PAGES: c_int = 1_000;

/// A log has about so many pages at most: 16 MiB.
const MOST_PAGES: c_int = 4_000;

/// The checkpoints of one database.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// How many pages the log has.
    pages: Arc<AtomicI32>,
    /// How many it had when a checkpoint was last asked for.
    asked_at: AtomicI32,
    /// Its own, for the one that writes has commits to do.
    connection: Mutex<Option<Connection>>,
}

impl Checkpoints {
    /// Watches the commits of the connection that writes.
    pub(super) fn watch(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.pages);
        writer.wal_hook(Some(move |log: &mut Wal, now: c_int| {
            pages.store(now, Ordering::Relaxed);
            if now >= MOST_PAGES {
                // The commit has succeeded, whatever becomes of this; an error would be the commit's.
                let _ = log.checkpoint();
            }
            Ok(())
        }))
    }

    /// Whether one is to be run, said once. To be asked after each commit.
    pub(super) fn is_due(&self) -> bool {
        let (now, before) = (self.pages.load(Ordering::Relaxed), self.asked_at.load(Ordering::Relaxed));
        let due = now - before >= PAGES;
        // A log that is shorter than it was has begun anew.
        if due || now < before {
            self.asked_at.store(if due { now } else { 0 }, Ordering::Relaxed);
        }
        due
    }

    /// Moves what nobody needs in the log any more, and makes nobody wait.
    pub(super) fn run<E>(&self, connect: impl FnOnce() -> Result<Connection, E>) -> Result<(), E> {
        let mut connection = locked(&self.connection);
        let connection = match connection.as_mut() {
            Some(connection) => connection,
            None => connection.insert(connect()?),
        };
        let _ = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE);
        Ok(())
    }

    /// Waits for the one that runs.
    pub(super) fn close(&self) {
        drop(locked(&self.connection).take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_once_for_so_many_pages_and_again_in_a_new_log() {
        let checkpoints = Checkpoints::default();
        let due = |pages| {
            checkpoints.pages.store(pages, Ordering::Relaxed);
            checkpoints.is_due()
        };
        assert!(!due(7) && !due(PAGES - 1) && due(PAGES + 2) && !due(PAGES + 9) && !due(2 * PAGES + 1));
        assert!(due(2 * PAGES + 2));
        // The log has begun anew.
        assert!(!due(7) && !due(PAGES - 1) && due(PAGES));
    }
}
