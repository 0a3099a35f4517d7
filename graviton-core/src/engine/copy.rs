//! Copies blobs from another store of any kind, and repairs damaged blocks with blocks of another store.
//!
//! Everything goes through the put protocol of the receiving store: blocks are pinned first, so that no
//! collector deletes them. Blocks that already exist are not fetched from the other store.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use async_recursion::async_recursion as boxed;
use bytes::Bytes;

use super::core::{Core, Engine, StoredBlock, not_found};
use super::damage::{look, recheck};
use super::fetch;
use super::put::pinned::PinnedPut;
use crate::blocking::Task;
use crate::digest::Hasher;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{BlockRecord, BlockRow, ManifestEntry, PlacedEntry};
use crate::place::Located;
use crate::report::{CopyReport, RepairReport};

/// The most blocks and bytes that are pinned and in memory at once.
const BATCH_BLOCKS: usize = 256;
const BATCH_BYTES: usize = 16 << 20;

/// Blocks that are fetched at once.
const TOGETHER: usize = 8;

/// The blobs that a copy brings.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// These blobs; all of the other store if there are none.
    pub ids: Vec<BlobId>,
}

/// Copies blobs from the source.
#[boxed]
pub(super) async fn copy(
    engine: &Engine,
    source: &Arc<Core>,
    options: &CopyOptions,
    progress: &mut (dyn FnMut(&CopyReport) -> ControlFlow<()> + Send),
) -> Result<CopyReport> {
    engine.prepare_to_write().await?;
    let started = Instant::now();
    let mut report = CopyReport::default();
    let wanted = !options.ids.is_empty();
    let mut after = None;
    loop {
        let ids: Vec<BlobId> = if wanted {
            options.ids.clone()
        } else {
            let records = source.manifests.list(after.as_ref(), BATCH_BLOCKS).await?;
            records.into_iter().map(|record| record.id).collect()
        };
        after = ids.last().copied();
        for id in ids {
            let mut tell = |report: &mut CopyReport| {
                report.seconds = started.elapsed().as_secs_f64();
                progress(report)
            };
            engine.check_owner_again().await?;
            if is_whole(&engine.core, &id).await? {
                report.present += 1;
            } else {
                match copy_blob(engine, source, &id, wanted, &mut report, &mut tell).await {
                    Ok(Copied::Created) => report.blobs += 1,
                    Ok(Copied::Existed) => report.present += 1,
                    Ok(Copied::Gone) => {}
                    Ok(Copied::Ended) => return Ok(report),
                    // The others are none the worse for it.
                    Err(error) if is_damage(&error) => report.damaged.push(id),
                    Err(error) => return Err(error),
                }
            }
            if tell(&mut report).is_break() {
                return Ok(report);
            }
        }
        if wanted || after.is_none() {
            break;
        }
    }
    report.complete = true;
    Ok(report)
}

/// Repairs blocks with those of the source.
#[boxed]
pub(super) async fn repair(
    engine: &Engine,
    source: &Arc<Core>,
    progress: &mut (dyn FnMut(&RepairReport) -> ControlFlow<()> + Send),
) -> Result<RepairReport> {
    engine.prepare_to_write().await?;
    let started = Instant::now();
    let mut report = RepairReport::default();
    let mut after = BlockRow(0);
    loop {
        let records = engine.core.manifests.blocks(after, BATCH_BLOCKS).await?;
        let Some(last) = records.last() else { break };
        after = last.row;
        engine.check_owner_again().await?;
        for record in records.into_iter().filter(|record| record.live) {
            repair_block(engine, source, &record, &mut report).await?;
            report.seconds = started.elapsed().as_secs_f64();
            if progress(&report).is_break() {
                return Ok(report);
            }
        }
    }
    report.complete = true;
    Ok(report)
}

