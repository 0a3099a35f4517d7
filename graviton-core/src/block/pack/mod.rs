//! Packs: files of many blocks, one after another.
//!
//! Only the open store that created a pack appends to it. No offset is written twice. So the bytes at an
//! offset are either there or not yet there, and never change. Only a row of the database points at a record,
//! and a record without a row is dead (`docs/FORMAT.md`, "Packs").
//!
//! [`record`] is the format. [`Packs`] is the interface of a block store for packs. The engine decides when
//! bytes are durable, and which store may write where.

pub(crate) mod compress;
pub mod record;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::{PackName, Place};

pub use crate::place::DOUBT;
pub use compress::Compression;

/// The packs of a block store.
///
/// All methods may be called from any number of tasks at once. A call whose future is dropped may take effect
/// or not.
#[async_trait]
pub trait Packs: fmt::Debug + Send + Sync {
    /// Creates a pack under a name that no pack had, with these first bytes. Its name is durable; its bytes
    /// are not until they are synced.
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>>;

    /// These bytes of a pack, fewer if the pack ends before. `None` if there is no such pack.
    ///
    /// While [`is_at_once`](super::is_at_once) is true, it answers only if it need not block or wait.
    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>>;

    /// The bytes of a pack; `None` if there is no such pack.
    async fn length(&self, name: &PackName) -> Result<Option<u64>>;

    /// Makes all bytes of a pack durable, from any writer. An absent pack is no error.
    async fn sync(&self, name: &PackName) -> Result<()>;

    /// Truncates a pack to this length, if this user may. An absent pack is no error.
    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()>;

    /// Gives the space of these bytes back, as far as possible; they then read as zeros, or as before.
    /// Returns how many bytes no longer take space.
    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<u64>;

    /// Removes packs, durably. An absent pack is no error.
    async fn remove(&self, names: &[PackName]) -> Result<()>;

    /// All packs, with their lengths in bytes.
    async fn list(&self) -> Result<Vec<(PackName, u64)>>;

    /// The place of this pack, whether it exists or not, for messages.
    fn place(&self, name: &PackName) -> String;

    /// The largest size of a pack in bytes.
    fn most_bytes(&self) -> u64;

    /// Whether packs are files that grow. Otherwise a pack is an object: its first sync sends all of it, and
    /// nothing is written to it after that. It exists as a whole or not at all, every check of it is a
    /// request, and an attempt to send it that got no answer may still be carried out for [`DOUBT`].
    fn grows(&self) -> bool;
}

/// A pack that is appended to. It stays open from its creation to its end: the system reports a failed write
/// once to each open file.
#[async_trait]
pub trait OpenPack: fmt::Debug + Send + Sync {
    /// Writes these bytes, one after another, from this offset on. Nobody has written there before.
    async fn write(&self, offset: u64, parts: Vec<Bytes>) -> Result<()>;

    /// Makes the bytes of all returned writes durable. After an error, no byte of the pack that was not
    /// synced before can be relied on.
    async fn sync(&self) -> Result<()>;

    /// Whether an attempt to write the pack may still be carried out, although another one succeeded or the
    /// pack was abandoned.
    fn is_in_doubt(&self) -> bool;
}

/// The error for a block whose pack, or whose record in it, is not there.
pub(crate) fn missing(key: &BlockKey, place: &Place, pack: &str) -> Error {
    let why = format!("block {key} is missing: there is nothing at {} in {pack}", place.offset);
    Error::new(Code::MissingBlock, why).with_advice(
        "verify the store, then put the same content again; or bring the pack back from a copy of the store; if the \
         database was restored from a backup, run graviton verify --rebuild",
    )
}

/// The error for a block whose record contains something else.
pub(crate) fn altered(key: &BlockKey, place: &Place, pack: &str, why: &str) -> Error {
    let why = format!("block {key} is damaged: the record at {} in {pack} {why}", place.offset);
    Error::new(Code::CorruptBlock, why)
        .with_advice("verify the store deeply, then put the same content again; or bring the pack back from a copy of the store")
}
