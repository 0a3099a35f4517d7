//! A stream going in: filled into buffers, cut, hashed and stored at the same time.
//!
//! ```text
//! source -> [buffer] -> cutter -> block hashes (in parallel) -> pinned put
//!                         └----> blob hash (in order)
//! ```
//! Each stage is a task with a short queue in front; the computing runs on blocking threads. What bounds
//! the memory is the window: a buffer is free again when its last block is stored, and a source without a
//! buffer waits.
//!
//! A stream that ends within its first buffer never enters the pipeline: it is a small blob.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::buffer::{Buffer, Buffers, Filled, Window};
use super::pinned::{self, PinnedPut};
use super::put::PutOptions;
use super::small::{self, SmallBlob};
use super::{Core, Engine};
use crate::blocking;
use crate::chunker::Chunker;
use crate::digest::{Algo, Digest, Hasher};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey, MAX_BLOB_SIZE};
use crate::manifest::ManifestEntry;
use crate::report::PutReceipt;

/// Up to so many bytes are hashed where they are: it takes less than handing them over.
const HASH_HERE: usize = 64 << 10;

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
    /// So many bytes of it are filled.
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

/// The stages of a stream that is longer than one buffer.
struct Pipeline {
    filled: mpsc::Sender<Filled>,
    cutter: JoinHandle<Result<()>>,
    hasher: JoinHandle<Result<Digest>>,
    storer: JoinHandle<Result<PinnedPut>>,
}

/// Blocks of one stream, hashed.
struct Hashed {
    entries: Vec<ManifestEntry>,
    bytes: Vec<Bytes>,
}

impl BlobWriter {
    pub(super) fn new(engine: &Arc<Engine>, options: &PutOptions) -> Result<BlobWriter> {
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
            none => none.insert(Pipeline::start(&self.engine, self.algo, &self.window).await?),
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
            return self.put_whole(bytes).await;
        }
        if self.filled > 0 {
            self.submit().await?;
        }
        let Some(pipeline) = self.pipeline.take() else { return Err(failed_before()) };
        self.commit(pipeline).await
    }

    /// Commits a blob that is all in memory, and stays where it is.
    pub(super) async fn put_whole(mut self, bytes: Bytes) -> Result<PutReceipt> {
        self.size = bytes.len() as u64;
        if let Some(expected) = self.expected
            && expected.size() != self.size
        {
            return Err(mismatch(&expected, &format!("the content is {} bytes long", self.size)));
        }
        let buffers = Arc::clone(&self.engine.buffers);
        if bytes.len() <= buffers.body_size() {
            let core = Arc::clone(&self.engine.core);
            if let Some(blob) = prepare(core, self.algo, bytes.clone()).await? {
                self.check(&blob.id)?;
                return self.engine.put_small(blob).await;
            }
        }
        // More bytes, or more blocks, than a small blob has.
        let pipeline = self.pipeline.insert(Pipeline::start(&self.engine, self.algo, &self.window).await?);
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
            pipeline.cutter.abort();
            pipeline.hasher.abort();
            pipeline.storer.abort();
        }
    }
}

fn failed_before() -> Error {
    Error::new(Code::Closed, "this writer has failed before and can only be dropped")
}

pub(super) fn mismatch(expected: &BlobId, what: &str) -> Error {
    Error::new(Code::DigestMismatch, format!("cannot put {expected}: {what}"))
        .with_advice("check where the content came from; nothing was stored under that id")
}

impl Pipeline {
    async fn start(engine: &Arc<Engine>, algo: Algo, window: &Window) -> Result<Pipeline> {
        let put = PinnedPut::begin(engine).await?;
        let (filled, to_cut) = mpsc::channel(1);
        let (cut_bodies, to_hash) = mpsc::channel(2);
        let (hashing, to_store) = mpsc::channel(8);
        let core = &engine.core;
        Ok(Pipeline {
            filled,
            cutter: tokio::spawn(cut(core.spec.chunker(), algo, to_cut, cut_bodies, hashing)),
            hasher: tokio::spawn(hash(algo, to_hash)),
            storer: tokio::spawn(store(put, to_store, Arc::clone(&engine.buffers), window.clone())),
        })
    }

    /// Waits for all stages; the first error in the order of the stages that cause others to fail.
    async fn finish(self) -> Result<(Digest, PinnedPut)> {
        drop(self.filled);
        let (cut, digest, put) = tokio::join!(self.cutter, self.hasher, self.storer);
        let put = blocking::joined(put)??;
        blocking::joined(cut)??;
        Ok((blocking::joined(digest)??, put))
    }
}

