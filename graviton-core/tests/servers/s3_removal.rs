//! Collections whose deletions in S3 come late, get no answer or are refused.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use graviton_core::testing::Recipe;
use graviton_core::{
    AsyncStore, BlobId, BlockLayout, BlockStore, Code, Durability, Error, GcOptions, GcReport, ManifestRepo,
    Opening, Settings, Timing,
};
use tempfile::TempDir;

use crate::support::needs_servers;
use crate::support::proxy::{Fault, Proxy, error};
use crate::support::s3;
use crate::support::s3::Prefix;

struct Scene {
    proxy: Proxy,
    directory: TempDir,
    /// By way of the proxy.
    blocks: Arc<dyn BlockStore>,
    store: AsyncStore,
    content: Vec<u8>,
    id: BlobId,
    /// The name of the table of blocks.
    table: &'static str,
}

impl Scene {
    /// A store without packs, with a deleted blob of four blocks; its dooms last so long. With `has_packs`
    /// the layout becomes packs then.
    async fn new(doom: Duration) -> Scene {
        Scene::with(doom, false).await
    }

    async fn with(doom: Duration, has_packs: bool) -> Scene {
        let proxy = Proxy::to(&s3::seaweedfs()).await;
        let place = Prefix { url: proxy.url.clone(), ..Prefix::new(&s3::seaweedfs()) };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests.db");
        let manifests = if has_packs {
            ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap()
        } else {
            ManifestRepo::open_sqlite_without_packs(&path, Durability::Full).await.unwrap()
        };
        let timing = Timing {
            lease: Duration::from_secs(60),
            renewal: Duration::from_secs(15),
            doom,
            generation: Duration::from_secs(3_600),
        };
        let settings = Settings { chunker: "fixed:1000".parse().unwrap(), timing, ..Settings::default() };
        let blocks: Arc<dyn BlockStore> = Arc::new(place.store());
        let manifests = Arc::new(manifests);
        let store = AsyncStore::new(Arc::clone(&blocks), Arc::clone(&manifests), settings).await.unwrap();
        let content = "xof:removed:4000".parse::<Recipe>().unwrap().bytes();
        let id = store.put(&content[..]).await.unwrap().id;
        store.delete(&id).await.unwrap();
        let store = if has_packs {
            let settings = Settings {
                chunker: "fixed:1000".parse().unwrap(),
                timing,
                layout: BlockLayout::Packs,
                ..Settings::default()
            };
            AsyncStore::new(Arc::clone(&blocks), manifests, settings).await.unwrap()
        } else {
            store
        };
        let table = if has_packs { "data_block" } else { "block" };
        Scene { proxy, directory, blocks, store, content, id, table }
    }

    async fn gc(&self) -> Result<GcReport, Error> {
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        self.store.gc(&options, |_| ControlFlow::Continue(())).await
    }

    async fn objects(&self) -> usize {
        let (mut count, mut listing) = (0, self.blocks.list().await.unwrap());
        loop {
            match listing.next().await.unwrap().len() {
                0 => return count,
                more => count += more,
            }
        }
    }

