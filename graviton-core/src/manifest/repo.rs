//! A manifest repository over any database that carries out the steps of the protocol.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::connection::{Database, Step};
use super::schema::Schema;
use super::{
    BlobRecord, BlobRow, BlockRecord, BlockRow, Collection, Commit, Committed, Connections, DeleteBytes,
    Doomed, Durability, GarbagePlan, Known, LookAgain, ManifestEntry, ManifestRepo, Opening, Pinned,
    Restored, StoreRecord, Totals, WriterId, schema, steps,
};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::random;

/// Manifests in a database that speaks SQL; [`super::SqliteManifestRepo`] and [`super::PostgresManifestRepo`].
///
/// Only what must survive a power cut is synced: pins serve living processes, so that
/// their transactions are left to the next sync, which a commit makes.
#[derive(Debug)]
pub struct SqlManifestRepo<D> {
    pub(super) database: D,
    pub(super) durability: Durability,
}

fn no_row() -> Error {
    Error::new(Code::CorruptDatabase, "the database gave no row where there is always one")
        .with_advice("restore the database from a backup")
}

/// Whether the tables have to be made or brought up to date. An older schema can be read as it is, for all that was
/// changed since were indexes.
pub(super) fn needs_migration(schema: Schema, opening: Opening, name: &str) -> Result<bool> {
    match (schema, opening) {
        (Schema::Current, _) | (Schema::Old, Opening::ToRead) => Ok(false),
        (Schema::Old, _) | (Schema::Absent, Opening::Create) => Ok(true),
        (Schema::Absent, _) => {
            Err(Error::new(Code::NotFound, format!("there is no store: {name} has no tables of Graviton's"))
                .with_advice("check the setting, or put something to create the store"))
        }
    }
}

#[async_trait]
impl<D: Database> ManifestRepo for SqlManifestRepo<D> {
    async fn store(&self) -> Result<StoreRecord> {
        self.database.read(steps::ReadStore).await?.ok_or_else(no_row)
    }

    async fn set_block_location(&self, location: &str) -> Result<()> {
        self.write_durably(steps::SetBlockLocation(location.to_owned())).await
    }

    async fn set_durability(&self, durability: Durability) -> Result<()> {
        self.write_durably(steps::SetDurability(durability)).await
    }

    async fn register_writer(&self, lease: Duration) -> Result<WriterId> {
        self.database.write(false, steps::RegisterWriter(lease)).await?.ok_or_else(no_row)
    }

    async fn renew_writer(&self, writer: WriterId, lease: Duration) -> Result<bool> {
        self.database.renew(steps::RenewWriter(writer, lease)).await
    }

    async fn remove_writer(&self, writer: WriterId) -> Result<()> {
        self.database.write(false, steps::RemoveWriter(writer)).await
    }

    async fn begin(&self, writer: WriterId, chunker: &str) -> Result<Option<BlobRow>> {
        self.database.write(false, steps::Begin { writer, chunker: chunker.to_owned() }).await
    }

    async fn pin(&self, blob: BlobRow, entries: &[ManifestEntry]) -> Result<Pinned> {
        self.database.write(false, steps::Pin::new(blob, entries)).await
    }

    async fn mark_stored(&self, blob: BlobRow, blocks: &[BlockRow]) -> Result<bool> {
        self.database.write(false, steps::MarkStored::new(blob, blocks, self.durability)).await
    }

    async fn abort(&self, blob: BlobRow) -> Result<()> {
        self.database.write(false, steps::Abort(blob)).await
    }

    async fn commit(&self, commits: Arc<[Commit]>) -> Result<Vec<Committed>> {
        self.write_durably(steps::CommitAll { commits, durability: self.durability }).await
    }

    async fn known(&self, ids: &[BlobId], keys: &[BlockKey]) -> Result<Known> {
        self.database.read_to_write(steps::LookUp::new(ids, keys)).await
    }

    async fn find(&self, id: &BlobId, entries: usize) -> Result<Option<(BlobRecord, Vec<ManifestEntry>)>> {
        self.database.read(steps::Find { id: *id, entries }).await
    }

    fn find_at_once(&self, id: &BlobId, entries: usize) -> Option<Option<(BlobRecord, Vec<ManifestEntry>)>> {
        self.database.read_at_once(&steps::Find { id: *id, entries })
    }

    fn stored_at_once(&self, id: &BlobId, limit: usize) -> Option<Vec<BlockKey>> {
        let step = steps::FindBlocks { id: *id, limit, durability: self.durability };
        self.database.read_to_write_at_once(&step)?
    }

