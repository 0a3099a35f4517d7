//! Collection of what nothing refers to.

use std::ffi::c_void;
use std::time::Duration;

use graviton_core::{GcOptions, GcReport, Result};

use crate::blob_id::graviton_blob_id;
use crate::callback::{Userdata, check_stop, flow};
use crate::error::graviton_error;
use crate::panic::guard;
use crate::pointer::{first, invalid, truth};
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::{Versioned, versioned, versioned_out};

/// For graviton_gc_options: no grace at all, so that everything that was deleted goes.
pub const GRAVITON_GC_NO_GRACE: i64 = -1;

/// What a collection is to do. Initialise it with GRAVITON_GC_OPTIONS_INIT, then set what is wanted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_gc_options {
    /// sizeof(graviton_gc_options).
    pub struct_size: usize,
    /// Blobs that were deleted longer ago go, in milliseconds. 0: as configured (GRAVITON_GC_GRACE). GRAVITON_GC_NO_GRACE:
    /// all of them.
    pub grace_ms: i64,
    /// No step begins after so long, in milliseconds. 0: no limit.
    pub max_time_ms: u64,
    /// So many blocks are deleted at most. 0: no limit.
    pub max_blocks: u64,
    /// About so many bytes are deleted at most. 0: no limit.
    pub max_bytes: u64,
    /// So many blocks are deleted in a second at most. 0: no limit.
    pub blocks_per_second: u32,
    /// 1: only find out what there is to do. 0: do it.
    pub dry_run: i32,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_gc_options {
    const NAME: &'static str = "graviton_gc_options";
}

/// What a collection did, or, after a dry run, would do. Set `struct_size` before a call, with GRAVITON_GC_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_gc_report {
    /// sizeof(graviton_gc_report).
    pub struct_size: usize,
    /// Puts of writers that are gone.
    pub abandoned_puts: u64,
    /// Deleted blobs that went, those of abandoned and failed puts among them.
    pub blobs: u64,
    /// How many of them the callback gets named; of a dry run only.
    pub named_count: usize,
    /// Blocks that were deleted.
    pub blocks: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// Blocks that lost a reference and are kept, because something else refers to them.
    pub kept_referenced: u64,
    /// Blocks that are kept for now because another collection is about to delete them, or was when it died.
    pub kept_doomed: u64,
    /// Blocks that could not be deleted; the next collection tries again.
    pub kept_failed: u64,
    /// Files of dead processes that were removed.
    pub leftovers: u64,
    /// How long it took.
    pub seconds: f64,
    /// 1 if it was a dry run, otherwise 0.
    pub dry_run: i32,
    /// 1 if nothing is left to do; 0 if a limit or the callback ended it.
    pub complete: i32,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_gc_report {
    const NAME: &'static str = "graviton_gc_report";
}

impl From<&GcReport> for graviton_gc_report {
    fn from(report: &GcReport) -> graviton_gc_report {
        graviton_gc_report {
            struct_size: size_of::<graviton_gc_report>(),
            abandoned_puts: report.abandoned_puts,
            blobs: report.blobs,
            named_count: report.named.len(),
            blocks: report.blocks,
            bytes: report.bytes,
            kept_referenced: report.kept_referenced,
            kept_doomed: report.kept_doomed,
            kept_failed: report.kept_failed,
            leftovers: report.leftovers,
            seconds: report.seconds,
            dry_run: i32::from(report.dry_run),
            complete: i32::from(report.complete),
        }
    }
}

/// Told what a collection has done so far: after each step, and once more when it is over, with the final report. `named` are
/// the `report->named_count` blobs that a dry run names, NULL if there are none; both live until the callback returns. Called
/// on the thread that called graviton_store_gc. Returns 0 to go on, GRAVITON_STOP to end early, or anything else to abort
/// with GRAVITON_ERROR_CANCELLED; what the last call returns is not looked at. May call into the library, with this store
/// too. Must return: no exception, no longjmp.
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

/// # Safety
/// The callback and its userdata are good.
unsafe fn tell(callback: graviton_gc_callback, userdata: Userdata, report: &GcReport) -> i32 {
    let Some(callback) = callback else { return 0 };
    let named: Vec<graviton_blob_id> = report.named.iter().map(Into::into).collect();
    // SAFETY: by the contract; both live until it returns.
    unsafe { callback(userdata.get(), &report.into(), first(&named)) }
}

/// Deletes what nothing refers to: the blocks of blobs that were deleted longer than the grace ago, and of puts whose process
/// is gone. Any number of them may run at once, beside everything else. `options` may be NULL. `callback` may be NULL.
/// `userdata` may be NULL. `report` may be NULL. Blocks, for long.
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
            let (userdata, mut returned) = (Userdata(userdata), 0);
            let report = session_of(store, "store")?.run(|store| {
                store.gc(&options, |report| {
                    returned = tell(callback, userdata, report);
                    flow(returned)
                })
            })?;
            check_stop(returned)?;
            tell(callback, userdata, &report);
            if let Some(out) = out {
                out.set(&(&report).into());
            }
            Ok(())
        })
    }
}
