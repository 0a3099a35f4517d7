//! Blobs and blocks from another store.

use std::ffi::c_void;

use graviton_core::{BlobId, CopyOptions, CopyReport, RepairReport, Result};

use crate::blob_id::{graviton_blob_id, graviton_block_key, read_ids};
use crate::callback::{Userdata, check_stop, flow};
use crate::error::graviton_error;
use crate::panic::guard;
use crate::pointer::first;
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

/// The report of a copy. Set `struct_size` before a call, with GRAVITON_COPY_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_copy_report {
    /// sizeof(graviton_copy_report).
    pub struct_size: usize,
    /// Blobs that were copied.
    pub blobs: u64,
    /// Blobs that already existed here.
    pub present: u64,
    /// Blocks that were transferred from the other store.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of blobs that are damaged in the other store. They were skipped; the callback gets their
    /// ids.
    pub damaged_count: usize,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if everything was done, 0 if the callback stopped it.
    pub complete: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_copy_report {
    const NAME: &'static str = "graviton_copy_report";
}

impl From<&CopyReport> for graviton_copy_report {
    fn from(report: &CopyReport) -> graviton_copy_report {
        graviton_copy_report {
            struct_size: size_of::<graviton_copy_report>(),
            blobs: report.blobs,
            present: report.present,
            blocks: report.blocks,
            bytes: report.bytes,
            damaged_count: report.damaged.len(),
            seconds: report.seconds,
            complete: i32::from(report.complete),
            reserved: 0,
        }
    }
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

/// The report of a repair. Set `struct_size` before a call, with GRAVITON_REPAIR_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_repair_report {
    /// sizeof(graviton_repair_report).
    pub struct_size: usize,
    /// Blocks that were checked.
    pub checked: u64,
    /// Bad blocks that were repaired.
    pub repaired: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of bad blocks that are missing or damaged in the other store too. The callback gets their
    /// keys.
    pub lost_count: usize,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if everything was checked, 0 if the callback stopped it.
    pub complete: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_repair_report {
    const NAME: &'static str = "graviton_repair_report";
}

impl From<&RepairReport> for graviton_repair_report {
    fn from(report: &RepairReport) -> graviton_repair_report {
        graviton_repair_report {
            struct_size: size_of::<graviton_repair_report>(),
            checked: report.checked,
            repaired: report.repaired,
            bytes: report.bytes,
            lost_count: report.lost.len(),
            seconds: report.seconds,
            complete: i32::from(report.complete),
            reserved: 0,
        }
    }
}

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

/// # Safety
/// The callback and its userdata are good.
unsafe fn tell_copied(callback: graviton_copy_callback, userdata: Userdata, report: &CopyReport) -> i32 {
    let Some(callback) = callback else { return 0 };
    let damaged: Vec<graviton_blob_id> = report.damaged.iter().map(Into::into).collect();
    // SAFETY: by the contract; both live until it returns.
    unsafe { callback(userdata.get(), &report.into(), first(&damaged)) }
}

/// # Safety
/// The callback and its userdata are good.
unsafe fn tell_repaired(
    callback: graviton_repair_callback,
    userdata: Userdata,
    report: &RepairReport,
) -> i32 {
    let Some(callback) = callback else { return 0 };
    let lost: Vec<graviton_block_key> = report.lost.iter().map(Into::into).collect();
    // SAFETY: by the contract; both live until it returns.
    unsafe { callback(userdata.get(), &report.into(), first(&lost)) }
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
            let (userdata, mut returned) = (Userdata(userdata), 0);
            let report = session_of(store, "store")?.run(|store| {
                if nothing {
                    let mut report = CopyReport::default();
                    report.complete = true;
                    return Ok(report);
                }
                store.copy_from(other.store(), &options, |report| {
                    returned = tell_copied(callback, userdata, report);
                    flow(returned)
                })
            })?;
            check_stop(returned)?;
            tell_copied(callback, userdata, &report);
            if let Some(out) = out {
                out.set(&(&report).into());
            }
            Ok(())
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
            let (userdata, mut returned) = (Userdata(userdata), 0);
            let report = session_of(store, "store")?.run(|store| {
                store.repair_from(other.store(), |report| {
                    returned = tell_repaired(callback, userdata, report);
                    flow(returned)
                })
            })?;
            check_stop(returned)?;
            tell_repaired(callback, userdata, &report);
            if let Some(out) = out {
                out.set(&(&report).into());
            }
            Ok(())
        })
    }
}
