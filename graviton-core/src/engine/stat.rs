//! Queries: about one blob, about all blobs, and sums over the store.

use std::sync::Arc;

use super::core::{Core, Engine, Seen, not_found};
use crate::blocking::Task;
use crate::error::Result;
use crate::key::BlobId;
use crate::manifest::{BlobRecord, ManifestEntry, PlacedEntry};
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
pub(super) async fn find(core: &Core, id: &BlobId) -> Result<Option<BlobStat>> {
    let found = match core.manifests.find_at_once(id, 0) {
        Some(found) => found,
        None => core.manifests.find(id, 0).await?,
    };
    Ok(found.map(|(record, _)| record.into()))
}

/// Looks up a live blob; `not-found` if there is none of that id.
pub(super) async fn stat(core: &Core, id: &BlobId) -> Result<BlobStat> {
    find(core, id).await?.ok_or_else(|| not_found(id))
}

/// Up to `limit` entries of a blob's manifest, from the one that holds the byte at `from` on.
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
pub(super) async fn list(core: &Core, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobStat>> {
    let records = core.manifests.list(after, limit).await?;
    Ok(records.into_iter().map(BlobStat::from).collect())
}

/// Sums over the store.
pub(super) async fn stats(core: &Core) -> Result<StoreStats> {
    let manifests = Arc::clone(&core.manifests);
    let stats = Task::spawn(async move { manifests.totals().await }).join().await??;
    Ok(StoreStats { directory_share: directory_share(core).await?, ..stats })
}

/// Asks the database and the block store something small each, and whether the blocks are this database's.
pub(super) async fn ping(engine: &Engine) -> Result<()> {
    let core = &engine.core;
    engine.check_identity(core.manifests.store().await?, Seen::NotYet).await?;
    core.latch.watch(core.manifests.check_in_place().await)
}

/// Fails if a put would be refused.
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
pub(super) async fn directory_share(core: &Core) -> Result<f64> {
    match core.blocks.disk() {
        Some(disk) => disk.directory_share().await,
        None => Ok(0.0),
    }
}
