//! Reports: the results of calls on a store. Each is declared once, in `reports!` below.
//!
//! The declaration makes the public struct and its [`Report`] implementation, which lists the fields and
//! their values. Every other form reads that list: the C structs and their `_INIT` macros, the Python
//! classes, the JSON of the command line, and the JSON and the schemas of the server.
//!
//! To add a field:
//! 1. Add it below, with its documentation, at the position that it has in the JSON. `name: Kind` is a field
//!    of the struct; `name: Kind = method()` is computed from the others. The documentation is a sentence
//!    that reads well in every language: `Whether …; false if …` for a flag.
//! 2. Set it where the engine makes the report.
//! 3. Renew the committed files; the tests fail until that is done:
//!    `GRAVITON_UPDATE=1 cargo test -p graviton-header`,
//!    `GRAVITON_UPDATE=1 cargo test -p graviton-py --test reports`, and
//!    `cargo run --bin graviton-server -- openapi > graviton-server/openapi.json`.
//!
//! The order is that of the JSON. In a C struct, existing fields keep their positions, and new ones follow
//! them.

mod cursor;

pub(crate) use cursor::Place;
pub use cursor::VerifyCursor;

use crate::key::{BlobId, BlockKey};

/// The meaning of a field, which decides its form in each language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A number of things.
    Count,
    /// A number of bytes.
    Bytes,
    /// A time span in seconds.
    Seconds,
    /// A quotient.
    Ratio,
    /// True or false; 1 or 0 in C.
    Flag,
    /// The id of a blob.
    Id,
    /// The length of the blob in the field `id`. C has no such field, because an id is a struct there.
    Size,
    /// Ids of blobs; only their number in C and JSON.
    Ids,
    /// Keys of blocks; only their number in C and JSON.
    Keys,
    /// Ids of some of the blobs that another field counts: only their number in C, left out in JSON.
    Sample,
    /// The position from which an interrupted verification continues, if there is one.
    Cursor,
    /// Text.
    Text,
    /// Milliseconds since 1970-01-01 UTC. The name ends in `_ms`, except where a language has a type or a
    /// text for times.
    Time,
}

/// The description of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// One sentence or more about it.
    pub doc: &'static str,
    /// The meaning of the value.
    pub kind: Kind,
    /// How Rust reads the field from the struct: its name, or a call such as `is_clean()`.
    pub path: &'static str,
}

impl Field {
    /// Whether the struct computes it from its other fields.
    pub fn is_computed(&self) -> bool {
        self.path.ends_with(')')
    }
}

