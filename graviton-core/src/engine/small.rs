//! The short path: a small blob is written before it is referenced, and committed in one transaction.
//!
//! Begin, pin and commit in three transactions would cost a small put most of its time. Instead, for a
//! blob whose blocks are all in memory:
//! 1. look up whether it is there already, in one query for all that come at the same time;
//! 2. write the blocks that are not, durably, in one batch;
//! 3. commit: with the blocks' rows locked, each block either says `stored`, or the file that this put
//!    wrote is still the one under its name (it was neither collected nor replaced), and is not doomed.
//!    If so, rows and references are inserted at once.
//!
//! Nothing protects the bytes between 2 and 3, and nothing has to: if 3 finds them gone or doomed, the blob
//! goes the long way (`pinned`). The model in `tests/model` checks this path beside the long one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::group::{Group, Limits};
use super::write::PutReceipt;
use super::{Core, Engine, pinned};
use crate::block::{Block, Published};
use crate::error::{Code, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{Commit, Committed, ManifestEntry};

/// More blocks go the long way.
pub(super) const MOST_BLOCKS: usize = 64;

/// One batch has at most so many blocks; each is a file that is held open until its blob is committed.
const MOST_BLOCKS_TOGETHER: usize = 256;

/// A blob that is all in memory, cut and hashed.
#[derive(Debug)]
pub(super) struct SmallBlob {
    pub(super) id: BlobId,
    pub(super) entries: Arc<[ManifestEntry]>,
    /// The bytes of each entry.
    pub(super) bytes: Vec<Bytes>,
}

/// A small blob whose blocks are all in the block store.
#[derive(Clone)]
pub(super) struct Ingested {
    /// The blob was live and whole before: nothing is left to do.
    existed: bool,
    fresh_blocks: u64,
    fresh_bytes: u64,
    published: Arc<Published>,
}

pub(super) type Ingest = Group<Arc<SmallBlob>, Result<Ingested>>;

pub(super) fn ingest(core: &Arc<Core>) -> Ingest {
    let core = Arc::clone(core);
    Group::new(
        |blob: &Arc<SmallBlob>| blob.entries.len().max(1),
        Limits { weight: MOST_BLOCKS_TOGETHER, batches: 2 },
        move |batch| {
            let core = Arc::clone(&core);
            async move {
                match write_missing(&core, &batch).await {
                    Ok(ingested) => ingested.into_iter().map(Ok).collect(),
                    Err(error) if batch.len() == 1 || error.code() != Code::NoSpace => {
                        batch.iter().map(|_| Err(error.clone())).collect()
                    }
                    // The disk is full for all of them together; one of them may still find room.
                    Err(_) => {
                        let mut each = Vec::new();
                        for blob in batch {
                            each.push(write_missing(&core, &[blob]).await.map(|mut one| one.remove(0)));
                        }
                        each
                    }
                }
            }
        },
    )
}

/// Steps 1 and 2, for a batch.
async fn write_missing(core: &Core, batch: &[Arc<SmallBlob>]) -> Result<Vec<Ingested>> {
    let ids: Vec<BlobId> = batch.iter().map(|blob| blob.id).collect();
    let blocks: HashMap<BlockKey, &Bytes> =
        batch.iter().flat_map(|blob| blob.entries.iter().map(|entry| entry.key).zip(&blob.bytes)).collect();
    let mut keys: Vec<BlockKey> = blocks.keys().copied().collect();
    keys.sort_unstable();
    let known = core.manifests.known(&ids, &keys).await?;
    let row_of = |key: &BlockKey| keys.binary_search(key).ok().and_then(|place| known.stored[place]);

    // A blob that is live needs no blocks that it does not have: it was cut otherwise.
    let mut fresh: HashSet<BlockKey> = HashSet::new();
    let mut trusted: Vec<BlockKey> = Vec::new();
    for (blob, live) in batch.iter().zip(&known.live) {
        for entry in blob.entries.iter() {
            match row_of(&entry.key) {
                Some(true) => trusted.push(entry.key),
                None if *live => {}
                Some(false) | None => drop(fresh.insert(entry.key)),
            }
        }
    }
    if !trusted.is_empty() {
        // A stored block that is damaged is written again: its row is right, its file is not.
        let intact = core.blocks.seems_intact(&trusted).await?;
        fresh.extend(trusted.iter().zip(intact).filter(|(_, intact)| !intact).map(|(key, _)| *key));
    }
    let published = if fresh.is_empty() {
        Published::without_proof()
    } else {
        let blocks = fresh.iter().map(|key| Block { key: *key, bytes: blocks[key].clone() }).collect();
        core.latch.watch(core.blocks.put(blocks).await)?
    };
    let published = Arc::new(published);
    let answers = batch.iter().zip(&known.live).map(|(blob, live)| {
        // A block that several blobs of the batch share is fresh once.
        let claimed = blob.entries.iter().filter(|entry| fresh.remove(&entry.key));
        let sizes: Vec<u64> = claimed.map(|entry| entry.key.size() as u64).collect();
        Ingested {
            existed: *live && sizes.is_empty(),
            fresh_blocks: sizes.len() as u64,
            fresh_bytes: sizes.iter().sum(),
            published: Arc::clone(&published),
        }
    });
    Ok(answers.collect())
}

impl Engine {
    /// Puts a blob that is all in memory.
    pub(super) async fn put_small(&self, blob: SmallBlob) -> Result<PutReceipt> {
        let blob = Arc::new(blob);
        if !self.core.blocks.proves_publication() {
            return pinned::put_small(self, &blob).await;
        }
        let ingested = self.ingest.join(Arc::clone(&blob)).await??;
        let mut receipt = PutReceipt {
            id: blob.id,
            blocks: blob.entries.len() as u64,
            fresh_blocks: ingested.fresh_blocks,
            fresh_bytes: ingested.fresh_bytes,
            created: !ingested.existed,
        };
        if ingested.existed {
            return Ok(receipt);
        }
        let published = ingested.published;
        let in_place = Box::new(move |key: &BlockKey| published.is_in_place(key));
        let ready = Commit::Whole {
            id: blob.id,
            chunker: Arc::clone(&self.core.chunker_text),
            entries: Arc::clone(&blob.entries),
            in_place,
        };
        match self.commits.join(ready).await?? {
            Committed::Created => Ok(receipt),
            Committed::Existed => {
                receipt.created = false;
                Ok(receipt)
            }
            _ => pinned::put_small(self, &blob).await,
        }
    }
}
