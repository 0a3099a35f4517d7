//! Removes unreferenced blocks, while puts may reference them again at any moment.
//!
//! 1. *Doom*, one synced transaction: candidates that are unreferenced under their row locks are no longer
//!    stored.
//! 2. *Remove*, under no transaction: no slow disk or server holds up the database. A file is set aside
//!    (`.doomed`), an object is deleted.
//! 3. *Settle*, one transaction: the rows that this collection still dooms are deleted.
//! 4. A file that was set aside and has a row without a doom moves back: a put references that block. The
//!    others are unlinked. This overlaps with the next batch, whose syncs leave the processor idle.
//!
//! Where files are set aside, no put waits: a pin removes the doom. A removal may be arbitrarily late, after
//! its session was lost and the block was put again: it moves back what it moved. If its process dies,
//! [`aside::tidy`] does steps 3 and 4.
//!
//! A deleted object does not come back. So its doom outlasts every request that was sent for it, and until it
//! ends, no put relies on the block or writes it. It ends early if every request was answered. The dooms of a
//! process that died are never ended early: its requests may still be in transit.
//!
//! The models are `tests/model/src/files` and `tests/model/src/objects.rs`; each rule has a mutant there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::aside;
use super::core::Core;
use crate::block::{Aside, Removed};
use crate::collection::Collection;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::manifest::BlockRow;
use crate::random;

/// A number of 63 bits that no other run has.
pub(super) fn collection() -> Result<Collection> {
    Ok(Collection(i64::from_le_bytes(random::bytes()?) >> 1 & i64::MAX))
}

/// Candidates that are removed together.
pub(super) struct Batch {
    pub(super) by: Collection,
    /// The number of the first removal.
    pub(super) first: u64,
    pub(super) candidates: Vec<(BlockRow, BlockKey)>,
    /// How long a doom lasts where nothing is set aside.
    pub(super) doom: Duration,
}

/// The outcome of a batch.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// Candidates that something refers to.
    pub(super) referenced: u64,
    /// Blocks that could not be removed.
    pub(super) failed: u64,
    /// Blocks whose removal got no answer.
    pub(super) unanswered: u64,
    /// Why the first of them could not.
    pub(super) failure: Option<Error>,
    /// Step 4, if files were set aside.
    pub(super) ending: Option<JoinHandle<Result<()>>>,
    /// Whether no further batch is to begin: a server does not answer, or the disk is full. A block that only
    /// could not be removed does not keep the rest from going.
    pub(super) ends_it: bool,
}

/// Removes those of the candidates that nothing refers to. An I/O error latches the store here, for the
/// caller may have gone.
pub(super) async fn remove(core: Arc<Core>, batch: Batch) -> Result<Outcome> {
    let removed = remove_batch(&core, batch).await;
    core.latch.watch(removed)
}

