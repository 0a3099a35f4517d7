//! Deletion: one row update. The collector removes the references and blocks of the blob after the grace.

use async_recursion::async_recursion as boxed;

use super::core::{Engine, not_found};
use crate::error::{Code, Error, Result};
use crate::key::BlobId;
use crate::manifest::Restored;

/// Deletes a blob; `not-found` if it is not there.
#[boxed]
pub(super) async fn delete(engine: &Engine, id: &BlobId) -> Result<()> {
    let core = &engine.core;
    core.check_writable()?;
    let delete = async || {
        engine.check_owner().await?;
        core.latch.watch(core.manifests.delete(id).await)
    };
    let deleted = match delete().await {
        Err(error) if core.makes_room(&error).await => delete().await?,
        deleted => deleted?,
    };
    if deleted { Ok(()) } else { Err(not_found(id)) }
}

/// Makes a deleted blob live again.
#[boxed]
pub(super) async fn restore(engine: &Engine, id: &BlobId) -> Result<()> {
    let core = &engine.core;
    core.check_writable()?;
    engine.check_owner().await?;
    match core.latch.watch(core.manifests.restore(id).await)? {
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
