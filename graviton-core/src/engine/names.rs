//! Removes files and objects of blocks that are in packs: those that a repack has just moved, and those that
//! an earlier one left.
//!
//! 1. *Prepare*: each deletion of an object is signed, for half as long as the doom lasts.
//! 2. *Doom* the names, one synced transaction.
//! 3. *Remove*, under no transaction, as in a collection (`remove`). A file is set aside.
//! 4. *Settle*. A file that was set aside is unlinked if the row still says that the block is in a pack and
//!    no running put references it; otherwise it moves back. The doom is lifted.
//!
//! A deleted object does not come back, so nobody writes its name or relies on it until the doom is over. The
//! doom is lifted once the object is gone. After a deletion that was refused the doom is over, but stays as a
//! mark. After one without an answer it stays until its time. A later collection looks for these objects
//! ([`left`]). The row points into the pack all the time, so that neither reads nor puts wait.
//!
//! The models are `tests/model/src/repack` and, of objects, `tests/model/src/moves`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use super::core::Core;
use super::remove::Answers;
use super::{aside, fetch, pace};
use crate::block::Aside;
use crate::blocking;
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::key::BlockKey;
use crate::manifest::{BlockRecord, BlockRow};

/// Bytes of blocks that are moved or compared together; one block at least.
pub(super) const TOGETHER: u64 = 8 << 20;

/// Requests for lengths of objects that run at once.
const LOOKS: usize = 32;

/// Names that are removed together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal {
    /// The run, in the dooms.
    pub(super) by: Collection,
    /// The number of the first removal in the run.
    pub(super) first: u64,
    /// How long a doom lasts where nothing is set aside.
    pub(super) doom: Duration,
}

/// The outcome of the removal of names.
#[derive(Default)]
pub(super) struct Unnamed {
    /// Files and objects that were there and are gone.
    pub(super) files: u64,
    /// Files and objects that could not be removed. Their names stay doomed, for the next collection.
    pub(super) failed: u64,
    /// Deletions that got no answer. They may be carried out later.
    pub(super) unanswered: u64,
    /// Files and objects that stay for now: running puts use their blocks, or a deletion may still be carried
    /// out.
    pub(super) in_use: u64,
    /// Why the first of them could not be removed.
    pub(super) failure: Option<Error>,
}

/// Removes names of blocks that are in packs, once `doom` has doomed them, durably. It is given the time that
/// the doom lasts, and answers which of the blocks it has doomed.
pub(super) async fn remove<D: Future<Output = Result<Vec<BlockKey>>>>(
    core: &Arc<Core>,
    removal: Removal,
    keys: &[BlockKey],
    doom: impl FnOnce(Duration) -> D,
) -> Result<Unnamed> {
    let Removal { by, first, doom: lasts } = removal;
    let aside = core.blocks.asides();
    let (lasts, valid) = if aside.is_some() { (Duration::ZERO, lasts) } else { (lasts, lasts / 2) };
    let asides: Vec<Aside> =
        (first..).zip(keys).map(|(number, key)| Aside { by, number, key: *key }).collect();
    let prepared = core.blocks.prepare_removal(&asides, valid).await?;
    // After an error the dooms last for their time: one of an earlier step may be among them.
    let doomed: HashSet<BlockKey> = doom(lasts).await?.into_iter().collect();
    let asides: Vec<Aside> = asides.into_iter().filter(|aside| doomed.contains(&aside.key)).collect();
    let mut outcome = Unnamed::default();
    if asides.is_empty() {
        return Ok(outcome);
    }
    let answers = Answers::of(&asides, prepared.remove(&asides).await);
    if let Some(error) = answers.disk() {
        return Err(error);
    }
    let Answers { gone, absent, kept, unanswered, failures } = answers;
    outcome.files = (gone.len() - absent.len()) as u64;
    outcome.failed = kept.len() as u64;
    outcome.unanswered = unanswered;
    outcome.failure = failures.into_iter().next();
    if !gone.is_empty() {
        let keys: Vec<BlockKey> = gone.iter().map(|aside| aside.key).collect();
        let back = core.manifests.settle_names(by, &keys).await?;
        if let Some(aside) = &aside {
            outcome.files -= back.len().min(outcome.files as usize) as u64;
            aside::end(&**aside, &gone, &back).await?;
        }
    }
    if aside.is_none() && !kept.is_empty() {
        core.manifests.end_names(by, &kept).await?;
    }
    Ok(outcome)
}

/// Removes the files and objects of blocks whose rows say that they are in packs, if their records are right.
/// Otherwise the file or object may be the last good copy.
pub(super) async fn remove_left(
    core: &Arc<Core>,
    removal: Removal,
    records: &[BlockRecord],
) -> Result<Unnamed> {
    let mut right: Vec<(BlockRow, BlockKey)> = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let (part, later) = rest.split_at(together(rest));
        rest = later;
        let fetched = fetch::fetch_several(core, part).await?;
        right.extend(fetched.blocks.iter().map(|(record, _)| (record.row, record.key)));
    }
    let core = Arc::clone(core);
    // A task of its own, which nobody cancels.
    let removing = tokio::spawn(async move {
        let (rows, keys): (Vec<BlockRow>, Vec<BlockKey>) = right.into_iter().unzip();
        let mut doomed = 0;
        let doom = async |lasts| {
            let keys = core.manifests.doom_names(removal.by, &rows, lasts).await?;
            doomed = keys.len();
            Ok(keys)
        };
        let removed = remove(&core, removal, &keys, doom).await;
        let mut removed = core.latch.watch(removed)?;
        removed.in_use = (keys.len() - doomed) as u64;
        Ok(removed)
    });
    blocking::joined(removing.await)?
}

/// How many of the blocks are read together.
pub(super) fn together(records: &[BlockRecord]) -> usize {
    pace::fitting(records, TOGETHER, |record| record.key.size() as u64)
}

/// The blocks that have a file or an object under their names.
pub(super) async fn with_names(core: &Core, mut records: Vec<BlockRecord>) -> Result<Vec<BlockRecord>> {
    let keys: Vec<BlockKey> = records.iter().map(|record| record.key).collect();
    let there: Vec<bool> = if core.blocks.is_local() {
        core.blocks.seems_intact(&keys).await?
    } else {
        let looking = futures_util::stream::iter(keys).map(|key| {
            let blocks = Arc::clone(&core.blocks);
            async move { Ok::<_, Error>(blocks.length(&key).await?.is_some()) }
        });
        looking.buffered(LOOKS).try_collect().await?
    };
    let mut there = there.into_iter();
    records.retain(|_| there.next().unwrap_or_default());
    Ok(records)
}

/// Up to `limit` blocks in packs behind `after` under whose names there may be a file or an object that a
/// repack or a collection has left.
pub(super) async fn left(core: &Core, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
    if core.blocks.asides().is_some() {
        core.manifests.candidates_in_packs(after, limit).await
    } else {
        core.manifests.left_names(after, limit).await
    }
}
