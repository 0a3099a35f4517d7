//! Deletion: one row update. What the blob was made of goes when the collector comes, after the grace.

use super::{AsyncStore, Engine, not_found};
use crate::error::{Code, Error, Result};
use crate::key::BlobId;
use crate::manifest::Restored;

impl AsyncStore {
    /// Deletes a blob: once this has returned, no process finds it any more. Reads that are under way go on for the
    /// grace, and so long it can be [`restore`](AsyncStore::restore)d. One that is not there is `not-found`.
    ///
    /// Its space comes back with the next [`gc`](AsyncStore::gc) after the grace.
    pub async fn delete(&self, id: &BlobId) -> Result<()> {
        let engine = self.engine()?;
        engine.check_writable()?;
        let manifests = &engine.core.manifests;
        let deleted = match engine.core.latch.watch(manifests.delete(id).await) {
            Err(error) if engine.makes_room(&error).await => {
                engine.core.latch.watch(manifests.delete(id).await)?
            }
            deleted => deleted?,
        };
        if deleted { Ok(()) } else { Err(not_found(id)) }
    }

    /// Brings a deleted blob back, as long as no collection has begun with it: within the grace it is certain. One that
    /// is live already stays so; one that is not there, or no more, is `not-found`.
    pub async fn restore(&self, id: &BlobId) -> Result<()> {
        let engine = self.engine()?;
        engine.check_writable()?;
        match engine.core.latch.watch(engine.core.manifests.restore(id).await)? {
            Restored::Restored | Restored::Live => Ok(()),
            Restored::NotFound => Err(Error::new(
                Code::NotFound,
                format!("there is no blob {id} in this store, and no deleted one that could be restored"),
            )
            .with_advice(
                "check the id; after the grace (GRAVITON_GC_GRACE) a collection takes deleted blobs away",
            )),
        }
    }
}

impl Engine {
    /// Whether the error is a full disk, and some space was given free that was kept for this.
    pub(super) async fn makes_room(&self, error: &Error) -> bool {
        error.code() == Code::NoSpace && self.core.blocks.release_reserve().await.unwrap_or(false)
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.core.latch.check()?;
        if self.core.read_only {
            return Err(Error::new(Code::Forbidden, "the store was opened only to be read")
                .with_advice("open it for writing"));
        }
        Ok(())
    }
}
