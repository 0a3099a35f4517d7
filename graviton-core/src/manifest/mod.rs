//! Which blocks make up which blob: the database.
//!
//! A [`ManifestRepo`] holds the rows of `docs/FORMAT.md` and makes the steps of the put protocol atomic.
//! The protocol in one sentence: *the reference is the pin*. A put inserts its references, under a blob
//! row that is still pending, before it relies on any block, and a collector deletes only what nothing
//! references. Every method is one transaction or one query; none is held open between calls.
//!
//! An operation is spelled twice: its statements (`sql`), and one method (`put`, `read`, `collect`,
//! `verify`), which runs them on a connection to either database.

#![cfg_attr(
    not(feature = "postgres"),
    allow(
        dead_code,
        irrefutable_let_patterns,
        clippy::unused_async,
        reason = "an operation is spelled once for both databases, also where there is only SQLite"
    )
)]

mod batch;
mod collect;
mod connection;
mod open;
mod operation;
mod ownership;
mod pack;
mod plan;
#[cfg(feature = "postgres")]
pub mod postgres;
mod put;
mod read;
mod repack;
mod repo;
mod schema;
mod sql;
mod sqlite;
mod upgraded;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::place::{Located, PackName, PackRow, Place};

pub use crate::collection::Collection;
pub use operation::TransactionHook;
pub(crate) use ownership::EPOCH_BITS;
pub use ownership::{Claim, Owned, Ownership, Refusal, Whereabouts};
pub use pack::{Hole, PackPhase, PackSums, Released, SealedPack};
pub use repo::ManifestRepo;
pub(crate) use sqlite::check_local;

/// The row of a blob. Ids are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobRow(pub i64);

/// The row of a block. Ids are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockRow(pub i64);

/// The row of a writer: an open store that puts, alive for as long as its lease is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(pub i64);

/// How much of what was put survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A returned put survives power loss.
    #[default]
    Full,
    /// A returned put survives a crash of the process only.
    Relaxed,
}

impl Durability {
    /// The word in the configuration and in the `store` row.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Full => "full",
            Durability::Relaxed => "relaxed",
        }
    }
}

/// What opening a repository may do to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is made if it is not there.
    Create,
    /// One that is not there is `not-found`. An older schema is brought up to date.
    Existing,
    /// The same, and nothing is written at all: an older schema is read as it is.
    ToRead,
}

/// The one row of `store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRecord {
    /// Random, made with the database, and written beside the blocks: one database, one block location.
    pub id: String,
    /// Where the blocks are, as [`Identity::location`](crate::block::Identity::location) said.
    pub block_location: String,
    /// `Relaxed` if blocks may be stored that are not durable yet.
    pub durability: Durability,
}

/// A live blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its row, which its manifest hangs on.
    pub row: BlobRow,
    /// Its id.
    pub id: BlobId,
    /// How many blocks it has.
    pub block_count: u64,
    /// The setting it was cut with.
    pub chunker: String,
    /// When it was committed: milliseconds since 1970 by the database's clock.
    pub created_at_ms: i64,
}

/// A block's place in a blob: one entry of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Where the block starts in the blob, in bytes.
    pub offset: u64,
    /// Which block; its size is in the key.
    pub key: BlockKey,
}

impl ManifestEntry {
    /// Where the block ends in the blob, in bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.key.size() as u64
    }

    /// The entries of blocks that follow each other in this order, the first of them at this offset.
    pub(crate) fn tiling(offset: u64, keys: impl IntoIterator<Item = BlockKey>) -> Vec<ManifestEntry> {
        let mut offset = offset;
        let entry = |key| {
            let entry = ManifestEntry { offset, key };
            offset = entry.end();
            entry
        };
        keys.into_iter().map(entry).collect()
    }
}

/// An entry of a manifest as it was read, with the place of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedEntry {
    /// Where the block starts in the blob, in bytes.
    pub offset: u64,
    /// The block.
    pub key: BlockKey,
    /// Where its bytes are; `None` for its own name.
    pub located: Option<Located>,
}

impl PlacedEntry {
    /// Where the block ends in the blob, in bytes.
    pub fn end(&self) -> u64 {
        self.entry().end()
    }

    /// The entry alone.
    pub fn entry(&self) -> ManifestEntry {
        ManifestEntry { offset: self.offset, key: self.key }
    }
}

/// For tests, which compare what was read with what was pinned.
#[cfg(any(test, feature = "testing"))]
impl PartialEq<ManifestEntry> for PlacedEntry {
    fn eq(&self, entry: &ManifestEntry) -> bool {
        self.entry() == *entry
    }
}

/// What [`ManifestRepo::pin`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    /// The blocks are pinned: for each one its row, and whether its bytes are known to be there.
    Blocks(Vec<PinnedBlock>),
    /// A collector is about to delete one of them. Nothing was changed; try again when that is over.
    Doomed {
        /// After so long at the latest.
        remaining: Duration,
    },
    /// The blob is not pending any more: the writer's lease ran out. Nothing was changed.
    Expired,
}

/// A block that is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedBlock {
    /// Its row.
    pub row: BlockRow,
    /// Whether its bytes are in the block store.
    pub stored: bool,
    /// Where they are; `None` for its own name.
    pub located: Option<Located>,
    /// Whether the put has found them damaged there. The database does not know it.
    pub damaged: bool,
    /// Whether a deletion of its own name may still be carried out, so that it is to be written into a pack.
    pub is_doomed: bool,
}

