//! A blob being written: what `graviton.BlobWriter` is made of.

use std::io::Write;

use graviton_core::PutReceipt;
use pyo3::prelude::*;

use crate::buffer::Buffer;
use crate::call::call;
use crate::turn::Turn;

/// Bytes of one write that are handed over at once.
const PIECE: usize = 1 << 20;

/// What came of a put: the id, how many blocks it has, how many were new, their bytes, and whether the blob was new.
pub(crate) type Receipt = (String, u64, u64, u64, bool);

pub(crate) fn receipt(put: &PutReceipt) -> Receipt {
    (put.id.to_string(), put.blocks, put.fresh_blocks, put.fresh_bytes, put.created)
}

/// Takes bytes until it is finished, which stores them, or aborted or dropped, which does not.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct Writer {
    writer: Turn<graviton_core::Writer>,
}

impl Writer {
    pub(crate) fn new(writer: graviton_core::Writer) -> Writer {
        Writer { writer: Turn::new("the writer", writer) }
    }
}

#[pymethods]
impl Writer {
    /// Takes all of the bytes or fails; how many they are. After a failure it is to be aborted.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let buffer = Buffer::to_read(data)?;
        let mut source = buffer.source();
        call(py, |interrupts| {
            self.writer.with(interrupts, |writer| {
                let mut scratch = Vec::new();
                loop {
                    let piece = source.piece(PIECE, &mut scratch);
                    if piece.is_empty() {
                        return Ok(());
                    }
                    writer.write_all(piece)?;
                    interrupts.check()?;
                }
            })
        })?;
        Ok(buffer.len())
    }

    /// How many bytes were taken so far.
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        call(py, |interrupts| self.writer.with(interrupts, |writer| Ok(writer.size())))
    }

    /// Stores what was written; what came of it, or `None` if it was finished or aborted before.
    fn finish(&self, py: Python<'_>) -> PyResult<Option<Receipt>> {
        call(py, |interrupts| match self.writer.close(interrupts)? {
            Some(writer) => Ok(Some(receipt(&writer.finish()?))),
            None => Ok(None),
        })
    }

    /// Forgets what was written.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        call(py, |interrupts| self.writer.close(interrupts).map(drop))
    }
}
