//! A put piece by piece: [`BlobWriter`].
//!
//! A stream that ends within its first buffer is a small blob (`small`). A longer one goes through the stages
//! of `pipeline`; a source waits when it has no buffer to fill.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_recursion::async_recursion as boxed;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::options::PutOptions;
use super::pipeline::{self, Pipeline};
use super::small;
use crate::blocking;
use crate::descriptor::open_file as open_above_standard;
use crate::digest::Algo;
use crate::engine::buffer::{Buffer, Filled, Window};
use crate::engine::core::Engine;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, MAX_BLOB_SIZE};
use crate::report::PutReceipt;

/// A blob being written. Nothing is visible before [`finish`](BlobWriter::finish) has returned; dropped
/// before that, it leaves nothing.
///
/// After an error it can only be dropped.
pub struct BlobWriter {
    engine: Arc<Engine>,
    algo: Algo,
    expected: Option<BlobId>,
    window: Window,
    memory: Memory,
    /// How many bytes of it are filled.
    filled: usize,
    size: u64,
    pipeline: Option<Pipeline>,
    /// Bytes were taken that did not get into the pipeline: an error, or a future that was dropped half-way.
    failed: bool,
}

/// Where the next bytes go.
enum Memory {
    /// The start of a stream that may turn out to be short: grown as it comes, for a thousand small puts at
    /// once must not take a thousand buffers.
    Start(Vec<u8>),
    Buffer(Buffer),
    /// In the hands of the pipeline.
    None,
}

/// The first piece of memory, and the largest before a buffer is taken.
const LEAST_START: usize = 16 << 10;
const MOST_START: usize = 512 << 10;

impl Memory {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Memory::Start(bytes) => bytes,
            Memory::Buffer(buffer) => buffer.body(),
            Memory::None => &mut [],
        }
    }
}

