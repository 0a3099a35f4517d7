//! The stages of a stream that is longer than one buffer: cut, hashed and stored at the same time.
//!
//! ```text
//! buffer -> cutter -> block hashes (in parallel) -> pinned put
//!              └----> blob hash (in order)
//! ```
//! Each stage is a task with a short queue in front of it; hashing and cutting run on blocking threads. The
//! window bounds the memory: a buffer is free again when its last block is stored.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::blob::SmallBlob;
use super::pinned::{PIN_BLOCKS, PinnedPut};
use super::small::SMALL_BLOCKS;
use crate::blocking::{self, Task};
use crate::chunker::Chunker;
use crate::digest::{Algo, Digest, Hasher};
use crate::engine::buffer::{Buffers, Filled, Window};
use crate::engine::core::{Core, Engine};
use crate::error::Result;
use crate::key::{BlobId, BlockKey};
use crate::manifest::ManifestEntry;

/// Up to so many bytes are hashed where they are: it takes less time than handing them to another thread.
const HASH_HERE: usize = 64 << 10;

/// The stages of a stream that is longer than one buffer.
pub(super) struct Pipeline {
    pub(super) filled: mpsc::Sender<Filled>,
    cutter: JoinHandle<Result<()>>,
    hasher: JoinHandle<Result<Digest>>,
    storer: JoinHandle<Result<PinnedPut>>,
}

/// Blocks of one stream, hashed.
struct Hashed {
    entries: Vec<ManifestEntry>,
    bytes: Vec<Bytes>,
}

impl Pipeline {
    pub(super) async fn start(
        engine: &Arc<Engine>,
        algo: Algo,
        window: &Window,
        looks_closer: bool,
    ) -> Result<Pipeline> {
        let put = PinnedPut::begin(engine).await?.looking_closer(looks_closer);
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

    /// Stops the stages where they are.
    pub(super) fn abort(&self) {
        self.cutter.abort();
        self.hasher.abort();
        self.storer.abort();
    }

    /// Waits for all stages; the first error in the order of the stages that cause others to fail.
    pub(super) async fn finish(self) -> Result<(Digest, PinnedPut)> {
        drop(self.filled);
        let (cut, digest, put) = tokio::join!(self.cutter, self.hasher, self.storer);
        let put = blocking::joined(put)??;
        blocking::joined(cut)??;
        Ok((blocking::joined(digest)??, put))
    }
}

/// Cuts buffers into blocks, in order. The rest of a buffer goes in front of the next one.
async fn cut(
    mut chunker: Box<dyn Chunker>,
    algo: Algo,
    mut filled: mpsc::Receiver<Filled>,
    bodies: mpsc::Sender<Bytes>,
    hashing: mpsc::Sender<Task<Hashed>>,
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
                Task::blocking(move || {
                    let (blocks, rest) = cut_some(chunker.as_mut(), bytes, end);
                    (blocks, chunker, rest)
                })
                .join()
                .await?
            };
            chunker = back;
            bytes = rest;
            let all = blocks.len() < PIN_BLOCKS;
            if !blocks.is_empty() {
                let start = offset;
                offset += blocks.iter().map(|block| block.len() as u64).sum::<u64>();
                let work = Task::blocking(move || hash_blocks(algo, start, blocks));
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

/// Up to [`PIN_BLOCKS`] blocks from the front of the bytes, and what is left.
fn cut_some(chunker: &mut dyn Chunker, mut bytes: Bytes, end: bool) -> (Vec<Bytes>, Bytes) {
    let mut blocks = Vec::new();
    while blocks.len() < PIN_BLOCKS {
        let Some(size) = chunker.cut(&bytes, end) else { break };
        blocks.push(bytes.split_to(size));
    }
    (blocks, bytes)
}

fn hash_blocks(algo: Algo, offset: u64, bytes: Vec<Bytes>) -> Hashed {
    let key_of = |block: &Bytes| {
        BlockKey::new(algo, algo.digest(block), block.len() as u64)
            .expect("a chunker's block is neither empty nor too large")
    };
    Hashed { entries: ManifestEntry::tiling(offset, bytes.iter().map(key_of)), bytes }
}

/// Hashes the whole stream.
async fn hash(algo: Algo, mut bodies: mpsc::Receiver<Bytes>) -> Result<Digest> {
    let mut hasher = Hasher::new(algo);
    while let Some(body) = bodies.recv().await {
        hasher = Task::blocking(move || {
            hasher.update(&body);
            hasher
        })
        .join()
        .await?;
    }
    Ok(hasher.finish())
}

/// Pins and stores blocks in batches: few round trips of the database for many blocks.
async fn store(
    mut put: PinnedPut,
    mut hashing: mpsc::Receiver<Task<Hashed>>,
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
                    let hashed = work.join().await?;
                    waiting += hashed.bytes.iter().map(Bytes::len).sum::<usize>();
                    batch.entries.extend(hashed.entries);
                    batch.bytes.extend(hashed.bytes);
                }
                None => end = true,
            },
            // The blocks that wait here may hold the buffer that the source waits for.
            () = window.until_source_waits() => {}
        }
        while batch.entries.len() >= PIN_BLOCKS
            || (!batch.entries.is_empty() && (end || waiting >= buffers.batch_bytes(&window)))
        {
            let count = batch.entries.len().min(PIN_BLOCKS);
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
pub(super) async fn prepare(core: Arc<Core>, algo: Algo, bytes: Bytes) -> Result<Option<SmallBlob>> {
    let size = bytes.len();
    let work = move || {
        let mut chunker = core.spec.chunker();
        let mut rest = bytes.clone();
        let mut blocks = Vec::new();
        while let Some(size) = chunker.cut(&rest, true) {
            if blocks.len() == SMALL_BLOCKS {
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
