//! The last step of every put: blobs become live, together, in one transaction and one sync.

use std::sync::Arc;

use crate::engine::core::{Commits, Core};
use crate::engine::group::{Group, Limits};
use crate::error::Result;
use crate::manifest::{Commit, Committed};

/// One transaction covers at most so many rows.
const MOST_ROWS: usize = 2048;

pub(crate) fn commits(core: &Arc<Core>) -> Commits {
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
        Commit::Pinned { marks, .. } => 1 + marks.len(),
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
