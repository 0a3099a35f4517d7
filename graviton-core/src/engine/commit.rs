//! The last step of every put: blobs become live, together, in one transaction and one sync.

use std::sync::Arc;

use super::Core;
use super::group::{Group, Limits};
use crate::error::Result;
use crate::manifest::{Commit, Committed, Durability};

/// One transaction covers at most so many rows.
const MOST_ROWS: usize = 2048;

pub(super) type Commits = Group<Commit, Result<Committed>>;

pub(super) fn commits(core: &Arc<Core>) -> Commits {
    let core = Arc::clone(core);
    Group::new(rows, Limits { weight: MOST_ROWS, batches: 1 }, move |batch| {
        let core = Arc::clone(&core);
        async move {
            let count = batch.len();
            match commit(&core, batch.into()).await {
                Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
                Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
            }
        }
    })
}

fn rows(commit: &Commit) -> usize {
    match commit {
        Commit::Pinned { stored, .. } => 1 + stored.len(),
        Commit::Whole { entries, .. } => 1 + 2 * entries.len(),
    }
}

async fn commit(core: &Core, batch: Arc<[Commit]>) -> Result<Vec<Committed>> {
    loop {
        // A sync that failed in another put may have been of these blocks too.
        core.latch.check()?;
        let outcomes = core.latch.watch(core.manifests.commit(Arc::clone(&batch)).await)?;
        if !outcomes.contains(&Committed::NotDurable) {
            return Ok(outcomes);
        }
        core.make_durable().await?;
    }
}

impl Core {
    /// Makes a store durable into which somebody put with `relaxed`. Synced before it is recorded, and again
    /// for what came between.
    pub(super) async fn make_durable(&self) -> Result<()> {
        self.latch.watch(self.blocks.sync_all().await)?;
        self.latch.watch(self.manifests.set_durability(Durability::Full).await)?;
        self.latch.watch(self.blocks.sync_all().await)
    }
}
