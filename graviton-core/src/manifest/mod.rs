//! Which blocks make up which blob: the database.
//!
//! A [`ManifestRepo`] holds the rows of `docs/FORMAT.md` and makes the steps of the put protocol atomic.
//! The protocol in one sentence: *the reference is the pin*. A put inserts its references, under a blob
//! row that is still pending, before it relies on any block, and a collector deletes only what nothing
//! references. Every method is one transaction or one query; none is held open between calls.

mod batch;
mod connection;
mod plan;
#[cfg(feature = "postgres")]
pub mod postgres;
mod repo;
mod schema;
mod sql;
pub mod sqlite;
mod steps;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::key::{BlobId, BlockKey};

pub use crate::collection::Collection;
#[cfg(feature = "postgres")]
pub use postgres::PostgresManifestRepo;
pub use repo::SqlManifestRepo;
pub use sqlite::SqliteManifestRepo;

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
    /// Where the blocks are, as [`crate::BlockStore::location`] said.
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
        /// The collector.
        by: Collection,
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
}

/// Says whether a block that was written is the one that is there now.
pub type InPlace = dyn Fn(&BlockKey) -> bool + Send + Sync;

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
        stored: Vec<BlockRow>,
    },
    /// A small blob whose blocks are durable and not yet referenced: begin, pin and commit in one.
    Whole {
        /// Its id.
        id: BlobId,
        /// The setting it was cut with.
        chunker: Arc<str>,
        /// Its blocks in order.
        entries: Arc<[ManifestEntry]>,
        /// Whether this block is, at this moment, the durable one that this put wrote. Asked after the
        /// blocks' rows are locked, for each block whose row does not say `stored`.
        in_place: Box<InPlace>,
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

/// Sums over the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
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
    /// Bytes of stored blocks that neither a live blob nor a put under way refers to. A collection without grace frees these,
    /// and what a put that failed or was aborted had announced and may have written, which only its plan counts.
    pub reclaimable_bytes: u64,
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
    /// The last candidate that was looked at; `None` if there was none.
    pub last: Option<BlockRow>,
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

/// Deletes the bytes of blocks; true if all of them are gone, durably. For [`ManifestRepo::sweep`].
pub type DeleteBytes = dyn Fn(Vec<BlockKey>) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// Looks at the bytes of a block; true if they are right. For [`ManifestRepo::recheck`].
pub type LookAgain = dyn Fn(BlockKey) -> Pin<Box<dyn Future<Output = Result<bool>> + Send>> + Send + Sync;

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
}

