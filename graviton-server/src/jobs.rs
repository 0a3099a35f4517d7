//! Jobs: garbage collections, repacks and verifications, which outlast a request. One job of each kind runs
//! at a time. Clients can watch and cancel it.
//!
//! A server keeps its most recent jobs in memory, and no other server knows them. Jobs of several servers may
//! run at the same time, and a job may end at any moment.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graviton_core::{
    AsyncStore, BlockLayout, Code, Error, Finding, GcOptions, GcReport, RepackReport, VerifyEvent,
    VerifyOptions, VerifyReport,
};
use http::HeaderValue;
use http::header::LOCATION;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::reports::{Collected, Repacked, Verified};
use crate::timestamp::rfc3339;

/// The most jobs that a server remembers, and the most findings of each.
const REMEMBERED: usize = 20;
const MOST_FINDINGS: usize = 1_000;

/// The most blobs that all findings of a job name together: about 1 MB.
const MOST_NAMES: usize = 10_000;

/// The jobs of a server.
#[derive(Default)]
pub(crate) struct Jobs {
    last: AtomicU64,
    all: Mutex<VecDeque<Arc<Job>>>,
}

/// A garbage collection, repack or verification.
pub(crate) struct Job {
    id: u64,
    kind: Kind,
    /// Its options, to tell a different order from the same one.
    order: Order,
    started_at: i64,
    cancelled: AtomicBool,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Gc,
    Repack,
    Verify,
}

/// The options of a job.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    Gc(GcOptions),
    Repack(BlockLayout),
    Verify(VerifyOptions),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Running,
    Done,
    Cancelled,
    Failed,
}

struct State {
    stage: Stage,
    report: Report,
    findings: Vec<Found>,
    /// The number of blobs that the findings name.
    names: usize,
    findings_left_out: u64,
    /// The code of the error that ended it; the log has its text.
    error: Option<&'static str>,
}

/// A garbage collection, repack or verification
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct View {
    /// Its number, used in paths
    #[schema(minimum = 1)]
    id: u64,
    kind: Kind,
    state: Stage,
    /// When it started, in UTC
    #[schema(format = "date-time")]
    started_at: String,
    /// Its counts so far
    report: Report,
    /// The findings of a verification
    findings: Vec<Found>,
    /// The number of further findings, which are not listed
    #[schema(minimum = 0)]
    findings_left_out: u64,
    /// The code of the error, if it failed
    error: Option<&'static str>,
}

/// The progress of a job
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "of", rename_all = "kebab-case")]
pub(crate) enum Report {
    Gc(Collected),
    Repack(Repacked),
    Verify(Verified),
}

/// A finding of a verification
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Found {
    /// `missing`, `corrupt`, `manifest`, `database`, `unreferenced`, `pack` or `record`
    kind: &'static str,
    /// The block, blob or pack concerned; null for the database
    subject: Option<String>,
    /// The fault
    why: Option<String>,
    /// The blobs affected, at most 1,000; at most 10,000 in all findings of a job
    blobs: Vec<String>,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Found {
        let none = Found { kind: "database", subject: None, why: None, blobs: Vec::new() };
        match finding {
            Finding::Block { key, damage, blobs } => Found {
                kind: if damage == graviton_core::Damage::Missing { "missing" } else { "corrupt" },
                subject: Some(key.to_string()),
                why: Some(damage.to_string()),
                blobs: blobs.iter().map(ToString::to_string).collect(),
            },
            Finding::Manifest { id, why } => {
                Found { kind: "manifest", subject: Some(id.to_string()), why: Some(why), ..none }
            }
            Finding::Database(why) => Found { why: Some(why), ..none },
            Finding::Unreferenced(listed) => {
                Found { kind: "unreferenced", subject: Some(listed.key.to_string()), ..none }
            }
            Finding::Pack { name, .. } => Found { kind: "pack", subject: Some(name.to_string()), ..none },
            Finding::Record { pack, offset, key, why } => {
                let of = key.map(|key| format!(", of block {key}")).unwrap_or_default();
                let why = Some(format!("at {offset}{of}: {why}"));
                Found { kind: "record", subject: Some(pack.to_string()), why, ..none }
            }
            // A later engine may have other kinds of findings.
            _ => Found { why: Some("unknown finding".to_owned()), ..none },
        }
    }
}

