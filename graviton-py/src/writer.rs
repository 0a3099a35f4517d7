//! A blob being written: the basis of `graviton.BlobWriter`.

use std::io::Write;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::buffer::Buffer;
use crate::call::call;
use crate::reports::values;
use crate::turn::Turn;

/// Bytes of one write that are passed on at once.
const PIECE: usize = 1 << 20;

/// Takes bytes. Finishing stores them; aborting or dropping discards them.
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
    /// Takes all of the bytes or fails. Returns their number. After a failure, the caller must abort it.
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

    /// The number of bytes taken so far.
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        call(py, |interrupts| self.writer.with(interrupts, |writer| Ok(writer.size())))
    }

    /// Stores the written bytes. Returns the receipt, or `None` if it was already finished or aborted.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let put = call(py, |interrupts| match self.writer.close(interrupts)? {
            Some(writer) => writer.finish().map(Some),
            None => Ok(None),
        })?;
        put.map(|put| values(py, &put)).transpose()
    }

    /// Discards the written bytes.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        call(py, |interrupts| self.writer.close(interrupts).map(drop))
    }
}
