//! Fetches blocks from where their rows say, and verifies them before any byte is returned.
//!
//! A block may move after its row was read, from a file into a pack or to another pack. So if its bytes are
//! not right, its row is read again. If it says the same place, the block is read there once more, because it
//! may have moved away and back. Only a block that is still wrong there counts as missing or damaged. That is
//! recorded in its row.

use std::ops::Range;
use std::sync::Arc;

use async_recursion::async_recursion as boxed;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::Core;
use super::damage;
use super::pack::read::Run;
use crate::block::{altered, wrong_length};
use crate::blocking::{self, Task};
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::manifest::{BlockRecord, PlacedEntry};
use crate::place::{Located, Place};
use crate::runtime;

/// How often a block is looked for where its row says that it has moved to.
const MOVES: usize = 4;

/// Blocks that are fetched at once, here and over a network.
const TOGETHER_HERE: usize = 4;
const TOGETHER_THERE: usize = 32;

/// The part of a block that is fetched: all of it, or, where nobody verifies it, only the wanted bytes.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) entry: PlacedEntry,
    /// The part of the blob that it is.
    pub(super) range: Range<u64>,
}

impl Piece {
    /// The range inside the block; `None` for the whole block.
    fn within_block(&self) -> Option<Range<usize>> {
        let Range { start, end } = self.range;
        let whole = (start, end) == (self.entry.offset, self.entry.end());
        let inside = |offset: u64| (offset - self.entry.offset) as usize;
        (!whole).then(|| inside(start)..inside(end))
    }
}

#[derive(Debug)]
pub(super) enum Fetching {
    /// Not begun: to be done by whoever waits for it.
    Here,
    Task(Task<Result<Bytes>>),
    /// One of several neighbours in a pack, which a task reads together.
    Together(oneshot::Receiver<Result<Bytes>>, Arc<Task<()>>),
}

impl Fetching {
    /// The bytes, where the work has begun.
    pub(super) async fn join(self, core: &Arc<Core>, piece: &Piece) -> Result<Bytes> {
        match self {
            Fetching::Here => fetch(core, piece.clone()).await,
            Fetching::Task(task) => task.join().await.flatten(),
            Fetching::Together(bytes, _task) => bytes.await.map_err(|_| ended())?,
        }
    }
}

fn ended() -> Error {
    Error::new(Code::Closed, "the runtime that drives the store is shutting down")
}

/// The bytes of a piece, verified if it is a whole block.
pub(super) async fn fetch(core: &Arc<Core>, piece: Piece) -> Result<Bytes> {
    let entry = piece.entry;
    if let Some(range) = piece.within_block() {
        return core.get(&entry.key, entry.located.as_ref(), Some(range)).await;
    }
    let bytes = core.get(&entry.key, entry.located.as_ref(), None).await?;
    if !core.verify_reads || core.blocks.is_local() && blocking::may_block_here() {
        return verified(core, &entry, bytes);
    }
    let core = Arc::clone(core);
    blocking::run(move || verified(&core, &entry, bytes)).await?
}

/// The bytes of a block, verified whatever the store's setting. If it is not right there, it may have moved
/// since the row was read.
pub(super) async fn fetch_verified(
    core: &Arc<Core>,
    key: BlockKey,
    located: Option<Located>,
) -> Result<Bytes> {
    match fetch_compared(core, key, located).await {
        Err(error) => fetch_moved(core, key, located, error, |at| fetch_compared(core, key, at)).await,
        fetched => fetched,
    }
}

/// Reads a block where it has moved to since it was not right at this place, with this error. If it has not
/// moved, it is damaged, and that is noted.
pub(super) async fn fetch_moved<F: Future<Output = Result<Bytes>>>(
    core: &Arc<Core>,
    key: BlockKey,
    mut located: Option<Located>,
    mut error: Error,
    fetch: impl Fn(Option<Located>) -> F,
) -> Result<Bytes> {
    let mut has_looked_again = false;
    for _ in 0..MOVES {
        let Some(to) = place_of(core, key, &error).await? else { break };
        // It may have moved away and back since it was missed, so it is looked for once more.
        let is_same = is_same(located, to);
        if is_same && has_looked_again {
            break;
        }
        has_looked_again = is_same;
        located = to;
        match fetch(located).await {
            Ok(bytes) => return Ok(bytes),
            Err(again) => error = again,
        }
    }
    damage::note(core, key, &error).await;
    Err(error)
}

/// The bytes of blocks, and the number of blocks that are not right.
#[derive(Default)]
pub(super) struct Fetched {
    pub(super) blocks: Vec<(BlockRecord, Bytes)>,
    /// Blocks that are damaged, and are marked as not stored.
    pub(super) damaged: u64,
    /// Blocks that were not right, and that a put has written again meanwhile.
    pub(super) changed: u64,
}