impl Jobs {
    /// Starts a garbage collection, or returns the running one and `false`. A running one with other options
    /// is a conflict: a client that asked for a dry run must not watch a collection.
    pub(crate) fn collect(
        &self,
        store: &AsyncStore,
        options: GcOptions,
    ) -> Result<(Arc<Job>, bool), Problem> {
        let mut begun = GcReport::default();
        begun.dry_run = options.dry_run;
        let store = store.clone();
        let order = Order::Gc(options.clone());
        self.begin(Kind::Gc, order, Report::Gc(Collected(begun)), move |job| async move {
            let progress = |report: &GcReport| job.note(Report::Gc(Collected(report.clone())));
            let report = store.gc(&options, progress).await?;
            metrics::counter!("graviton_gc_runs_total").increment(1);
            if !report.dry_run {
                metrics::counter!("graviton_gc_blocks_total").increment(report.blocks);
                metrics::counter!("graviton_gc_bytes_total").increment(report.bytes);
            }
            Ok(Report::Gc(Collected(report)))
        })
    }

    /// Starts a repack, or returns the running one and `false`. A running one into the other layout is a
    /// conflict.
    pub(crate) fn repack(&self, store: &AsyncStore, to: BlockLayout) -> Result<(Arc<Job>, bool), Problem> {
        let store = store.clone();
        let begun = Report::Repack(Repacked(RepackReport::default()));
        self.begin(Kind::Repack, Order::Repack(to), begun, move |job| async move {
            let progress = |report: &RepackReport| job.note(Report::Repack(Repacked(report.clone())));
            let report = store.repack(to, progress).await?;
            metrics::counter!("graviton_repack_runs_total").increment(1);
            metrics::counter!("graviton_repack_blocks_total").increment(report.blocks);
            metrics::counter!("graviton_repack_damage_total").increment(report.damaged);
            Ok(Report::Repack(Repacked(report)))
        })
    }

    /// Starts a verification, or returns the running one and `false`. A running one with other options is a
    /// conflict.
    pub(crate) fn verify(
        &self,
        store: &AsyncStore,
        options: VerifyOptions,
    ) -> Result<(Arc<Job>, bool), Problem> {
        let store = store.clone();
        let (order, report) =
            (Order::Verify(options.clone()), Report::Verify(Verified(VerifyReport::default())));
        self.begin(Kind::Verify, order, report, move |job| async move {
            let tell = |event: VerifyEvent<'_>| match event {
                VerifyEvent::Found(finding) => job.found(finding),
                VerifyEvent::Progress(report) => job.note(Report::Verify(Verified(report.clone()))),
            };
            let report = store.verify(&options, tell).await?;
            metrics::counter!("graviton_verify_runs_total").increment(1);
            metrics::counter!("graviton_verify_blocks_total").increment(report.blocks);
            metrics::counter!("graviton_verify_damage_total").increment(
                report.missing + report.corrupt + report.broken_manifests + report.database_problems,
            );
            Ok(Report::Verify(Verified(report)))
        })
    }

    fn begin<W: Future<Output = Result<Report, Error>> + Send + 'static>(
        &self,
        kind: Kind,
        order: Order,
        report: Report,
        work: impl FnOnce(Arc<Job>) -> W,
    ) -> Result<(Arc<Job>, bool), Problem> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = all.iter().find(|job| job.kind == kind && job.is_running()) {
            return if running.order == order {
                Ok((Arc::clone(running), false))
            } else {
                Err(running.conflict())
            };
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            stage: Stage::Running,
            report,
            findings: Vec::new(),
            names: 0,
            findings_left_out: 0,
            error: None,
        };
        let job = Arc::new(Job {
            id: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            kind,
            order,
            started_at: since.as_millis() as i64,
            cancelled: AtomicBool::new(false),
            state: Mutex::new(state),
            ended: watch::Sender::new(false),
        });
        all.push_back(Arc::clone(&job));
        if all.len() > REMEMBERED
            && let Some(oldest) = all.iter().position(|job| !job.is_running())
        {
            all.remove(oldest);
        }
        drop(all);
        let running = work(Arc::clone(&job));
        let this = Arc::clone(&job);
        tokio::spawn(async move { this.end(tokio::spawn(running).await) });
        Ok((job, true))
    }

    /// The job of this number.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Job>> {
        self.all().into_iter().find(|job| job.id == id)
    }

    /// The remembered jobs, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Asks all jobs to end.
    pub(crate) fn cancel(&self) {
        self.all().iter().for_each(|job| job.cancel());
    }

    /// Cancels all jobs and waits for their end.
    pub(crate) async fn end(&self) {
        self.cancel();
        for job in self.all() {
            job.wait(Duration::MAX).await;
        }
    }
}