    /// As if so much time had gone by.
    fn end_dooms(&self) {
        let connection = rusqlite::Connection::open(self.directory.path().join("manifests.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        let sql = format!("UPDATE {} SET doomed_until = 1 WHERE doomed_until > 1", self.table);
        assert!(connection.execute(&sql, []).unwrap() > 0);
    }

    async fn assert_readable(&self) {
        let mut reader = self.store.reader(&self.id).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(next) = reader.next().await.unwrap() {
            bytes.extend_from_slice(&next);
        }
        assert!(bytes == self.content);
    }
}

const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

/// A block whose deletion may still be carried out is put into a pack, where that harms nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_does_not_wait_for_a_deletion_where_there_are_packs() {
    needs_servers!();
    let scene = Scene::with(HALF_AN_HOUR, true).await;
    scene.proxy.harm("DELETE", "", usize::MAX, Fault::Held);
    assert_eq!(scene.gc().await.unwrap_err().code(), Code::BackendUnavailable);
    scene.proxy.heal();
    assert_eq!(scene.store.put(&scene.content[..]).await.unwrap().id, scene.id);
    // Again, and from another blob: nothing is written twice.
    let other = [&scene.content[..], b"more"].concat();
    assert_eq!(scene.store.put(&scene.content[..]).await.unwrap().fresh_blocks, 0);
    assert_eq!(scene.store.put(&other[..]).await.unwrap().fresh_blocks, 1);
    scene.assert_readable().await;
    scene.proxy.release().await;
    assert_eq!(scene.objects().await, 0);
    scene.assert_readable().await;
    // As long as the name is doomed the record stays.
    for id in [scene.id, BlobId::of(scene.id.algo(), &other)] {
        scene.store.delete(&id).await.unwrap();
    }
    scene.gc().await.unwrap();
    assert!(scene.store.stats().await.unwrap().stored_bytes > 0);
    scene.end_dooms();
    scene.gc().await.unwrap();
    assert_eq!(scene.store.stats().await.unwrap().stored_bytes, 0);
    assert_eq!(scene.store.put(&scene.content[..]).await.unwrap().fresh_blocks, 4);
    scene.assert_readable().await;
}

/// A gateway holds a request until its client has given up and the block is put again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_carried_out_late_is_refused_by_its_date() {
    needs_servers!();
    let scene = Scene::new(Duration::from_secs(16)).await;
    scene.proxy.harm("DELETE", "", usize::MAX, Fault::Held);
    let error = scene.gc().await.unwrap_err();
    assert_eq!(error.code(), Code::BackendUnavailable, "{error}");
    scene.proxy.heal();
    // It waits until the doom is over.
    assert_eq!(scene.store.put(&scene.content[..]).await.unwrap().id, scene.id);
    scene.proxy.release().await;
    scene.assert_readable().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_without_an_answer_keeps_its_doom() {
    needs_servers!();
    let scene = Scene::new(HALF_AN_HOUR).await;
    // Carried out, and the answer is lost.
    scene.proxy.harm("DELETE", "", usize::MAX, Fault::LostReply);
    assert_eq!(scene.gc().await.unwrap_err().code(), Code::BackendUnavailable);
    scene.proxy.heal();
    let error = scene.store.put(&scene.content[..]).await.unwrap_err();
    assert_eq!(error.code(), Code::BackendUnavailable);
    assert!(error.is_retryable() && error.to_string().contains("collection"), "{error}");
    // Nobody else ends it either.
    let report = scene.gc().await.unwrap();
    assert!(report.kept_doomed > 0 && report.blocks + report.kept_doomed == 4, "{report:?}");
    scene.end_dooms();
    assert_eq!(scene.store.put(&scene.content[..]).await.unwrap().fresh_blocks, 4);
    scene.assert_readable().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_refused_changes_nothing_and_is_told() {
    needs_servers!();
    for (status, code, expected) in
        [(403, "AccessDenied", Code::Forbidden), (501, "NotImplemented", Code::Config)]
    {
        let scene = Scene::new(HALF_AN_HOUR).await;
        scene.proxy.harm("DELETE", "", usize::MAX, error(status, code));
        let error = scene.gc().await.unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
        assert!(error.to_string().contains("delete"), "{error}");
        // At once.
        assert_eq!(scene.store.put(&scene.content[..]).await.unwrap().id, scene.id);
        scene.assert_readable().await;
        scene.proxy.heal();
        scene.store.delete(&scene.id).await.unwrap();
        assert_eq!(scene.gc().await.unwrap().blocks, 4);
        assert_eq!(scene.objects().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_deletions_that_fail_keep_no_others_from_going() {
    needs_servers!();
    let scene = Scene::new(HALF_AN_HOUR).await;
    scene.proxy.harm("DELETE", "", 1, error(403, "AccessDenied"));
    let report = scene.gc().await.unwrap();
    assert_eq!((report.blocks, report.kept_failed, report.complete), (3, 1, false));
    assert!(report.failure.contains("AccessDenied"), "{}", report.failure);
    assert_eq!(scene.objects().await, 1);
    let report = scene.gc().await.unwrap();
    assert_eq!((report.blocks, report.kept_failed, report.complete), (1, 0, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_without_an_answer_is_told_as_one_that_takes_half_an_hour() {
    needs_servers!();
    let scene = Scene::new(HALF_AN_HOUR).await;
    scene.proxy.harm("DELETE", "", 1, Fault::LostReply);
    let report = scene.gc().await.unwrap();
    assert_eq!((report.blocks, report.kept_doomed, report.kept_failed), (3, 1, 0), "{report:?}");
    assert!(!report.complete && !report.failure.is_empty());
    let report = scene.gc().await.unwrap();
    assert_eq!((report.blocks, report.kept_doomed, report.kept_failed), (0, 1, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_is_asked_again() {
    needs_servers!();
    let scene = Scene::new(HALF_AN_HOUR).await;
    scene.proxy.harm("DELETE", "", 9, error(503, "SlowDown"));
    assert_eq!(scene.gc().await.unwrap().blocks, 4);
    assert_eq!(scene.objects().await, 0);
}
