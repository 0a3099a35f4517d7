//! The store: opened, asked, changed and closed.

use std::ffi::{c_char, c_void};

use graviton_core::{BlobStat, Config, Result};

use crate::blob_id::{graviton_blob_id, read_id};
use crate::callback::{Cancel, graviton_cancel_callback};
use crate::error::graviton_error;
use crate::panic::guard;
use crate::pointer::{borrow, fill_text, free, out, path};
use crate::session::Session;
use crate::status::graviton_status;
use crate::versioned::{Versioned, versioned_needed};

/// An open store. Owned; free it with graviton_store_free. Any number of threads may use it at once, and any number of
/// processes may have the same store open. Readers, writers and iterators keep what they need of it: free in any order.
pub struct graviton_store {
    session: Session,
}

impl graviton_store {
    pub(crate) fn new(session: Session) -> graviton_store {
        graviton_store { session }
    }
}

/// What is behind a caller's handle.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn session_of<'a>(store: *const graviton_store, name: &str) -> Result<&'a Session> {
    // SAFETY: the same contract.
    Ok(unsafe { &borrow(store, name)?.session })
}

/// Room for the text of any chunker, with the NUL behind it, in bytes.
pub const GRAVITON_CHUNKER_TEXT_MAX: usize = 544;

/// What is known of a blob. Set `struct_size` before a call, with GRAVITON_BLOB_STAT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_blob_stat {
    /// sizeof(graviton_blob_stat).
    pub struct_size: usize,
    /// Its id; the size in bytes is in it.
    pub id: graviton_blob_id,
    /// How many blocks it has.
    pub blocks: u64,
    /// When it was put: milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// The setting GRAVITON_CHUNKER that it was cut with, NUL-terminated.
    pub chunker: [c_char; GRAVITON_CHUNKER_TEXT_MAX],
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_blob_stat {
    const NAME: &'static str = "graviton_blob_stat";
}

impl From<&BlobStat> for graviton_blob_stat {
    fn from(stat: &BlobStat) -> graviton_blob_stat {
        graviton_blob_stat {
            struct_size: size_of::<graviton_blob_stat>(),
            id: (&stat.id).into(),
            blocks: stat.blocks,
            created_at_ms: stat.created_at_ms,
            chunker: fill_text(&stat.chunker),
        }
    }
}

/// Sums over a store. Set `struct_size` before a call, with GRAVITON_STORE_STATS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_store_stats {
    /// sizeof(graviton_store_stats).
    pub struct_size: usize,
    /// Live blobs.
    pub blobs: u64,
    /// The sum of their sizes in bytes.
    pub logical_bytes: u64,
    /// Blocks that are stored, each once.
    pub blocks: u64,
    /// The sum of their sizes in bytes.
    pub stored_bytes: u64,
    /// Deleted blobs that can still be restored.
    pub dead_blobs: u64,
    /// The sum of their sizes in bytes.
    pub dead_bytes: u64,
    /// Bytes of stored blocks that neither a live blob nor a put under way refers to. A collection without grace frees
    /// these, and what a put that failed or was aborted had announced and may have written, which only its plan counts.
    pub reclaimable_bytes: u64,
    /// How many bytes of blobs a stored byte serves; 1 for an empty store.
    pub dedup_ratio: f64,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_store_stats {
    const NAME: &'static str = "graviton_store_stats";
}

/// Opens the store in a directory (`path` of `path_length` bytes, in any encoding), with blocks as files and manifests in
/// SQLite; creates it if it is not there. Everything else is as graviton_config_for_directory has it. Free it with
/// graviton_store_free. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_open(
    path: *const c_char,
    path_length: usize,
    store: *mut *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(store, "store")?;
            let config = Config::for_directory(self::path(path, path_length, "path")?);
            out.give(graviton_store::new(Session::new(config.open()?, None)));
            Ok(())
        })
    }
}

