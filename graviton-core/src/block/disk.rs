//! Operations that blocks on a disk need, and that a server does by itself.

use async_trait::async_trait;

use crate::error::Result;

/// The disk that blocks are on.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Makes everything durable that was written without that ([`crate::Durability::Relaxed`]).
    async fn sync_all(&self) -> Result<()>;

    /// Removes what dead processes left half-written. Returns how many.
    async fn remove_leftovers(&self) -> Result<u64>;

    /// How full the index of the fullest directory of blocks is, from 0 to 1; 0 where no limit is known.
    async fn directory_share(&self) -> Result<f64>;

    /// Frees the space that is kept for deletion on a full disk. False if there is none.
    async fn release_reserve(&self) -> Result<bool>;

    /// Fails unless a file can be written here now: the disk is not full, not read-only, and lets us. Where
    /// nothing was ever put, fails unless a directory can be made.
    async fn check_writable(&self) -> Result<()>;

    /// Keeps some space for deletion on a full disk, if it is not kept and there is enough.
    async fn keep_reserve(&self) -> Result<()>;
}
