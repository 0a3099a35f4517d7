//! A blob being read: the basis of `graviton.BlobReader`.

use std::io::{Seek, SeekFrom};

use bytes::Bytes;
use graviton_core::{Code, Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, Sink, copied, filled};
use crate::call::{Interrupts, call};
use crate::turn::Turn;

/// A position in a blob, and verified bytes from there.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct Reader {
    reader: Turn<graviton_core::Reader>,
    size: u64,
}

impl Reader {
    pub(crate) fn new(reader: graviton_core::Reader) -> Reader {
        Reader { size: reader.size(), reader: Turn::new("the reader", reader) }
    }
}

#[pymethods]
impl Reader {
    /// The size of the blob in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer, unless the blob ends first. Returns the number of bytes.
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let buffer = Buffer::to_fill(buffer)?;
        let mut sink = buffer.sink();
        let left = call(py, |interrupts| {
            self.reader.with(interrupts, |reader| fill(reader, &mut sink, interrupts))?;
            Ok(sink.left())
        })?;
        Ok(buffer.len() - left)
    }

    /// Up to `most` bytes.
    fn read<'py>(&self, py: Python<'py>, most: u64) -> PyResult<Bound<'py, PyBytes>> {
        let left = self.size.saturating_sub(self.seek(py, 0, 1)?);
        filled(py, most.min(left), |sink, interrupts| {
            self.reader.with(interrupts, |reader| fill(reader, sink, interrupts))
        })
    }

    /// Moves the position; `whence` is 0 for the start, 1 for the position, 2 for the end. Returns the new
    /// position.
    fn seek(&self, py: Python<'_>, offset: i64, whence: u8) -> PyResult<u64> {
        let to = match whence {
            0 => u64::try_from(offset).map(SeekFrom::Start).map_err(|_| format!("cannot seek to {offset}")),
            1 => Ok(SeekFrom::Current(offset)),
            2 => Ok(SeekFrom::End(offset)),
            _ => Err(format!("whence cannot be {whence}: it is 0, 1 or 2")),
        };
        call(py, |interrupts| {
            let to = to.map_err(|why| Error::new(Code::InvalidArgument, why))?;
            self.reader.with(interrupts, |reader| Ok(reader.seek(to)?))
        })
    }

    /// Releases the blob.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        call(py, |interrupts| self.reader.close(interrupts).map(drop))
    }
}

/// Fills the memory from the position on, unless the blob ends first.
pub(crate) fn fill(
    reader: &mut graviton_core::Reader,
    sink: &mut Sink<'_>,
    interrupts: &Interrupts,
) -> Result<()> {
    use std::io::BufRead;
    while sink.left() > 0 {
        interrupts.check()?;
        let count = sink.fill(reader.fill_buf()?);
        if count == 0 {
            break;
        }
        reader.consume(count);
    }
    Ok(())
}

/// All of a blob whose first block is already read.
pub(crate) fn all_of<'py>(
    py: Python<'py>,
    first: &Bytes,
    mut reader: graviton_core::Reader,
) -> PyResult<Bound<'py, PyBytes>> {
    if first.len() as u64 == reader.size() {
        return copied(py, first);
    }
    filled(py, reader.size(), move |sink, interrupts| {
        sink.fill(first);
        fill(&mut reader, sink, interrupts)
    })
}
