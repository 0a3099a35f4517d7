//! Checkpoints: commits move from the write-ahead log into the database, on another thread beside the
//! commits.
//!
//! SQLite by itself checkpoints within the commit that fills the log, which then waits for two syncs. In a
//! store that syncs nothing else, that was a third of the time of small puts (68 of 200 µs each).
//!
//! The log starts over only when a commit finds that all of it is in the database. Commits without a pause
//! are always ahead of the other thread. So that the log does not grow without bound, a commit completes the
//! checkpoint itself when the log has [`MOST_PAGES`] pages, as SQLite would; from twice that length on it
//! waits for the other thread to do so.
//!
//! A checkpoint that commits overtake has written pages that it has not synced; the next one that reaches the
//! end syncs them. If that sync fails, another attempt may sync none of them and succeed, because the kernel
//! reports a failed write only once. So after a failure nothing more is written, before the log could start
//! over.

use std::os::raw::c_int;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, MAIN_DB, ffi, wal::CheckpointMode};

use super::failure::repeated;
use super::forked::Connected;
use super::mutex::{locked, try_locked};

/// The other thread checkpoints after this many pages, and again after as many more. SQLite by itself would
/// let the log grow to this length.
const PAGES: c_int = 1_000;

/// The log has about this many pages, 16 MiB; where the other thread is slow, up to twice as many.
const MOST_PAGES: c_int = 4_000;

/// The checkpoints of one database. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Checkpoints(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many pages the log has.
    pages: AtomicI32,
    /// How many it had when a checkpoint was last begun.
    begun_at: AtomicI32,
    /// Whether the other thread has a checkpoint to run.
    running: AtomicBool,
    /// Held while a checkpoint runs, on either thread. Contains the other thread's connection: the writing
    /// connection is busy with commits.
    connection: Mutex<Option<Connected>>,
    /// The reason why nothing more may be written.
    failed: OnceLock<ffi::Error>,
}

/// The right to run a checkpoint on the other thread. Only one exists at a time.
pub(super) struct Due(Checkpoints);

impl Checkpoints {
    /// Watches the commits of the writing connection.
    pub(super) fn watch(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        let this = self.clone();
        writer.wal_hook(Some(move |log: &mut Wal, now: c_int| {
            this.0.pages.store(now, Ordering::Relaxed);
            if now >= MOST_PAGES {
                let running = if now < 2 * MOST_PAGES {
                    try_locked(&this.0.connection)
                } else {
                    Some(locked(&this.0.connection))
                };
                // The commit has succeeded, whatever the checkpoint does; an error here would be reported as
                // the commit's.
                if running.is_some() {
                    this.note(repeated(|| log.checkpoint()));
                }
            }
            Ok(())
        }))
    }

    /// The checkpoint that the other thread should run, if one is due. To be called after each commit.
    pub(super) fn due(&self) -> Option<Due> {
        let shared = &self.0;
        let (now, before) = (shared.pages.load(Ordering::Relaxed), shared.begun_at.load(Ordering::Relaxed));
        if now < before {
            // The log has started over.
            shared.begun_at.store(0, Ordering::Relaxed);
        }
        if now - before < PAGES || shared.running.swap(true, Ordering::Acquire) {
            return None;
        }
        shared.begun_at.store(now, Ordering::Relaxed);
        Some(Due(self.clone()))
    }

    /// The reason why nothing more may be written, if there is one.
    pub(super) fn failure(&self) -> Option<rusqlite::Error> {
        self.0.failed.get().map(|error| rusqlite::Error::SqliteFailure(*error, None))
    }

    /// Records the outcome of a checkpoint.
    pub(super) fn note(&self, result: rusqlite::Result<()>) {
        if let Err(error) = result
            && let Some(error) = error.sqlite_error()
            // Others are using the database, or there is no room: both pass after some time, and nothing was
            // lost.
            && !matches!(error.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
            // Mostly a quota or a limit on the size of files. The pages that were not written are still in
            // the log.
            && error.extended_code != ffi::SQLITE_IOERR_WRITE
        {
            let _ = self.0.failed.set(*error);
        }
    }

    /// Waits for a running checkpoint.
    pub(super) fn close(&self) {
        drop(locked(&self.0.connection).take());
    }
}

impl Due {
    /// Moves the pages that nobody needs in the log any more, without making anybody wait. Connects only
    /// once, and only if it still may.
    pub(super) fn run<E>(&self, connect: impl FnOnce() -> Result<Connected, E>) -> Result<(), E> {
        let mut connection = locked(&self.0.0.connection);
        let connection = match connection.as_mut() {
            Some(connection) => connection,
            None => connection.insert(connect()?),
        };
        let checkpoint = || connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE);
        self.0.note(repeated(checkpoint).map(drop));
        Ok(())
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        self.0.0.running.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_for_so_many_pages_and_again_in_a_new_log() {
        let checkpoints = Checkpoints::default();
        let due = |pages| {
            checkpoints.0.pages.store(pages, Ordering::Relaxed);
            checkpoints.due()
        };
        assert!(due(7).is_none() && due(PAGES - 1).is_none() && due(PAGES + 2).is_some());
        assert!(due(PAGES + 9).is_none() && due(2 * PAGES + 1).is_none());
        let running = due(2 * PAGES + 2);
        assert!(running.is_some() && due(3 * PAGES + 2).is_none(), "only one at a time");
        drop(running);
        assert!(due(3 * PAGES + 2).is_some(), "what was due meanwhile still is");
        // The log has started over.
        assert!(due(7).is_none() && due(PAGES - 1).is_none() && due(PAGES).is_some());
    }

    #[test]
    fn only_what_time_does_not_mend_is_a_failure() {
        let checkpoints = Checkpoints::default();
        let note = |code| {
            checkpoints.note(Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)));
            checkpoints.failure()
        };
        assert!(note(ffi::SQLITE_BUSY).is_none() && note(ffi::SQLITE_FULL).is_none());
        assert!(note(ffi::SQLITE_IOERR_WRITE).is_none());
        assert!(note(ffi::SQLITE_IOERR_FSYNC).is_some());
    }
}