/// Whether the blob is here and each of its blocks is stored, with the right length.
async fn is_whole(core: &Core, id: &BlobId) -> Result<bool> {
    let Some((record, _)) = core.manifests.find(id, 0).await? else { return Ok(false) };
    let mut end = 0;
    while end < id.size() {
        let entries = core.manifests.entries(record.row, end, BATCH_BLOCKS).await?;
        let Some(last) = entries.last() else { return Ok(false) };
        end = last.end();
        let mut keys: Vec<BlockKey> = entries.iter().map(|entry| entry.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let known = core.manifests.known(&[], &keys).await?;
        let blocks: Vec<StoredBlock> = keys.into_iter().zip(known.located).collect();
        if known.stored.iter().any(|stored| *stored != Some(true))
            || !core.damaged_at_a_closer_look(&blocks).await?.is_empty()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The outcome of a blob.
enum Copied {
    Created,
    /// Somebody else put it meanwhile.
    Existed,
    /// It was deleted in the other store after it was listed.
    Gone,
    /// The caller ended it.
    Ended,
}

async fn copy_blob(
    engine: &Engine,
    source: &Arc<Core>,
    id: &BlobId,
    wanted: bool,
    report: &mut CopyReport,
    tell: &mut (dyn FnMut(&mut CopyReport) -> ControlFlow<()> + Send),
) -> Result<Copied> {
    let Some((record, _)) = source.manifests.find(id, 0).await? else {
        return if wanted { Err(not_found(id)) } else { Ok(Copied::Gone) };
    };
    let mut put = PinnedPut::begin_cut_by(engine, &record.chunker).await?.looking_closer(true);
    let mut hasher = Hasher::new(id.algo());
    let mut end = 0;
    while end < id.size() {
        let mut placed = source.manifests.entries(record.row, end, BATCH_BLOCKS).await?;
        let mut bytes = 0;
        let count = placed.iter().take_while(|entry| {
            bytes += entry.key.size();
            bytes <= BATCH_BYTES
        });
        placed.truncate(count.count().max(1));
        let located: Vec<Option<Located>> = placed.iter().map(|entry| entry.located).collect();
        let entries: Vec<ManifestEntry> = placed.iter().map(PlacedEntry::entry).collect();
        if entries.is_empty() {
            return Err(broken(id, source));
        }
        for entry in &entries {
            if entry.offset != end {
                return Err(broken(id, source));
            }
            end = entry.end();
        }
        hasher = copy_batch(engine, source, &mut put, (&entries, &located), hasher, report).await?;
        if tell(report).is_break() {
            return Ok(Copied::Ended);
        }
    }
    if end != id.size() || hasher.finish() != *id.digest() {
        return Err(broken(id, source));
    }
    Ok(if put.commit(engine, *id).await?.created { Copied::Created } else { Copied::Existed })
}

fn broken(id: &BlobId, source: &Core) -> Error {
    let why = format!("cannot copy blob {id}: its manifest in {} does not give it", source.blocks.location());
    Error::new(Code::CorruptBlock, why).with_advice("verify the other store")
}

async fn copy_batch(
    engine: &Engine,
    source: &Arc<Core>,
    put: &mut PinnedPut,
    (entries, located): (&[ManifestEntry], &[Option<Located>]),
    mut hasher: Hasher,
    report: &mut CopyReport,
) -> Result<Hasher> {
    let mut pinned = put.pin_missing(entries).await?;
    let mut fetching: VecDeque<(usize, Task<Result<Bytes>>)> = VecDeque::new();
    let mut bytes: Vec<Bytes> = Vec::with_capacity(entries.len());
    let mut next = 0;
    while bytes.len() < entries.len() {
        while fetching.len() < TOGETHER && next < entries.len() {
            let (core, located) = match pinned[next] {
                block if block.is_usable() => (&engine.core, block.located),
                _ => (source, located[next]),
            };
            let (core, key) = (Arc::clone(core), entries[next].key);
            let task = Task::spawn(async move { fetch::fetch_verified(&core, key, located).await });
            fetching.push_back((next, task));
            next += 1;
        }
        let Some((at, task)) = fetching.pop_front() else {
            return Err(Error::new(Code::Internal, "a copy waits for a block that nothing fetches"));
        };
        let block = match task.join().await? {
            Ok(block) => block,
            // Ours is damaged; the other's is not.
            Err(error) if pinned[at].is_usable() && is_damage(&error) => {
                pinned[at].damaged = true;
                fetch::fetch_verified(source, entries[at].key, located[at]).await?
            }
            Err(error) => return Err(error),
        };
        if !pinned[at].is_usable() {
            report.blocks += 1;
            report.bytes += block.len() as u64;
        }
        bytes.push(block);
    }
    let all = bytes.clone();
    hasher = Task::blocking(move || {
        for block in &all {
            hasher.update(block);
        }
        hasher
    })
    .join()
    .await?;
    put.store(entries, &pinned, &bytes).await?;
    // A source that is faster than this store waits.
    put.wait_for_batches(2).await?;
    Ok(hasher)
}

fn is_damage(error: &Error) -> bool {
    matches!(error.code(), Code::MissingBlock | Code::CorruptBlock)
}

async fn repair_block(
    engine: &Engine,
    source: &Arc<Core>,
    record: &BlockRecord,
    report: &mut RepairReport,
) -> Result<()> {
    report.checked += 1;
    if look(&engine.core, record.key, record.located, true).await?.is_none()
        || !recheck(&engine.core, record.row).await?
    {
        return Ok(());
    }
    let theirs = source.manifests.blocks_by_key(vec![record.key]).await?;
    let located = theirs.first().and_then(|record| record.located);
    let bytes = match fetch::fetch_verified(source, record.key, located).await {
        Ok(bytes) => bytes,
        Err(error) if is_damage(&error) => {
            report.lost.push(record.key);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut put = PinnedPut::begin(engine).await?;
    put.add(&[ManifestEntry { offset: 0, key: record.key }], &[bytes]).await?;
    put.release().await?;
    report.repaired += 1;
    report.bytes += record.key.size() as u64;
    Ok(())
}
