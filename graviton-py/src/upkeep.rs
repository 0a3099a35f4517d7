//! What keeps a store healthy: collection, verification, repair, copies. Reports leave as dictionaries, which the
//! package's classes take as keyword arguments.

use std::ops::ControlFlow;
use std::time::Duration;

use graviton_core::{
    BlobId, Code, CopyOptions, Error, Finding, GcOptions, Result, StoreStats, VerifyEvent, VerifyOptions,
};
use pyo3::prelude::*;

use crate::call::{Interrupts, call};
use crate::store::Store;
use crate::text::Text;

/// What a store holds.
#[derive(IntoPyObject)]
pub(crate) struct Stats {
    blobs: u64,
    logical_bytes: u64,
    blocks: u64,
    stored_bytes: u64,
    dead_blobs: u64,
    dead_bytes: u64,
    reclaimable_bytes: u64,
}

impl From<StoreStats> for Stats {
    fn from(stats: StoreStats) -> Stats {
        Stats {
            blobs: stats.blobs,
            logical_bytes: stats.logical_bytes,
            blocks: stats.blocks,
            stored_bytes: stats.stored_bytes,
            dead_blobs: stats.dead_blobs,
            dead_bytes: stats.dead_bytes,
            reclaimable_bytes: stats.reclaimable_bytes,
        }
    }
}

#[derive(IntoPyObject)]
pub(crate) struct GcReport {
    dry_run: bool,
    abandoned_puts: u64,
    blobs: u64,
    named: Vec<String>,
    blocks: u64,
    bytes: u64,
    kept_referenced: u64,
    kept_doomed: u64,
    kept_failed: u64,
    leftovers: u64,
    seconds: f64,
    complete: bool,
}

#[derive(IntoPyObject)]
pub(crate) struct VerifyReport {
    blobs: u64,
    blocks: u64,
    bytes: u64,
    missing: u64,
    corrupt: u64,
    broken_manifests: u64,
    database_problems: u64,
    unreferenced: u64,
    unreferenced_bytes: u64,
    seconds: f64,
    cursor: Option<String>,
}

#[derive(IntoPyObject)]
pub(crate) struct CopyReport {
    blobs: u64,
    present: u64,
    blocks: u64,
    bytes: u64,
    damaged: Vec<String>,
    seconds: f64,
    complete: bool,
}

#[derive(IntoPyObject)]
pub(crate) struct RepairReport {
    checked: u64,
    repaired: u64,
    bytes: u64,
    lost: Vec<String>,
    seconds: f64,
    complete: bool,
}

