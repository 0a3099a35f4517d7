//! Verification: reports missing, damaged and unneeded data.

use std::ffi::{CString, c_char, c_void};

use graviton_core::{BlobId, Damage, Finding, Result, VerifyEvent, VerifyOptions, VerifyReport};

use crate::blob_id::{graviton_blob_id, graviton_block_key, read_ids};
use crate::callback::{Userdata, check_stop, flow};
use crate::error::graviton_error;
use crate::gc::limit;
use crate::guard::guard;
use crate::pointer::{first, text, truth};
use crate::reports::graviton_verify_report;
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::{Versioned, versioned, versioned_out};

/// An event: progress.
pub const GRAVITON_VERIFY_PROGRESS: i32 = 1;

/// An event: a block that live blobs need is bad.
pub const GRAVITON_VERIFY_BLOCK: i32 = 2;

/// An event: the manifest of a blob is broken.
pub const GRAVITON_VERIFY_MANIFEST: i32 = 3;

/// An event: the database is damaged.
pub const GRAVITON_VERIFY_DATABASE: i32 = 4;

/// An event: a block without a row, of a running put or garbage.
pub const GRAVITON_VERIFY_UNREFERENCED: i32 = 5;

/// An event: a pack without a row. `text` is its name, `length` its bytes.
pub const GRAVITON_VERIFY_PACK: i32 = 6;

/// An event: a record of a pack without a row cannot be used, or such a pack belongs to another store.
/// `text` is the name of the pack and the defect, `length` the offset of the record.
pub const GRAVITON_VERIFY_RECORD: i32 = 7;

/// No damage: for events that are not about a bad block.
pub const GRAVITON_DAMAGE_NONE: i32 = 0;

/// The block is missing.
pub const GRAVITON_DAMAGE_MISSING: i32 = 1;

/// The length of the block does not match its key.
pub const GRAVITON_DAMAGE_WRONG_LENGTH: i32 = 2;

/// The bytes of the block do not match its key.
pub const GRAVITON_DAMAGE_CORRUPT: i32 = 3;

/// Options of a verification. Initialise it with GRAVITON_VERIFY_OPTIONS_INIT, then set fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_verify_options {
    /// sizeof(graviton_verify_options).
    pub struct_size: usize,
    /// 1: hash every byte. 0: check only lengths.
    pub deep: i32,
    /// 1: hand blocks without a row to the collector. A running put that owns such blocks writes them again.
    /// 0: only report them.
    pub adopt: i32,
    /// The blobs to verify; none if `id_count` is 0. NULL with an `id_count` of 0: the whole store.
    pub ids: *const graviton_blob_id,
    /// The number of ids at `ids`.
    pub id_count: usize,
    /// The maximum number of bytes to read in a second. 0: no limit.
    pub bytes_per_second: u64,
    /// The `cursor` of an earlier report, to continue there. NULL: from the start.
    pub from: *const c_char,
    /// The length of `from` in bytes; 0 for the start.
    pub from_length: usize,
    /// 1: copy blocks that are missing or damaged from packs without a row, after the database was restored
    /// from a backup. Only of the whole store. 0: do not look into them.
    pub rebuild: i32,
}

// SAFETY: begins with its size, and numbers and pointers are valid for any bytes.
unsafe impl Versioned for graviton_verify_options {
    const NAME: &'static str = "graviton_verify_options";
    const EARLIER: &'static [usize] = &[std::mem::offset_of!(graviton_verify_options, rebuild)];
}

/// An event of a verification. It and the data that it points to are valid until the callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_verify_event {
    /// sizeof(graviton_verify_event) of the library, which may be more than the program's.
    pub struct_size: usize,
    /// The kind: GRAVITON_VERIFY_PROGRESS, or a finding. A later version may add more.
    pub kind: i32,
    /// For GRAVITON_VERIFY_BLOCK: the damage, one of GRAVITON_DAMAGE_….
    pub damage: i32,
    /// For GRAVITON_VERIFY_BLOCK and GRAVITON_VERIFY_UNREFERENCED: the block. For GRAVITON_VERIFY_RECORD: the
    /// block that the record says it is of, if it says so. Otherwise all 0.
    pub block: graviton_block_key,
    /// For GRAVITON_VERIFY_UNREFERENCED, GRAVITON_VERIFY_PACK and GRAVITON_DAMAGE_WRONG_LENGTH: the actual
    /// length. For GRAVITON_VERIFY_RECORD: the offset in the pack.
    pub length: u64,
    /// For GRAVITON_VERIFY_BLOCK: the damaged blobs, up to a thousand of them. For GRAVITON_VERIFY_MANIFEST:
    /// the blob. Otherwise NULL.
    pub blobs: *const graviton_blob_id,
    /// How many there are at `blobs`.
    pub blob_count: usize,
    /// For GRAVITON_VERIFY_MANIFEST, GRAVITON_VERIFY_DATABASE and GRAVITON_VERIFY_RECORD: a description, as
    /// UTF-8. For GRAVITON_VERIFY_PACK: the name of the pack. Otherwise empty. NUL-terminated.
    pub text: *const c_char,
    /// For GRAVITON_VERIFY_PROGRESS: the report so far. Otherwise NULL.
    pub report: *const graviton_verify_report,
}

/// Reports each finding of a verification, and its progress from time to time. Called on the thread that
/// called graviton_store_verify. Returns 0 to continue, GRAVITON_STOP to stop early with a cursor in the
/// report, or any other value to abort with GRAVITON_ERROR_CANCELLED. It may call the library, with the same
/// store too, and must return: no exception, no longjmp.
pub type graviton_verify_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, event: *const graviton_verify_event) -> i32>;

