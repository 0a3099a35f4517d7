//! The removal of blocks, step by step: prepared before the doom, then removed. Where blocks are set aside,
//! the removal ends once it is known whether a put relies on them (`docs/FORMAT.md`, "Collecting").

use async_trait::async_trait;

use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::key::BlockKey;

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
    /// Nothing was.
    Absent,
    /// It could not be removed, and no removal of it is under way. It may have been set aside.
    Kept(Error),
    /// A removal may be carried out until its date is too old.
    Unknown(Error),
}

/// The blocks that are set aside. As they can come back, a removal may be as late as it likes, and no put
/// waits for it.
#[async_trait]
pub trait Asides: Send + Sync {
    /// Everything that is set aside, by any collection.
    async fn all(&self) -> Result<Vec<Aside>>;

    /// Ends removals: deletes those that are `gone`, and gives those that come `back` their blocks' names
    /// again. To do it again is no error.
    async fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()>;
}
