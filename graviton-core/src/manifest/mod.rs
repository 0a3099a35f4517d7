//! The manifests: the database that says which blocks make up which blob.
//!
//! A [`ManifestRepo`] holds the rows of `docs/FORMAT.md` and makes the steps of the put protocol atomic. The
//! protocol in one sentence: *the reference is the pin*. A put inserts its references, under a blob row that
//! is still pending, before it relies on any block, and a collector deletes only blocks without a reference.
//! Every method is one transaction or one query; none is held open between calls.
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
mod prepared;
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

/// How much of the data that was put survives a failure.
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

/// How opening a repository may change its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The database is created if it does not exist.
    Create,
    /// A database that does not exist is `not-found`. An older schema is brought up to date.
    Existing,
    /// Like `Existing`, but nothing is written at all: an older schema is read as it is.
    ToRead,
}

/// The one row of `store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRecord {
    /// Random, generated with the database, and also written beside the blocks: one database, one block
    /// location.
    pub id: String,
    /// Where the blocks are, as [`Identity::location`](crate::block::Identity::location) said.
    pub block_location: String,
    /// `Relaxed` if blocks may be stored that are not durable yet.
    pub durability: Durability,
}

/// A live blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its row, which the entries of its manifest refer to.
    pub row: BlobRow,
    /// Its id.
    pub id: BlobId,
    /// How many blocks it has.
    pub block_count: u64,
    /// The chunker setting that it was cut with.
    pub chunker: String,
    /// When it was committed: milliseconds since 1970 by the database's clock.
    pub created_at_ms: i64,
}

/// The position of a block in a blob: one entry of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Where the block starts in the blob, in bytes.
    pub offset: u64,
    /// The block; its size is in the key.
    pub key: BlockKey,
}

impl ManifestEntry {
    /// Where the block ends in the blob, in bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.key.size() as u64
    }

    /// The entries of blocks that follow each other in this order, starting at this offset.
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
    /// Where the bytes of the block are; `None` for the block's own name.
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

/// The outcome of [`ManifestRepo::pin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    /// The blocks are pinned: for each one its row, and whether its bytes are known to be there.
    Blocks(Vec<PinnedBlock>),
    /// A collector is about to delete one of the blocks. Nothing was changed; try again when the deletion is
    /// over.
    Doomed {
        /// The deletion is over after this time at the latest.
        remaining: Duration,
    },
    /// The blob is no longer pending because the writer's lease ran out. Nothing was changed.
    Expired,
}

/// A block that is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedBlock {
    /// Its row.
    pub row: BlockRow,
    /// Whether its bytes are in the block store.
    pub stored: bool,
    /// Where its bytes are; `None` for the block's own name.
    pub located: Option<Located>,
    /// Whether the put has found its bytes damaged there. The database does not know about that.
    pub damaged: bool,
    /// The time for which a deletion of the block's own name may still be carried out. Until then the block
    /// is written into a pack, if at all.
    pub doomed: Option<Duration>,
}

impl PinnedBlock {
    /// Whether the put need not write it.
    pub fn is_usable(&self) -> bool {
        self.stored && !self.damaged
    }
}

/// A block that a put has written durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its row.
    pub row: BlockRow,
    /// Where the block is now; `None` for the block's own name.
    pub place: Option<Place>,
    /// The place in a row that says `stored`, if this put found the block damaged there. A row that still has
    /// this place gets the new one.
    pub found: Option<Place>,
}

impl Mark {
    /// The mark of a block under its own name.
    pub fn named(row: BlockRow) -> Mark {
        Mark { row, place: None, found: None }
    }
}

/// A pack, and the writer that must still hold it when a block is marked in it.
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
    /// Removes duplicates.
    pub(crate) fn each_once(packs: impl IntoIterator<Item = HeldPack>) -> Vec<HeldPack> {
        let mut packs: Vec<HeldPack> = packs.into_iter().collect();
        packs.sort_unstable_by_key(|held| (held.pack, held.writer));
        packs.dedup();
        packs
    }
}

/// Says whether the block under its name is still the one that this put wrote.
pub type InPlace = dyn Fn(&BlockKey) -> bool + Send + Sync;

