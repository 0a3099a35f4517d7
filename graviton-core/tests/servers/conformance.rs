//! The suites of `graviton_core::testing`, over everything in this crate that they are for.

use std::sync::Arc;

use crate::support::needs_servers;
use crate::support::postgres::TestDatabase;
use crate::support::s3;
use crate::support::s3::Prefix;
use async_trait::async_trait;
use bytes::Bytes;
use graviton_core::block::FsBlockStore;
use graviton_core::block::memory::MemoryBlockStore;
use graviton_core::testing::{BlockPlace, DatabasePlace, block_store_conformance, manifest_repo_conformance};
use graviton_core::{BlockKey, BlockStore, Durability, ManifestRepo};
use tempfile::TempDir;

struct Memory(MemoryBlockStore);

#[async_trait]
impl BlockPlace for Memory {
    async fn open(&self) -> Arc<dyn BlockStore> {
        Arc::new(self.0.clone())
    }

    async fn damage(&self, key: &BlockKey, bytes: Option<Bytes>) {
        self.0.damage(key, bytes);
    }
}

struct Directory {
    directory: TempDir,
    durable: bool,
}

impl Directory {
    fn store(&self) -> FsBlockStore {
        FsBlockStore::new(self.directory.path(), "cas/blocks", self.durable)
    }
}

#[async_trait]
impl BlockPlace for Directory {
    async fn open(&self) -> Arc<dyn BlockStore> {
        Arc::new(self.store())
    }

    async fn damage(&self, key: &BlockKey, bytes: Option<Bytes>) {
        let path = self.store().path(key);
        // Blocks are read-only files; damage is another file.
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        if let Some(bytes) = bytes {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_in_memory() {
    block_store_conformance(async || Memory(MemoryBlockStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_as_files() {
    block_store_conformance(async || Directory { directory: tempfile::tempdir().unwrap(), durable: true })
        .await;
}

/// On a filesystem without unnamed files.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_as_files_that_are_named_from_the_start() {
    struct Named(Directory);

    #[async_trait]
    impl BlockPlace for Named {
        async fn open(&self) -> Arc<dyn BlockStore> {
            Arc::new(self.0.store().with_named_temporaries())
        }

        async fn damage(&self, key: &BlockKey, bytes: Option<Bytes>) {
            self.0.damage(key, bytes).await;
        }
    }

    let make = || Named(Directory { directory: tempfile::tempdir().unwrap(), durable: true });
    block_store_conformance(async || make()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_as_files_that_are_not_synced() {
    block_store_conformance(async || Directory { directory: tempfile::tempdir().unwrap(), durable: false })
        .await;
}

#[async_trait]
impl BlockPlace for Prefix {
    async fn open(&self) -> Arc<dyn BlockStore> {
        Arc::new(self.store())
    }

    async fn damage(&self, key: &BlockKey, bytes: Option<Bytes>) {
        self.damage(key, bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_in_seaweedfs() {
    needs_servers!();
    block_store_conformance(async || Prefix::new(&s3::seaweedfs())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_in_moto() {
    needs_servers!();
    block_store_conformance(async || Prefix::new(&s3::moto())).await;
}

struct Sqlite(TempDir);

#[async_trait]
impl DatabasePlace for Sqlite {
    async fn open(&self, durability: Durability) -> Arc<ManifestRepo> {
        let path = self.0.path().join("manifests.db");
        Arc::new(ManifestRepo::open_sqlite(&path, durability, graviton_core::Opening::Create).await.unwrap())
    }

    async fn sql(&self, statement: &str) {
        let path = self.0.path().join("manifests.db");
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        connection.execute(statement, []).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn manifests_in_sqlite() {
    manifest_repo_conformance(async || Sqlite(tempfile::tempdir().unwrap())).await;
}

/// A database as the last version without packs made it, which is not upgraded.
struct Before<P>(P);

/// The table of blocks had another name.
fn before(statement: &str) -> String {
    statement.replace("data_block", "block")
}

#[async_trait]
impl DatabasePlace for Before<Sqlite> {
    async fn open(&self, durability: Durability) -> Arc<ManifestRepo> {
        let path = self.0.0.path().join("manifests.db");
        Arc::new(ManifestRepo::open_sqlite_without_packs(&path, durability).await.unwrap())
    }

    async fn sql(&self, statement: &str) {
        self.0.sql(&before(statement)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn manifests_in_sqlite_before_packs() {
    manifest_repo_conformance(async || Before(Sqlite(tempfile::tempdir().unwrap()))).await;
}

#[async_trait]
impl DatabasePlace for Before<TestDatabase> {
    async fn open(&self, durability: Durability) -> Arc<ManifestRepo> {
        let address = self.0.address();
        let repo = ManifestRepo::open_postgres_without_packs(&address, durability);
        Arc::new(repo.await.unwrap())
    }

    async fn sql(&self, statement: &str) {
        TestDatabase::sql(&self.0, &before(statement)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn manifests_in_postgres_before_packs() {
    needs_servers!();
    manifest_repo_conformance(async || Before(TestDatabase::create().await)).await;
}

#[async_trait]
impl DatabasePlace for TestDatabase {
    async fn open(&self, durability: Durability) -> Arc<ManifestRepo> {
        Arc::new(
            ManifestRepo::open_postgres(&self.address(), durability, graviton_core::Opening::Create)
                .await
                .unwrap(),
        )
    }

    async fn sql(&self, statement: &str) {
        TestDatabase::sql(self, statement).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn manifests_in_postgres() {
    needs_servers!();
    manifest_repo_conformance(TestDatabase::create).await;
}
