//! Collection of unreferenced blocks.

use std::ffi::c_void;
use std::time::Duration;

use graviton_core::{GcOptions, Result};

use crate::blob_id::graviton_blob_id;
use crate::error::graviton_error;
use crate::guard::guard;
use crate::listener::Listener;
use crate::pointer::{invalid, truth};
use crate::reports::graviton_gc_report;
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::{Versioned, versioned, versioned_out};

/// For graviton_gc_options: no grace period; all deleted blobs are collected.
pub const GRAVITON_GC_NO_GRACE: i64 = -1;

/// Options of a collection. Initialise it with GRAVITON_GC_OPTIONS_INIT, then set fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_gc_options {
    /// sizeof(graviton_gc_options).
    pub struct_size: usize,
    /// The grace period in milliseconds; blobs that were deleted before it are collected. 0: as configured
    /// (GRAVITON_GC_GRACE). GRAVITON_GC_NO_GRACE: all deleted blobs.
    pub grace_ms: i64,
    /// The time limit in milliseconds; no step begins after it. 0: no limit.
    pub max_time_ms: u64,
    /// The maximum number of blocks to delete. 0: no limit.
    pub max_blocks: u64,
    /// The approximate maximum number of bytes to delete. 0: no limit.
    pub max_bytes: u64,
    /// The maximum number of blocks to delete in a second. 0: no limit.
    pub blocks_per_second: u32,
    /// 1: report only what would be deleted. 0: delete it.
    pub dry_run: i32,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_gc_options {
    const NAME: &'static str = "graviton_gc_options";
}

/// Reports the progress of a collection after each step, and at its end the final report. `named` are the
/// `report->named_count` blobs that a dry run lists, NULL if there are none; both are valid until the
/// callback returns. Called on the thread that called graviton_store_gc. Returns 0 to continue, GRAVITON_STOP
/// to stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the last call is
/// ignored. It may call the library, with the same store too, and must return: no exception, no longjmp.
pub type graviton_gc_callback = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        report: *const graviton_gc_report,
        named: *const graviton_blob_id,
    ) -> i32,
>;

/// A limit, where 0 is none.
pub(crate) fn limit<T: From<u8> + PartialEq>(value: T) -> Option<T> {
    (value != T::from(0)).then_some(value)
}

fn to_core(options: &graviton_gc_options) -> Result<GcOptions> {
    let grace = match options.grace_ms {
        0 => None,
        GRAVITON_GC_NO_GRACE => Some(Duration::ZERO),
        grace @ 1.. => Some(Duration::from_millis(grace as u64)),
        grace => {
            return Err(invalid(format!("the grace is {grace} ms"))
                .with_advice("use GRAVITON_GC_NO_GRACE for none at all, and 0 for what is configured"));
        }
    };
    Ok(GcOptions {
        grace,
        dry_run: truth(options.dry_run, "dry_run")?,
        max_time: limit(options.max_time_ms).map(Duration::from_millis),
        max_blocks: limit(options.max_blocks),
        max_bytes: limit(options.max_bytes),
        blocks_per_second: limit(options.blocks_per_second),
    })
}

/// Deletes unreferenced blocks: those of blobs that were deleted before the grace period, and of puts whose
/// process is gone. Any number of collections may run at once, beside all other calls. `options` may be NULL.
/// `callback` may be NULL. `userdata` may be NULL. `report` may be NULL. Blocks, possibly for hours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_gc(
    store: *const graviton_store,
    options: *const graviton_gc_options,
    callback: graviton_gc_callback,
    userdata: *mut c_void,
    report: *mut graviton_gc_report,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(report)?;
            let options = versioned(options)?.as_ref().map(to_core).transpose()?.unwrap_or_default();
            let mut listener = Listener::new(callback, userdata);
            let report = session_of(store, "store")?
                .run(|store| store.gc(&options, |report| listener.tell(report, &report.named)))?;
            listener.end(&report, &report.named, out)
        })
    }
}
