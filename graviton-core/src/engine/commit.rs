//! The last step of every put: blobs become live, together, in one transaction and one sync.

use std::sync::Arc;

use super::Core;
use super::group::{Group, Limits};
use super::small::SmallBlob;
use crate::error::Result;
use crate::key::BlobId;
use crate::manifest::{BlobRow, BlockRow, Commit, Committed, Durability, InPlace};

/// A blob that is ready to be committed. Its blocks are durable.
pub(super) enum Ready {
    Pinned { row: BlobRow, id: BlobId, block_count: u64, stored: Vec<BlockRow> },
    Whole { blob: Arc<SmallBlob>, in_place: Box<InPlace> },
}

/// One transaction covers at most so many rows.
const MOST_ROWS: usize = 2048;

pub(super) type Commits = Group<Ready, Result<Committed>>;

pub(super) fn commits(core: &Arc<Core>) -> Commits {
    let core = Arc::clone(core);
    Group::new(Ready::rows, Limits { weight: MOST_ROWS, batches: 1 }, move |batch| {
        let core = Arc::clone(&core);
        async move {
            match commit(&core, &batch).await {
                Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
                Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
            }
        }
    })
}

impl Ready {
    fn rows(&self) -> usize {
        match self {
            Ready::Pinned { stored, .. } => 1 + stored.len(),
            Ready::Whole { blob, .. } => 1 + 2 * blob.entries.len(),
        }
    }
}

async fn commit(core: &Core, batch: &[Ready]) -> Result<Vec<Committed>> {
    let commits: Vec<Commit<'_>> = batch
        .iter()
        .map(|ready| match ready {
            Ready::Pinned { row, id, block_count, stored } => {
                Commit::Pinned { row: *row, id: *id, block_count: *block_count, stored: stored.clone() }
            }
            Ready::Whole { blob, in_place } => Commit::Whole {
                id: blob.id,
                chunker: &core.chunker_text,
                entries: &blob.entries,
                in_place: in_place.as_ref(),
            },
        })
        .collect();
    loop {
        let outcomes = core.latch.watch(core.manifests.commit(&commits).await)?;
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