async fn remove_batch(core: &Arc<Core>, batch: Batch) -> Result<Outcome> {
    let Batch { by, first, candidates, doom } = batch;
    let asides: Vec<Aside> =
        (first..).zip(&candidates).map(|(number, (_, key))| Aside { by, number, key: *key }).collect();
    let aside = core.blocks.asides();
    let (doom, valid) = if aside.is_some() { (Duration::ZERO, doom) } else { (doom, doom / 2) };
    let removal = core.blocks.prepare_removal(&asides, valid).await?;
    let rows: Vec<BlockRow> = candidates.iter().map(|(row, _)| *row).collect();
    let doomed = match core.manifests.doom(by, &rows, doom).await {
        Ok(doomed) => doomed,
        Err(error) => {
            // It may have been committed all the same, and no removal was begun for it.
            let _ = end_doom(core, by, asides.iter().map(|aside| aside.key).zip(rows).collect()).await;
            return Err(error);
        }
    };
    let mut outcome = Outcome { referenced: doomed.referenced, ..Outcome::default() };
    if doomed.blocks.is_empty() {
        return Ok(outcome);
    }
    let rows: HashMap<BlockKey, BlockRow> = doomed.blocks.into_iter().map(|(row, key)| (key, row)).collect();
    let asides: Vec<Aside> = asides.into_iter().filter(|aside| rows.contains_key(&aside.key)).collect();
    let answers = Answers::of(&asides, removal.remove(&asides).await);
    let disk = answers.disk();
    let Answers { gone, absent, kept, unanswered, failures } = answers;
    outcome.failed = kept.len() as u64;
    outcome.unanswered = unanswered;
    if let Some(error) = &disk {
        // Before anything else can fail, and hide it.
        let _ = core.latch.watch::<()>(Err(error.clone()));
    }
    let ends_it = |error: &Error| matches!(error.code(), Code::BackendUnavailable | Code::NoSpace);
    outcome.ends_it = failures.iter().any(ends_it);
    if !kept.is_empty() {
        end_doom(core, by, kept.into_iter().map(|key| (key, rows[&key])).collect()).await?;
    }
    if !gone.is_empty() {
        let keys: Vec<BlockKey> = gone.iter().map(|aside| aside.key).collect();
        let settled = core.manifests.settle(by, &keys, &[]).await?;
        if aside.is_none() && settled.gone.len() < keys.len() {
            // A put has written the block into a pack meanwhile, and its name is free again.
            core.manifests.lift(by, keys.iter().map(|key| rows[key]).collect()).await?;
        }
        // Rows of blocks that were never written free nothing.
        let freed = settled.gone.iter().filter(|key| !absent.contains(*key));
        let sizes: Vec<u64> = freed.map(|key| key.size() as u64).collect();
        outcome.blocks = sizes.len() as u64;
        outcome.bytes = sizes.iter().sum();
        let core = Arc::clone(core);
        // Nobody cancels it, as nobody cancels this.
        outcome.ending = aside.map(|aside| {
            tokio::spawn(async move { core.latch.watch(aside::end(&*aside, &gone, &settled.undoomed).await) })
        });
    }
    outcome.failure = failures.into_iter().next();
    disk.map_or(Ok(outcome), Err)
}

/// The answers to removals.
#[derive(Default)]
pub(super) struct Answers {
    /// Files and objects that are under their names no more.
    pub(super) gone: Vec<Aside>,
    /// Those of them that were not there.
    pub(super) absent: HashSet<BlockKey>,
    /// Those that could not be removed.
    pub(super) kept: Vec<BlockKey>,
    /// Removals that got no answer, and may be carried out later.
    pub(super) unanswered: u64,
    /// Why each was not removed, in the order of the removals.
    pub(super) failures: Vec<Error>,
}

impl Answers {
    pub(super) fn of(asides: &[Aside], removed: Vec<Removed>) -> Answers {
        let mut answers = Answers::default();
        for (aside, removed) in asides.iter().zip(removed) {
            match removed {
                Removed::Gone => answers.gone.push(*aside),
                Removed::Absent => {
                    answers.absent.insert(aside.key);
                    answers.gone.push(*aside);
                }
                Removed::Kept(error) => {
                    answers.kept.push(aside.key);
                    answers.failures.push(error);
                }
                Removed::Unknown(error) => {
                    answers.unanswered += 1;
                    answers.failures.push(error);
                }
            }
        }
        answers
    }

    /// The failure of a disk, after which the store must not go on.
    pub(super) fn disk(&self) -> Option<Error> {
        self.failures.iter().find(|error| error.code() == Code::Io).cloned()
    }
}

/// Ends the doom of blocks that stay, and of which no removal is running. The rows of objects keep a doom
/// that has ended: if a put has written the block into a pack meanwhile, it says that there is an object.
async fn end_doom(core: &Core, by: Collection, kept: Vec<(BlockKey, BlockRow)>) -> Result<()> {
    let (keys, rows): (Vec<BlockKey>, Vec<BlockRow>) = kept.into_iter().unzip();
    if core.blocks.asides().is_some() || !core.manifests.has_packs() {
        core.manifests.lift(by, rows).await
    } else {
        core.manifests.end_names(by, &keys).await
    }
}