/// Cuts buffers into blocks, in order. What is left of a buffer goes in front of the next one.
async fn cut(
    mut chunker: Box<dyn Chunker>,
    algo: Algo,
    mut filled: mpsc::Receiver<Filled>,
    bodies: mpsc::Sender<Bytes>,
    hashing: mpsc::Sender<JoinHandle<Hashed>>,
) -> Result<()> {
    let mut carried = Bytes::new();
    let mut offset = 0;
    let mut next = filled.recv().await;
    while let Some(piece) = next {
        let count = piece.len();
        // Taken, for it holds the buffer before this one.
        let mut bytes = piece.after(&std::mem::take(&mut carried));
        // A failed stage has its own error; this one only stops.
        if bodies.send(bytes.slice(bytes.len() - count..)).await.is_err() {
            return Ok(());
        }
        // Known only once the source has said more or nothing.
        let mut end = false;
        loop {
            let (blocks, back, rest) = {
                let mut chunker = chunker;
                blocking::run_elsewhere(move || {
                    let (blocks, rest) = cut_some(chunker.as_mut(), bytes, end);
                    (blocks, chunker, rest)
                })
                .await?
            };
            chunker = back;
            bytes = rest;
            let all = blocks.len() < pinned::MOST_BLOCKS;
            if !blocks.is_empty() {
                let start = offset;
                offset += blocks.iter().map(|block| block.len() as u64).sum::<u64>();
                let work = tokio::task::spawn_blocking(move || hash_blocks(algo, start, blocks));
                if hashing.send(work).await.is_err() {
                    return Ok(());
                }
            }
            if all && end {
                return Ok(());
            }
            if all {
                next = filled.recv().await;
                if next.is_some() {
                    break;
                }
                end = true;
            }
        }
        carried = bytes;
    }
    Ok(())
}

/// Up to [`pinned::MOST_BLOCKS`] blocks from the front of the bytes, and what is left.
fn cut_some(chunker: &mut dyn Chunker, mut bytes: Bytes, end: bool) -> (Vec<Bytes>, Bytes) {
    let mut blocks = Vec::new();
    while blocks.len() < pinned::MOST_BLOCKS {
        let Some(size) = chunker.cut(&bytes, end) else { break };
        blocks.push(bytes.split_to(size));
    }
    (blocks, bytes)
}

fn hash_blocks(algo: Algo, mut offset: u64, bytes: Vec<Bytes>) -> Hashed {
    let entries = bytes
        .iter()
        .map(|block| {
            let key = BlockKey::new(algo, algo.digest(block), block.len() as u64);
            let entry =
                ManifestEntry { offset, key: key.expect("a chunker's block is neither empty nor too large") };
            offset = entry.end();
            entry
        })
        .collect();
    Hashed { entries, bytes }
}

/// Hashes the whole stream.
async fn hash(algo: Algo, mut bodies: mpsc::Receiver<Bytes>) -> Result<Digest> {
    let mut hasher = Hasher::new(algo);
    while let Some(body) = bodies.recv().await {
        hasher = blocking::run_elsewhere(move || {
            hasher.update(&body);
            hasher
        })
        .await?;
    }
    Ok(hasher.finish())
}

/// Pins and stores blocks in batches: few round trips of the database for many blocks.
async fn store(
    mut put: PinnedPut,
    mut hashing: mpsc::Receiver<JoinHandle<Hashed>>,
    buffers: Arc<Buffers>,
    window: Window,
) -> Result<PinnedPut> {
    let mut batch = Hashed { entries: Vec::new(), bytes: Vec::new() };
    let mut waiting = 0;
    loop {
        let mut end = false;
        tokio::select! {
            next = hashing.recv() => match next {
                Some(work) => {
                    let hashed = blocking::joined(work.await)?;
                    waiting += hashed.bytes.iter().map(Bytes::len).sum::<usize>();
                    batch.entries.extend(hashed.entries);
                    batch.bytes.extend(hashed.bytes);
                }
                None => end = true,
            },
            // What waits here may hold what the source waits for.
            () = window.hunger() => {}
        }
        while batch.entries.len() >= pinned::MOST_BLOCKS
            || (!batch.entries.is_empty() && (end || waiting >= buffers.batch_bytes(&window)))
        {
            let count = batch.entries.len().min(pinned::MOST_BLOCKS);
            let entries: Vec<ManifestEntry> = batch.entries.drain(..count).collect();
            let bytes: Vec<Bytes> = batch.bytes.drain(..count).collect();
            waiting -= bytes.iter().map(Bytes::len).sum::<usize>();
            put.add(&entries, &bytes).await?;
        }
        if end {
            return Ok(put);
        }
    }
}

/// Cuts and hashes a blob that is all in memory; `None` if it has too many blocks to be small.
async fn prepare(core: Arc<Core>, algo: Algo, bytes: Bytes) -> Result<Option<SmallBlob>> {
    let size = bytes.len();
    let work = move || {
        let mut chunker = core.spec.chunker();
        let mut rest = bytes.clone();
        let mut blocks = Vec::new();
        while let Some(size) = chunker.cut(&rest, true) {
            if blocks.len() == small::MOST_BLOCKS {
                return None;
            }
            blocks.push(rest.split_to(size));
        }
        let hashed = hash_blocks(algo, 0, blocks);
        // A blob of one block is hashed once.
        let digest = match hashed.entries.as_slice() {
            [only] => *only.key.digest(),
            _ => algo.digest(&bytes),
        };
        let id =
            BlobId::new(algo, digest, bytes.len() as u64).expect("a buffer is smaller than the largest blob");
        Some(SmallBlob { id, entries: hashed.entries.into(), bytes: hashed.bytes })
    };
    if size <= HASH_HERE { Ok(work()) } else { blocking::run(work).await }
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

/// Puts what is in a file. The file is read on blocking threads, as much at a time as there is memory for.
pub(super) async fn fill_from_file(mut writer: BlobWriter, path: PathBuf) -> Result<PutReceipt> {
    let path: Arc<Path> = path.into();
    let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
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
    let file = File::open(path)?;
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