/// A block of a small blob that was written durably into a pack, or in place of a record that was found
/// damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Its place and the pack with the writer that must hold it; `None` for the block's own name.
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
        /// The id that the blob turned out to have.
        id: BlobId,
        /// How many references it has.
        block_count: u64,
        /// Blocks that are durable now and not yet marked so.
        marks: Vec<Mark>,
        /// The packs that those blocks are in.
        packs: Vec<HeldPack>,
    },
    /// A small blob whose blocks are durable and not yet referenced: begin, pin and commit in one.
    Whole {
        /// Its id.
        id: BlobId,
        /// The chunker setting that it was cut with.
        chunker: Arc<str>,
        /// Its blocks in order.
        entries: Arc<[ManifestEntry]>,
        /// Whether the file under the block's own name is, at this moment, the durable one that this put
        /// wrote. Called after the blocks' rows are locked, for each such block whose row does not say
        /// `stored`.
        in_place: Box<InPlace>,
        /// The blocks that this put wrote into packs, and the ones that it found damaged there.
        packed: Arc<HashMap<BlockKey, Packed>>,
    },
}

impl Commit {
    /// The packs that the blocks of the blob are in, as far as its put wrote them. Small blobs share `packed`
    /// with their whole batch, so this looks up their own blocks only.
    pub(crate) fn packs(&self) -> impl Iterator<Item = HeldPack> {
        let (held, own) = match self {
            Commit::Pinned { packs, .. } => (&packs[..], None),
            Commit::Whole { entries, packed, .. } => (&[][..], Some((entries, packed))),
        };
        let of_own = own.into_iter().flat_map(|(entries, packed)| {
            entries.iter().filter_map(|entry| Some(packed.get(&entry.key)?.place?.1))
        });
        held.iter().copied().chain(of_own)
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Commit::Pinned { row, id, .. } => f.debug_tuple("Pinned").field(row).field(id).finish(),
            Commit::Whole { id, .. } => f.debug_tuple("Whole").field(id).finish(),
        }
    }
}

/// The outcome of a [`Commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The blob is live now.
    Created,
    /// The blob was live already.
    Existed,
    /// The row is no longer pending because the writer's lease ran out. Nothing is visible.
    Expired,
    /// A block of the small blob is not in place, or is doomed. Nothing was changed; pin the blocks instead.
    NotInPlace,
    /// Another process stored blocks that are not durable, and this store promises durability. Nothing was
    /// changed; sync all blocks, record that, and commit again.
    NotDurable,
}

/// The state of blobs and blocks, looked up before anything is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// For each id, whether a live blob has it.
    pub live: Vec<bool>,
    /// For each key, whether its row says `stored` and no collector is about to delete it; `None` without a
    /// row.
    pub stored: Vec<Option<bool>>,
    /// For each key, where its bytes are; `None` for the block's own name, and without a row.
    pub located: Vec<Option<Located>>,
    /// Whether some stored blocks may not be durable.
    pub relaxed: bool,
}

/// The connections to a database that one open store may use at once for its calls. The one for its lease
/// does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How many are in use.
    pub busy: usize,
    /// How many there can be.
    pub most: usize,
}

/// The outcome of an undeletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// The blob is live again.
    Restored,
    /// The blob was never deleted, or was put again.
    Live,
    /// The blob does not exist, or the removal of its references has begun.
    NotFound,
}

/// The outcome of [`ManifestRepo::doom`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Blocks that are doomed now.
    pub blocks: Vec<(BlockRow, BlockKey)>,
    /// Candidates that were referenced again; no longer candidates.
    pub referenced: u64,
}

/// The answer of [`ManifestRepo::settle`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Blocks whose rows are gone.
    pub gone: Vec<BlockKey>,
    /// The indexes of the blocks that have a row without a doom.
    pub undoomed: Vec<usize>,
}

/// A preview of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GarbagePlan {
    /// Names of deleted blobs that it would reap, at most as many as were requested.
    pub named: Vec<BlobId>,
    /// All blobs that it would reap, including abandoned puts.
    pub blobs: u64,
    /// Blocks that would then have no reference.
    pub blocks: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// Checks the bytes of a block; true if they are right. For [`ManifestRepo::recheck`].
pub type LookAgain =
    dyn Fn(BlockKey, Option<Located>) -> Pin<Box<dyn Future<Output = Result<bool>> + Send>> + Send + Sync;

/// A block's row, for a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRecord {
    /// The row.
    pub row: BlockRow,
    /// The block.
    pub key: BlockKey,
    /// Whether the row says that its bytes are in the block store.
    pub stored: bool,
    /// Whether a live blob refers to it.
    pub live: bool,
    /// Where its bytes are; `None` for the block's own name.
    pub located: Option<Located>,
}
