//! A database for the suites of manifest repositories, and the steps of a put that all of them use.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::digest::Algo;
use crate::key::{BlobId, BlockKey};
use crate::manifest::{
    BlobRow, BlockRow, Commit, Committed, Durability, ManifestEntry, ManifestRepo, Mark, Pinned, PlacedEntry,
    WriterId,
};

/// A database that the suite may do with as it likes.
#[async_trait]
pub trait DatabasePlace: Send + Sync {
    /// A repository over the database, as one more process would open it.
    async fn open(&self, durability: Durability) -> Arc<ManifestRepo>;

    /// Runs a statement behind the back of all repositories: what a collector does, or time. The suite uses
    /// no more of SQL than all dialects share; tables are those of `docs/FORMAT.md`.
    async fn sql(&self, statement: &str);
}

/// A lease that no test outlives.
pub(super) const LEASE: Duration = Duration::from_secs(3_600);
pub(super) const CHUNKER: &str = "fixed:1000";

/// A key of a block that nobody has the bytes of: the repository asks for none.
pub(super) fn key(number: u32, size: u64) -> BlockKey {
    BlockKey::new(Algo::Blake3, Algo::Blake3.digest(&number.to_le_bytes()), size).unwrap()
}

/// Entries for blocks of these keys, one behind the other.
pub(super) fn entries_of(keys: &[BlockKey]) -> Vec<ManifestEntry> {
    ManifestEntry::tiling(0, keys.iter().copied())
}

/// A blob's id that fits entries, told apart by `name`.
pub(super) fn id_of(name: &str, entries: &[ManifestEntry]) -> BlobId {
    let size = entries.last().map_or(0, ManifestEntry::end);
    BlobId::new(Algo::Blake3, Algo::Blake3.digest(name.as_bytes()), size).unwrap()
}

/// Begins and pins; the rows of the blocks.
pub(super) async fn pinned(
    repo: &ManifestRepo,
    writer: WriterId,
    entries: &[ManifestEntry],
) -> (BlobRow, Vec<BlockRow>) {
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let mut blocks = Vec::new();
    for batch in entries.chunks(1_024) {
        match repo.pin(row, batch).await.unwrap() {
            Pinned::Blocks(pinned) => blocks.extend(pinned.into_iter().map(|block| block.row)),
            other => panic!("cannot pin: {other:?}"),
        }
    }
    (row, blocks)
}

/// Marks of blocks under their own names.
pub(super) fn marks(rows: &[BlockRow]) -> Vec<Mark> {
    rows.iter().map(|row| Mark::named(*row)).collect()
}

/// Entries as they were read, without their places.
pub(super) fn plain(entries: &[PlacedEntry]) -> Vec<ManifestEntry> {
    entries.iter().map(PlacedEntry::entry).collect()
}

/// The whole way of a put.
pub(super) async fn put(
    repo: &ManifestRepo,
    writer: WriterId,
    id: BlobId,
    entries: &[ManifestEntry],
) -> BlobRow {
    let (row, stored) = pinned(repo, writer, entries).await;
    let commit =
        Commit::Pinned { row, id, block_count: entries.len() as u64, marks: marks(&stored), packs: vec![] };
    assert_eq!(repo.commit([commit].into()).await.unwrap(), [Committed::Created]);
    row
}

pub(super) async fn live(repo: &ManifestRepo) -> Vec<BlobId> {
    repo.list(None, 1_000).await.unwrap().into_iter().map(|record| record.id).collect()
}