/// Fetches the blocks, and compares them with their digests. A damaged block is marked as not stored, and
/// counted.
pub(super) async fn fetch_several(core: &Arc<Core>, records: &[BlockRecord]) -> Result<Fetched> {
    let together = if core.blocks.is_local() { TOGETHER_HERE } else { TOGETHER_THERE };
    let mut fetched = Fetched::default();
    for part in records.chunks(together) {
        let reads: Vec<(BlockRecord, Task<Result<Bytes>>)> = part
            .iter()
            .map(|record| {
                let (core, record) = (Arc::clone(core), *record);
                let task =
                    Task::spawn(async move { fetch_verified(&core, record.key, record.located).await });
                (record, task)
            })
            .collect();
        for (record, read) in reads {
            match read.join().await? {
                Ok(bytes) => fetched.blocks.push((record, bytes)),
                Err(error) if is_damage(core, &error, &record) => {
                    // The read has noted it, unless the database was slow.
                    if damage::recheck(core, record.row).await? {
                        fetched.damaged += 1;
                    } else {
                        fetched.changed += 1;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(fetched)
}

/// A sector that cannot be read is damage, and so is a file that this user may not read; a pack has many
/// blocks.
fn is_damage(core: &Core, error: &Error, record: &BlockRecord) -> bool {
    damage::is_damage(core, error) && !(record.located.is_some() && damage::is_unreadable(core, error))
}

async fn fetch_compared(core: &Arc<Core>, key: BlockKey, located: Option<Located>) -> Result<Bytes> {
    let bytes = core.get(&key, located.as_ref(), None).await?;
    let core = Arc::clone(core);
    Task::blocking(move || compared(&core, key, located.as_ref(), bytes)).join().await.flatten()
}

/// The place of a block by its row, after it was not right where it was; `None` if there is no row any more.
async fn place_of(core: &Core, key: BlockKey, error: &Error) -> Result<Option<Option<Located>>> {
    let has_packs = core.packs.is_some() && core.manifests.has_packs();
    if !has_packs || !matches!(error.code(), Code::MissingBlock | Code::CorruptBlock) {
        return Ok(None);
    }
    let records = core.manifests.blocks_by_key(vec![key]).await?;
    Ok(records.first().map(|record| record.located))
}

fn is_same(one: Option<Located>, other: Option<Located>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.place.is(&other.place),
        (None, None) => true,
        _ => false,
    }
}

pub(super) fn fetch_in_task(core: &Arc<Core>, piece: Piece) -> Task<Result<Bytes>> {
    let core = Arc::clone(core);
    if core.blocks.is_local() {
        // One thread reads and hashes, while the bytes are in its cache.
        Task::blocking(move || runtime::drive(fetch(&core, piece)))
    } else {
        Task::spawn(async move { fetch(&core, piece).await })
    }
}

/// Reads neighbours of one pack, and sends each of them when it is verified.
pub(super) fn fetch_together(
    core: &Arc<Core>,
    run: Vec<PlacedEntry>,
    senders: Vec<oneshot::Sender<Result<Bytes>>>,
) -> Task<()> {
    let core = Arc::clone(core);
    Task::spawn(async move {
        let placed = run.into_iter().filter_map(|entry| Some((entry, entry.located?.place)));
        let placed: Vec<(PlacedEntry, Place)> = placed.collect();
        let read = match (core.packs.as_ref(), placed.first(), placed.last()) {
            (Some(packs), Some((_, first)), Some((_, last))) => Run::read(packs, first, last).await,
            _ => Err(Error::new(Code::Internal, "blocks are read from a pack that are in none")),
        };
        let each = move || {
            for ((entry, place), sender) in placed.iter().zip(senders) {
                let bytes = match &read {
                    Ok(run) => run.payload(&entry.key, place, core.verify_reads),
                    Err(error) => Err(error.clone()),
                };
                // The reader may have gone elsewhere.
                let _ = sender.send(bytes.and_then(|bytes| verified(&core, entry, bytes)));
            }
        };
        // If it cannot run, the receivers notice.
        let _ = blocking::run(each).await;
    })
}

pub(super) fn verified(core: &Core, entry: &PlacedEntry, bytes: Bytes) -> Result<Bytes> {
    let (key, located) = (entry.key, entry.located.as_ref());
    if bytes.len() != key.size() {
        return Err(wrong_length(&key, &core.place(&key, located), bytes.len() as u64));
    }
    if core.verify_reads { compared(core, key, located, bytes) } else { Ok(bytes) }
}

/// The bytes, if they have the digest of the key.
fn compared(core: &Core, key: BlockKey, located: Option<&Located>, bytes: Bytes) -> Result<Bytes> {
    if key.algo().digest(&bytes) != *key.digest() {
        core.suspect(key);
        return Err(altered(&key, &core.place(&key, located)));
    }
    Ok(bytes)
}

/// The bytes of a stored block, verified.
#[boxed]
pub(super) async fn block(core: &Arc<Core>, key: &BlockKey) -> Result<Bytes> {
    let not_found = || {
        Error::new(Code::NotFound, format!("there is no block {key} in this store"))
            .with_advice("check the key")
    };
    let records = core.manifests.blocks_by_key(vec![*key]).await?;
    let Some(record) = records.first() else { return Err(not_found()) };
    match fetch_verified(core, *key, record.located).await {
        // It was announced and not written yet.
        Err(error) if !record.stored && !record.live && error.code() == Code::MissingBlock => {
            Err(not_found())
        }
        fetched => fetched,
    }
}

/// Whether the block is stored.
#[boxed]
pub(super) async fn has_block(core: &Core, key: &BlockKey) -> Result<bool> {
    let records = core.manifests.blocks_by_key(vec![*key]).await?;
    Ok(records.iter().any(|record| record.stored))
}
