//! The synchronous reader of a blob.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::in_process::InProcess;
use crate::engine::BlobReader;
use crate::error::{Code, Error, Result};
use crate::key::BlobId;
use crate::runtime;

/// A blob being read: verified bytes, in order or from any offset.
///
/// It goes on for the grace after the blob was deleted.
#[derive(Debug)]
pub struct Reader {
    reader: InProcess<Reading>,
    /// The rest of the bytes that were read last.
    block: Bytes,
}

#[derive(Debug)]
struct Reading {
    reader: BlobReader,
    /// Readers of the same blob that [`Reader::read_at`] keeps for its next calls: each holds a block.
    idle: Mutex<Vec<BlobReader>>,
}

/// The most idle readers that are kept: more threads than that share the processor anyway.
const MOST_IDLE: usize = 16;

impl Reader {
    pub(super) fn new(reader: BlobReader) -> Reader {
        Reader { reader: InProcess::new(Reading { reader, idle: Mutex::default() }), block: Bytes::new() }
    }

    /// The blob that is read.
    pub fn id(&self) -> &BlobId {
        self.reader.reader.id()
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.reader.reader.size()
    }

    /// Another reader of the same blob, at its start. It costs nothing before it reads.
    #[must_use]
    pub fn another(&self) -> Reader {
        let reading = Reading { reader: self.reader.reader.another(), idle: Mutex::default() };
        Reader { reader: self.reader.beside(reading), block: Bytes::new() }
    }

    /// The bytes from the position to the end of the block there, without a copy; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<Bytes>> {
        if self.block.is_empty() {
            self.reader.check()?;
            return runtime::block_on(self.reader.reader.next())?;
        }
        Ok(Some(std::mem::take(&mut self.block)))
    }

    /// Fills the buffer with the bytes from `offset` on; fewer only at the end of the blob, none behind it.
    /// Apart from the position, and from any number of threads at once, like `pread`. After an error the
    /// buffer may hold some of them.
    ///
    /// Reads that are near each other share a block: it is fetched and verified once.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.reader.check()?;
        let mut reader = self.take_reader(offset);
        reader.seek(offset);
        reader.limit(offset.saturating_add(buffer.len() as u64));
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(bytes) = runtime::block_on(reader.next())?? else { break };
            buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
        }
        let mut idle = self.reader.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(reader);
        }
        Ok(filled)
    }

    /// The idle reader that holds the byte at this offset, or any other.
    fn take_reader(&self, offset: u64) -> BlobReader {
        let mut idle = self.reader.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = idle.iter().position(|reader| reader.holds(offset));
        let index = holder.or(idle.len().checked_sub(1));
        index.map_or_else(|| self.reader.reader.another(), |index| idle.swap_remove(index))
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.block.is_empty() {
            self.block = self.next_block()?.unwrap_or_default();
        }
        Ok(&self.block)
    }

    fn consume(&mut self, amount: usize) {
        let _consumed = self.block.split_to(amount.min(self.block.len()));
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = self.reader.reader.position() - self.block.len() as u64;
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => position.checked_add_signed(by),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
        };
        let target = target.ok_or_else(|| {
            Error::new(Code::InvalidArgument, format!("cannot seek before the start of blob {}", self.id()))
        })?;
        let ahead = target.checked_sub(position).and_then(|by| usize::try_from(by).ok());
        if let Some(by) = ahead.filter(|by| *by < self.block.len()) {
            self.consume(by);
        } else {
            self.block = Bytes::new();
            self.reader.reader.seek(target);
        }
        Ok(target)
    }
}