    async fn entries(&self, blob: BlobRow, from: u64, limit: usize) -> Result<Vec<ManifestEntry>> {
        self.database.read(steps::Entries { blob, from, limit }).await
    }

    async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<BlobRecord>> {
        self.database.read(steps::List { after: after.copied(), limit }).await
    }

    async fn delete(&self, id: &BlobId) -> Result<bool> {
        self.write_durably(steps::Delete::new(*id)).await
    }

    async fn restore(&self, id: &BlobId) -> Result<Restored> {
        self.write_durably(steps::Restore(*id)).await
    }

    async fn expire(&self, limit: usize) -> Result<u64> {
        self.database.write(false, steps::Expire { limit }).await
    }

    async fn take_names(&self, grace: Duration, limit: usize) -> Result<u64> {
        self.database.write(false, steps::TakeNames { grace, limit }).await
    }

    async fn nameless(&self, after: BlobRow, limit: usize) -> Result<Vec<BlobRow>> {
        self.database.read(steps::Nameless { after, limit }).await
    }

    async fn reap(&self, blob: BlobRow, limit: usize) -> Result<bool> {
        self.database.write(false, steps::Reap { blob, limit }).await
    }

    async fn doom(&self, by: Collection, after: BlockRow, limit: usize, lasts: Duration) -> Result<Doomed> {
        self.database.write(true, steps::Doom { collection: by, after, limit, lasts }).await
    }

    async fn sweep(
        &self,
        by: Collection,
        rows: Vec<BlockRow>,
        delete: Arc<DeleteBytes>,
    ) -> Result<Vec<BlockKey>> {
        self.database.write(false, steps::Sweep { collection: by, rows, delete }).await
    }

    async fn lift(&self, by: Collection, rows: Vec<BlockRow>) -> Result<()> {
        self.database.write(false, steps::Lift { collection: by, rows }).await
    }

    async fn lift_all(&self, by: Collection) -> Result<()> {
        self.database.write(false, steps::LiftAll(by)).await
    }

    async fn dooming(&self) -> Result<Vec<(Collection, u64)>> {
        self.database.read(steps::Dooming).await
    }

    async fn plan_garbage(&self, grace: Duration, limit: usize) -> Result<GarbagePlan> {
        self.database.read(steps::PlanGarbage { grace, limit }).await
    }

    async fn blocks(&self, after: BlockRow, limit: usize) -> Result<Vec<BlockRecord>> {
        self.database.read(steps::BlockPage { after, limit }).await
    }

    async fn blocks_by_key(&self, keys: Vec<BlockKey>) -> Result<Vec<BlockRecord>> {
        self.database.read(steps::BlocksByKey(keys)).await
    }

    async fn blobs_of(&self, block: BlockRow, limit: usize) -> Result<Vec<BlobId>> {
        self.database.read(steps::BlobsOf { block, limit }).await
    }

    async fn recheck(&self, block: BlockRow, look: Arc<LookAgain>) -> Result<bool> {
        self.database.write(true, steps::Recheck { block, look }).await
    }

    async fn adopt(&self, keys: Vec<BlockKey>) -> Result<u64> {
        self.database.write(false, steps::Adopt(keys)).await
    }

    async fn mark_forgotten(&self) -> Result<u64> {
        self.database.write(false, steps::MarkForgotten).await
    }

    async fn integrity(&self) -> Result<Vec<String>> {
        self.database.integrity().await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        self.database.backup(to).await
    }

    fn is_local(&self) -> bool {
        D::LOCAL
    }

    fn connections(&self) -> Connections {
        self.database.connections()
    }

    async fn totals(&self) -> Result<Totals> {
        self.database.read(steps::CountTotals).await?.ok_or_else(no_row)
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

#[allow(private_bounds, reason = "sealed: only the databases of this folder are meant")]
impl<D: Database> SqlManifestRepo<D> {
    /// What is in the database that is called `name` in messages.
    pub(super) async fn schema(&self, name: &str) -> Result<Schema> {
        self.database.read(schema::Look { name: name.to_owned() }).await
    }

    /// Synced in `relaxed` too: the id in it is soon beside the blocks, synced. If that outlived the database, they would
    /// belong to one that nobody has, and no other would open with them.
    pub(super) async fn migrate(&self, name: &str) -> Result<()> {
        self.database
            .write(
                true,
                schema::Migrate {
                    name: name.to_owned(),
                    id: format!("{:032x}", u128::from_be_bytes(random::bytes()?)),
                },
            )
            .await
    }

    /// A transaction that is synced at its commit, if the store promises that.
    async fn write_durably<S: Step>(&self, step: S) -> Result<S::Answer> {
        self.database.write(self.durability == Durability::Full, step).await
    }
}
