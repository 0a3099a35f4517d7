//! The collector: deletes unreferenced blocks, while any number of writers, readers and other collectors
//! work.
//!
//! 1. *Expire*: pending blobs of dead writers become deleted blobs.
//! 2. *Reap*: deleted blobs whose grace is over lose their names, then their references. A block that loses a
//!    reference becomes a candidate, so that the work is proportional to what was deleted, not to what is
//!    stored.
//! 3. Unreferenced blocks are removed (`remove`).
//!
//! It may be interrupted anywhere: each step leaves rows from which the next collection continues.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_recursion::async_recursion as boxed;
use tokio::task::JoinHandle;

use super::core::{Engine, Seen};
use super::lease::LONGEST_LEASE;
use super::names::{self, Removal};
use super::pack::upkeep;
use super::remove::{self, Batch};
use super::settings::Timing;
use super::{aside, pace, strays};
use crate::block::Packs;
use crate::blocking::{self, Task};
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::manifest::{BlobRow, BlockRow};
use crate::place::PackRow;
use crate::report::GcReport;

/// The rows of one transaction.
const ROWS: usize = 1_024;

/// Blocks that are removed together. For files, enough that the syncs of a batch do not matter, and few
/// enough that the database is soon free again. For objects, which are a request each, few enough for a put
/// that waits for the doom.
const FILES: usize = 2_048;
const OBJECTS: usize = 256;

/// The most blobs that a plan names.
const NAMED: usize = 10_000;

/// The limits of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Blobs that were deleted longer ago are collected; by default the configured value
    /// (`GRAVITON_GC_GRACE`).
    pub grace: Option<Duration>,
    /// Only report the work that there is.
    pub dry_run: bool,
    /// No step begins after this time.
    pub max_time: Option<Duration>,
    /// The most blocks that are deleted.
    pub max_blocks: Option<u64>,
    /// About the most bytes that are deleted.
    pub max_bytes: Option<u64>,
    /// The most blocks that are deleted in a second.
    pub blocks_per_second: Option<u32>,
}

/// Called after each step.
type Progress<'a> = &'a mut (dyn FnMut(&GcReport) -> ControlFlow<()> + Send);

/// Runs a collection.
#[boxed]
pub(super) async fn gc(
    engine: &Engine,
    options: &GcOptions,
    progress: &mut (dyn FnMut(&GcReport) -> ControlFlow<()> + Send),
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
        let mut done = run.all(&mut report, progress).await;
        if let Err(error) = &done
            && engine.core.makes_room(error).await
        {
            done = run.all(&mut report, progress).await;
        }
        // The caller gets no report on an error, so it gets the last state through `progress`, if it was
        // called before.
        if let Err(error) = &done
            && report.seconds > 0.0
        {
            report.failure = error.to_string();
            let _ = run.may_go_on(&mut report, progress);
        }
        engine.core.latch.watch(done)?;
        engine.core.keep_reserve().await;
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
    /// The removals so far.
    removals: u64,
    /// Blocks whose removal got no answer: they stay doomed.
    unanswered: u64,
    /// The reason why the first block that could not be removed was kept.
    failure: Option<Error>,
    /// The last step of the previous batch.
    ending: Option<JoinHandle<Result<()>>>,
    /// Candidates in packs whose files still exist.
    named: HashSet<BlockRow>,
}

