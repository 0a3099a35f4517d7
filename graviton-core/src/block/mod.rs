//! Where the bytes of blocks live.
//!
//! A [`BlockStore`] keeps canonical blocks under their keys and knows nothing of blobs, references or
//! garbage. The engine above it decides what is written, verifies what is read, and never trusts a block
//! for being there: only a row that says `stored` proves a block (`docs/FORMAT.md`, "Order of writes").
//!
//! Nothing outside this folder may assume that one block is one file or object: a later store packs many
//! small blocks into one.

pub mod fs;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
#[cfg(feature = "s3")]
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::collection::Collection;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;

pub use crate::blocking::is_at_once;
pub use fs::FsBlockStore;
#[cfg(feature = "s3")]
pub use s3::S3BlockStore;

/// A block on its way into a store: its bytes, and their key, which the engine computed from them.
#[derive(Debug, Clone)]
pub struct Block {
    /// The name of the bytes.
    pub key: BlockKey,
    /// The bytes; `key` is their digest and size.
    pub bytes: Bytes,
}

/// Canonical blocks under their keys.
///
/// All methods may be called from any number of tasks at once, on the same keys too. A call whose future
/// is dropped may take effect or not. Implementations retry what is worth retrying, and report a failed
/// backend as an error, never as an absent block.
///
/// Where blocks are local, the engine polls [`get`](BlockStore::get) once on a thread that drives futures
/// before it calls it in the usual way. If [`is_at_once`] says so, a call answers only if it need not block,
/// wait or start anything on another thread, and is pending otherwise. A store that wraps another one just
/// calls it.
#[async_trait]
pub trait BlockStore: fmt::Debug + Send + Sync + 'static {
    /// Writes the blocks, whatever was under their keys before, and returns once they are durable to the
    /// degree that the store was opened with. On an error some may be there and some not, and none is to
    /// be relied on. A block is never visible in part, at any moment or after a crash.
    ///
    /// The keys are different from each other, and the memory of a block's bytes may be released as soon
    /// as they are written.
    async fn put(&self, blocks: Vec<Block>) -> Result<Published>;

    /// The whole content of the block, or this range of it, as it is now: not verified, but exactly as
    /// long as asked for. A block that is not there is `missing-block`, one of another length is
    /// `corrupt-block`.
    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes>;

    /// The length of what is stored under the key, `None` if nothing is.
    async fn length(&self, key: &BlockKey) -> Result<Option<u64>>;

    /// For blocks whose rows say `stored`: whether each is worth relying on, as far as that can be told
    /// for next to nothing. A local store looks at the file's length; a remote one sends no request and
    /// says yes. Where the answer is no, a put writes the block again.
    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>>;

    /// Makes everything durable that was written without that ([`crate::Durability::Relaxed`]).
    async fn sync_all(&self) -> Result<()>;

    /// Where the blocks are, for messages and for the `store` row: the same text from every process that
    /// opens the same place, without secrets.
    fn location(&self) -> String;

    /// Where this block is or would be, for messages.
    fn place(&self, key: &BlockKey) -> String;

    /// The id of the database that these blocks belong to, if one was written.
    async fn store_id(&self) -> Result<Option<String>>;

    /// Writes the id durably if there is none, and returns the one that is there afterwards.
    async fn create_store_id(&self, id: &str) -> Result<String>;

    /// Whether any block is stored here.
    async fn has_blocks(&self) -> Result<bool>;

    /// Whether a block that is removed is set aside, and can come back. Then a removal may be as late as it
    /// likes, and no put waits for it. Otherwise the block is gone at once.
    fn sets_aside(&self) -> bool;

    /// Prepares the removal of these blocks, and begins none. Where blocks are not set aside, the requests
    /// are dated now, and the server refuses those that are older than `valid`. To be called before the doom
    /// is sent: then no removal outlasts a doom that is twice as long.
    async fn prepare_removal(&self, blocks: &[Aside], valid: Duration) -> Result<Box<dyn Removal>>;

    /// Everything that is set aside, by any collection.
    async fn asides(&self) -> Result<Vec<Aside>>;

    /// Ends removals: deletes those that are `gone`, and gives those that come `back` their blocks' names
    /// again. To do it again is no error.
    async fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()>;

    /// Everything that is stored under the name of a block.
    async fn list(&self) -> Result<Box<dyn Listing>>;

    /// Removes what dead processes left half-written. Returns how many.
    async fn remove_leftovers(&self) -> Result<u64>;

    /// Frees the space that is kept for deletion on a full disk. False if there is none.
    async fn release_reserve(&self) -> Result<bool>;

    /// Keeps some space for deletion on a full disk, if it is not kept and there is enough.
    async fn keep_reserve(&self) -> Result<()>;

    /// Whether the work is done on the calling thread, by local system calls, so that to hash what was read
    /// right there is cheapest. Otherwise calls wait for a network.
    fn is_local(&self) -> bool;

    /// Whether [`Published`] can tell that blocks are still in place. If so, a small blob is written
    /// before it is referenced, in one transaction instead of two (`engine::small`).
    fn proves_publication(&self) -> bool;
}

