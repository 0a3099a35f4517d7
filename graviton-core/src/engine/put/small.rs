//! Small blobs: their blocks are written before they are referenced, and one transaction commits them.
//!
//! Begin, pin and commit in three transactions would take most of the time of a small put. Instead, for a
//! blob whose blocks are all in memory:
//! 1. look up whether it is already stored, in one query for all puts that arrive at the same time;
//! 2. write the missing blocks durably, in one batch;
//! 3. commit. With the blocks' rows locked, each block must either say `stored`, or the file that this put
//!    wrote must still be the one under its name (neither collected nor replaced) and not doomed. Then rows
//!    and references are inserted together.
//!
//! Nothing protects the bytes between 2 and 3, and nothing has to: if step 3 finds them gone or doomed, the
//! blob is pinned instead (`pinned`). The model in `tests/model` checks both ways.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::blob::{Small, SmallBlob};
use super::pinned;
use crate::block::{Block, Published};
use crate::engine::core::{Commits, Core, Engine, SmallPuts, StoredBlock};
use crate::engine::group::{Group, Limits};
use crate::engine::pack::append::Appended;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{Commit, Committed, Durability, Packed};
use crate::place::{Located, Place};
use crate::report::PutReceipt;

/// A blob of more blocks is not small: it is pinned.
pub(crate) const SMALL_BLOCKS: usize = 64;

/// The most blocks of one batch; each may be a file that is held open until its blob is committed.
const BATCH_BLOCKS: usize = 256;

/// The same if blocks are appended to packs: a commit of many rows writes each page of an index once.
const BATCH_BLOCKS_IN_PACKS: usize = 1_024;

/// The same if blocks are sent together, in one object: enough blocks of 4 KiB to be worth a request.
const BATCH_BLOCKS_SENT: usize = 2_048;

/// A small blob whose blocks are all in the block store.
struct Prepared {
    receipt: PutReceipt,
    written: Arc<Written>,
}

/// The blocks that a batch wrote.
struct Written {
    published: Published,
    packed: Arc<HashMap<BlockKey, Packed>>,
    /// Keeps the packs from being sealed.
    _appended: Appended,
}

impl Written {
    /// The stored size of a block that the batch wrote.
    fn stored_size(&self, key: &BlockKey) -> u64 {
        let place = self.packed.get(key).and_then(|packed| packed.place);
        place.map_or(key.size() as u64, |(place, _)| place.stored_size.into())
    }
}

/// Small puts that arrive together share their look-up, their syncs and their commit.
pub(crate) fn small_puts(core: &Arc<Core>, commits: &Arc<Commits>) -> SmallPuts {
    let (core, commits) = (Arc::clone(core), Arc::clone(commits));
    let weight = match core.new_blocks() {
        None => BATCH_BLOCKS,
        Some(_) if core.has_objects_of_packs() => BATCH_BLOCKS_SENT,
        Some(_) => BATCH_BLOCKS_IN_PACKS,
    };
    Group::new(
        |blob: &Arc<SmallBlob>| blob.entries.len().max(1),
        Limits { weight, batches: 3 },
        move |batch| {
            let (core, commits) = (Arc::clone(&core), Arc::clone(&commits));
            async move { put_batch(&core, &commits, &batch).await }
        },
    )
}

