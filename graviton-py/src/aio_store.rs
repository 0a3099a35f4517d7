//! A store's calls for asyncio. Each begins at once and returns a [`Task`]; its answer completes the future.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use graviton_core::report::Report;
use graviton_core::{AsyncStore, BlobId, BlobReader, Code, Error, Result, interruptible};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tokio::sync::Semaphore;

use crate::aio::{AnswerQueue, Reply, Task, start};
use crate::aio_files::{AT_HAND, AioReader, AioWriter, joined, read};
use crate::call::Stop;
use crate::errors::exception;
use crate::lent::Lent;
use crate::reports::values;
use crate::settings::{Settings, config};
use crate::store::{Store, opened, put_options, rows};
use crate::text::Text;

impl Store {
    fn begin<T, F, C>(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        work: impl FnOnce(AsyncStore) -> F,
        convert: C,
    ) -> PyResult<Task>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
        C: for<'py> FnOnce(Python<'py>, T) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
    {
        let reply = Reply::new(queue, future);
        start(queue.py(), reply, Some(&self.turns), work(self.store.as_async().clone()), convert)
    }

    /// Begins a call that returns a report.
    fn begin_report<R, F>(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        work: impl FnOnce(AsyncStore) -> F,
    ) -> PyResult<Task>
    where
        R: Report + Send + 'static,
        F: Future<Output = Result<R>> + Send + 'static,
    {
        self.begin(queue, future, work, |py, report| Ok(values(py, &report)?.into_any()))
    }
}

/// The requested bytes, or a reader for them.
enum Got {
    Pieces(Vec<Bytes>),
    Reader(Box<BlobReader>),
}

impl Got {
    fn shown(self, py: Python<'_>, turns: Arc<Semaphore>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Got::Pieces(pieces) => joined(py, pieces),
            Got::Reader(reader) => AioReader::new(*reader, turns).into_bound_py_any(py),
        }
    }
}

fn parsed(py: Python<'_>, id: &str) -> PyResult<BlobId> {
    id.parse().map_err(|error| exception(py, &error))
}

#[pymethods]
impl Store {
    /// Opens the store that the settings describe, like `open`.
    #[staticmethod]
    fn aio_open(
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        settings: Settings,
        path: Option<PathBuf>,
        mode: String,
        adopt: bool,
        take_over: bool,
    ) -> PyResult<Task> {
        let stop = Stop(Arc::default());
        let work = async move {
            let stopped = Arc::clone(&stop.0);
            let check = move || {
                if stopped.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let opening = move || {
                let config = config(&settings, path)?;
                opened(config.adopt(adopt).take_over(take_over), &mode)
            };
            let opening = tokio::task::spawn_blocking(move || interruptible(check, opening));
            let store = opening.await;
            drop(stop);
            store
                .map_err(|_| Error::new(Code::Internal, "the thread that opens the store has ended early"))?
        };
        let reply = Reply::new(queue, future);
        start(queue.py(), reply, None, work, |py, store| Store::new(store).into_bound_py_any(py))
    }

    /// Closes the store in an orderly way.
    fn aio_close(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>) -> PyResult<Task> {
        let store = self.store.as_async().clone();
        let work = async move {
            store.close().await;
            Ok(())
        };
        // Must not wait for running calls, because it ends them.
        start(queue.py(), Reply::new(queue, future), None, work, |py, ()| ().into_bound_py_any(py))
    }

    /// Stores these bytes; fails if their id is not the expected one.
    fn aio_put(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        data: PyBackedBytes,
        expect: Option<Text>,
    ) -> PyResult<Task> {
        let options = put_options(expect).map_err(|error| exception(queue.py(), &error))?;
        let data = Bytes::from_owner(Lent::new(data));
        let work = |store: AsyncStore| async move { store.put_with(&options).bytes(data).await };
        self.begin_report(queue, future, work)
    }

    /// Stores a file; fails if its id is not the expected one.
    fn aio_put_file(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        path: PathBuf,
        expect: Option<Text>,
    ) -> PyResult<Task> {
        let options = put_options(expect).map_err(|error| exception(queue.py(), &error))?;
        let work = |store: AsyncStore| async move { store.put_with(&options).file(&path).await };
        self.begin_report(queue, future, work)
    }

    /// A writer for a blob, which must get the expected id if one is given.
    fn aio_writer(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        expect: Option<Text>,
    ) -> PyResult<Task> {
        let options = put_options(expect).map_err(|error| exception(queue.py(), &error))?;
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move { store.put_with(&options).writer().await };
        self.begin(queue, future, work, |py, writer| AioWriter::new(writer, turns).into_bound_py_any(py))
    }

    /// A reader for a blob.
    fn aio_reader(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move { store.reader(&id).await };
        self.begin(queue, future, work, |py, reader| AioReader::new(reader, turns).into_bound_py_any(py))
    }

    /// All bytes of a blob, or a reader if it is large.
    fn aio_get(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move {
            let mut reader = store.reader(&id).await?;
            if reader.size() > AT_HAND {
                return Ok(Got::Reader(Box::new(reader)));
            }
            Ok(Got::Pieces(read(&mut reader, 0, u64::MAX, true).await?))
        };
        self.begin(queue, future, work, |py, got| got.shown(py, turns))
    }

    /// Up to `length` bytes of a blob from `offset`, or a reader if those are many.
    fn aio_read_range(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        id: Text,
        offset: u64,
        length: u64,
    ) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let range = offset..offset.saturating_add(length);
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move {
            if id.size().saturating_sub(offset).min(length) > AT_HAND {
                return Ok(Got::Reader(Box::new(store.reader(&id).await?)));
            }
            Ok(Got::Pieces(vec![store.read_range(&id, range).await?]))
        };
        self.begin(queue, future, work, |py, got| got.shown(py, turns))
    }

    /// The metadata of a blob.
    fn aio_stat(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let work = |store: AsyncStore| async move { store.stat(&id).await };
        self.begin_report(queue, future, work)
    }

    /// Whether the blob exists.
    fn aio_exists(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let work = |store: AsyncStore| async move { store.exists(&id).await };
        self.begin(queue, future, work, |py, found| found.into_bound_py_any(py))
    }

    /// Up to `limit` blobs after this one.
    fn aio_list(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        after: Option<Text>,
        limit: usize,
    ) -> PyResult<Task> {
        let after = after.map(|id| parsed(queue.py(), &id)).transpose()?;
        let work = |store: AsyncStore| async move { store.list(after.as_ref(), limit).await };
        self.begin(queue, future, work, |py, page| {
            page.iter().map(|found| values(py, found)).collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
        })
    }

    /// Up to `limit` entries of a manifest from this offset: offset and key.
    fn aio_manifest(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        id: Text,
        from_offset: u64,
        limit: usize,
    ) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let work = |store: AsyncStore| async move { store.manifest(&id, from_offset, limit).await };
        self.begin(queue, future, work, |py, entries| rows(&entries).into_bound_py_any(py))
    }

    /// The totals of the store.
    fn aio_stats(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>) -> PyResult<Task> {
        let work = |store: AsyncStore| async move { store.stats().await };
        self.begin_report(queue, future, work)
    }

    /// Deletes a blob.
    fn aio_delete(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let work = |store: AsyncStore| async move { store.delete(&id).await };
        self.begin(queue, future, work, |py, ()| ().into_bound_py_any(py))
    }

    /// Restores a deleted blob.
    fn aio_restore(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(queue.py(), &id)?;
        let work = |store: AsyncStore| async move { store.restore(&id).await };
        self.begin(queue, future, work, |py, ()| ().into_bound_py_any(py))
    }
}
