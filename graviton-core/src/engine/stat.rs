//! Queries: one blob, all blobs, and sums over the store.

use std::collections::HashMap;
use std::sync::Arc;

use async_recursion::async_recursion as boxed;

use super::core::{Core, Engine, Seen, not_found};
use crate::block::Packs;
use crate::blocking::Task;
use crate::error::{Code, Error, Result};
use crate::key::BlobId;
use crate::manifest::{BlobRecord, BlockRow, ManifestEntry, PackPhase, PackSums, PlacedEntry};
use crate::place::{HEADER, PackName};
use crate::report::{BlobStat, StoreStats};

impl From<BlobRecord> for BlobStat {
    fn from(record: BlobRecord) -> BlobStat {
        BlobStat {
            id: record.id,
            blocks: record.block_count,
            chunker: record.chunker,
            created_at_ms: record.created_at_ms,
        }
    }
}

/// Looks up a live blob; `None` if there is none of that id.
#[boxed]
pub(super) async fn find(core: &Core, id: &BlobId) -> Result<Option<BlobStat>> {
    let found = match core.manifests.find_at_once(id, 0) {
        Some(found) => found,
        None => core.manifests.find(id, 0).await?,
    };
    Ok(found.map(|(record, _)| record.into()))
}

/// Looks up a live blob; `not-found` if there is none of that id.
#[boxed]
pub(super) async fn stat(core: &Core, id: &BlobId) -> Result<BlobStat> {
    find(core, id).await?.ok_or_else(|| not_found(id))
}

/// Up to `limit` entries of a blob's manifest, from the one that holds the byte at `from` on.
#[boxed]
pub(super) async fn manifest(
    core: &Core,
    id: &BlobId,
    from: u64,
    limit: usize,
) -> Result<Vec<ManifestEntry>> {
    let (record, _) = core.manifests.find(id, 0).await?.ok_or_else(|| not_found(id))?;
    if from >= id.size() {
        return Ok(Vec::new());
    }
    let entries = core.manifests.entries(record.row, from, limit).await?;
    Ok(entries.iter().map(PlacedEntry::entry).collect())
}

/// Up to `limit` live blobs behind `after`.
#[boxed]
pub(super) async fn list(core: &Core, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobStat>> {
    let records = core.manifests.list(after, limit).await?;
    Ok(records.into_iter().map(BlobStat::from).collect())
}

/// Sums over the store.
#[boxed]
pub(super) async fn stats(core: &Core) -> Result<StoreStats> {
    let manifests = Arc::clone(&core.manifests);
    let stats = Task::spawn(async move { manifests.totals().await }).join().await??;
    let mut stats = StoreStats { directory_share: directory_share(core).await?, ..stats };
    if let Some(packs) = core.packs.as_ref().filter(|_| core.manifests.has_packs()) {
        add_packs(core, &**packs, &mut stats).await?;
    }
    Ok(stats)
}

async fn add_packs(core: &Core, packs: &dyn Packs, stats: &mut StoreStats) -> Result<()> {
    // Listed first: the row of a new pack is there before its file.
    let mut lengths: HashMap<PackName, u64> = packs.list().await?.into_iter().collect();
    let manifests = Arc::clone(&core.manifests);
    for PackSums { name, phase, live, released } in
        Task::spawn(async move { manifests.pack_sums().await }).join().await??
    {
        let length = lengths.remove(&name);
        stats.packs += 1;
        stats.pack_live_bytes += live;
        stats.pack_pending_bytes += released;
        match phase {
            PackPhase::Open => {
                let used = HEADER + live + released;
                stats.pack_open_bytes += length.unwrap_or_default().saturating_sub(used);
            }
            PackPhase::Sealed { dead, punched, goes } => {
                let punched = punched.min(dead);
                stats.pack_punched_bytes += punched;
                let waste = if goes { &mut stats.pack_pending_bytes } else { &mut stats.pack_dead_bytes };
                *waste += dead - punched;
            }
        }
    }
    for (name, bytes) in lengths {
        // One that was dropped meanwhile lost its file before its row.
        if packs.length(&name).await?.is_some() {
            stats.unknown_packs += 1;
            stats.unknown_pack_bytes += bytes;
        }
    }
    Ok(())
}

/// Asks the database and the block store something small each, whether the blocks are this database's, and
/// whether any of the first that it knows is there: a directory or a bucket may be gone, and the id of the
/// store not.
#[boxed]
pub(super) async fn ping(engine: &Engine) -> Result<()> {
    let core = &engine.core;
    engine.check_identity(core.manifests.store().await?, Seen::NotYet).await?;
    core.latch.watch(core.manifests.check_in_place().await)?;
    let mut missed = None;
    let blocks = core.manifests.blocks(BlockRow(0), PROBED).await?;
    for block in blocks.iter().filter(|block| block.stored) {
        let length = match (&block.located, core.blocks.packs()) {
            (None, _) => core.blocks.length(&block.key).await,
            (Some(located), Some(packs)) => packs.length(&located.place.name).await,
            // This store does not read packs, which opening it said.
            (Some(_), None) => return Ok(()),
        };
        match length {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => missed = missed.or(Some(Ok(block))),
            Err(error) => missed = Some(Err(error)),
        }
    }
    match missed {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(block)) => {
            let place = match &block.located {
                None => core.blocks.place(&block.key),
                Some(located) => located.place.name.to_string(),
            };
            let why = format!("none of the first blocks is where the database has them, as {place}");
            Err(Error::new(Code::MissingBlock, why).with_advice(
                "check that the directory or bucket of the blocks is the right one and is mounted, then run `graviton verify`",
            ))
        }
    }
}

/// Blocks that are looked for until one is there. One alone may be damage, which keeps no other from being
/// read.
const PROBED: usize = 16;

/// Fails if a put would be refused.
#[boxed]
pub(super) async fn check_writes(engine: &Engine) -> Result<()> {
    let core = &engine.core;
    core.check_writable()?;
    engine.check_owner().await?;
    if let Some(disk) = core.blocks.disk() {
        disk.check_writable().await?;
    }
    core.manifests.check_writable().await
}

/// The `directory_share` from which on to warn: a new block may soon find no place, however much space is
/// free.
pub const NEARLY_FULL_DIRECTORY: f64 = 0.8;

/// How full the fullest directory of blocks is.
#[boxed]
pub(super) async fn directory_share(core: &Core) -> Result<f64> {
    match core.blocks.disk() {
        Some(disk) => disk.directory_share().await,
        None => Ok(0.0),
    }
}