impl<'a> Run<'a> {
    fn new(engine: &'a Engine, options: &'a GcOptions, grace: Duration, started: Instant) -> Result<Run<'a>> {
        let by = remove::collection()?;
        Ok(Run {
            engine,
            options,
            grace,
            started,
            by,
            removals: 0,
            unanswered: 0,
            failure: None,
            ending: None,
            named: HashSet::new(),
        })
    }

    async fn all(&mut self, report: &mut GcReport, progress: Progress<'_>) -> Result<()> {
        let done = self.steps(report, progress).await;
        // However the steps ended, none of their work is still running after this.
        done.and(self.end_batch().await)?;
        if report.complete {
            self.give_pages_back(report, progress).await;
            // Nothing of the collection depends on it.
            if let Ok(strays) = strays::sample(&self.engine.core).await {
                (report.unreferenced, report.unreferenced_bytes) = strays;
            }
        }
        Ok(())
    }

    /// The collection has done its work without this step: a lack of space or time here is not its failure.
    async fn give_pages_back(&self, report: &mut GcReport, progress: Progress<'_>) {
        let core = &self.engine.core;
        while core.latch.watch(core.manifests.give_pages_back().await).is_ok_and(|gave| gave) {
            if self.may_go_on(report, progress).is_break() {
                return;
            }
        }
    }

    async fn steps(&mut self, report: &mut GcReport, progress: Progress<'_>) -> Result<()> {
        let core = &self.engine.core;
        let manifests = &core.manifests;
        self.engine.owner.raise().await?;
        if let Some(disk) = core.blocks.disk() {
            report.leftovers += disk.remove_leftovers().await?;
        }
        report.leftovers += manifests.remove_leftovers().await?;
        report.kept_failed = 0;
        self.unanswered = 0;
        self.failure = None;
        self.named.clear();
        aside::tidy(&core.blocks, manifests).await?;
        let doom = self.engine.timing.doom.max(Timing::USUAL.doom);
        report.future_times += manifests.bring_times_back(LONGEST_LEASE, doom).await?;
        if self.remove_blobs(report, progress).await?.is_break() {
            return Ok(());
        }
        let mut after = BlockRow(0);
        while let Some(last) = self.remove_next(after, report).await? {
            after = last;
            if self.may_go_on(report, progress).is_break() {
                return Ok(());
            }
            if self.slow_down(report, progress).await.is_break() {
                return Ok(());
            }
        }
        if let Some(packs) = core.packs.as_ref().filter(|_| manifests.has_packs())
            && self.tend_packs(packs, report, progress).await?.is_break()
        {
            return Ok(());
        }
        report.kept_doomed = manifests.doomed_by_others(self.by).await? + self.unanswered;
        report.complete = report.kept_failed + self.unanswered == 0;
        match self.failure.take() {
            // Otherwise a collection that frees nothing would look like one that had nothing to free.
            Some(error) if report.blocks == 0 => Err(error),
            failure => {
                report.failure = failure.map(|error| error.to_string()).unwrap_or_default();
                Ok(())
            }
        }
    }

    /// Removes the rows of blobs that are over: those of puts whose process is gone, and deleted ones.
    async fn remove_blobs(
        &mut self,
        report: &mut GcReport,
        progress: Progress<'_>,
    ) -> Result<ControlFlow<()>> {
        let manifests = &self.engine.core.manifests;
        loop {
            let expired = manifests.expire(ROWS).await?;
            report.abandoned_puts += expired;
            if self.may_go_on(report, progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if expired < ROWS as u64 {
                break;
            }
        }
        while manifests.discard(self.grace, ROWS).await? == ROWS as u64 {
            if self.may_go_on(report, progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let mut after = BlobRow(0);
        loop {
            let blobs = manifests.discarded_blobs(after, ROWS).await?;
            let Some(last) = blobs.last().copied() else { return Ok(ControlFlow::Continue(())) };
            after = last;
            let mut rest = &blobs[..];
            while !rest.is_empty() {
                let gone = manifests.reap(rest, ROWS).await?;
                report.blobs += gone as u64;
                rest = &rest[gone..];
                if self.may_go_on(report, progress).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    /// Releases blocks in packs, seals packs of stores that died, gives space back, and drops packs.
    async fn tend_packs(
        &mut self,
        packs: &Arc<dyn Packs>,
        report: &mut GcReport,
        progress: Progress<'_>,
    ) -> Result<ControlFlow<()>> {
        let core = &self.engine.core;
        if self.remove_names(report, progress).await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let mut after = BlockRow(0);
        loop {
            self.engine.owner.check_generation().await?;
            let most = self.options.max_blocks.map_or(u64::MAX, |most| most.saturating_sub(report.blocks));
            let most = self.options.blocks_per_second.map_or(most, |rate| most.min(u64::from(rate)));
            let limit = most.clamp(1, ROWS as u64) as usize;
            let most = self.options.max_bytes.map(|most| most.saturating_sub(report.bytes));
            let candidates =
                within(core.manifests.packed_candidates(after, limit).await?, most, |bytes| *bytes);
            let Some((last, _)) = candidates.last().copied() else { break };
            after = last;
            let mut rows: Vec<BlockRow> = candidates.into_iter().map(|(row, _)| row).collect();
            rows.retain(|row| !self.named.contains(row));
            let released = core.manifests.release(&rows).await?;
            report.blocks += released.blocks;
            report.bytes += released.bytes;
            report.kept_referenced += released.referenced;
            if self.may_go_on(report, progress).is_break()
                || self.slow_down(report, progress).await.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        let mut after = PackRow(0);
        while let Some((pack, sealed)) = upkeep::seal_found(core, &**packs, after).await? {
            after = pack;
            if let Err(error) = sealed {
                // The other packs are not affected.
                report.kept_failed += 1;
                self.failure = self.failure.take().or(Some(error));
            }
            if self.may_go_on(report, progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        upkeep::cut_tails(core, &**packs).await?;
        while upkeep::punch(core, &**packs).await? {
            if self.may_go_on(report, progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for pack in upkeep::to_compact(core).await? {
            let Some(appender) = &core.appender else { break };
            let mut after = 0;
            while let Some(last) = upkeep::compact(core, packs, appender, pack.pack, after).await? {
                after = last;
                if self.may_go_on(report, progress).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        while core.manifests.note_empty_packs(ROWS).await? == ROWS as u64 {}
        while upkeep::drop_empty(core, &**packs, self.grace).await? {
            if self.may_go_on(report, progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Removes the files that a dead repack left between its transaction and their removal. Files that stay
    /// for now are noted: their blocks stay candidates. In S3 it removes the objects whose deletion got no
    /// answer, once the doom is over. The doom keeps such a block a candidate.
    async fn remove_names(
        &mut self,
        report: &mut GcReport,
        progress: Progress<'_>,
    ) -> Result<ControlFlow<()>> {
        let core = &self.engine.core;
        let are_set_aside = core.blocks.asides().is_some();
        let mut after = BlockRow(0);
        loop {
            let records = names::left(core, after, ROWS).await?;
            let Some(last) = records.last() else { return Ok(ControlFlow::Continue(())) };
            after = last.row;
            let all: Vec<BlockRow> = records.iter().map(|record| record.row).collect();
            let mut records = names::with_names(core, records).await?;
            // A block whose record is damaged keeps its object, for now.
            records.retain(|record| record.stored);
            if !are_set_aside {
                let there: HashSet<BlockRow> = records.iter().map(|record| record.row).collect();
                let free: Vec<BlockRow> = all.into_iter().filter(|row| !there.contains(row)).collect();
                core.manifests.lift_ended(&free).await?;
            }
            if records.is_empty() {
                continue;
            }
            self.engine.owner.check_generation().await?;
            let removal = Removal { by: self.by, first: self.removals, doom: self.engine.timing.doom };
            self.removals += records.len() as u64;
            let removed = names::remove_left(core, removal, &records).await?;
            if are_set_aside {
                self.named.extend(names::with_names(core, records).await?.iter().map(|record| record.row));
            }
            report.leftovers += removed.files;
            report.kept_failed += removed.failed;
            self.unanswered += removed.unanswered;
            self.failure = self.failure.take().or(removed.failure);
            if self.may_go_on(report, progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// Whether neither the caller nor a limit ends the run.
    fn may_go_on(&self, report: &mut GcReport, progress: Progress<'_>) -> ControlFlow<()> {
        report.seconds = self.started.elapsed().as_secs_f64();
        progress(report)?;
        let options = self.options;
        let over = options.max_time.is_some_and(|most| self.started.elapsed() >= most)
            || options.max_blocks.is_some_and(|most| report.blocks >= most)
            || options.max_bytes.is_some_and(|most| report.bytes >= most);
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits until more may be deleted, and checks meanwhile whether the run should end.
    async fn slow_down(&self, report: &mut GcReport, progress: Progress<'_>) -> ControlFlow<()> {
        let Some(rate) = self.options.blocks_per_second else { return ControlFlow::Continue(()) };
        let due = pace::due(self.started, report.blocks, u64::from(rate));
        while pace::sleep_a_step(due).await {
            self.may_go_on(report, progress)?;
        }
        ControlFlow::Continue(())
    }

    /// Waits for the end of the last batch.
    async fn end_batch(&mut self) -> Result<()> {
        match self.ending.take() {
            Some(ending) => blocking::joined(ending.await)?,
            None => Ok(()),
        }
    }

    /// Step 3 for the next candidates. Returns the last one, or nothing if there are no more.
    async fn remove_next(&mut self, after: BlockRow, report: &mut GcReport) -> Result<Option<BlockRow>> {
        let core = &self.engine.core;
        // A collection may take hours.
        self.engine.owner.check_generation().await?;
        let together = if core.blocks.asides().is_some() { FILES } else { OBJECTS };
        let most = self.options.max_blocks.map_or(together as u64, |most| most.saturating_sub(report.blocks));
        // A step deletes no more blocks than the rate allows in a second.
        let most = self.options.blocks_per_second.map_or(most, |rate| most.min(u64::from(rate)));
        let limit = most.clamp(1, together as u64) as usize;
        let most = self.options.max_bytes.map(|most| most.saturating_sub(report.bytes));
        let candidates =
            within(core.manifests.candidates(after, limit).await?, most, |key| key.size() as u64);
        let Some((last, _)) = candidates.last().copied() else { return Ok(None) };
        let batch = Batch { by: self.by, first: self.removals, candidates, doom: self.engine.timing.doom };
        self.removals += limit as u64;
        // A separate task, which nobody cancels: blocks that are set aside are settled at once, and not by
        // the next collection.
        let removing = tokio::spawn(remove::remove(Arc::clone(core), batch));
        let removed = blocking::joined(removing.await)??;
        report.kept_referenced += removed.referenced;
        report.blocks += removed.blocks;
        report.bytes += removed.bytes;
        report.kept_failed += removed.failed;
        self.unanswered += removed.unanswered;
        self.failure = self.failure.take().or(removed.failure);
        self.end_batch().await?;
        self.ending = removed.ending;
        Ok((!removed.ends_it).then_some(last))
    }
}

/// The first candidates whose sizes add up to at most this many bytes; at least one, so that a small limit
/// does not stop a collection.
fn within<T>(
    mut candidates: Vec<(BlockRow, T)>,
    most: Option<u64>,
    size: impl Fn(&T) -> u64,
) -> Vec<(BlockRow, T)> {
    candidates
        .truncate(pace::fitting(&candidates, most.unwrap_or(u64::MAX), |(_, candidate)| size(candidate)));
    candidates
}
