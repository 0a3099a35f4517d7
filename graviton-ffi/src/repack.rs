//! Moves blocks into packs, or out of them.

use std::ffi::{c_char, c_void};

use graviton_core::{BlockLayout, RepackReport};

use crate::callback::{Userdata, check_stop, flow};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::text;
use crate::reports::graviton_repack_report;
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::versioned_out;

/// Reports the progress of a repack, and at its end the final report, which is valid until the callback
/// returns. Called on the thread that called graviton_store_repack. Returns 0 to continue, GRAVITON_STOP to
/// stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the last call is
/// ignored. It may call the library, with the same store too, and must return: no exception, no longjmp.
pub type graviton_repack_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, report: *const graviton_repack_report) -> i32>;

/// Moves all stored blocks into a layout (`to` of `to_length` bytes): `packs`, or `files` of their own. It
/// runs beside all other calls. After an interruption, call it again for the rest. Damaged blocks are not
/// errors: they are marked, and counted in the report. In S3, an object whose deletion got no answer is
/// counted in `kept_failed`: another repack or gc removes it half an hour later. `callback` may be NULL.
/// `userdata` may be NULL. `report` may be NULL. Blocks, possibly for hours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_repack(
    store: *const graviton_store,
    to: *const c_char,
    to_length: usize,
    callback: graviton_repack_callback,
    userdata: *mut c_void,
    report: *mut graviton_repack_report,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(report)?;
            let to: BlockLayout = text(to, to_length, "to")?.parse()?;
            let userdata = Userdata(userdata);
            let mut returned = 0;
            let mut tell = |report: &RepackReport| {
                if let Some(callback) = callback {
                    returned = callback(userdata.get(), &report.into());
                }
                flow(returned)
            };
            let report = session_of(store, "store")?.run(|store| store.repack(to, &mut tell))?;
            check_stop(returned)?;
            if let Some(callback) = callback {
                // The work is over: the answer changes nothing.
                callback(userdata.get(), &(&report).into());
            }
            if let Some(out) = out {
                out.set(&(&report).into());
            }
            Ok(())
        })
    }
}
