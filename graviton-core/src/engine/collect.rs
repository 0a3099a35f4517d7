//! The collector: deletes what nothing refers to, beside any number of writers, readers and other collectors.
//!
//! 1. *Expire*: puts of writers that are gone become deleted blobs.
//! 2. *Reap*: deleted blobs whose grace is over lose their names, then their references. A block that loses a
//!    reference becomes a candidate, so that the work is proportional to what was deleted, not to what is
//!    stored.
//! 3. *Doom*: candidates that nothing refers to, looked up under their row locks. From here on nobody relies
//!    on them.
//! 4. *Sweep*: under the locks once more, their rows and bytes are deleted.
//!
//! It may be interrupted anywhere: each step leaves rows that the next collection goes on with. The row lock
//! alone is not enough: a collector that loses its database session loses the lock and does not know it. The
//! doom covers that. It outlasts every deletion that was begun for it (`Timing`), and until it is over nobody
//! stores the block anew.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::core::{Core, Engine, Seen};
use super::pace;
use crate::block::{Deadline, Deleted};
use crate::blocking::{self, Task};
use crate::collection::Collection;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::manifest::{BlobRow, BlockRow, DeleteBytes};
use crate::random;
use crate::report::GcReport;

/// Rows that one transaction is about, and blocks that are deleted together.
const ROWS: usize = 1_024;
const BLOCKS: usize = 256;

/// Blobs that a plan names.
const NAMED: usize = 10_000;

/// The limits of a collection.
#[derive(Debug, Clone, Default)]
pub struct GcOptions {
    /// Blobs that were deleted longer ago go; by default as the store is configured (`GRAVITON_GC_GRACE`).
    pub grace: Option<Duration>,
    /// Only find out what there is to do.
    pub dry_run: bool,
    /// No step begins after so long.
    pub max_time: Option<Duration>,
    /// The most blocks that are deleted.
    pub max_blocks: Option<u64>,
    /// About the most bytes that are deleted.
    pub max_bytes: Option<u64>,
    /// The most blocks that are deleted in a second.
    pub blocks_per_second: Option<u32>,
}

