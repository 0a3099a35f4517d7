//! Blobs as files for asyncio: the basis of `graviton.aio.BlobReader` and `graviton.aio.BlobWriter`.
//!
//! Calls on one of them run one at a time. Dropping a call before its end does not harm a reader, but aborts
//! a writer.

use std::sync::Arc;

use bytes::Bytes;
use graviton_core::{BlobReader, BlobWriter, Code, Error, Result};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tokio::sync::{Mutex, Semaphore};

use crate::aio::{AnswerQueue, Held, Reply, Task, start};
use crate::buffer::{Filling, FreshBytes};
use crate::errors::exception;
use crate::lent::Lent;
use crate::reports::values;

/// The most bytes that are copied on the event loop's thread, which is faster than another task. The engine's
/// threads write larger results directly into Python's memory.
pub(crate) const AT_HAND: u64 = 1 << 20;

type Shared<T> = Arc<Held<Mutex<Option<T>>>>;

fn shared<T>(name: &'static str, value: T) -> Shared<T> {
    Arc::new(Held::new(name, Mutex::new(Some(value))))
}

fn closed(what: &str) -> Error {
    Error::new(Code::Closed, format!("the {what} is closed"))
}

/// A blob being read.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct AioReader {
    reader: Shared<BlobReader>,
    turns: Arc<Semaphore>,
    size: u64,
}

impl AioReader {
    pub(crate) fn new(reader: BlobReader, turns: Arc<Semaphore>) -> AioReader {
        AioReader { size: reader.size(), reader: shared("the reader", reader), turns }
    }
}

/// The next bytes: some bytes that are at hand, or `all` bytes up to `most` or the end of the blob.
pub(crate) async fn read(reader: &mut BlobReader, from: u64, most: u64, all: bool) -> Result<Vec<Bytes>> {
    // Free if the block is at hand.
    reader.seek(from);
    let mut pieces = Vec::new();
    let mut left = most;
    while left > 0 && (all || pieces.is_empty()) {
        let Some(piece) = reader.next_up_to(left).await? else { break };
        left -= piece.len() as u64;
        pieces.push(piece);
    }
    Ok(pieces)
}

#[pymethods]
impl AioReader {
    /// The size of the blob in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    /// Up to `most` bytes from `from_offset` on: some, or `all` up to the end of the blob; `b""` at the end.
    fn read(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        from_offset: u64,
        most: u64,
        all: bool,
    ) -> PyResult<Task> {
        let reader = Arc::clone(&self.reader);
        let left = self.size.saturating_sub(from_offset).min(most);
        if all && left > AT_HAND {
            let py = queue.py();
            let mut filling = Filling::new(py, usize::try_from(left).unwrap_or(usize::MAX))?;
            let work = async move {
                let mut reader = reader.get()?.lock().await;
                let reader = reader.as_mut().ok_or_else(|| closed("reader"))?;
                reader.seek(from_offset);
                let sink = filling.sink();
                while sink.left() > 0 {
                    let Some(piece) = reader.next_up_to(sink.left() as u64).await? else { break };
                    sink.fill(&piece);
                }
                Ok(filling)
            };
            let reply = Reply::new(queue, future);
            return start(py, reply, Some(&self.turns), work, |py, filling| {
                Ok(filling.finish(py).into_any())
            });
        }
        let work = async move {
            let mut reader = reader.get()?.lock().await;
            let reader = reader.as_mut().ok_or_else(|| closed("reader"))?;
            read(reader, from_offset, most, all).await
        };
        start(queue.py(), Reply::new(queue, future), Some(&self.turns), work, joined)
    }

    /// Releases the blob, once no call uses it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let reader = Arc::clone(&self.reader);
        let runtime = graviton_core::runtime().map_err(|error| exception(py, &error))?;
        runtime.spawn(async move {
            if let Ok(reader) = reader.get() {
                reader.lock().await.take();
            }
        });
        Ok(())
    }
}

/// The bytes of all pieces, copied once on the event loop's thread, so only for few bytes.
pub(crate) fn joined(py: Python<'_>, pieces: Vec<Bytes>) -> PyResult<Bound<'_, PyAny>> {
    let length = pieces.iter().map(Bytes::len).sum();
    let mut bytes = FreshBytes::new(py, length)?;
    let mut sink = bytes.sink();
    for piece in &pieces {
        sink.fill(piece);
    }
    let left = sink.left();
    Ok(bytes.finish(left).into_any())
}

/// A blob being written.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct AioWriter {
    writer: Shared<BlobWriter>,
    turns: Arc<Semaphore>,
}

impl AioWriter {
    pub(crate) fn new(writer: BlobWriter, turns: Arc<Semaphore>) -> AioWriter {
        AioWriter { writer: shared("the writer", writer), turns }
    }
}

#[pymethods]
impl AioWriter {
    /// Takes all of the bytes. If it fails or is dropped half-way, the writer is aborted.
    fn write(
        &self,
        queue: &Bound<'_, AnswerQueue>,
        future: Py<PyAny>,
        data: PyBackedBytes,
    ) -> PyResult<Task> {
        let (shared, data) = (Arc::clone(&self.writer), Lent::new(data));
        let work = async move {
            let data = data.as_ref();
            let mut place = shared.get()?.lock().await;
            // The writer is taken out of its slot; if this ends early, the writer is dropped.
            let mut writer = place.take().ok_or_else(|| closed("writer"))?;
            writer.write(data).await?;
            *place = Some(writer);
            Ok(data.len())
        };
        let reply = Reply::new(queue, future);
        start(queue.py(), reply, Some(&self.turns), work, |py, count| count.into_bound_py_any(py))
    }

    /// Stores the written bytes. Returns the receipt.
    fn finish(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>) -> PyResult<Task> {
        let shared = Arc::clone(&self.writer);
        let work = async move {
            let writer = shared.get()?.lock().await.take().ok_or_else(|| closed("writer"))?;
            writer.finish().await
        };
        let reply = Reply::new(queue, future);
        start(queue.py(), reply, Some(&self.turns), work, |py, put| Ok(values(py, &put)?.into_any()))
    }

    /// Discards the written bytes, once no call uses the writer.
    fn abort(&self, queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>) -> PyResult<Task> {
        let shared = Arc::clone(&self.writer);
        let work = async move {
            drop(shared.get()?.lock().await.take());
            Ok(())
        };
        start(queue.py(), Reply::new(queue, future), None, work, |py, ()| ().into_bound_py_any(py))
    }
}
