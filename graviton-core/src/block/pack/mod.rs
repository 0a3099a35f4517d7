//! Packs: files of many blocks, one behind the other.
//!
//! A pack is appended to by the open store that created it, and by nobody else. No offset is written twice.
//! So its bytes are there or not yet there, and never others: only a row of the database points at a record,
//! and a record that no row points at is dead (`docs/FORMAT.md`, "Packs").
//!
//! [`record`] is the format. [`Packs`] is what a block store does for packs; when something is durable, and
//! who may write where, is the engine's matter.

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
    /// Creates a pack under a name that no pack had, with these first bytes. Its name is durable, its bytes
    /// are not before they are synced.
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>>;

    /// These bytes of a pack, fewer if it ends before. `None` if there is no such pack.
    ///
    /// If [`is_at_once`](super::is_at_once) says so, it answers only if it need not block or wait.
    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>>;

    /// The bytes of a pack; `None` if there is no such pack.
    async fn length(&self, name: &PackName) -> Result<Option<u64>>;

    /// Makes all bytes of a pack durable, whoever wrote them. One that is not there is no error.
    async fn sync(&self, name: &PackName) -> Result<()>;

    /// Cuts off what is behind these bytes, if this user may. A pack that is not there is no error.
    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()>;

    /// Gives the space of these bytes back, as far as that can be done; they read as zeros, or as they were.
    /// Returns how many bytes take no space any more.
    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<u64>;

    /// Removes packs, durably. One that is not there is no error.
    async fn remove(&self, names: &[PackName]) -> Result<()>;

    /// All packs, and how many bytes each has.
    async fn list(&self) -> Result<Vec<(PackName, u64)>>;

    /// Where this pack is or would be, for messages.
    fn place(&self, name: &PackName) -> String;

    /// No pack grows longer than this many bytes.
    fn most_bytes(&self) -> u64;

    /// Whether packs are files that grow. Otherwise a pack is an object: its first sync sends all of it, and
    /// nothing is written to it then. It is there as a whole or not at all, any look at it is a request, and
    /// an attempt to send it that got no answer may still be carried out for [`DOUBT`].
    fn grows(&self) -> bool;
}

/// A pack that is appended to. It stays open from its creation to its end: the system reports a failed write
/// once to each open file.
#[async_trait]
pub trait OpenPack: fmt::Debug + Send + Sync {
    /// Writes these bytes, one behind the other, from this offset on. Nobody wrote there before.
    async fn write(&self, offset: u64, parts: Vec<Bytes>) -> Result<()>;

    /// Makes all that was written durable whose call had returned. After an error nothing of the pack is to
    /// be relied on that was not synced before.
    async fn sync(&self) -> Result<()>;

    /// Whether an attempt to write the pack may still be carried out, although another one succeeded or the
    /// pack was given up.
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

/// The error for a block whose record holds something else.
pub(crate) fn altered(key: &BlockKey, place: &Place, pack: &str, why: &str) -> Error {
    let why = format!("block {key} is damaged: the record at {} in {pack} {why}", place.offset);
    Error::new(Code::CorruptBlock, why)
        .with_advice("verify the store deeply, then put the same content again; or bring the pack back from a copy of the store")
}