/// The database of manifests.
///
/// All methods may be called from any number of tasks, processes and hosts at once. A call whose future is
/// dropped takes effect as a whole or not at all. A database that is busy, gone or restarted is the
/// retryable `backend-unavailable`.
#[async_trait]
pub trait ManifestRepo: fmt::Debug + Send + Sync + 'static {
    /// The `store` row.
    async fn store(&self) -> Result<StoreRecord>;

    /// Records where the blocks are.
    async fn set_block_location(&self, location: &str) -> Result<()>;

    /// Records the degree of durability, durably.
    async fn set_durability(&self, durability: Durability) -> Result<()>;

    /// A new writer whose lease ends so much from now, by the database's clock.
    async fn register_writer(&self, lease: Duration) -> Result<WriterId>;

    /// Moves the end of the lease; false if the writer is gone.
    async fn renew_writer(&self, writer: WriterId, lease: Duration) -> Result<bool>;

    /// Removes a writer that has nothing pending.
    async fn remove_writer(&self, writer: WriterId) -> Result<()>;

    /// Inserts a pending blob; `None` if the writer is gone.
    async fn begin(&self, writer: WriterId, chunker: &str) -> Result<Option<BlobRow>>;

    /// Pins up to 1,024 blocks under a pending blob: inserts their references, and rows for those that have
    /// none. The answers are in the order of the entries. Pinning the same entries again is no error.
    async fn pin(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned>;

    /// Marks up to 1,024 pinned blocks as stored. Returns false, having changed nothing, if the blob is not
    /// pending any more.
    async fn mark_stored(&self, blob: BlobRow, blocks: &[BlockRow]) -> Result<bool>;

    /// Marks a pending blob as deleted, for the collector; nothing if it is not pending.
    async fn abort(&self, blob: BlobRow) -> Result<()>;

    /// Commits several blobs in one transaction and one sync, durably. A member whose condition does not
    /// hold drops out and does not hurt the others; an error is of all of them. Doing it again after an
    /// unknown outcome is safe: a pinned blob that was committed is `Created`, a whole one `Existed`.
    async fn commit(&self, commits: Arc<[Commit]>) -> Result<Vec<Committed>>;

    /// Looks up ids and keys, in one query.
    async fn known(&self, ids: &[BlobId], keys: &[BlockKey]) -> Result<Known>;

    /// The live blob of that id with the first `entries` entries of its manifest, in one query.
    async fn find(&self, id: &BlobId, entries: usize) -> Result<Option<(BlobRecord, Vec<ManifestEntry>)>>;

    /// What [`find`](ManifestRepo::find) finds, if the database is a file of this host and nobody has to be waited for;
    /// otherwise `None`, and `find` says why. For threads that drive futures, which must not block.
    fn find_at_once(&self, id: &BlobId, entries: usize) -> Option<Option<(BlobRecord, Vec<ManifestEntry>)>> {
        let _ = (id, entries);
        None
    }

    /// The blocks of the live blob of that id, if there are no more than `limit` and all of them are `stored`, as durably as
    /// this store promises; `None` also if that cannot be told without waiting. For who is about to put it.
    fn stored_at_once(&self, id: &BlobId, limit: usize) -> Option<Vec<BlockKey>> {
        let _ = (id, limit);
        None
    }

    /// Up to `limit` entries of a blob's manifest, from the one that holds the byte at `from` on, in order.
    /// Also of a blob that was deleted since it was found, until its grace is over.
    async fn entries(&self, blob: BlobRow, from: u64, limit: usize) -> Result<Vec<ManifestEntry>>;

    /// Up to `limit` live blobs behind `after`, ordered by algorithm, digest and size.
    async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobRecord>>;

    /// Deletes the live blob of that id, durably: no query that begins later finds it. False if there is none.
    async fn delete(&self, id: &BlobId) -> Result<bool>;

    /// Makes a deleted blob live again, as long as the collector has not begun with it.
    async fn restore(&self, id: &BlobId) -> Result<Restored>;

    /// Marks up to `limit` pending blobs of writers whose lease is over as deleted, and removes such writers that have
    /// none. Returns how many blobs. One that is just being committed counts as alive.
    async fn expire(&self, limit: usize) -> Result<u64>;

    /// Takes the names of up to `limit` blobs that were deleted at least `grace` ago: from now on nobody restores them.
    async fn take_names(&self, grace: Duration, limit: usize) -> Result<u64>;

    /// Up to `limit` deleted blobs without a name, behind `after`, ordered.
    async fn nameless(&self, after: BlobRow, limit: usize) -> Result<Vec<BlobRow>>;

    /// Drops up to `limit` references of a nameless blob, and marks their blocks as candidates in the same transaction.
    /// True once the blob itself is gone.
    async fn reap(&self, blob: BlobRow, limit: usize) -> Result<bool>;

    /// Looks at up to `limit` candidates behind `after` that no collector has doomed. Those that nothing refers to, looked
    /// up while their rows are locked, are not stored any more and doomed by this collection for as long as it `lasts`, in
    /// any case durably: until then nobody pins them. The others are no candidates any more.
    async fn doom(&self, by: Collection, after: BlockRow, limit: usize, lasts: Duration) -> Result<Doomed>;

    /// Removes the rows of those blocks that this collection still dooms and nothing refers to, calls `delete` with their
    /// keys under the locks, and commits if that says that all bytes are gone. Otherwise it changes nothing. `delete` may
    /// be called again, for rows that are locked again and looked at again. Not to be dropped before it returns.
    async fn sweep(
        &self,
        by: Collection,
        rows: Vec<BlockRow>,
        delete: Arc<DeleteBytes>,
    ) -> Result<Vec<BlockKey>>;

    /// Ends dooms of this collection before their time: nothing that was begun for them is still under way.
    async fn lift(&self, by: Collection, rows: Vec<BlockRow>) -> Result<()>;

    /// Ends all dooms of a collection whose process is gone.
    async fn lift_all(&self, by: Collection) -> Result<()>;

    /// The collections that doom blocks, and how many each.
    async fn dooming(&self) -> Result<Vec<(Collection, u64)>>;

    /// What a collection with this grace would do; names up to `limit` blobs.
    async fn plan_garbage(&self, grace: Duration, limit: usize) -> Result<GarbagePlan>;

    /// Up to `limit` blocks behind `after`, ordered by row.
    async fn blocks(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>>;

    /// What is known of these blocks: those that have a row, in any order.
    async fn blocks_by_key(&self, keys: Vec<BlockKey>) -> Result<Vec<BlockRecord>>;

    /// Up to `limit` live blobs that refer to a block.
    async fn blobs_of(&self, block: BlockRow, limit: usize) -> Result<Vec<BlobId>>;

    /// Locks the row of a block and calls `look`; if that says that the bytes are not right, marks the block as not
    /// stored, so that the next put of it writes it anew. True if so. A block that is doomed or gone is left alone.
    async fn recheck(&self, block: BlockRow, look: Arc<LookAgain>) -> Result<bool>;

    /// Inserts rows for blocks that have none, as candidates that are not stored.
    async fn adopt(&self, keys: Vec<BlockKey>) -> Result<u64>;

    /// Marks blocks that nothing refers to as candidates, wherever that was not done. Costs time proportional to what is
    /// stored.
    async fn mark_forgotten(&self) -> Result<u64>;

    /// What the database itself finds wrong with its file or indexes, as lines for people.
    async fn integrity(&self) -> Result<Vec<String>>;

    /// Writes a consistent copy of the database to a new file, while it is in use.
    async fn backup(&self, to: &Path) -> Result<()>;

    /// Whether the database is on this host, used by its processes only.
    fn is_local(&self) -> bool;

    /// The connections to the database.
    fn connections(&self) -> Connections;

    /// Counts everything. Costs time proportional to what is stored.
    async fn totals(&self) -> Result<Totals>;

    /// Closes the connections in an orderly way. Later calls fail with `closed`.
    async fn close(&self);
}