/// Runs a collection.
pub(super) async fn gc(
    engine: &Engine,
    options: &GcOptions,
    mut progress: impl FnMut(&GcReport) -> ControlFlow<()> + Send,
) -> Result<GcReport> {
    let started = Instant::now();
    let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
    let grace = options.grace.unwrap_or(engine.grace);
    if options.dry_run {
        let manifests = Arc::clone(&engine.core.manifests);
        let plan = Task::spawn(async move { manifests.plan_garbage(grace, NAMED).await }).join().await??;
        report.blobs = plan.blobs;
        report.named = plan.named;
        report.blocks = plan.blocks;
        report.bytes = plan.bytes;
        report.complete = true;
    } else {
        engine.core.check_writable()?;
        engine.check_identity(engine.core.manifests.store().await?, Seen::NotYet).await?;
        let mut run = Run::new(engine, options, grace, started)?;
        let mut done = run.all(&mut report, &mut progress).await;
        if let Err(error) = &done
            && engine.core.makes_room(error).await
        {
            done = run.all(&mut report, &mut progress).await;
        }
        engine.core.latch.watch(done)?;
        let _ = engine.core.blocks.keep_reserve().await;
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// One collection.
struct Run<'a> {
    engine: &'a Engine,
    options: &'a GcOptions,
    grace: Duration,
    started: Instant,
    by: Collection,
    /// Held, where there is such a thing, until all that was begun has ended.
    lock: Arc<Option<crate::block::CollectionLock>>,
}

impl<'a> Run<'a> {
    fn new(engine: &'a Engine, options: &'a GcOptions, grace: Duration, started: Instant) -> Result<Run<'a>> {
        let core = &engine.core;
        let by = Collection(i64::from_le_bytes(random::bytes()?) >> 1 & i64::MAX);
        let lock = match core.is_on_one_host().then(|| core.blocks.lock_collection(by)) {
            // Then its dooms run out, should it die.
            Some(Err(error)) if error.code() == Code::NoSpace => None,
            Some(lock) => lock?,
            None => None,
        };
        Ok(Run { engine, options, grace, started, by, lock: Arc::new(lock) })
    }

    async fn all(
        &mut self,
        report: &mut GcReport,
        progress: &mut (impl FnMut(&GcReport) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let core = &self.engine.core;
        let manifests = &core.manifests;
        report.leftovers += core.blocks.remove_leftovers().await?;
        loop {
            let expired = manifests.expire(ROWS).await?;
            report.abandoned_puts += expired;
            if self.may_go_on(report, progress).is_break() {
                return Ok(());
            }
            if expired < ROWS as u64 {
                break;
            }
        }
        while manifests.take_names(self.grace, ROWS).await? == ROWS as u64 {
            if self.may_go_on(report, progress).is_break() {
                return Ok(());
            }
        }
        let mut after = BlobRow(0);
        loop {
            let blobs = manifests.nameless(after, ROWS).await?;
            let Some(last) = blobs.last().copied() else { break };
            after = last;
            for blob in blobs {
                while !manifests.reap(blob, ROWS).await? {
                    if self.may_go_on(report, progress).is_break() {
                        return Ok(());
                    }
                }
                report.blobs += 1;
                if self.may_go_on(report, progress).is_break() {
                    return Ok(());
                }
            }
        }
        for (by, _) in manifests.dooming().await? {
            if core.is_collection_gone(by) {
                manifests.lift_all(by).await?;
            }
        }
        let mut after = BlockRow(0);
        while let Some(last) = self.doom_and_sweep(after, report).await? {
            after = last;
            if self.may_go_on(report, progress).is_break() {
                return Ok(());
            }
            if core.manifests.is_local() && !core.blocks.is_local() {
                // Each sweep holds SQLite's only lock for as long as the server of the blocks takes; other
                // processes look for it every tenth of a second.
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            if self.slow_down(report, progress).await.is_break() {
                return Ok(());
            }
        }
        if report.kept_failed == 0 {
            // Of a doom whose answer was lost nobody knew.
            manifests.lift_all(self.by).await?;
        }
        let others = manifests.dooming().await?;
        report.kept_doomed = others.iter().filter(|(by, _)| *by != self.by).map(|(_, count)| count).sum();
        report.complete = report.kept_failed == 0;
        Ok(())
    }

    /// Whether neither the caller nor a limit ends the run.
    fn may_go_on(
        &self,
        report: &mut GcReport,
        progress: &mut (impl FnMut(&GcReport) -> ControlFlow<()> + Send),
    ) -> ControlFlow<()> {
        report.seconds = self.started.elapsed().as_secs_f64();
        progress(report)?;
        let options = self.options;
        let over = options.max_time.is_some_and(|most| self.started.elapsed() >= most)
            || options.max_blocks.is_some_and(|most| report.blocks >= most)
            || options.max_bytes.is_some_and(|most| report.bytes >= most);
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits until more may be deleted, and looks meanwhile whether the run is to end.
    async fn slow_down(
        &self,
        report: &mut GcReport,
        progress: &mut (impl FnMut(&GcReport) -> ControlFlow<()> + Send),
    ) -> ControlFlow<()> {
        let Some(rate) = self.options.blocks_per_second else { return ControlFlow::Continue(()) };
        let due = pace::due(self.started, report.blocks, u64::from(rate));
        while pace::sleep_a_step(due).await {
            self.may_go_on(report, progress)?;
        }
        ControlFlow::Continue(())
    }

    /// Steps 3 and 4 for the next candidates; where they end, or nothing if there are no more.
    async fn doom_and_sweep(&self, after: BlockRow, report: &mut GcReport) -> Result<Option<BlockRow>> {
        let most = self.options.max_blocks.map_or(BLOCKS as u64, |most| most.saturating_sub(report.blocks));
        // A step deletes no more blocks than the rate allows in a second.
        let most = self.options.blocks_per_second.map_or(most, |rate| most.min(u64::from(rate)));
        let limit = most.clamp(1, BLOCKS as u64) as usize;
        let core = &self.engine.core;
        let timing = self.engine.timing;
        // Before the doom is sent: by the database's clock it begins no earlier.
        let until = Deadline::after(timing.last_deletion).earlier_by(core.blocks.deletion_takes());
        let doomed = core.manifests.doom(self.by, after, limit, timing.doom).await?;
        report.kept_referenced += doomed.referenced;
        if !doomed.blocks.is_empty() {
            // A task of its own, which nobody cancels: until the last deletion has returned, the locks are
            // held.
            let (core, by, lock) = (Arc::clone(core), self.by, Arc::clone(&self.lock));
            let sweeping = tokio::spawn(async move {
                let swept = sweep(&core, by, doomed.blocks, until).await;
                drop(lock);
                swept
            });
            let swept = blocking::joined(sweeping.await)??;
            report.blocks += swept.blocks;
            report.bytes += swept.bytes;
            report.kept_failed += swept.failed;
        }
        Ok(doomed.last)
    }
}

/// The outcome of a batch.
#[derive(Default)]
struct Swept {
    blocks: u64,
    bytes: u64,
    failed: u64,
}

async fn sweep(
    core: &Arc<Core>,
    by: Collection,
    doomed: Vec<(BlockRow, BlockKey)>,
    until: Deadline,
) -> Result<Swept> {
    // Blocks whose deletion was begun and is not known to have ended.
    let unknown: Arc<Mutex<Vec<BlockKey>>> = Arc::default();
    let failure: Arc<Mutex<Option<Error>>> = Arc::default();
    let (blocks, begun, why) = (Arc::clone(&core.blocks), Arc::clone(&unknown), Arc::clone(&failure));
    let delete: Arc<DeleteBytes> = Arc::new(move |keys| {
        let (blocks, begun, why) = (Arc::clone(&blocks), Arc::clone(&begun), Arc::clone(&why));
        Box::pin(async move {
            {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                // An earlier run of this step did not hear what became of its deletions. Never again then.
                if !begun.is_empty() {
                    return false;
                }
                begun.clone_from(&keys);
            }
            let deleted = blocks.delete(&keys, until).await;
            let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.clear();
            for (key, deleted) in keys.iter().zip(&deleted) {
                if let Deleted::Unknown(error) = deleted {
                    begun.push(*key);
                    *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                }
            }
            deleted.iter().all(|deleted| matches!(deleted, Deleted::Gone))
        })
    });
    let rows = doomed.iter().map(|(row, _)| *row).collect();
    let swept = core.manifests.sweep(by, rows, delete).await;
    let gone = match &swept {
        Ok(gone) => gone.as_slice(),
        Err(_) => &[],
    };
    if gone.len() < doomed.len() {
        // A block whose deletion is not under way any more loses its doom; the others keep it until it runs
        // out.
        let unknown = std::mem::take(&mut *unknown.lock().unwrap_or_else(PoisonError::into_inner));
        let given_up = doomed.iter().filter(|(_, key)| !gone.contains(key) && !unknown.contains(key));
        let lifted = core.manifests.lift(by, given_up.map(|(row, _)| *row).collect()).await;
        if swept.is_ok() {
            lifted?;
        }
    }
    let gone = swept?;
    let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    // A disk that fails ends it; what only could not be deleted now must not keep the rest from going.
    if let Some(error) = failure.filter(|error| error.code() == Code::Io) {
        core.latch.watch(Err(error))?;
    }
    Ok(Swept {
        blocks: gone.len() as u64,
        bytes: gone.iter().map(|key| key.size() as u64).sum(),
        failed: (doomed.len() - gone.len()) as u64,
    })
}