impl BlobWriter {
    /// A writer with these options, in a store that is ready to be written to.
    #[boxed]
    pub(in crate::engine) async fn open(engine: &Arc<Engine>, options: &PutOptions) -> Result<BlobWriter> {
        engine.prepare_to_write().await?;
        engine.core.latch.check()?;
        let expected = options.expect;
        Ok(BlobWriter {
            engine: Arc::clone(engine),
            algo: expected.map_or(engine.core.algo, |id| id.algo()),
            expected,
            window: engine.buffers.window(),
            memory: Memory::Start(Vec::new()),
            filled: 0,
            size: 0,
            pipeline: None,
            failed: false,
        })
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes of the blob. Waits when the store is slower than the source.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let spare = self.spare().await?;
            let count = spare.len().min(bytes.len());
            spare[..count].copy_from_slice(&bytes[..count]);
            self.advance(count).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Memory for the next bytes of the blob, never empty; what is filled in counts once
    /// [`advance`](BlobWriter::advance) was told. It saves a copy against [`write`](BlobWriter::write).
    pub async fn spare(&mut self) -> Result<&mut [u8]> {
        if self.failed {
            return Err(failed_before());
        }
        if self.memory.bytes().len() == self.filled {
            self.grow().await?;
        }
        Ok(&mut self.memory.bytes()[self.filled..])
    }

    #[boxed]
    async fn grow(&mut self) -> Result<()> {
        if let Memory::Start(bytes) = &mut self.memory
            && bytes.len() < MOST_START
        {
            bytes.resize((bytes.len() * 4).clamp(LEAST_START, MOST_START), 0);
            return Ok(());
        }
        let mut buffer = self.engine.buffers.take(&self.window).await?;
        buffer.body()[..self.filled].copy_from_slice(&self.memory.bytes()[..self.filled]);
        self.memory = Memory::Buffer(buffer);
        Ok(())
    }

    /// The first `count` bytes of [`spare`](BlobWriter::spare) are the next bytes of the blob.
    pub async fn advance(&mut self, count: usize) -> Result<()> {
        if count > self.memory.bytes().len() - self.filled {
            let why = format!("{count} bytes are more than there was room for");
            return Err(Error::new(Code::InvalidArgument, why));
        }
        self.filled += count;
        self.size += count as u64;
        if self.size > self.expected.map_or(MAX_BLOB_SIZE, |id| id.size()) {
            self.failed = true;
            return Err(match self.expected {
                Some(expected) => mismatch(&expected, "the content is longer"),
                None => Error::new(Code::TooLarge, format!("a blob has at most {MAX_BLOB_SIZE} bytes")),
            });
        }
        if self.filled == self.engine.buffers.body_size() {
            self.failed = true;
            self.submit().await?;
            self.failed = false;
        }
        Ok(())
    }

    /// Hands the buffer to the pipeline.
    #[boxed]
    async fn submit(&mut self) -> Result<()> {
        let filled = std::mem::take(&mut self.filled);
        let Memory::Buffer(buffer) = std::mem::replace(&mut self.memory, Memory::None) else {
            return Err(Error::new(
                Code::Internal,
                "a put has bytes to hand on and no buffer that holds them",
            ));
        };
        let pipeline = match &mut self.pipeline {
            Some(pipeline) => pipeline,
            none => none.insert(
                Pipeline::start(&self.engine, self.algo, &self.window, self.expected.is_some()).await?,
            ),
        };
        if pipeline.filled.send(Filled::Buffer(buffer, filled)).await.is_err() {
            // A stage has failed; its error is the put's.
            let failure = match self.pipeline.take() {
                Some(pipeline) => pipeline.finish().await.err(),
                None => None,
            };
            return Err(failure.unwrap_or_else(|| {
                Error::new(Code::Internal, "the pipeline of a put ended early without an error")
            }));
        }
        Ok(())
    }

    /// Commits the blob: it is visible, and as durable as the store, when this returns.
    #[boxed]
    pub async fn finish(mut self) -> Result<PutReceipt> {
        if self.failed {
            return Err(match self.pipeline.take() {
                Some(pipeline) => pipeline.finish().await.err().unwrap_or_else(failed_before),
                None => failed_before(),
            });
        }
        if self.pipeline.is_none() {
            let filled = std::mem::take(&mut self.filled);
            let bytes = match std::mem::replace(&mut self.memory, Memory::None) {
                Memory::Start(bytes) => Bytes::from(bytes).slice(..filled),
                Memory::Buffer(buffer) => Filled::Buffer(buffer, filled).after(&[]),
                Memory::None => return Err(failed_before()),
            };
            return self.put_bytes(bytes).await;
        }
        if self.filled > 0 {
            self.submit().await?;
        }
        let Some(pipeline) = self.pipeline.take() else { return Err(failed_before()) };
        self.commit(pipeline).await
    }

    /// Commits a blob that is all in memory, and stays where it is.
    #[boxed]
    pub(in crate::engine) async fn put_bytes(mut self, bytes: Bytes) -> Result<PutReceipt> {
        self.size = bytes.len() as u64;
        if let Some(expected) = self.expected
            && expected.size() != self.size
        {
            return Err(mismatch(&expected, &format!("the content is {} bytes long", self.size)));
        }
        let buffers = Arc::clone(&self.engine.buffers);
        if bytes.len() <= buffers.body_size() {
            let core = Arc::clone(&self.engine.core);
            if let Some(blob) = pipeline::prepare(core, self.algo, bytes.clone()).await? {
                self.check(&blob.id)?;
                return small::put(&self.engine, blob, self.expected.is_some()).await;
            }
        }
        // More bytes, or more blocks, than a small blob has.
        let pipeline = self
            .pipeline
            .insert(Pipeline::start(&self.engine, self.algo, &self.window, self.expected.is_some()).await?);
        for start in (0..bytes.len()).step_by(buffers.body_size()) {
            let part = buffers.part(&self.window, &bytes, start).await?;
            if pipeline.filled.send(part).await.is_err() {
                // A stage has failed, and says why.
                break;
            }
        }
        let Some(pipeline) = self.pipeline.take() else { return Err(failed_before()) };
        self.commit(pipeline).await
    }

    async fn commit(&self, pipeline: Pipeline) -> Result<PutReceipt> {
        let (digest, put) = pipeline.finish().await?;
        let id = BlobId::new(self.algo, digest, self.size)?;
        self.check(&id)?;
        put.commit(&self.engine, id).await
    }

    fn check(&self, id: &BlobId) -> Result<()> {
        match self.expected {
            Some(expected) if expected != *id => Err(mismatch(&expected, &format!("the content is {id}"))),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.abort();
        }
    }
}

fn failed_before() -> Error {
    Error::new(Code::Closed, "this writer has failed before and can only be dropped")
}

pub(crate) fn mismatch(expected: &BlobId, what: &str) -> Error {
    Error::new(Code::DigestMismatch, format!("cannot put {expected}: {what}"))
        .with_advice("check where the content came from; nothing was stored under that id")
}

/// The error of a source that could not be read.
pub(crate) fn source_failed(error: std::io::Error) -> Error {
    // A reader over another store has an error of ours inside.
    match error.downcast::<Error>() {
        Ok(error) => error.within("cannot read the source"),
        Err(error) => {
            Error::io("cannot read the source", error).with_advice("nothing was stored; put it again")
        }
    }
}

/// Writes all that the source gives, and commits.
pub(crate) async fn fill(mut writer: BlobWriter, mut source: impl AsyncRead + Unpin) -> Result<PutReceipt> {
    loop {
        let count = source.read(writer.spare().await?).await.map_err(source_failed)?;
        if count == 0 {
            return writer.finish().await;
        }
        writer.advance(count).await?;
    }
}

/// Writes the content of a file, and commits. Blocking threads read the file, as much at a time as there is
/// memory for.
#[boxed]
pub(crate) async fn fill_from_file(mut writer: BlobWriter, path: PathBuf) -> Result<PutReceipt> {
    let path: Arc<Path> = path.into();
    let failed = |error| Error::io_at("cannot read", &path, error);
    let mut file: Option<File> = None;
    loop {
        // The first time, room for exactly the file, if it is small, is made where its size is known.
        if file.is_some() {
            writer.spare().await?;
        }
        let (mut memory, from) = (std::mem::replace(&mut writer.memory, Memory::None), writer.filled);
        let (name, opened) = (Arc::clone(&path), file.take());
        let (opened, back, count) = blocking::run(move || {
            let mut opened = match opened {
                Some(opened) => opened,
                None => open_file(&name, &mut memory)?,
            };
            let count = read_full(&mut opened, &mut memory.bytes()[from..])?;
            Ok((opened, memory, count))
        })
        .await?
        .map_err(failed)?;
        writer.memory = back;
        let full = from + count == writer.memory.bytes().len();
        writer.advance(count).await?;
        if !full {
            return writer.finish().await;
        }
        file = Some(opened);
    }
}

/// Opens the file and makes the first memory: one byte more than the file has, so that its end is seen.
fn open_file(path: &Path, memory: &mut Memory) -> std::io::Result<File> {
    let file = open_above_standard(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    *memory = Memory::Start(vec![0; size.saturating_add(1).min(MOST_START)]);
    Ok(file)
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
