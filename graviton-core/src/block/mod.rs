//! Where the bytes of blocks live.
//!
//! A [`BlockStore`] keeps canonical blocks under their keys and knows nothing of blobs, references or
//! garbage. The engine above it decides what is written, verifies what is read, and never trusts a block
//! for being there: only a row that says `stored` proves a block (`docs/FORMAT.md`, "Order of writes").
//!
//! Each store has an [`Identity`]. Some have [`Asides`], which keep a block that was removed until it is
//! known that nobody relies on it. Some are on a [`Disk`], which can be full, loses unsynced bytes in a power
//! cut, and keeps half-written files of processes that died.
//!
//! Nothing outside this folder may assume that one block is one file or object: a later store packs many
//! small blocks into one.

mod disk;
pub mod fs;
mod identity;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod pack;
mod removal;
#[cfg(feature = "s3")]
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Code, Error, Result};
use crate::key::BlockKey;

pub use crate::blocking::is_at_once;
pub use disk::Disk;
pub use fs::FsBlockStore;
pub use identity::Identity;
pub(crate) use identity::parse_generation;
pub use pack::{OpenPack, Packs};
pub use removal::{Aside, Asides, Removal, Removed};
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
pub trait BlockStore: Identity + fmt::Debug + Send + Sync + 'static {
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

    /// Where this block is or would be, for messages.
    fn place(&self, key: &BlockKey) -> String;

    /// Prepares the removal of these blocks, and begins none. Where blocks are not set aside, the requests
    /// are dated now, and the server refuses those that are older than `valid`. To be called before the doom
    /// is sent: then no removal outlasts a doom that is twice as long.
    async fn prepare_removal(&self, blocks: &[Aside], valid: Duration) -> Result<Box<dyn Removal>>;

    /// Everything that is stored under the name of a block.
    async fn list(&self) -> Result<Box<dyn Listing>>;

    /// Whether the work is done on the calling thread, by local system calls, so that to hash what was read
    /// right there is cheapest. Otherwise calls wait for a network.
    fn is_local(&self) -> bool;

    /// The blocks that are set aside. None where a block that is removed is gone at once.
    fn asides(&self) -> Option<Box<dyn Asides>>;

    /// The disk that the blocks are on. None where a server keeps them.
    fn disk(&self) -> Option<Box<dyn Disk>>;

    /// The packs. None where each block is one file or object.
    fn packs(&self) -> Option<Arc<dyn Packs>>;

    /// Whether [`Published`] can tell that blocks are still in place. If so, a small blob is written
    /// before it is referenced, in one transaction instead of two (`engine::small`).
    fn proves_publication(&self) -> bool;
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
    Error::new(Code::MissingBlock, format!("block {key} is missing from {place}")).with_advice(
        "verify the store, then put the same content again; or bring the block back from a copy of the store; if the \
         database was restored from a backup, run graviton verify --rebuild",
    )
}

/// The error for a block that has the right length and other bytes.
pub(crate) fn altered(key: &BlockKey, place: &str) -> Error {
    Error::new(Code::CorruptBlock, format!("block {key} is damaged: {place} has another digest"))
        .with_advice("verify the store deeply, then put the same content again; or bring the block back from a copy of the store")
}

/// The error for a block of another length than its key says.
pub(crate) fn wrong_length(key: &BlockKey, place: &str, length: u64) -> Error {
    Error::new(Code::CorruptBlock, format!("block {key} is damaged: {place} holds {length} bytes of it"))
        .with_advice("verify the store, then put the same content again; or bring the block back from a copy of the store")
}