/// A block that a collection takes away from under its key.
///
/// Number and collection together name one removal, and never another one: what is set aside under this name
/// is one file, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aside {
    /// The collection.
    pub by: Collection,
    /// The number of the removal in the collection.
    pub number: u64,
    /// The block.
    pub key: BlockKey,
}

/// A removal that is prepared.
#[async_trait]
pub trait Removal: Send + Sync {
    /// Removes these of the prepared blocks, durably, and says of each what became of it, in their order. A
    /// block that is not there is gone.
    async fn remove(&self, blocks: &[Aside]) -> Vec<Removed>;
}

/// The outcome of the removal of a block.
#[derive(Debug, Clone)]
pub enum Removed {
    /// Nothing is under its key any more.
    Gone,
    /// It could not be removed, and no removal of it is under way. It may have been set aside.
    Kept(Error),
    /// A removal may be carried out until its date is too old.
    Unknown(Error),
}

/// A block that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its key, as its name says.
    pub key: BlockKey,
    /// How many bytes are there.
    pub length: u64,
}

/// A walk over all blocks, in no order. It may or may not meet blocks that are put or deleted meanwhile.
#[async_trait]
pub trait Listing: Send {
    /// The next blocks, up to a few thousand; none at the end.
    async fn next(&mut self) -> Result<Vec<Listed>>;
}

/// The proof that [`BlockStore::put`] gives of the blocks that it wrote; it holds for as long as it is kept.
pub struct Published(Option<Box<StillThere>>);

type StillThere = dyn Fn(&BlockKey) -> bool + Send + Sync;

impl Published {
    /// A proof that asks this function. It is called inside a transaction and must be quick.
    pub fn proven_by(still_there: impl Fn(&BlockKey) -> bool + Send + Sync + 'static) -> Published {
        Published(Some(Box::new(still_there)))
    }

    /// For stores that cannot tell.
    pub fn without_proof() -> Published {
        Published(None)
    }

    /// Whether the block that the call wrote under this key, durably, is the very one that is there now:
    /// neither deleted since nor written again by somebody else, whose writing may not be durable yet.
    pub fn is_in_place(&self, key: &BlockKey) -> bool {
        self.0.as_ref().is_some_and(|still_there| still_there(key))
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").finish_non_exhaustive()
    }
}

/// The error for a block that is not in the store.
pub(crate) fn missing(key: &BlockKey, place: &str) -> Error {
    Error::new(Code::MissingBlock, format!("block {key} is missing from {place}"))
        .with_advice("put the same content again, or bring the block back from a copy of the store")
}

/// The error for a block that has the right length and other bytes.
pub(crate) fn altered(key: &BlockKey, place: &str) -> Error {
    Error::new(Code::CorruptBlock, format!("block {key} is damaged: {place} has another digest"))
        .with_advice("put the same content again, or bring the block back from a copy of the store")
}

/// The error for a block of another length than its key says.
pub(crate) fn wrong_length(key: &BlockKey, place: &str, length: u64) -> Error {
    Error::new(Code::CorruptBlock, format!("block {key} is damaged: {place} holds {length} bytes of it"))
        .with_advice("put the same content again, or bring the block back from a copy of the store")
}
