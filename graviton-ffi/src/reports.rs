//! The reports of the core as C structs. Made from `graviton_core::report` by `tests/header`.
//! Renew it with `GRAVITON_UPDATE=1 cargo test -p graviton-header`.

use std::ffi::c_char;

use graviton_core::{
    BlobStat, CopyReport, GcReport, PutReceipt, RepackReport, RepairReport, StoreStats, VerifyReport,
};

use crate::blob_id::graviton_blob_id;
use crate::pointer::fill_text;
use crate::versioned::Versioned;

/// The size of a buffer for the text of any chunker with its NUL, in bytes.
pub const GRAVITON_CHUNKER_TEXT_MAX: usize = 544;

/// The size of a buffer for a failure in a report with its NUL, in bytes; a longer one is cut off.
pub const GRAVITON_FAILURE_TEXT_MAX: usize = 512;

/// The size of a buffer for any verification cursor with its NUL, in bytes.
pub const GRAVITON_VERIFY_CURSOR_MAX: usize = 128;

/// The result of a put. Set `struct_size` before a call, with GRAVITON_PUT_RECEIPT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_put_receipt {
    /// sizeof(graviton_put_receipt).
    pub struct_size: usize,
    /// The id of the content.
    pub id: graviton_blob_id,
    /// The number of blocks of the content.
    pub blocks: u64,
    /// The number of its blocks that were new to the store and were written.
    pub fresh_blocks: u64,
    /// The size of those in bytes.
    pub fresh_bytes: u64,
    /// 1 if the blob is new; 0 if it already existed.
    pub created: i32,
    /// 0.
    pub reserved: u32,
    /// The bytes that they take where they are stored, after compression.
    pub fresh_stored_bytes: u64,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_put_receipt {
    const NAME: &'static str = "graviton_put_receipt";
    const EARLIER: &'static [usize] = &[std::mem::offset_of!(graviton_put_receipt, fresh_stored_bytes)];
}

impl From<&PutReceipt> for graviton_put_receipt {
    fn from(report: &PutReceipt) -> graviton_put_receipt {
        graviton_put_receipt {
            struct_size: size_of::<graviton_put_receipt>(),
            id: (&report.id).into(),
            blocks: report.blocks,
            fresh_blocks: report.fresh_blocks,
            fresh_bytes: report.fresh_bytes,
            created: i32::from(report.created),
            reserved: 0,
            fresh_stored_bytes: report.fresh_stored_bytes,
        }
    }
}

/// The metadata of a blob. Set `struct_size` before a call, with GRAVITON_BLOB_STAT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_blob_stat {
    /// sizeof(graviton_blob_stat).
    pub struct_size: usize,
    /// Its id.
    pub id: graviton_blob_id,
    /// The number of its blocks.
    pub blocks: u64,
    /// The time of the put, in UTC; as a number, in milliseconds since 1970-01-01.
    pub created_at_ms: i64,
    /// The chunker that cut it (GRAVITON_CHUNKER). NUL-terminated.
    pub chunker: [c_char; GRAVITON_CHUNKER_TEXT_MAX],
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_blob_stat {
    const NAME: &'static str = "graviton_blob_stat";
}

impl From<&BlobStat> for graviton_blob_stat {
    fn from(report: &BlobStat) -> graviton_blob_stat {
        graviton_blob_stat {
            struct_size: size_of::<graviton_blob_stat>(),
            id: (&report.id).into(),
            blocks: report.blocks,
            created_at_ms: report.created_at_ms,
            chunker: fill_text(&report.chunker),
        }
    }
}

/// The totals of a store. Set `struct_size` before a call, with GRAVITON_STORE_STATS_INIT.
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
    /// Bytes of stored blocks that neither a live blob nor a running put references. A collection without a
    /// grace period frees these, and blocks of failed and aborted puts, which only a dry run counts.
    pub reclaimable_bytes: u64,
    /// Bytes of blobs for each stored byte; 1 for an empty store.
    pub dedup_ratio: f64,
    /// Blocks of all manifests together, those of deleted blobs included; a block counts as often as it
    /// occurs. Each takes about 100 bytes of the database.
    pub references: u64,
    /// How full the index of the fullest directory of blocks is, from 0 to 1: close to 1 a new block may find
    /// no place there, however much space is free. It does not go down after deletions, nor at once after the
    /// directory was given room for more. 0 where no limit is known, and for blocks in S3.
    pub directory_share: f64,
    /// Packs that the database knows. Their headers of 64 bytes each, and the bytes of the next five fields,
    /// are the length of their files.
    pub packs: u64,
    /// Bytes of their records that are used, with the headers of the records.
    pub pack_live_bytes: u64,
    /// Bytes of their records that nothing uses and that take space. A collection moves what is live out of
    /// packs with many of them.
    pub pack_dead_bytes: u64,
    /// Bytes of such records that take no space any more: holes were punched there.
    pub pack_punched_bytes: u64,
    /// Bytes that the next collections give back: of records that were released, and of packs that nothing
    /// uses and that wait for the end of the grace period.
    pub pack_pending_bytes: u64,
    /// Bytes that nothing uses of packs that are not sealed: space that is reserved, records of running puts,
    /// and dead ones.
    pub pack_open_bytes: u64,
    /// Packs that the database does not know, as a restored one does not. A verification lists them.
    pub unknown_packs: u64,
    /// The sum of their lengths in bytes.
    pub unknown_pack_bytes: u64,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_store_stats {
    const NAME: &'static str = "graviton_store_stats";
    const EARLIER: &'static [usize] = &[
        std::mem::offset_of!(graviton_store_stats, references),
        std::mem::offset_of!(graviton_store_stats, packs),
    ];
}

