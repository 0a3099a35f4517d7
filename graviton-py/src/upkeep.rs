//! Upkeep of a store: collection, verification, repair, copies.

use std::ops::ControlFlow;
use std::time::Duration;

use graviton_core::{
    BlobId, Code, CopyOptions, Error, Finding, GcOptions, Result, VerifyEvent, VerifyOptions,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::call::{Interrupts, call};
use crate::reports::values;
use crate::store::Store;
use crate::text::Text;

/// The kind, the subject, the fault, and the affected blobs.
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
        Finding::Pack { name, bytes } => {
            ("pack", name.to_string(), format!("{bytes} bytes of a pack that no row knows"), Vec::new())
        }
        Finding::Record { pack, offset, key, why } => {
            let of = key.map(|key| format!(", of block {key}")).unwrap_or_default();
            ("record", pack.to_string(), format!("at {offset}{of}: {why}"), Vec::new())
        }
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

/// Passes progress to Python code, if a function was given. An exception in it ends the call.
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
    /// The totals of the store.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let stats = call(py, |_| self.store.stats())?;
        values(py, &stats)
    }

    /// Frees blocks that nothing refers to. Times are in seconds; `progress` gets blocks and bytes so far.
    #[allow(clippy::too_many_arguments, reason = "all are keywords where programs see them")]
    fn gc<'py>(
        &self,
        py: Python<'py>,
        grace: Option<f64>,
        dry_run: bool,
        max_time: Option<f64>,
        max_blocks: Option<u64>,
        max_bytes: Option<u64>,
        blocks_per_second: Option<u32>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let report = call(py, |interrupts| {
            let options = GcOptions {
                grace: seconds("grace", grace)?,
                dry_run,
                max_time: seconds("max_time", max_time)?,
                max_blocks,
                max_bytes,
                blocks_per_second,
            };
            let tell = tell(interrupts, progress.as_ref());
            self.store.gc(&options, |so_far| tell(so_far.blocks, so_far.bytes))
        })?;
        values(py, &report)
    }

    /// Moves all blocks into this layout.
    fn repack<'py>(
        &self,
        py: Python<'py>,
        to: Text,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let report = call(py, |interrupts| {
            let tell = tell(interrupts, progress.as_ref());
            self.store.repack(to.parse()?, |so_far| tell(so_far.blocks, so_far.bytes))
        })?;
        values(py, &report)
    }

    /// Checks that everything is there and intact. `finding` gets each fault, and `progress` gets blocks and
    /// bytes so far.
    #[allow(clippy::too_many_arguments, reason = "all are keywords where programs see them")]
    fn verify<'py>(
        &self,
        py: Python<'py>,
        only: Vec<Text>,
        deep: bool,
        bytes_per_second: Option<u64>,
        cursor: Option<Text>,
        adopt: bool,
        rebuild: bool,
        finding: Py<PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let report = call(py, |interrupts| {
            let from = cursor.as_deref().map(str::parse).transpose()?;
            let options = VerifyOptions { deep, ids: ids(&only)?, bytes_per_second, from, adopt, rebuild };
            let tell = tell(interrupts, progress.as_ref());
            self.store.verify(&options, |event| match event {
                VerifyEvent::Found(what) => {
                    match interrupts.python(|py| finding.call1(py, found(&what)).map(drop)) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                }
                VerifyEvent::Progress(so_far) => tell(so_far.blocks, so_far.bytes),
            })
        })?;
        values(py, &report)
    }

    /// Copies blobs from another store; all of them if none is named.
    fn copy_from<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'_, Store>,
        only: Vec<Text>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let other = &other.get().store;
        let report = call(py, |interrupts| {
            let tell = tell(interrupts, progress.as_ref());
            let options = CopyOptions { ids: ids(&only)? };
            self.store.copy_from(other, &options, |so_far| tell(so_far.blocks, so_far.bytes))
        })?;
        values(py, &report)
    }

    /// Replaces bad blocks by those of another store.
    fn repair_from<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'_, Store>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let other = &other.get().store;
        let report = call(py, |interrupts| {
            let tell = tell(interrupts, progress.as_ref());
            self.store.repair_from(other, |so_far| tell(so_far.checked, so_far.bytes))
        })?;
        values(py, &report)
    }
}
