//! Copies and repairs from another store.

use std::ffi::c_void;

use graviton_core::{BlobId, CopyOptions, CopyReport, Result};

use crate::blob_id::{graviton_blob_id, graviton_block_key, read_ids};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::listener::Listener;
use crate::reports::{graviton_copy_report, graviton_repair_report};
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::{Versioned, versioned, versioned_out};

/// Options of a copy. Initialise it with GRAVITON_COPY_OPTIONS_INIT, then set fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_copy_options {
    /// sizeof(graviton_copy_options).
    pub struct_size: usize,
    /// The blobs to copy; none if `id_count` is 0. NULL with an `id_count` of 0: all blobs of the other
    /// store.
    pub ids: *const graviton_blob_id,
    /// How many of them.
    pub id_count: usize,
}

// SAFETY: begins with its size, and pointers are valid for any bytes.
unsafe impl Versioned for graviton_copy_options {
    const NAME: &'static str = "graviton_copy_options";
}

/// Reports the progress of a copy, and at its end the final report. `damaged` are the `report->damaged_count`
/// blobs that are damaged in the other store, NULL if there are none; both are valid until the callback
/// returns. Called on the thread that called graviton_store_copy_from. Returns 0 to continue, GRAVITON_STOP
/// to stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the last call is
/// ignored. It may call the library, with the same stores too, and must return: no exception, no longjmp.
pub type graviton_copy_callback = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        report: *const graviton_copy_report,
        damaged: *const graviton_blob_id,
    ) -> i32,
>;

/// Reports the progress of a repair, and at its end the final report. `lost` are the `report->lost_count`
/// blocks that are missing or damaged in the other store too, NULL if there are none; both are valid until
/// the callback returns. Called on the thread that called graviton_store_repair_from. Returns 0 to continue,
/// GRAVITON_STOP to stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the
/// last call is ignored. It may call the library, with the same stores too, and must return: no exception, no
/// longjmp.
pub type graviton_repair_callback = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        report: *const graviton_repair_report,
        lost: *const graviton_block_key,
    ) -> i32,
>;

/// # Safety
/// As [`versioned`], and [`read_ids`] for what is in it.
unsafe fn wanted(options: *const graviton_copy_options) -> Result<Option<Vec<BlobId>>> {
    // SAFETY: the same contract.
    unsafe { versioned(options)?.map_or(Ok(None), |options| read_ids(options.ids, options.id_count)) }
}

/// Copies blobs from another store of any kind, verified; transfers only the blocks that are missing here.
/// After an interruption, call it again. `options` may be NULL. `callback` may be NULL. `userdata` may be
/// NULL. `report` may be NULL. Blocks, possibly for hours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_copy_from(
    store: *const graviton_store,
    other: *const graviton_store,
    options: *const graviton_copy_options,
    callback: graviton_copy_callback,
    userdata: *mut c_void,
    report: *mut graviton_copy_report,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(report)?;
            let ids = wanted(options)?;
            // For the engine, which takes no names for all.
            let nothing = ids.as_ref().is_some_and(Vec::is_empty);
            let options = CopyOptions { ids: ids.unwrap_or_default() };
            let other = session_of(other, "other")?;
            other.check()?;
            let mut listener = Listener::new(callback, userdata);
            let report = session_of(store, "store")?.run(|store| {
                if nothing {
                    let mut report = CopyReport::default();
                    report.complete = true;
                    return Ok(report);
                }
                store.copy_from(other.store(), &options, |report| listener.tell(report, &report.damaged))
            })?;
            listener.end(&report, &report.damaged, out)
        })
    }
}

/// Checks every block that a live blob needs, and replaces missing and damaged ones by verified blocks of
/// another store. `callback` may be NULL. `userdata` may be NULL. `report` may be NULL. Blocks, possibly for
/// hours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_repair_from(
    store: *const graviton_store,
    other: *const graviton_store,
    callback: graviton_repair_callback,
    userdata: *mut c_void,
    report: *mut graviton_repair_report,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(report)?;
            let other = session_of(other, "other")?;
            other.check()?;
            let mut listener = Listener::new(callback, userdata);
            let report = session_of(store, "store")?.run(|store| {
                store.repair_from(other.store(), |report| listener.tell(report, &report.lost))
            })?;
            listener.end(&report, &report.lost, out)
        })
    }
}
