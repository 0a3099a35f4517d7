//! The last step of every put: blobs become live, together, in one transaction and one sync.

use std::sync::Arc;

use crate::engine::core::{Commits, Core};
use crate::engine::group::{Group, Limits};
use crate::error::{Code, Result};
use crate::manifest::{Commit, Committed, HeldPack};

/// One transaction covers at most so many rows.
const MOST_ROWS: usize = 4_096;

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

/// The packs of blobs that were refused. If they are not held any more, later blocks are not to go there.
fn lost_packs(batch: &[Commit], outcomes: &[Committed]) -> Vec<HeldPack> {
    let refused = batch
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| matches!(outcome, Committed::Expired | Committed::NotInPlace));
    HeldPack::each_once(refused.flat_map(|(commit, _)| commit.packs()))
}

async fn commit(core: &Core, batch: Arc<[Commit]>) -> Result<Vec<Committed>> {
    loop {
        // A sync that failed in another put may have been of these blocks too.
        core.latch.check()?;
        let outcomes = core.latch.watch(core.manifests.commit(Arc::clone(&batch)).await);
        if let (Err(error), Some(appender)) = (&outcomes, &core.appender)
            && error.code() == Code::NoSpace
        {
            // The database may need what is reserved for records to come.
            appender.make_room().await;
        }
        let outcomes = outcomes?;
        core.forget_packs(&lost_packs(&batch, &outcomes)).await;
        if !outcomes.contains(&Committed::NotDurable) {
            return Ok(outcomes);
        }
        core.make_durable().await?;
    }
}