/// All three steps. The batch itself commits, so that no open file waits for a caller to continue.
async fn put_batch(core: &Core, commits: &Commits, batch: &[Arc<SmallBlob>]) -> Vec<Result<Small>> {
    let prepared: Vec<Result<Prepared>> = match write_missing(core, batch).await {
        Ok(prepared) => prepared.into_iter().map(Ok).collect(),
        Err(error) if batch.len() == 1 || error.code() != Code::NoSpace => {
            batch.iter().map(|_| Err(error.clone())).collect()
        }
        // The disk is full for all of them together; one of them may still fit.
        Err(_) => {
            let mut each = Vec::new();
            for blob in batch {
                let one = write_missing(core, std::slice::from_ref(blob)).await;
                each.push(one.map(|mut one| one.remove(0)));
            }
            each
        }
    };
    let to_commit = batch.iter().zip(&prepared).filter_map(|(blob, prepared)| {
        let written = Arc::clone(&prepared.as_ref().ok().filter(|one| one.receipt.created)?.written);
        Some(Commit::Whole {
            id: blob.id,
            chunker: Arc::clone(&core.chunker_text),
            entries: Arc::clone(&blob.entries),
            packed: Arc::clone(&written.packed),
            in_place: Box::new(move |key: &BlockKey| written.published.is_in_place(key)),
        })
    });
    let outcomes = match commits.join_all(to_commit.collect()).await {
        Ok(outcomes) => outcomes,
        Err(error) => return batch.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut outcomes = outcomes.into_iter();
    let mut finish = |one: Prepared| {
        let Prepared { mut receipt, .. } = one;
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
    prepared.into_iter().map(|one| one.and_then(&mut finish)).collect()
}

fn no_outcome() -> Error {
    Error::new(Code::Internal, "the commit of a small blob has no outcome of its own")
}

/// Steps 1 and 2, for a batch.
async fn write_missing(core: &Core, batch: &[Arc<SmallBlob>]) -> Result<Vec<Prepared>> {
    let mut found = look_up(core, batch).await?;
    let written = Arc::new(write_fresh(core, batch, &found).await?);
    if found.live.contains(&true) {
        // The look-up alone may answer for such a blob.
        core.latch.watch(core.manifests.look_in_place())?;
    }
    // Blocks that were stored without a sync are relied on only after a commit has synced them.
    let unsafe_to_skip = found.relaxed && core.durability == Durability::Full;
    let answers = batch.iter().zip(&found.live).map(|(blob, live)| {
        // A block that several blobs of the batch share is fresh once.
        let claimed = blob.entries.iter().filter(|entry| found.fresh.remove(&entry.key));
        let sizes: Vec<(u64, u64)> =
            claimed.map(|entry| (entry.key.size() as u64, written.stored_size(&entry.key))).collect();
        let receipt = PutReceipt {
            id: blob.id,
            blocks: blob.entries.len() as u64,
            fresh_blocks: sizes.len() as u64,
            fresh_bytes: sizes.iter().map(|(plain, _)| plain).sum(),
            fresh_stored_bytes: sizes.iter().map(|(_, stored)| stored).sum(),
            created: !live || !sizes.is_empty() || unsafe_to_skip,
        };
        Prepared { receipt, written: Arc::clone(&written) }
    });
    Ok(answers.collect())
}

/// A batch as the database has it.
struct Found {
    /// Whether each blob is live.
    live: Vec<bool>,
    /// Whether some of the blocks may not be durable yet.
    relaxed: bool,
    /// Whether each block is stored, if it has a row, and the record it is in, if it is in a pack.
    rows: HashMap<BlockKey, (Option<bool>, Option<Located>)>,
    /// The blocks to be written.
    fresh: HashSet<BlockKey>,
}

impl Found {
    fn is_stored_as_file(&self, key: &BlockKey) -> bool {
        matches!(self.rows[key], (Some(true), None))
    }

    /// The record of a block that says `stored`.
    fn record(&self, key: &BlockKey) -> Option<Place> {
        let (stored, located) = self.rows[key];
        located.filter(|_| stored == Some(true)).map(|located| located.place)
    }
}

/// Step 1.
async fn look_up(core: &Core, batch: &[Arc<SmallBlob>]) -> Result<Found> {
    let ids: Vec<BlobId> = batch.iter().map(|blob| blob.id).collect();
    let mut keys: Vec<BlockKey> =
        batch.iter().flat_map(|blob| blob.entries.iter().map(|entry| entry.key)).collect();
    keys.sort_unstable();
    keys.dedup();
    let known = core.manifests.known(&ids, &keys).await?;
    if (known.live.len(), known.stored.len()) != (ids.len(), keys.len()) {
        return Err(Error::new(
            Code::Internal,
            "the database answered for other blobs or blocks than were asked for",
        ));
    }
    let rows: HashMap<BlockKey, (Option<bool>, Option<Located>)> =
        keys.into_iter().zip(known.stored.into_iter().zip(known.located)).collect();

    // A live blob needs no blocks that it does not have: it was cut differently.
    let mut fresh: HashSet<BlockKey> = HashSet::new();
    let mut trusted: Vec<StoredBlock> = Vec::new();
    for (blob, live) in batch.iter().zip(&known.live) {
        for entry in blob.entries.iter() {
            match rows[&entry.key] {
                (Some(true), located) => trusted.push((entry.key, located)),
                (None, _) if *live => {}
                (Some(false) | None, _) => drop(fresh.insert(entry.key)),
            }
        }
    }
    if !trusted.is_empty() {
        trusted.sort_unstable_by_key(|(key, _)| *key);
        trusted.dedup();
        // A stored block that is damaged is written again: its row is right, its bytes are not.
        fresh.extend(core.damaged(&trusted).await?);
    }
    Ok(Found { live: known.live, relaxed: known.relaxed, rows, fresh })
}

/// Step 2.
async fn write_fresh(core: &Core, batch: &[Arc<SmallBlob>], found: &Found) -> Result<Written> {
    let bytes: HashMap<BlockKey, &Bytes> =
        batch.iter().flat_map(|blob| blob.entries.iter().map(|entry| entry.key).zip(&blob.bytes)).collect();
    let block = |key: &BlockKey| Block { key: *key, bytes: bytes[key].clone() };
    let (named, packed): (Vec<BlockKey>, Vec<BlockKey>) = in_order(batch, &found.fresh)
        .into_iter()
        .partition(|key| core.new_blocks().is_none() || found.is_stored_as_file(key));
    let published = if named.is_empty() {
        Published::without_proof()
    } else {
        core.put_blocks(named.iter().map(block).collect()).await?
    };
    // Of the blocks that are now files, only those that were damaged records.
    let of_files =
        named.iter().filter_map(|key| Some((*key, Packed { place: None, found: Some(found.record(key)?) })));
    let mut places: HashMap<BlockKey, Packed> = of_files.collect();
    let mut appended = Appended::default();
    if let Some(appender) = core.new_blocks().filter(|_| !packed.is_empty()) {
        appended = core.append_blocks(appender, packed.iter().map(block).collect()).await?;
        for (key, (place, held)) in packed.into_iter().zip(&appended.places) {
            places.insert(key, Packed { place: Some((*place, *held)), found: found.record(&key) });
        }
    }
    Ok(Written { published, packed: Arc::new(places), _appended: appended })
}

/// These blocks, each once, in the order of the blobs, so that they are read together.
fn in_order(batch: &[Arc<SmallBlob>], fresh: &HashSet<BlockKey>) -> Vec<BlockKey> {
    let mut seen = HashSet::with_capacity(fresh.len());
    let keys = batch.iter().flat_map(|blob| blob.entries.iter().map(|entry| entry.key));
    keys.filter(|key| fresh.contains(key) && seen.insert(*key)).collect()
}

/// The receipt, if the blob is already live and its blocks look intact. Skips the batch, which halves the
/// time of a duplicate put.
async fn already_live(core: &Core, blob: &SmallBlob) -> Option<PutReceipt> {
    let blocks = core.manifests.stored_at_once(&blob.id, SMALL_BLOCKS)?;
    // A damaged block is written again, after a closer look.
    core.damaged(&blocks).await.ok().filter(Vec::is_empty)?;
    core.manifests.look_in_place().ok()?;
    let blocks = blob.entries.len() as u64;
    Some(PutReceipt {
        id: blob.id,
        blocks,
        fresh_blocks: 0,
        fresh_bytes: 0,
        fresh_stored_bytes: 0,
        created: false,
    })
}

/// Puts a small blob. With `looks_closer` it checks each block before it relies on it, even if that costs a
/// request each.
pub(crate) async fn put(engine: &Engine, blob: SmallBlob, looks_closer: bool) -> Result<PutReceipt> {
    let looks_closer = looks_closer && !engine.core.blocks.is_local();
    if !looks_closer && let Some(receipt) = already_live(&engine.core, &blob).await {
        return Ok(receipt);
    }
    let blob = Arc::new(blob);
    if (engine.core.blocks.proves_publication() || engine.core.new_blocks().is_some())
        && !looks_closer
        && let Small::Done(receipt) = engine.small_puts.join(Arc::clone(&blob)).await??
    {
        return Ok(receipt);
    }
    pinned::put(engine, &blob, looks_closer).await
}