impl From<&StoreStats> for graviton_store_stats {
    fn from(report: &StoreStats) -> graviton_store_stats {
        graviton_store_stats {
            struct_size: size_of::<graviton_store_stats>(),
            blobs: report.blobs,
            logical_bytes: report.logical_bytes,
            blocks: report.blocks,
            stored_bytes: report.stored_bytes,
            dead_blobs: report.dead_blobs,
            dead_bytes: report.dead_bytes,
            reclaimable_bytes: report.reclaimable_bytes,
            dedup_ratio: report.dedup_ratio(),
            references: report.references,
            directory_share: report.directory_share,
            packs: report.packs,
            pack_live_bytes: report.pack_live_bytes,
            pack_dead_bytes: report.pack_dead_bytes,
            pack_punched_bytes: report.pack_punched_bytes,
            pack_pending_bytes: report.pack_pending_bytes,
            pack_open_bytes: report.pack_open_bytes,
            unknown_packs: report.unknown_packs,
            unknown_pack_bytes: report.unknown_pack_bytes,
        }
    }
}

/// The report of a collection: its work or, after a dry run, the work that it would do. Set `struct_size`
/// before a call, with GRAVITON_GC_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_gc_report {
    /// sizeof(graviton_gc_report).
    pub struct_size: usize,
    /// Puts whose writer is gone.
    pub abandoned_puts: u64,
    /// Deleted blobs that were collected, including those of abandoned and failed puts.
    pub blobs: u64,
    /// The length of `named`, which the callback gets: the ids of some of them; only after a dry run.
    pub named_count: usize,
    /// Blocks that were deleted.
    pub blocks: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// Blocks that lost a reference and are kept because another one remains.
    pub kept_referenced: u64,
    /// Blocks that are kept for now because another collection is about to delete them, or was before it
    /// died, or because the server did not answer.
    pub kept_doomed: u64,
    /// Blocks that could not be deleted; the next collection tries again.
    pub kept_failed: u64,
    /// Files of dead processes that were removed.
    pub leftovers: u64,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if it was a dry run, otherwise 0.
    pub dry_run: i32,
    /// 1 if nothing is left to do; 0 if a limit or the caller stopped it.
    pub complete: i32,
    /// Why the first block is kept that could not be deleted or whose deletion got no answer, or why the
    /// collection failed. Empty if nothing did. NUL-terminated.
    pub failure: [c_char; GRAVITON_FAILURE_TEXT_MAX],
    /// Blocks and packs on a filesystem without a row in the database, among some that a complete collection
    /// looked at: of running puts, or left by killed ones. `verify` with `adopt` hands them to the next
    /// collection.
    pub unreferenced: u64,
    /// The sum of their sizes in bytes.
    pub unreferenced_bytes: u64,
    /// Times of deletions, leases and deletions under way that lay further ahead than they can: a clock was
    /// ahead when they were written. The collection brought them back, so that nothing waits for that clock.
    pub future_times: u64,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_gc_report {
    const NAME: &'static str = "graviton_gc_report";
    const EARLIER: &'static [usize] = &[
        std::mem::offset_of!(graviton_gc_report, failure),
        std::mem::offset_of!(graviton_gc_report, unreferenced),
        std::mem::offset_of!(graviton_gc_report, future_times),
    ];
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
            failure: fill_text(&report.failure),
            unreferenced: report.unreferenced,
            unreferenced_bytes: report.unreferenced_bytes,
            future_times: report.future_times,
        }
    }
}