impl Job {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal of another order of the same kind.
    fn conflict(&self) -> Problem {
        let path = self.path();
        let why = format!("a job of this kind runs with other options; wait for {path}, or cancel it");
        let problem = Problem::new(Code::Conflict, why);
        match HeaderValue::from_str(&path) {
            Ok(path) => problem.with_header(LOCATION, path),
            Err(_) => problem,
        }
    }

    /// The path where clients watch it.
    pub(crate) fn path(&self) -> String {
        format!("/api/admin/jobs/{}", self.id)
    }

    fn is_running(&self) -> bool {
        self.state().stage == Stage::Running
    }

    /// Asks the job to end.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits until the job has ended, for this long at most.
    pub(crate) async fn wait(&self, most: Duration) {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(|ended| *ended);
        let _ = tokio::time::timeout(most.min(Duration::from_secs(86_400)), ended).await;
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn note(&self, report: Report) -> ControlFlow<()> {
        self.state().report = report;
        self.flow()
    }

    fn found(&self, finding: Finding) -> ControlFlow<()> {
        let mut found = Found::from(finding);
        tracing::warn!(job = self.id, ?found, "verification finding");
        let mut state = self.state();
        if state.findings.len() < MOST_FINDINGS {
            found.blobs.truncate(MOST_NAMES.saturating_sub(state.names));
            state.names += found.blobs.len();
            state.findings.push(found);
        } else {
            state.findings_left_out += 1;
        }
        drop(state);
        self.flow()
    }

    fn end(&self, result: Result<Result<Report, Error>, tokio::task::JoinError>) {
        let mut state = self.state();
        match result {
            Ok(Ok(report)) => {
                state.report = report;
                state.stage = if self.flow().is_break() { Stage::Cancelled } else { Stage::Done };
                tracing::info!(job = self.id, kind = ?self.kind, state = ?state.stage, report = ?state.report, "job ended");
            }
            Ok(Err(error)) => {
                state.stage = Stage::Failed;
                state.error = Some(error.code().name());
                tracing::error!(job = self.id, kind = ?self.kind, code = %error.code(), %error, "job failed");
            }
            Err(error) => {
                state.stage = Stage::Failed;
                state.error = Some(Code::Internal.name());
                tracing::error!(job = self.id, kind = ?self.kind, %error, "job failed");
            }
        }
        drop(state);
        self.ended.send_replace(true);
    }

    /// The job as clients see it.
    pub(crate) fn view(&self) -> View {
        let state = self.state();
        View {
            id: self.id,
            kind: self.kind,
            state: state.stage,
            started_at: rfc3339(self.started_at),
            report: state.report.clone(),
            findings: state.findings.clone(),
            findings_left_out: state.findings_left_out,
            error: state.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graviton_core::{Algo, BlobId, BlockKey, Damage};

    #[tokio::test]
    async fn what_a_job_remembers_is_bounded() {
        let jobs = Jobs::default();
        let order = Order::Verify(VerifyOptions::default());
        let report = Report::Verify(Verified(VerifyReport::default()));
        let begun = jobs.begin(Kind::Verify, order, report, |job| async move {
            let blobs = vec![BlobId::of(Algo::Blake3, b"hurt"); 1_000];
            for number in 0..1_500_u32 {
                let key = BlockKey::of(Algo::Blake3, &number.to_le_bytes())?;
                let _ = job.found(Finding::Block { key, damage: Damage::Missing, blobs: blobs.clone() });
            }
            Ok(Report::Verify(Verified(VerifyReport::default())))
        });
        let (job, _) = begun.unwrap();
        job.wait(Duration::MAX).await;
        let view = job.view();
        assert_eq!((view.findings.len(), view.findings_left_out), (MOST_FINDINGS, 500));
        assert_eq!(view.findings.iter().map(|found| found.blobs.len()).sum::<usize>(), MOST_NAMES);
        for _ in 0..2 * REMEMBERED {
            let (order, report) =
                (Order::Gc(GcOptions::default()), Report::Gc(Collected(GcReport::default())));
            let begun = jobs
                .begin(Kind::Gc, order, report, |_| async { Ok(Report::Gc(Collected(GcReport::default()))) });
            begun.unwrap().0.wait(Duration::MAX).await;
        }
        assert_eq!(jobs.all().len(), REMEMBERED);
    }
}