/// Kind, what it is about, what is wrong, and the blobs that are hurt.
type Found = (&'static str, String, String, Vec<String>);

fn found(finding: &Finding) -> Found {
    match finding {
        Finding::Block { key, damage, blobs } => ("block", key.to_string(), damage.to_string(), texts(blobs)),
        Finding::Manifest { id, why } => ("manifest", id.to_string(), why.clone(), vec![id.to_string()]),
        Finding::Database(why) => ("database", String::new(), why.clone(), Vec::new()),
        Finding::Unreferenced(listed) => (
            "unreferenced",
            listed.key.to_string(),
            format!("{} bytes that no blob needs", listed.length),
            Vec::new(),
        ),
        other => ("other", String::new(), format!("{other:?}"), Vec::new()),
    }
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn ids(texts: &[Text]) -> Result<Vec<BlobId>> {
    texts.iter().map(|text| text.parse()).collect()
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>> {
    let duration = |value| {
        Duration::try_from_secs_f64(value)
            .map_err(|_| Error::new(Code::InvalidArgument, format!("{name} cannot be {value} seconds")))
    };
    value.map(duration).transpose()
}

/// Tells Python code of progress, if it wants to know; what it raises ends the call.
fn tell<'a>(
    interrupts: &'a Interrupts,
    progress: Option<&'a Py<PyAny>>,
) -> impl Fn(u64, u64) -> ControlFlow<()> + Send + 'a {
    move |blocks, bytes| {
        let told = match progress {
            None => interrupts.check(),
            Some(progress) => {
                interrupts.python(|py| progress.call1(py, (blocks, bytes)).and_then(|_| py.check_signals()))
            }
        };
        if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[pymethods]
impl Store {
    /// Sums over the store.
    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        call(py, |_| {
            let stats = self.store.stats()?;
            Ok(Stats::from(stats))
        })
    }

    /// Frees what nothing refers to. Times are in seconds; `progress` gets blocks and bytes so far.
    #[allow(clippy::too_many_arguments, reason = "all are keywords where programs see them")]
    fn gc(
        &self,
        py: Python<'_>,
        grace: Option<f64>,
        dry_run: bool,
        max_time: Option<f64>,
        max_blocks: Option<u64>,
        max_bytes: Option<u64>,
        blocks_per_second: Option<u32>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<GcReport> {
        call(py, |interrupts| {
            let options = GcOptions {
                grace: seconds("grace", grace)?,
                dry_run,
                max_time: seconds("max_time", max_time)?,
                max_blocks,
                max_bytes,
                blocks_per_second,
            };
            let tell = tell(interrupts, progress.as_ref());
            let report = self.store.gc(&options, |so_far| tell(so_far.blocks, so_far.bytes))?;
            Ok(GcReport {
                dry_run: report.dry_run,
                abandoned_puts: report.abandoned_puts,
                blobs: report.blobs,
                named: texts(&report.named),
                blocks: report.blocks,
                bytes: report.bytes,
                kept_referenced: report.kept_referenced,
                kept_doomed: report.kept_doomed,
                kept_failed: report.kept_failed,
                leftovers: report.leftovers,
                seconds: report.seconds,
                complete: report.complete,
            })
        })
    }

    /// Looks whether everything is there and intact. `finding` gets what is not, `progress` blocks and bytes so far.
    #[allow(clippy::too_many_arguments, reason = "all are keywords where programs see them")]
    fn verify(
        &self,
        py: Python<'_>,
        only: Vec<Text>,
        deep: bool,
        bytes_per_second: Option<u64>,
        cursor: Option<Text>,
        adopt: bool,
        finding: Py<PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<VerifyReport> {
        call(py, |interrupts| {
            let from = cursor.as_deref().map(str::parse).transpose()?;
            let options = VerifyOptions { deep, ids: ids(&only)?, bytes_per_second, from, adopt };
            let tell = tell(interrupts, progress.as_ref());
            let report = self.store.verify(&options, |event| match event {
                VerifyEvent::Found(what) => {
                    match interrupts.python(|py| finding.call1(py, found(&what)).map(drop)) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                }
                VerifyEvent::Progress(so_far) => tell(so_far.blocks, so_far.bytes),
            })?;
            Ok(VerifyReport {
                blobs: report.blobs,
                blocks: report.blocks,
                bytes: report.bytes,
                missing: report.missing,
                corrupt: report.corrupt,
                broken_manifests: report.broken_manifests,
                database_problems: report.database_problems,
                unreferenced: report.unreferenced,
                unreferenced_bytes: report.unreferenced_bytes,
                seconds: report.seconds,
                cursor: report.cursor.map(|cursor| cursor.to_string()),
            })
        })
    }

    /// Brings blobs from another store, all of them if none is named.
    fn copy_from(
        &self,
        py: Python<'_>,
        other: &Bound<'_, Store>,
        only: Vec<Text>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<CopyReport> {
        let other = &other.get().store;
        call(py, |interrupts| {
            let tell = tell(interrupts, progress.as_ref());
            let options = CopyOptions { ids: ids(&only)? };
            let report = self.store.copy_from(other, &options, |so_far| tell(so_far.blocks, so_far.bytes))?;
            Ok(CopyReport {
                blobs: report.blobs,
                present: report.present,
                blocks: report.blocks,
                bytes: report.bytes,
                damaged: texts(&report.damaged),
                seconds: report.seconds,
                complete: report.complete,
            })
        })
    }

    /// Replaces bad blocks by those of another store.
    fn repair_from(
        &self,
        py: Python<'_>,
        other: &Bound<'_, Store>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<RepairReport> {
        let other = &other.get().store;
        call(py, |interrupts| {
            let tell = tell(interrupts, progress.as_ref());
            let report = self.store.repair_from(other, |so_far| tell(so_far.checked, so_far.bytes))?;
            Ok(RepairReport {
                checked: report.checked,
                repaired: report.repaired,
                bytes: report.bytes,
                lost: texts(&report.lost),
                seconds: report.seconds,
                complete: report.complete,
            })
        })
    }
}
