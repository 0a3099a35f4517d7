//! The synchronous writer of a blob.

use std::io::{self, Read, Write};

use super::in_process::InProcess;
use crate::engine::{BlobWriter, source_failed};
use crate::error::Result;
use crate::report::PutReceipt;
use crate::runtime;

/// A blob being written. It is committed by [`finish`](Writer::finish); dropped before that, it leaves
/// nothing.
#[derive(Debug)]
pub struct Writer {
    writer: InProcess<BlobWriter>,
}

impl Writer {
    pub(super) fn new(writer: BlobWriter) -> Writer {
        Writer { writer: InProcess::new(writer) }
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.writer.size()
    }

    /// Commits the blob: it is visible, and as durable as the store, when this returns.
    pub fn finish(self) -> Result<PutReceipt> {
        self.writer.check()?;
        runtime::block_on(self.writer.into_inner().finish())?
    }

    /// Writes all that the source gives, and commits.
    pub(super) fn fill(mut self, mut source: impl Read) -> Result<PutReceipt> {
        loop {
            let count = match source.read(runtime::block_on(self.writer.spare())??) {
                Ok(0) => return self.finish(),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(source_failed(error)),
            };
            runtime::block_on(self.writer.advance(count))??;
        }
    }
}

impl Write for Writer {
    /// Takes all of the bytes or fails.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.check()?;
        runtime::block_on(self.writer.write(bytes))??;
        Ok(bytes.len())
    }

    /// Does nothing: only [`finish`](Writer::finish) makes anything durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
