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

use super::commit::Commits;
use super::group::{Group, Limits};
use super::{Core, Engine, pinned};
use crate::block::{Block, Published};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{Commit, Committed, Durability, ManifestEntry};
use crate::report::PutReceipt;

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

pub(super) type Ingest = Group<Arc<SmallBlob>, Result<Small>>;

/// What became of a small blob.
pub(super) enum Small {
    Done(PutReceipt),
    /// A block is not in place any more, or doomed: it has to be put the long way.
    NotInPlace,
}

/// A small blob whose blocks are all in the block store.
struct Ingested {
    receipt: PutReceipt,
    published: Arc<Published>,
}

pub(super) fn ingest(core: &Arc<Core>, commits: &Arc<Commits>) -> Ingest {
    let (core, commits) = (Arc::clone(core), Arc::clone(commits));
    Group::new(
        |blob: &Arc<SmallBlob>| blob.entries.len().max(1),
        Limits { weight: MOST_BLOCKS_TOGETHER, batches: 3 },
        move |batch| {
            let (core, commits) = (Arc::clone(&core), Arc::clone(&commits));
            async move { put_batch(&core, &commits, &batch).await }
        },
    )
}

/// All three steps. The batch itself commits, so that no open file waits for a caller to go on.
async fn put_batch(core: &Core, commits: &Commits, batch: &[Arc<SmallBlob>]) -> Vec<Result<Small>> {
    let ingested: Vec<Result<Ingested>> = match write_missing(core, batch).await {
        Ok(ingested) => ingested.into_iter().map(Ok).collect(),
        Err(error) if batch.len() == 1 || error.code() != Code::NoSpace => {
            batch.iter().map(|_| Err(error.clone())).collect()
        }
        // The disk is full for all of them together; one of them may still find room.
        Err(_) => {
            let mut each = Vec::new();
            for blob in batch {
                let one = write_missing(core, std::slice::from_ref(blob)).await;
                each.push(one.map(|mut one| one.remove(0)));
            }
            each
        }
    };
    let to_commit = batch.iter().zip(&ingested).filter_map(|(blob, ingested)| {
        let published = Arc::clone(&ingested.as_ref().ok().filter(|one| one.receipt.created)?.published);
        Some(Commit::Whole {
            id: blob.id,
            chunker: Arc::clone(&core.chunker_text),
            entries: Arc::clone(&blob.entries),
            in_place: Box::new(move |key: &BlockKey| published.is_in_place(key)),
        })
    });
    let outcomes = match commits.join_all(to_commit.collect()).await {
        Ok(outcomes) => outcomes,
        Err(error) => return batch.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut outcomes = outcomes.into_iter();
    let mut finish = |one: Ingested| {
        let Ingested { mut receipt, .. } = one;
        if receipt.created {
            match outcomes.next().ok_or_else(no_outcome)?? {
                Committed::Created => {}
                Committed::Existed => receipt.created = false,
                Committed::NotInPlace => return Ok(Small::NotInPlace),
                Committed::Expired | Committed::NotDurable => return Err(no_outcome()),
            }
        }
        Ok(Small::Done(receipt))
    };
    ingested.into_iter().map(|one| one.and_then(&mut finish)).collect()
}

fn no_outcome() -> Error {
    Error::new(Code::Internal, "the commit of a small blob has no outcome of its own")
}

/// Steps 1 and 2, for a batch.
async fn write_missing(core: &Core, batch: &[Arc<SmallBlob>]) -> Result<Vec<Ingested>> {
    let ids: Vec<BlobId> = batch.iter().map(|blob| blob.id).collect();
    let blocks: HashMap<BlockKey, &Bytes> =
        batch.iter().flat_map(|blob| blob.entries.iter().map(|entry| entry.key).zip(&blob.bytes)).collect();
    let mut keys: Vec<BlockKey> = blocks.keys().copied().collect();
    keys.sort_unstable();
    let known = core.manifests.known(&ids, &keys).await?;
    if (known.live.len(), known.stored.len()) != (ids.len(), keys.len()) {
        return Err(Error::new(
            Code::Internal,
            "the database answered for other blobs or blocks than were asked for",
        ));
    }
    let rows: HashMap<BlockKey, Option<bool>> = keys.into_iter().zip(known.stored).collect();

    // A blob that is live needs no blocks that it does not have: it was cut otherwise.
    let mut fresh: HashSet<BlockKey> = HashSet::new();
    let mut trusted: Vec<BlockKey> = Vec::new();
    for (blob, live) in batch.iter().zip(&known.live) {
        for entry in blob.entries.iter() {
            match rows[&entry.key] {
                Some(true) => trusted.push(entry.key),
                None if *live => {}
                Some(false) | None => drop(fresh.insert(entry.key)),
            }
        }
    }
    if !trusted.is_empty() {
        // A stored block that is damaged is written again: its row is right, its file is not.
        fresh.extend(core.damaged(&trusted).await?);
    }
    let published = if fresh.is_empty() {
        Published::without_proof()
    } else {
        let blocks = fresh.iter().map(|key| Block { key: *key, bytes: blocks[key].clone() }).collect();
        core.put_blocks(blocks).await?
    };
    let published = Arc::new(published);
    // What somebody stored without syncing is only relied on after a commit has seen to that.
    let unsafe_to_skip = known.relaxed && core.durability == Durability::Full;
    let answers = batch.iter().zip(&known.live).map(|(blob, live)| {
        // A block that several blobs of the batch share is fresh once.
        let claimed = blob.entries.iter().filter(|entry| fresh.remove(&entry.key));
        let sizes: Vec<u64> = claimed.map(|entry| entry.key.size() as u64).collect();
        let receipt = PutReceipt {
            id: blob.id,
            blocks: blob.entries.len() as u64,
            fresh_blocks: sizes.len() as u64,
            fresh_bytes: sizes.iter().sum(),
            created: !live || !sizes.is_empty() || unsafe_to_skip,
        };
        Ingested { receipt, published: Arc::clone(&published) }
    });
    Ok(answers.collect())
}

impl Core {
    /// What a put comes to that finds the blob live and whole, as far as that is seen without reading it. It is step 1 for the
    /// most frequent outcome, without the batch: half of what such a put takes otherwise.
    async fn already(&self, blob: &SmallBlob) -> Option<PutReceipt> {
        let keys = self.manifests.stored_at_once(&blob.id, MOST_BLOCKS)?;
        // What is damaged is written again, after a look at more than this.
        self.damaged(&keys).await.ok().filter(Vec::is_empty)?;
        let blocks = blob.entries.len() as u64;
        Some(PutReceipt { id: blob.id, blocks, fresh_blocks: 0, fresh_bytes: 0, created: false })
    }
}

impl Engine {
    /// Puts a blob that is all in memory.
    pub(super) async fn put_small(&self, blob: SmallBlob) -> Result<PutReceipt> {
        if let Some(receipt) = self.core.already(&blob).await {
            return Ok(receipt);
        }
        let blob = Arc::new(blob);
        if self.core.blocks.proves_publication()
            && let Small::Done(receipt) = self.ingest.join(Arc::clone(&blob)).await??
        {
            return Ok(receipt);
        }
        pinned::put_small(self, &blob).await
    }
}
