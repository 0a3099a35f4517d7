//! A copy of the manifests, made while the store is in use. The copy is marked, so that it is not taken for
//! the database itself.

use std::path::PathBuf;
use std::sync::Arc;

use async_recursion::async_recursion as boxed;

use super::core::Engine;
use crate::blocking::Task;
use crate::error::Result;

/// Writes the copy to a new file.
#[boxed]
pub(super) async fn backup(engine: &Engine, to: PathBuf) -> Result<()> {
    let core = &engine.core;
    let manifests = Arc::clone(&core.manifests);
    Task::spawn(async move { manifests.backup(&to).await }).join().await??;
    if core.check_writable().is_ok() {
        // The copy is marked as one. That it is behind as well only adds to that: a full disk, or that this
        // database is itself a copy, must not keep anybody from a backup.
        let _ = core.latch.watch(engine.owner.raise().await);
    }
    Ok(())
}
