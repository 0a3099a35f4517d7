//! An open store: the basis of `graviton.Store`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use graviton_core::{BlobId, Code, Config, Error, ManifestEntry, PutOptions, Result};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyTuple};
use tokio::sync::Semaphore;

use crate::aio;
use crate::buffer::{Buffer, Reading, copied};
use crate::call::call;
use crate::lent::Lent;
use crate::reader::{Reader, all_of, fill};
use crate::reports::values;
use crate::settings::{Settings, config};
use crate::text::Text;
use crate::writer::Writer;

/// The options of a put. The content must have the id `expect`, if one is given.
pub(crate) fn put_options(expect: Option<Text>) -> Result<PutOptions> {
    let id: Option<BlobId> = expect.map(|id| id.parse()).transpose()?;
    Ok(PutOptions::new().expect(id))
}

/// A store, until it is closed.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct Store {
    pub(crate) store: graviton_core::Store,
    /// Limits the calls for asyncio.
    pub(crate) turns: Arc<Semaphore>,
}

impl Store {
    pub(crate) fn new(store: graviton_core::Store) -> Store {
        Store { store, turns: aio::turns() }
    }
}

/// Entries of a manifest as rows of offset and key.
pub(crate) fn rows(entries: &[ManifestEntry]) -> Vec<(u64, String)> {
    entries.iter().map(|entry| (entry.offset, entry.key.to_string())).collect()
}

/// The store, opened in this mode: `create`, `existing` or `read`.
pub(crate) fn opened(config: Config, mode: &str) -> Result<graviton_core::Store> {
    match mode {
        "create" => config.open(),
        "existing" => config.open_existing(),
        "read" => config.open_read_only(),
        _ => Err(Error::new(Code::InvalidArgument, format!("there is no mode {mode:?}"))),
    }
}

#[pymethods]
impl Store {
    /// Opens the store that the settings describe; `mode` is `create`, `existing` or `read`.
    #[staticmethod]
    fn open(
        py: Python<'_>,
        settings: Settings,
        path: Option<PathBuf>,
        mode: &str,
        adopt: bool,
        take_over: bool,
    ) -> PyResult<Store> {
        let store = call(py, |_| opened(config(&settings, path)?.adopt(adopt).take_over(take_over), mode))?;
        Ok(Store::new(store))
    }

    /// Closes the store in an orderly way.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        call(py, |_| {
            self.store.close();
            Ok(())
        })
    }

    /// Stores these bytes; fails if their id is not the expected one.
    #[pyo3(signature = (data, expect=None))]
    fn put<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'_, PyAny>,
        expect: Option<Text>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let options = move || put_options(expect);
        if let Ok(bytes) = data.cast::<PyBytes>() {
            // `bytes` never change, and are stored from their own memory.
            let bytes = Bytes::from_owner(Lent::new(PyBackedBytes::from(bytes.clone())));
            let put = call(py, |_| self.store.put_with(&options()?).bytes(bytes))?;
            return values(py, &put);
        }
        let buffer = Buffer::to_read(data)?;
        let source = buffer.source();
        let put = call(py, |interrupts| {
            let reading = Reading { source, interrupts };
            self.store.put_with(&options()?).source(reading)
        })?;
        values(py, &put)
    }

    /// A writer for a blob, which must get the expected id if one is given.
    #[pyo3(signature = (expect=None))]
    fn writer(&self, py: Python<'_>, expect: Option<Text>) -> PyResult<Writer> {
        let writer = call(py, |_| self.store.put_with(&put_options(expect)?).writer())?;
        Ok(Writer::new(writer))
    }

    /// A reader for a blob.
    fn reader(&self, py: Python<'_>, id: Text) -> PyResult<Reader> {
        let reader = call(py, |_| self.store.reader(&id.parse()?))?;
        Ok(Reader::new(reader))
    }

    /// All bytes of a blob.
    fn get<'py>(&self, py: Python<'py>, id: Text) -> PyResult<Bound<'py, PyBytes>> {
        let (first, reader) = call(py, |_| {
            let mut reader = self.store.reader(&id.parse()?)?;
            Ok((reader.next_block()?.unwrap_or_default(), reader))
        })?;
        all_of(py, &first, reader)
    }

    /// Reads all bytes of a blob into the buffer. Returns their number.
    fn get_into(&self, py: Python<'_>, id: Text, buffer: &Bound<'_, PyAny>) -> PyResult<u64> {
        let buffer = Buffer::to_fill(buffer)?;
        let mut sink = buffer.sink();
        call(py, |interrupts| {
            let id: BlobId = id.parse()?;
            if id.size() > sink.left() as u64 {
                let why = format!("blob {id} does not fit into a buffer of {} bytes", sink.left());
                return Err(Error::new(Code::InvalidArgument, why)
                    .with_advice(format!("give one of {} bytes or more", id.size())));
            }
            fill(&mut self.store.reader(&id)?, &mut sink, interrupts)?;
            Ok(id.size())
        })
    }

    /// Up to `length` bytes of a blob from `offset`.
    fn read_range<'py>(
        &self,
        py: Python<'py>,
        id: Text,
        offset: u64,
        length: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let range = offset..offset.saturating_add(length);
        let bytes = call(py, |_| self.store.read_range(&id.parse()?, range))?;
        copied(py, &bytes)
    }

    /// The metadata of a blob.
    fn stat<'py>(&self, py: Python<'py>, id: Text) -> PyResult<Bound<'py, PyTuple>> {
        let found = call(py, |_| self.store.stat(&id.parse()?))?;
        values(py, &found)
    }

    /// Whether the blob exists.
    fn exists(&self, py: Python<'_>, id: Text) -> PyResult<bool> {
        call(py, |_| self.store.exists(&id.parse()?))
    }

    /// Up to `limit` blobs after this one.
    fn list<'py>(
        &self,
        py: Python<'py>,
        after: Option<Text>,
        limit: usize,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let page = call(py, |_| {
            let after: Option<BlobId> = after.as_deref().map(str::parse).transpose()?;
            self.store.list(after.as_ref(), limit)
        })?;
        page.iter().map(|found| values(py, found)).collect()
    }

    /// Up to `limit` entries of a manifest from this offset: offset and key.
    fn manifest(
        &self,
        py: Python<'_>,
        id: Text,
        from_offset: u64,
        limit: usize,
    ) -> PyResult<Vec<(u64, String)>> {
        let entries = call(py, |_| self.store.manifest(&id.parse()?, from_offset, limit))?;
        Ok(rows(&entries))
    }

    /// Deletes a blob.
    fn delete(&self, py: Python<'_>, id: Text) -> PyResult<()> {
        call(py, |_| self.store.delete(&id.parse()?))
    }

    /// Restores a deleted blob.
    fn restore(&self, py: Python<'_>, id: Text) -> PyResult<()> {
        call(py, |_| self.store.restore(&id.parse()?))
    }

    /// Copies the manifests to a new file.
    fn backup(&self, py: Python<'_>, to: PathBuf) -> PyResult<()> {
        call(py, |_| self.store.backup(to))
    }
}