/// The options for the core; `None` if there is nothing to do.
///
/// # Safety
/// As [`versioned`], and [`read_ids`] and [`text`] for the pointers in it.
unsafe fn to_core(options: *const graviton_verify_options) -> Result<Option<VerifyOptions>> {
    // SAFETY: the same contract.
    unsafe {
        let Some(options) = versioned(options)? else { return Ok(Some(VerifyOptions::default())) };
        let from = text(options.from, options.from_length, "from")?;
        let ids = read_ids(options.ids, options.id_count)?;
        // The engine takes an empty list for the whole store.
        let nothing = ids.as_ref().is_some_and(Vec::is_empty);
        let options = VerifyOptions {
            deep: truth(options.deep, "deep")?,
            ids: ids.unwrap_or_default(),
            bytes_per_second: limit(options.bytes_per_second),
            from: if from.is_empty() { None } else { Some(from.parse()?) },
            adopt: truth(options.adopt, "adopt")?,
            rebuild: truth(options.rebuild, "rebuild")?,
        };
        Ok((!nothing).then_some(options))
    }
}

/// # Safety
/// The callback and its userdata are valid.
unsafe fn tell(callback: graviton_verify_callback, userdata: Userdata, event: &VerifyEvent<'_>) -> i32 {
    let Some(callback) = callback else { return 0 };
    let mut told = graviton_verify_event {
        struct_size: size_of::<graviton_verify_event>(),
        kind: 0,
        damage: GRAVITON_DAMAGE_NONE,
        block: graviton_block_key::NONE,
        length: 0,
        blobs: std::ptr::null(),
        blob_count: 0,
        text: c"".as_ptr(),
        report: std::ptr::null(),
    };
    let c_ids = |ids: &[BlobId]| ids.iter().map(Into::into).collect::<Vec<graviton_blob_id>>();
    let c_text = |text: &str| CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // The event points to these.
    let (mut blobs, mut words, report);
    words = CString::default();
    blobs = Vec::new();
    match event {
        VerifyEvent::Progress(so_far) => {
            report = graviton_verify_report::from(*so_far);
            told.kind = GRAVITON_VERIFY_PROGRESS;
            told.report = &raw const report;
        }
        VerifyEvent::Found(Finding::Block { key, damage, blobs: hurt }) => {
            told.kind = GRAVITON_VERIFY_BLOCK;
            (told.damage, told.length) = match damage {
                Damage::Missing => (GRAVITON_DAMAGE_MISSING, 0),
                Damage::WrongLength { length } => (GRAVITON_DAMAGE_WRONG_LENGTH, *length),
                Damage::Corrupt => (GRAVITON_DAMAGE_CORRUPT, 0),
            };
            told.block = key.into();
            blobs = c_ids(hurt);
        }
        VerifyEvent::Found(Finding::Manifest { id, why }) => {
            told.kind = GRAVITON_VERIFY_MANIFEST;
            blobs = c_ids(&[*id]);
            words = c_text(why);
        }
        VerifyEvent::Found(Finding::Database(why)) => {
            told.kind = GRAVITON_VERIFY_DATABASE;
            words = c_text(why);
        }
        VerifyEvent::Found(Finding::Unreferenced(listed)) => {
            told.kind = GRAVITON_VERIFY_UNREFERENCED;
            told.block = (&listed.key).into();
            told.length = listed.length;
        }
        VerifyEvent::Found(Finding::Pack { name, bytes }) => {
            told.kind = GRAVITON_VERIFY_PACK;
            told.length = *bytes;
            words = c_text(&name.to_string());
        }
        VerifyEvent::Found(Finding::Record { pack, offset, key, why }) => {
            told.kind = GRAVITON_VERIFY_RECORD;
            told.block = key.as_ref().map_or(graviton_block_key::NONE, Into::into);
            told.length = *offset;
            words = c_text(&format!("pack {pack}: {why}"));
        }
        // The core's list may grow; a finding without a number here is still counted in the report.
        VerifyEvent::Found(_) => return 0,
    }
    (told.blobs, told.blob_count) = (first(&blobs), blobs.len());
    told.text = words.as_ptr();
    // SAFETY: by the contract; all of it lives until the callback returns.
    unsafe { callback(userdata.get(), &raw const told) }
}

/// Checks that everything is there and intact, and reports the rest. Findings are not errors: `report->clean`
/// says whether a live blob is damaged. `options` may be NULL. `callback` may be NULL. `userdata` may be
/// NULL. `report` may be NULL. Blocks, possibly for hours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_verify(
    store: *const graviton_store,
    options: *const graviton_verify_options,
    callback: graviton_verify_callback,
    userdata: *mut c_void,
    report: *mut graviton_verify_report,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(report)?;
            let options = to_core(options)?;
            let (userdata, mut returned) = (Userdata(userdata), 0);
            let report = session_of(store, "store")?.run(|store| {
                let Some(options) = &options else {
                    let mut report = VerifyReport::default();
                    report.complete = true;
                    return Ok(report);
                };
                store.verify(options, |event| {
                    returned = tell(callback, userdata, &event);
                    flow(returned)
                })
            })?;
            check_stop(returned)?;
            if let Some(out) = out {
                out.set(&(&report).into());
            }
            Ok(())
        })
    }
}