/// Another handle on the same store, whose calls, and those of the readers, writers and iterators that are opened with it,
/// ask this callback whether to go on: one for each thread or request that is to be cancelled by itself. A callback of NULL
/// gives a handle that asks nobody. `userdata` may be NULL; it must stay good for as long as those handles are used. Closing
/// one handle closes the store for all; free each with graviton_store_free. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_with_cancel(
    store: *const graviton_store,
    callback: graviton_cancel_callback,
    userdata: *mut c_void,
    other: *mut *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(other, "other")?;
            let session = session_of(store, "store")?;
            session.check()?;
            out.give(graviton_store::new(session.with_cancel(Cancel::new(callback, userdata))));
            Ok(())
        })
    }
}

/// Closes the store in an orderly way: everything that comes later, with any handle on it, its readers, writers and iterators,
/// is GRAVITON_ERROR_CLOSED; what is under way in other threads ends well or with that. A second close does nothing. The
/// handle is still to be freed. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_close(
    store: *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe { guard(error, || Ok(session_of(store, "store")?.close()?)) }
}

/// Frees a handle. NULL is fine. Without graviton_store_close, the last handle that needs the store leaves it as tidy as it
/// can without waiting; nothing that was committed is lost either way. In a forked child it only forgets the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_free(store: *mut graviton_store) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(store) }
}

/// What is known of a blob; GRAVITON_ERROR_NOT_FOUND if it is not there. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_stat(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    stat: *mut graviton_blob_stat,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_needed(stat, "stat")?;
            let id = read_id(id, "id")?;
            let stat = session_of(store, "store")?.run(|store| store.stat(&id))?;
            out.set(&(&stat).into());
            Ok(())
        })
    }
}

/// Whether a blob is there: `*exists` becomes 1 or 0. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_exists(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    exists: *mut i32,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(exists, "exists")?;
            let id = read_id(id, "id")?;
            out.set(i32::from(session_of(store, "store")?.run(|store| store.exists(&id))?));
            Ok(())
        })
    }
}

/// Deletes a blob: once this has returned, no process finds it any more; GRAVITON_ERROR_NOT_FOUND if it is not there. It can
/// be restored for the grace (GRAVITON_GC_GRACE), and what reads it goes on; its space comes back with the next
/// graviton_store_gc after that. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_delete(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let id = read_id(id, "id")?;
            session_of(store, "store")?.run(|store| store.delete(&id))
        })
    }
}

/// Brings a deleted blob back, as long as no collection has begun with it: within the grace it is certain. Otherwise
/// GRAVITON_ERROR_NOT_FOUND. One that is not deleted stays as it is, and the call succeeds. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_restore(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let id = read_id(id, "id")?;
            session_of(store, "store")?.run(|store| store.restore(&id))
        })
    }
}

/// Sums over the store. Costs time proportional to what is stored. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_stats_get(
    store: *const graviton_store,
    stats: *mut graviton_store_stats,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_needed(stats, "stats")?;
            let stats = session_of(store, "store")?.run(graviton_core::Store::stats)?;
            out.set(&graviton_store_stats {
                struct_size: size_of::<graviton_store_stats>(),
                blobs: stats.blobs,
                logical_bytes: stats.logical_bytes,
                blocks: stats.blocks,
                stored_bytes: stats.stored_bytes,
                dead_blobs: stats.dead_blobs,
                dead_bytes: stats.dead_bytes,
                reclaimable_bytes: stats.reclaimable_bytes,
                dedup_ratio: stats.dedup_ratio(),
            });
            Ok(())
        })
    }
}

/// Writes a consistent copy of the manifests to a new file (`path` of `path_length` bytes), while the store is in use. Only
/// for manifests in SQLite: elsewhere it is GRAVITON_ERROR_UNSUPPORTED. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_backup(
    store: *const graviton_store,
    path: *const c_char,
    path_length: usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let path = self::path(path, path_length, "path")?;
            session_of(store, "store")?.run(|store| store.backup(path))
        })
    }
}
