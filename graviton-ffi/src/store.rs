//! The store: opening, queries, changes and closing.

use std::ffi::{c_char, c_void};

use graviton_core::{Config, Result};

use crate::blob_id::{graviton_blob_id, read_id};
use crate::callback::{Cancel, graviton_cancel_callback};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{borrow, free, out, path};
use crate::reports::{graviton_blob_stat, graviton_store_stats};
use crate::session::Session;
use crate::status::graviton_status;
use crate::versioned::versioned_needed;

/// An open store. Owned; free it with graviton_store_free. Any number of threads may use it at once, and any
/// number of processes may have the same store open. Readers, writers and iterators keep what they need of
/// it: free in any order.
pub struct graviton_store {
    session: Session,
}

impl graviton_store {
    pub(crate) fn new(session: Session) -> graviton_store {
        graviton_store { session }
    }
}

/// The session behind a caller's handle.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn session_of<'a>(store: *const graviton_store, name: &str) -> Result<&'a Session> {
    // SAFETY: the same contract.
    Ok(unsafe { &borrow(store, name)?.session })
}

/// Opens the store in a directory (`path` of `path_length` bytes, in any encoding), with blocks as files and
/// manifests in SQLite; creates it if it does not exist. All other settings are the defaults. Free it with
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

/// Makes another handle on the same store, with its own cancel callback for its calls and for those of the
/// readers, writers and iterators that are opened with it: one for each thread or request that is cancelled
/// separately. With NULL, the handle has no cancel callback. `userdata` may be NULL; it must stay valid as
/// long as those handles are used. Closing one handle closes the store for all; free each with
/// graviton_store_free. Never blocks.
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

/// Closes the store. Every later call with any handle on it, and with its readers, writers and iterators, is
/// GRAVITON_ERROR_CLOSED; calls that are running in other threads succeed or fail with it. A second close
/// does nothing. The handle must still be freed. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_close(
    store: *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe { guard(error, || Ok(session_of(store, "store")?.close()?)) }
}

/// Frees a handle. NULL is fine. Freeing the last handle without graviton_store_close does as much of the
/// closing as it can without waiting; committed data is never lost. In a forked child it only forgets the
/// handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_free(store: *mut graviton_store) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(store) }
}

/// Gets the metadata of a blob. GRAVITON_ERROR_NOT_FOUND if there is no such blob. Blocks.
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

/// Tests whether a blob exists: `*exists` becomes 1 or 0. Blocks.
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

/// Deletes a blob: once this returns, no process finds it. GRAVITON_ERROR_NOT_FOUND if there is no such blob.
/// It can be restored for the grace period (GRAVITON_GC_GRACE), and open readers continue; the next
/// graviton_store_gc after that frees its space. Blocks.
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

/// Restores a deleted blob. This works until a collection takes it, at least for the grace period; afterwards
/// it is GRAVITON_ERROR_NOT_FOUND. Restoring a live blob succeeds and changes nothing. Blocks.
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

/// Gets the totals of the store. Takes time proportional to the number of blobs and blocks. Blocks.
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
            out.set(&(&stats).into());
            Ok(())
        })
    }
}

/// Writes a consistent copy of the manifests to a new file (`path` of `path_length` bytes), while the store
/// is in use. Only for manifests in SQLite: elsewhere it is GRAVITON_ERROR_UNSUPPORTED. Blocks.
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