/// The value of a field. There is one variant for each [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is what Kind says")]
pub enum Value<'a> {
    Count(u64),
    Bytes(u64),
    Seconds(f64),
    Ratio(f64),
    Flag(bool),
    Id(&'a BlobId),
    Size(u64),
    Ids(&'a [BlobId]),
    Keys(&'a [BlockKey]),
    Sample(&'a [BlobId]),
    Cursor(Option<&'a VerifyCursor>),
    Text(&'a str),
    Time(i64),
}

/// A report, as a list of fields.
pub trait Report {
    /// The name of the struct.
    const NAME: &'static str;
    /// One sentence or more about it.
    const DOC: &'static str;
    /// Its fields, in the order of the declaration.
    const FIELDS: &'static [Field];

    /// The values of [`FIELDS`](Report::FIELDS), in the same order.
    fn values(&self) -> Vec<Value<'_>>;

    /// Each field with its value.
    fn entries(&self) -> impl Iterator<Item = (&'static Field, Value<'_>)> {
        Self::FIELDS.iter().zip(self.values())
    }
}

/// Calls `$callback!` with the names of all reports, comma-separated.
#[macro_export]
macro_rules! each_report {
    ($callback:ident) => {
        $callback! { PutReceipt, BlobStat, StoreStats, GcReport, VerifyReport, CopyReport, RepairReport, RepackReport }
    };
}

/// The Rust type of a kind that a struct can hold.
macro_rules! of_kind {
    (Count) => { u64 };
    (Bytes) => { u64 };
    (Seconds) => { f64 };
    (Ratio) => { f64 };
    (Flag) => { bool };
    (Id) => { BlobId };
    (Ids) => { Vec<BlobId> };
    (Keys) => { Vec<BlockKey> };
    (Sample) => { Vec<BlobId> };
    (Cursor) => { Option<VerifyCursor> };
    (Text) => { String };
    (Time) => { i64 };
}

/// The [`Value`] of a field.
macro_rules! value_of {
    (Id, $value:expr) => {
        Value::Id(&$value)
    };
    (Ids, $value:expr) => {
        Value::Ids(&$value)
    };
    (Keys, $value:expr) => {
        Value::Keys(&$value)
    };
    (Sample, $value:expr) => {
        Value::Sample(&$value)
    };
    (Text, $value:expr) => {
        Value::Text(&$value)
    };
    (Cursor, $value:expr) => {
        Value::Cursor($value.as_ref())
    };
    ($kind:ident, $value:expr) => {
        Value::$kind($value)
    };
}

/// Declares structs and implements [`Report`] for them.
macro_rules! reports {
    ($(
        $(#[doc = $doc:literal])+
        $(#[derive($($derive:ident),+)])?
        $name:ident { $($fields:tt)+ }
    )+) => {$(
        reports! {
            @sort $name ($(#[doc = $doc])+ $(#[derive($($derive),+)])?) ($($doc)+) [] [] $($fields)+
        }
    )+};
    // A field that is computed.
    (
        @sort $name:ident $attributes:tt $docs:tt [$($stored:tt)*] [$($described:tt)*]
        $(#[doc = $doc:literal])+ $field:ident: $kind:ident = $($path:ident).+(), $($rest:tt)*
    ) => {
        reports! {
            @sort $name $attributes $docs
            [$($stored)*]
            [$($described)* { $field $kind ($($doc)+) ($($path).+()) }]
            $($rest)*
        }
    };
    // A field of the struct.
    (
        @sort $name:ident $attributes:tt $docs:tt [$($stored:tt)*] [$($described:tt)*]
        $(#[doc = $doc:literal])+ $field:ident: $kind:ident, $($rest:tt)*
    ) => {
        reports! {
            @sort $name $attributes $docs
            [$($stored)* $(#[doc = $doc])+ pub $field: of_kind!($kind),]
            [$($described)* { $field $kind ($($doc)+) ($field) }]
            $($rest)*
        }
    };
    // All fields are sorted.
    (
        @sort $name:ident ($($attributes:tt)+) ($($doc:literal)+) [$($stored:tt)*]
        [$({ $field:ident $kind:ident ($($about:literal)+) ($($path:tt)+) })+]
    ) => {
        $($attributes)+
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name { $($stored)* }

        impl Report for $name {
            const NAME: &'static str = stringify!($name);
            const DOC: &'static str = concat!($($doc),+).trim_ascii();
            const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                doc: concat!($($about),+).trim_ascii(),
                kind: Kind::$kind,
                path: stringify!($($path)+),
            }),+];

            fn values(&self) -> Vec<Value<'_>> {
                vec![$(value_of!($kind, self.$($path)+)),+]
            }
        }
    };
}

reports! {
    /// The result of a put.
    #[derive(Eq)]
    PutReceipt {
        /// The id of the content.
        id: Id,
        /// The size of the content in bytes.
        size: Size = id.size(),
        /// The number of blocks of the content.
        blocks: Count,
        /// The number of its blocks that were new to the store and were written.
        fresh_blocks: Count,
        /// The size of those in bytes.
        fresh_bytes: Bytes,
        /// The bytes that they take where they are stored, after compression.
        fresh_stored_bytes: Bytes,
        /// Whether the blob is new; false if it already existed.
        created: Flag,
    }

    /// The metadata of a blob.
    #[derive(Eq)]
    BlobStat {
        /// Its id.
        id: Id,
        /// Its size in bytes.
        size: Size = id.size(),
        /// The number of its blocks.
        blocks: Count,
        /// The chunker that cut it (GRAVITON_CHUNKER).
        chunker: Text,
        /// The time of the put, in UTC; as a number, in milliseconds since 1970-01-01.
        created_at_ms: Time,
    }

    /// The totals of a store.
    #[derive(Copy, Default)]
    StoreStats {
        /// Live blobs.
        blobs: Count,
        /// The sum of their sizes in bytes.
        logical_bytes: Bytes,
        /// Blocks that are stored, each once.
        blocks: Count,
        /// The sum of their sizes in bytes.
        stored_bytes: Bytes,
        /// Bytes of blobs for each stored byte; 1 for an empty store.
        dedup_ratio: Ratio = dedup_ratio(),
        /// Deleted blobs that can still be restored.
        dead_blobs: Count,
        /// The sum of their sizes in bytes.
        dead_bytes: Bytes,
        /// Bytes of stored blocks that neither a live blob nor a running put references. A collection without
        /// a grace period frees these, and blocks of failed and aborted puts, which only a dry run counts.
        reclaimable_bytes: Bytes,
        /// Blocks of all manifests together, those of deleted blobs included; a block counts as often as it
        /// occurs. Each takes about 100 bytes of the database.
        references: Count,
        /// How full the index of the fullest directory of blocks is, from 0 to 1: close to 1 a new block may
        /// find no place there, however much space is free. It does not go down after deletions, nor at once
        /// after the directory was given room for more. 0 where no limit is known, and for blocks in S3.
        directory_share: Ratio,
        /// Packs that the database knows. Their headers of 64 bytes each, and the bytes of the next five
        /// fields, are the length of their files.
        packs: Count,
        /// Bytes of their records that are used, with the headers of the records.
        pack_live_bytes: Bytes,
        /// Bytes of their records that nothing uses and that take space. A collection moves what is live out
        /// of packs with many of them.
        pack_dead_bytes: Bytes,
        /// Bytes of such records that take no space any more: holes were punched there.
        pack_punched_bytes: Bytes,
        /// Bytes that the next collections give back: of records that were released, and of packs that
        /// nothing uses and that wait for the end of the grace period.
        pack_pending_bytes: Bytes,
        /// Bytes that nothing uses of packs that are not sealed: space that is reserved, records of running
        /// puts, and dead ones.
        pack_open_bytes: Bytes,
        /// Packs that the database does not know, as a restored one does not. A verification lists them.
        unknown_packs: Count,
        /// The sum of their lengths in bytes.
        unknown_pack_bytes: Bytes,
    }

    /// The report of a collection: its work or, after a dry run, the work that it would do.
    #[derive(Default)]
    GcReport {
        /// Whether it was a dry run.
        dry_run: Flag,
        /// Deleted blobs that were collected, including those of abandoned and failed puts.
        blobs: Count,
        /// The ids of some of them; only after a dry run.
        named: Sample,
        /// Blocks that were deleted.
        blocks: Count,
        /// The sum of their sizes in bytes.
        bytes: Bytes,
        /// Puts whose writer is gone.
        abandoned_puts: Count,
        /// Blocks that lost a reference and are kept because another one remains.
        kept_referenced: Count,
        /// Blocks that are kept for now because another collection is about to delete them, or was before it
        /// died, or because the server did not answer.
        kept_doomed: Count,
        /// Blocks that could not be deleted; the next collection tries again.
        kept_failed: Count,
        /// Why the first block is kept that could not be deleted or whose deletion got no answer, or why the
        /// collection failed. Empty if nothing did.
        failure: Text,
        /// Files of dead processes that were removed.
        leftovers: Count,
        /// Whether nothing is left to do; false if a limit or the caller stopped it.
        complete: Flag,
        /// The duration in seconds.
        seconds: Seconds,
        /// Blocks and packs on a filesystem without a row in the database, among some that a complete
        /// collection looked at: of running puts, or left by killed ones. `verify` with `adopt` hands them to
        /// the next collection.
        unreferenced: Count,
        /// The sum of their sizes in bytes.
        unreferenced_bytes: Bytes,
        /// Times of deletions, leases and deletions under way that lay further ahead than they can: a clock
        /// was ahead when they were written. The collection brought them back, so that nothing waits for
        /// that clock.
        future_times: Count,
    }

    /// The report of a verification.
    #[derive(Default)]
    VerifyReport {
        /// Blobs whose manifests were checked.
        blobs: Count,
        /// Blocks that were checked.
        blocks: Count,
        /// Bytes that were hashed.
        bytes: Bytes,
        /// Blocks of live blobs that are missing.
        missing: Count,
        /// Blocks of live blobs with a wrong length or wrong bytes.
        corrupt: Count,
        /// Live blobs with a broken manifest.
        broken_manifests: Count,
        /// Problems that the self-check of the database found.
        database_problems: Count,
        /// Blocks and packs without a row in the database.
        unreferenced: Count,
        /// The sum of their sizes in bytes.
        unreferenced_bytes: Bytes,
        /// Blocks that were missing or damaged and were copied from packs that the database did not use.
        rebuilt: Count,
        /// The sum of their sizes in bytes.
        rebuilt_bytes: Bytes,
        /// Records of unknown packs that could not be used, and packs that belong to another store.
        unusable: Count,
        /// Whether no live blob is damaged.
        clean: Flag = is_clean(),
        /// Whether everything was checked; false if the caller stopped it.
        complete: Flag,
        /// The cursor to continue from, if it was stopped early.
        cursor: Cursor,
        /// The duration in seconds.
        seconds: Seconds,
    }

    /// The report of a copy.
    #[derive(Default)]
    CopyReport {
        /// Blobs that were copied.
        blobs: Count,
        /// Blobs that already existed here.
        present: Count,
        /// Blocks that were transferred from the other store.
        blocks: Count,
        /// The sum of their sizes in bytes.
        bytes: Bytes,
        /// Blobs that are damaged in the other store. They were skipped.
        damaged: Ids,
        /// Whether everything was copied; false if the caller stopped it.
        complete: Flag,
        /// The duration in seconds.
        seconds: Seconds,
    }

    /// The report of a repair.
    #[derive(Default)]
    RepairReport {
        /// Blocks that were checked.
        checked: Count,
        /// Bad blocks that were replaced.
        repaired: Count,
        /// The sum of their sizes in bytes.
        bytes: Bytes,
        /// Bad blocks that are missing or damaged in the other store too.
        lost: Keys,
        /// Whether every block was checked; false if the caller stopped it.
        complete: Flag,
        /// The duration in seconds.
        seconds: Seconds,
    }

    /// The report of a repack.
    #[derive(Default)]
    RepackReport {
        /// Blocks that were moved into the other layout.
        blocks: Count,
        /// The sum of their sizes in bytes.
        bytes: Bytes,
        /// Stored blocks that were there already when it began.
        present: Count,
        /// Blocks that were found damaged. They are marked as not stored, so that the next put of them writes
        /// them again.
        damaged: Count,
        /// Blocks that were left where they are because a running put uses them, or because they were moved
        /// or deleted meanwhile.
        skipped: Count,
        /// Stored blocks that are not there yet.
        remaining: Count,
        /// Files or objects of blocks in packs that an earlier repack had left, and that were removed.
        leftovers: Count,
        /// Files or objects of moved blocks that could not be removed; a later collection tries again.
        kept_failed: Count,
        /// Why the first file is kept that could not be removed. Empty if there is none.
        failure: Text,
        /// Whether every stored block is there; false if some remain, or the caller stopped it.
        complete: Flag,
        /// The duration in seconds.
        seconds: Seconds,
    }
}

impl StoreStats {
    /// Bytes of blobs for each stored byte; 1 for an empty store.
    pub fn dedup_ratio(&self) -> f64 {
        if self.stored_bytes == 0 { 1.0 } else { self.logical_bytes as f64 / self.stored_bytes as f64 }
    }
}

impl VerifyReport {
    /// Whether no live blob is damaged.
    pub fn is_clean(&self) -> bool {
        self.missing + self.corrupt + self.broken_manifests + self.database_problems == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lists_its_fields_with_their_values() {
        assert_eq!(
            (VerifyReport::NAME, VerifyReport::DOC),
            ("VerifyReport", "The report of a verification.")
        );
        let report = VerifyReport { missing: 7, complete: true, ..VerifyReport::default() };
        let entries: Vec<_> =
            report.entries().map(|(field, value)| (field.name, field.path, value)).collect();
        assert_eq!(entries.len(), 16);
        assert_eq!(entries[3], ("missing", "missing", Value::Count(7)));
        assert_eq!(entries[12].0, "clean");
        assert_eq!(entries[12].1.replace(' ', ""), "is_clean()");
        assert_eq!(entries[12].2, Value::Flag(false));
        assert_eq!(
            entries[14..],
            [("cursor", "cursor", Value::Cursor(None)), ("seconds", "seconds", Value::Seconds(0.0))]
        );
        assert_eq!(GcReport::FIELDS[5].doc, "Puts whose writer is gone.");
    }

    /// Every field of a struct is described, and every kind has its value.
    #[test]
    fn the_kinds_of_fields_and_values_agree() {
        macro_rules! check {
            ($($name:ident),+) => {$(
                assert!($name::FIELDS.iter().all(|field| field.doc.ends_with('.')), "{}", $name::NAME);
            )+};
        }
        each_report!(check);
        let id = BlobId::of(crate::Algo::Blake3, b"content");
        let receipt = PutReceipt {
            id,
            blocks: 1,
            fresh_blocks: 1,
            fresh_bytes: 7,
            fresh_stored_bytes: 7,
            created: true,
        };
        for (field, value) in receipt.entries() {
            assert!(format!("{value:?}").starts_with(&format!("{:?}(", field.kind)), "{field:?} {value:?}");
        }
        assert_eq!(receipt.values()[..2], [Value::Id(&id), Value::Size(7)]);
    }
}
