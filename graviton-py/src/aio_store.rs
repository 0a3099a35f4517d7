//! A store's calls for asyncio. Each begins at once and gives a [`Task`]; its answer completes the future.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use graviton_core::{AsyncStore, BlobId, BlobReader, Code, Error, PutOptions, Result, interruptible};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tokio::sync::Semaphore;

use crate::aio::{Mailbox, Reply, Task, start};
use crate::aio_files::{AT_HAND, AioReader, AioWriter, joined, read};
use crate::call::Stop;
use crate::errors::exception;
use crate::settings::{Settings, config};
use crate::store::{Store, opened, stat};
use crate::text::Text;
use crate::upkeep::Stats;
use crate::writer::receipt;

impl Store {
    fn begin<T, F, C>(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        work: impl FnOnce(AsyncStore) -> F,
        convert: C,
    ) -> PyResult<Task>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
        C: for<'py> FnOnce(Python<'py>, T) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
    {
        let reply = Reply::new(mailbox, future);
        start(mailbox.py(), reply, Some(&self.turns), work(self.store.as_async().clone()), convert)
    }
}

/// What was asked for, or what has it.
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
    /// Opens the store that the settings describe; as `open`.
    #[staticmethod]
    fn aio_open(
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        settings: Settings,
        path: Option<PathBuf>,
        mode: String,
        adopt: bool,
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
            let opening =
                move || config(&settings, path).and_then(|config| opened(config.adopt(adopt), &mode));
            let opening = tokio::task::spawn_blocking(move || interruptible(check, opening));
            let store = opening.await;
            drop(stop);
            store
                .map_err(|_| Error::new(Code::Internal, "the thread that opens the store has ended early"))?
        };
        let reply = Reply::new(mailbox, future);
        start(mailbox.py(), reply, None, work, |py, store| Store::new(store).into_bound_py_any(py))
    }

    /// Closes it in an orderly way.
    fn aio_close(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>) -> PyResult<Task> {
        let store = self.store.as_async().clone();
        let work = async move {
            store.close().await;
            Ok(())
        };
        // Not behind the calls that are under way, which it ends.
        start(mailbox.py(), Reply::new(mailbox, future), None, work, |py, ()| ().into_bound_py_any(py))
    }

    /// Stores these bytes, if they have that id.
    fn aio_put(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        data: PyBackedBytes,
        expect: Option<Text>,
    ) -> PyResult<Task> {
        let expect = expect.map(|id| parsed(mailbox.py(), &id)).transpose()?;
        let work = |store: AsyncStore| async move {
            let data = Bytes::from_owner(data);
            let put = store.put_with(&PutOptions::new().expect(expect)).bytes(data).await?;
            Ok(receipt(&put))
        };
        self.begin(mailbox, future, work, |py, put| put.into_bound_py_any(py))
    }

    /// Stores a file, which must have that id if one is given.
    fn aio_put_file(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        path: PathBuf,
        expect: Option<Text>,
    ) -> PyResult<Task> {
        let expect = expect.map(|id| parsed(mailbox.py(), &id)).transpose()?;
        let work = |store: AsyncStore| async move {
            let put = store.put_with(&PutOptions::new().expect(expect)).file(&path).await?;
            Ok(receipt(&put))
        };
        self.begin(mailbox, future, work, |py, put| put.into_bound_py_any(py))
    }

    /// A blob to be written, only with this id if one is given.
    fn aio_writer(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        expect: Option<Text>,
    ) -> PyResult<Task> {
        let expect = expect.map(|id| parsed(mailbox.py(), &id)).transpose()?;
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move {
            store.put_with(&PutOptions::new().expect(expect)).writer().await
        };
        self.begin(mailbox, future, work, |py, writer| AioWriter::new(writer, turns).into_bound_py_any(py))
    }

    /// A blob to be read.
    fn aio_reader(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move { store.reader(&id).await };
        self.begin(mailbox, future, work, |py, reader| AioReader::new(reader, turns).into_bound_py_any(py))
    }

    /// All bytes of a blob, or of a large one its reader.
    fn aio_get(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move {
            let mut reader = store.reader(&id).await?;
            if reader.size() > AT_HAND {
                return Ok(Got::Reader(Box::new(reader)));
            }
            Ok(Got::Pieces(read(&mut reader, 0, u64::MAX, true).await?))
        };
        self.begin(mailbox, future, work, |py, got| got.shown(py, turns))
    }

    /// So many bytes of a blob from there on, or as many as it has; if those are many, its reader.
    fn aio_read_range(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        id: Text,
        offset: u64,
        length: u64,
    ) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let range = offset..offset.saturating_add(length);
        let turns = Arc::clone(&self.turns);
        let work = |store: AsyncStore| async move {
            if id.size().saturating_sub(offset).min(length) > AT_HAND {
                return Ok(Got::Reader(Box::new(store.reader(&id).await?)));
            }
            Ok(Got::Pieces(vec![store.read_range(&id, range).await?]))
        };
        self.begin(mailbox, future, work, |py, got| got.shown(py, turns))
    }

    /// What is known of a blob.
    fn aio_stat(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let work = |store: AsyncStore| async move { store.stat(&id).await };
        self.begin(mailbox, future, work, |py, found| stat(found).into_bound_py_any(py))
    }

    /// Whether the blob is there.
    fn aio_exists(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let work = |store: AsyncStore| async move { store.exists(&id).await };
        self.begin(mailbox, future, work, |py, found| found.into_bound_py_any(py))
    }

    /// Up to `limit` blobs behind that one.
    fn aio_list(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        after: Option<Text>,
        limit: usize,
    ) -> PyResult<Task> {
        let after = after.map(|id| parsed(mailbox.py(), &id)).transpose()?;
        let work = |store: AsyncStore| async move { store.list(after.as_ref(), limit).await };
        self.begin(mailbox, future, work, |py, page| {
            page.into_iter().map(stat).collect::<Vec<_>>().into_bound_py_any(py)
        })
    }

    /// Up to `limit` entries of a manifest from there on: offset and key.
    fn aio_manifest(
        &self,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
        id: Text,
        from_offset: u64,
        limit: usize,
    ) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let work = |store: AsyncStore| async move { store.manifest(&id, from_offset, limit).await };
        self.begin(mailbox, future, work, |py, entries| {
            let entries: Vec<(u64, String)> =
                entries.iter().map(|entry| (entry.offset, entry.key.to_string())).collect();
            entries.into_bound_py_any(py)
        })
    }

    /// Sums over the store.
    fn aio_stats(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>) -> PyResult<Task> {
        let work = |store: AsyncStore| async move { store.stats().await };
        self.begin(mailbox, future, work, |py, stats| Stats::from(stats).into_bound_py_any(py))
    }

    /// Deletes a blob.
    fn aio_delete(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let work = |store: AsyncStore| async move { store.delete(&id).await };
        self.begin(mailbox, future, work, |py, ()| ().into_bound_py_any(py))
    }

    /// Brings a deleted blob back.
    fn aio_restore(&self, mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>, id: Text) -> PyResult<Task> {
        let id = parsed(mailbox.py(), &id)?;
        let work = |store: AsyncStore| async move { store.restore(&id).await };
        self.begin(mailbox, future, work, |py, ()| ().into_bound_py_any(py))
    }
}