/// The report of a verification. Set `struct_size` before a call, with GRAVITON_VERIFY_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_verify_report {
    /// sizeof(graviton_verify_report).
    pub struct_size: usize,
    /// Blobs whose manifests were checked.
    pub blobs: u64,
    /// Blocks that were checked.
    pub blocks: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Blocks of live blobs that are missing.
    pub missing: u64,
    /// Blocks of live blobs with a wrong length or wrong bytes.
    pub corrupt: u64,
    /// Live blobs with a broken manifest.
    pub broken_manifests: u64,
    /// Problems that the self-check of the database found.
    pub database_problems: u64,
    /// Blocks and packs without a row in the database.
    pub unreferenced: u64,
    /// The sum of their sizes in bytes.
    pub unreferenced_bytes: u64,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if no live blob is damaged, otherwise 0.
    pub clean: i32,
    /// 1 if everything was checked; 0 if the caller stopped it.
    pub complete: i32,
    /// The cursor to continue from, if it was stopped early. Otherwise empty. NUL-terminated.
    pub cursor: [c_char; GRAVITON_VERIFY_CURSOR_MAX],
    /// Blocks that were missing or damaged and were copied from packs that the database did not use.
    pub rebuilt: u64,
    /// The sum of their sizes in bytes.
    pub rebuilt_bytes: u64,
    /// Records of unknown packs that could not be used, and packs that belong to another store.
    pub unusable: u64,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_verify_report {
    const NAME: &'static str = "graviton_verify_report";
    const EARLIER: &'static [usize] = &[std::mem::offset_of!(graviton_verify_report, rebuilt)];
}

impl From<&VerifyReport> for graviton_verify_report {
    fn from(report: &VerifyReport) -> graviton_verify_report {
        graviton_verify_report {
            struct_size: size_of::<graviton_verify_report>(),
            blobs: report.blobs,
            blocks: report.blocks,
            bytes: report.bytes,
            missing: report.missing,
            corrupt: report.corrupt,
            broken_manifests: report.broken_manifests,
            database_problems: report.database_problems,
            unreferenced: report.unreferenced,
            unreferenced_bytes: report.unreferenced_bytes,
            seconds: report.seconds,
            clean: i32::from(report.is_clean()),
            complete: i32::from(report.complete),
            cursor: fill_text(&report.cursor.as_ref().map(ToString::to_string).unwrap_or_default()),
            rebuilt: report.rebuilt,
            rebuilt_bytes: report.rebuilt_bytes,
            unusable: report.unusable,
        }
    }
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
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// The length of `damaged`, which the callback gets: blobs that are damaged in the other store. They were
    /// skipped.
    pub damaged_count: usize,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if everything was copied; 0 if the caller stopped it.
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

/// The report of a repair. Set `struct_size` before a call, with GRAVITON_REPAIR_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_repair_report {
    /// sizeof(graviton_repair_report).
    pub struct_size: usize,
    /// Blocks that were checked.
    pub checked: u64,
    /// Bad blocks that were replaced.
    pub repaired: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// The length of `lost`, which the callback gets: bad blocks that are missing or damaged in the other
    /// store too.
    pub lost_count: usize,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if every block was checked; 0 if the caller stopped it.
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

/// The report of a repack. Set `struct_size` before a call, with GRAVITON_REPACK_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_repack_report {
    /// sizeof(graviton_repack_report).
    pub struct_size: usize,
    /// Blocks that were moved into the other layout.
    pub blocks: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// Stored blocks that were there already when it began.
    pub present: u64,
    /// Blocks that were found damaged. They are marked as not stored, so that the next put of them writes
    /// them again.
    pub damaged: u64,
    /// Blocks that were left where they are because a running put uses them, or because they were moved or
    /// deleted meanwhile.
    pub skipped: u64,
    /// Stored blocks that are not there yet.
    pub remaining: u64,
    /// Files or objects of blocks in packs that an earlier repack had left, and that were removed.
    pub leftovers: u64,
    /// Files or objects of moved blocks that could not be removed; a later collection tries again.
    pub kept_failed: u64,
    /// The duration in seconds.
    pub seconds: f64,
    /// 1 if every stored block is there; 0 if some remain, or the caller stopped it.
    pub complete: i32,
    /// 0.
    pub reserved: u32,
    /// Why the first file is kept that could not be removed. Empty if there is none. NUL-terminated.
    pub failure: [c_char; GRAVITON_FAILURE_TEXT_MAX],
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_repack_report {
    const NAME: &'static str = "graviton_repack_report";
}

impl From<&RepackReport> for graviton_repack_report {
    fn from(report: &RepackReport) -> graviton_repack_report {
        graviton_repack_report {
            struct_size: size_of::<graviton_repack_report>(),
            blocks: report.blocks,
            bytes: report.bytes,
            present: report.present,
            damaged: report.damaged,
            skipped: report.skipped,
            remaining: report.remaining,
            leftovers: report.leftovers,
            kept_failed: report.kept_failed,
            seconds: report.seconds,
            complete: i32::from(report.complete),
            reserved: 0,
            failure: fill_text(&report.failure),
        }
    }
}