impl PinnedBlock {
    /// Whether the put need not write it.
    pub fn is_usable(&self) -> bool {
        self.stored && !self.damaged
    }
}

/// A block that a put wrote, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its row.
    pub row: BlockRow,
    /// Where it is now; `None` for its own name.
    pub place: Option<Place>,
    /// The place of a row that says `stored`, where this put found the block damaged. If the row has it
    /// still, it gets the new one.
    pub found: Option<Place>,
}

impl Mark {
    /// Of a block under its own name.
    pub fn named(row: BlockRow) -> Mark {
        Mark { row, place: None, found: None }
    }
}

/// A pack, and the writer that has to hold it when something is marked in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeldPack {
    /// The pack.
    pub pack: PackRow,
    /// The writer that created it.
    pub writer: WriterId,
    /// Its name. After a fail-over of the database, other rows may have the same numbers.
    pub name: PackName,
}

impl HeldPack {
    /// Each of these once.
    pub(crate) fn each_once(packs: impl IntoIterator<Item = HeldPack>) -> Vec<HeldPack> {
        let mut packs: Vec<HeldPack> = packs.into_iter().collect();
        packs.sort_unstable_by_key(|held| (held.pack, held.writer));
        packs.dedup();
        packs
    }
}

/// Says whether a block that was written is the one that is there now.
pub type InPlace = dyn Fn(&BlockKey) -> bool + Send + Sync;

/// A block that a small blob wrote, durably: into a pack, or instead of a record that it found damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Its place, and who has to hold the pack; `None` for its own name.
    pub place: Option<(Place, HeldPack)>,
    /// As in a [`Mark`].
    pub found: Option<Place>,
}

/// A request to make a blob live.
pub enum Commit {
    /// A blob whose blocks were pinned and are now durable.
    Pinned {
        /// The pending row.
        row: BlobRow,
        /// What it turned out to be.
        id: BlobId,
        /// How many references it has.
        block_count: u64,
        /// Blocks that are durable now and not yet marked so.
        marks: Vec<Mark>,
        /// The packs of those.
        packs: Vec<HeldPack>,
    },
    /// A small blob whose blocks are durable and not yet referenced: begin, pin and commit in one.
    Whole {
        /// Its id.
        id: BlobId,
        /// The setting it was cut with.
        chunker: Arc<str>,
        /// Its blocks in order.
        entries: Arc<[ManifestEntry]>,
        /// Whether this block is, at this moment, the durable one that this put wrote under its own name.
        /// Asked after the blocks' rows are locked, for each such block whose row does not say `stored`.
        in_place: Box<InPlace>,
        /// The blocks that this put wrote into packs, and those that it found damaged there.
        packed: Arc<HashMap<BlockKey, Packed>>,
    },
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Commit::Pinned { row, id, .. } => f.debug_tuple("Pinned").field(row).field(id).finish(),
            Commit::Whole { id, .. } => f.debug_tuple("Whole").field(id).finish(),
        }
    }
}

/// What became of a [`Commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The blob is live now.
    Created,
    /// The blob was live already.
    Existed,
    /// The pending row is not pending any more: the writer's lease ran out. Nothing is visible.
    Expired,
    /// A block of the small blob is not in place, or doomed. Nothing was changed; pin it.
    NotInPlace,
    /// Another process stored blocks that are not durable, and this store promises that they are. Nothing
    /// was changed; sync all blocks, record that, and commit again.
    NotDurable,
}

/// What is known of blobs and blocks before anything is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// For each id whether a live blob has it.
    pub live: Vec<bool>,
    /// For each key whether its row says `stored` (and no collector is about to delete it); `None` where
    /// there is no row.
    pub stored: Vec<Option<bool>>,
    /// For each key where its bytes are; `None` for its own name, and where there is no row.
    pub located: Vec<Option<Located>>,
    /// Whether anything that is stored may not be durable.
    pub relaxed: bool,
}

/// Connections to a database that may be used at once, by one open store: for its calls, not for its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How many are in use.
    pub busy: usize,
    /// How many can be.
    pub most: usize,
}

/// What became of an undeletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// The blob is live again.
    Restored,
    /// It was live all the time, or was put again.
    Live,
    /// It is not there, or its references began to go.
    NotFound,
}

/// What [`ManifestRepo::doom`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Blocks that are doomed now.
    pub blocks: Vec<(BlockRow, BlockKey)>,
    /// Candidates that something refers to again: they are none any more.
    pub referenced: u64,
}

/// The answer of [`ManifestRepo::settle`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Blocks whose rows are gone.
    pub gone: Vec<BlockKey>,
    /// The places of blocks that have a row without a doom.
    pub undoomed: Vec<usize>,
}

/// What a collection would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GarbagePlan {
    /// Deleted blobs that it would reap, by name, as many as were asked for.
    pub named: Vec<BlobId>,
    /// All blobs that it would reap, abandoned puts among them.
    pub blobs: u64,
    /// Blocks that nothing would refer to then.
    pub blocks: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// Looks at the bytes of a block; true if they are right. For [`ManifestRepo::recheck`].
pub type LookAgain =
    dyn Fn(BlockKey, Option<Located>) -> Pin<Box<dyn Future<Output = Result<bool>> + Send>> + Send + Sync;

/// A block's row, for a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRecord {
    /// The row.
    pub row: BlockRow,
    /// The block.
    pub key: BlockKey,
    /// Whether its bytes are said to be in the block store.
    pub stored: bool,
    /// Whether a live blob refers to it.
    pub live: bool,
    /// Where its bytes are; `None` for its own name.
    pub located: Option<Located>,
}
