//! Block stores: the bytes of blocks.
//!
//! A [`BlockStore`] keeps blocks under their keys and knows nothing of blobs, references or garbage. The
//! engine above it decides which blocks are written, verifies the bytes that it reads, and never trusts a
//! block only because it exists: only a row that says `stored` proves a block (`docs/FORMAT.md`, "Order of
//! writes").
//!
//! Each store has an [`Identity`]. Some have [`Asides`], which keep a removed block until it is known that no
//! put relies on it. Some are on a [`Disk`], which can be full, loses unsynced bytes in a power cut, and
//! keeps half-written files of processes that died.
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

/// A block to be stored: its bytes, and their key, which the engine computed from them.
#[derive(Debug, Clone)]
pub struct Block {
    /// The name of the bytes.
    pub key: BlockKey,
    /// The bytes; `key` is their digest and size.
    pub bytes: Bytes,
}

/// Blocks under their keys.
///
/// All methods may be called from any number of tasks at once, on the same keys too. A call whose future is
/// dropped may take effect or not. Implementations retry transient failures, and report a failed backend as
/// an error, never as an absent block.
///
/// If blocks are local, the engine polls [`get`](BlockStore::get) once on a thread that drives futures before
/// it calls it in the usual way. While [`is_at_once`] is true, a call answers only if it need not block, wait
/// or start anything on another thread, and is pending otherwise. A store that wraps another one just calls
/// it.
/// calls it.
#[async_trait]
pub trait BlockStore: Identity + fmt::Debug + Send + Sync + 'static {
    /// Writes the blocks over any earlier content of their keys, and returns once they are durable to the
    /// degree that the store was opened with. After an error some blocks may exist and others not, and none
    /// can be relied on. A block is never partly visible, at any moment or after a crash.
    ///
    /// The keys are distinct, and the memory of a block's bytes may be released as soon as they are written.
    async fn put(&self, blocks: Vec<Block>) -> Result<Published>;

    /// The whole block, or this range of it, as it is now: not verified, but exactly as long as requested. An
    /// absent block is `missing-block`, a block of another length is `corrupt-block`.
    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes>;

    /// The length of the bytes under the key; `None` if there are none.
    async fn length(&self, key: &BlockKey) -> Result<Option<u64>>;

    /// For blocks whose rows say `stored`: whether each seems intact, as far as a nearly free check can tell.
    /// A local store checks the file's length; a remote one sends no request and says yes. If the answer is
    /// no, a put writes the block again.
    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>>;

    /// The place of this block, whether it exists or not, for messages.
    fn place(&self, key: &BlockKey) -> String;

    /// Prepares the removal of these blocks without starting it. Where blocks are not set aside, the requests
    /// are dated now, and the server refuses them once they are older than `valid`. Called before the doom is
    /// sent, so that no removal outlasts a doom that is twice as long.
    async fn prepare_removal(&self, blocks: &[Aside], valid: Duration) -> Result<Box<dyn Removal>>;

    /// Everything that is stored under the name of a block.
    async fn list(&self) -> Result<Box<dyn Listing>>;

    /// Whether the work is done on the calling thread, by local system calls, where hashing the bytes at once
    /// is cheapest. Otherwise calls wait for a network.
    fn is_local(&self) -> bool;

    /// The blocks that are set aside; `None` if a removed block is gone at once.
    fn asides(&self) -> Option<Box<dyn Asides>>;

    /// The disk that the blocks are on; `None` if a server keeps them.
    fn disk(&self) -> Option<Box<dyn Disk>>;

    /// The packs; `None` if each block is one file or object.
    fn packs(&self) -> Option<Arc<dyn Packs>>;

    /// Whether [`Published`] can prove that blocks are still in place. If so, a small blob is written before
    /// it is referenced, in one transaction instead of two (`engine::small`).
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

/// An iteration over all blocks, in no order. Blocks that are put or deleted meanwhile may or may not appear.
#[async_trait]
pub trait Listing: Send {
    /// The next blocks, up to a few thousand; none at the end.
    async fn next(&mut self) -> Result<Vec<Listed>>;
}

/// The proof of [`BlockStore::put`] about the blocks that it wrote; it is valid for as long as it is kept.
pub struct Published(Option<Box<StillThere>>);

type StillThere = dyn Fn(&BlockKey) -> bool + Send + Sync;

impl Published {
    /// A proof that calls this function, inside a transaction: it must be quick.
    pub fn proven_by(still_there: impl Fn(&BlockKey) -> bool + Send + Sync + 'static) -> Published {
        Published(Some(Box::new(still_there)))
    }

    /// For stores without a proof.
    pub fn without_proof() -> Published {
        Published(None)
    }

    /// Whether the block under this key is still the one that the call wrote durably: neither deleted since
    /// nor written again by another process, whose write may not be durable yet.
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
