//! Collections that stall or die while they remove files, beside puts of the same blocks.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use graviton_core::block::fs::FsBlockStore;
use graviton_core::block::{Aside, Removed};
use graviton_core::manifest::Collection;
use graviton_core::testing::{Fault, FaultyBlockStore, Operation, Recipe};
use graviton_core::{
    AsyncStore, BlobId, BlockKey, BlockStore, Config, Durability, GcOptions, GcReport, ManifestRepo, Opening,
    Settings, VerifyOptions,
};
use tempfile::TempDir;

use crate::support::left_out::leave_out;

struct Scene {
    directory: TempDir,
    files: FsBlockStore,
    faulty: FaultyBlockStore,
    /// Removes by way of the faulty block store.
    collecting: AsyncStore,
    /// Another process, as it were.
    putting: AsyncStore,
}

async fn open(root: &Path, blocks: Arc<dyn BlockStore>) -> AsyncStore {
    let path = root.join("manifests.db");
    let manifests = ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap();
    let settings = Settings { chunker: "fixed:8000".parse().unwrap(), ..Settings::default() };
    AsyncStore::new(blocks, Arc::new(manifests), settings).await.unwrap()
}

impl Scene {
    async fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let files = FsBlockStore::new(directory.path(), "cas/blocks", true);
        let faulty = FaultyBlockStore::new(Arc::new(files.clone()));
        let collecting = open(directory.path(), Arc::new(faulty.clone())).await;
        let putting = open(directory.path(), Arc::new(files.clone())).await;
        Scene { directory, files, faulty, collecting, putting }
    }

    /// Starts a collection that stalls in the operation.
    async fn collection_that_stalls(&self, at: Operation) -> tokio::task::JoinHandle<GcReport> {
        self.faulty.break_at(at, 1, Fault::Stall);
        let store = self.collecting.clone();
        let running = tokio::spawn(async move {
            let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
            store.gc(&options, |_| ControlFlow::Continue(())).await.unwrap()
        });
        self.faulty.wait_for_hits(1).await;
        running
    }

    fn in_doomed(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("cas/blocks/.doomed")).map_or(0, Iterator::count)
    }

    /// The blob is whole, the store is clean, and nothing is left behind.
    async fn assert_holds(&self, id: &BlobId, content: &[u8]) {
        assert_eq!(read(&self.putting, id).await, content);
        let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
        let report = self.putting.verify(&options, |_| ControlFlow::Continue(())).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(self.in_doomed(), 0);
    }
}

async fn read(store: &AsyncStore, id: &BlobId) -> Vec<u8> {
    let mut reader = store.reader(id).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(next) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&next);
    }
    bytes
}

/// One that takes the short path, and one that pins its blocks.
fn contents() -> [Vec<u8>; 2] {
    ["xof:small:44000", "xof:large:2400000"].map(|recipe| recipe.parse::<Recipe>().unwrap().bytes())
}

async fn put_again_while_a_collection_stalls(at: Operation) {
    for content in contents() {
        let scene = Scene::new().await;
        let id = scene.putting.put(&content[..]).await.unwrap().id;
        scene.putting.delete(&id).await.unwrap();
        let collection = scene.collection_that_stalls(at).await;
        // Neither this put nor any other waits for the collection.
        let put = tokio::time::timeout(Duration::from_secs(20), scene.putting.put(&content[..]));
        assert_eq!(put.await.expect("a put waits for a collection").unwrap().id, id);
        assert_eq!(read(&scene.putting, &id).await, content);
        scene.faulty.mend();
        collection.await.unwrap();
        scene.assert_holds(&id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_again_before_a_late_removal_stays() {
    put_again_while_a_collection_stalls(Operation::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_again_before_a_late_end_of_a_removal_stays() {
    put_again_while_a_collection_stalls(Operation::EndRemoval).await;
}

/// Leaves behind what a collection does that set a file aside, late, and died.
async fn set_aside(files: &FsBlockStore, key: BlockKey, number: u64) {
    let aside = [Aside { by: Collection(5), number, key }];
    let removal = files.prepare_removal(&aside, Duration::ZERO).await.unwrap();
    assert!(matches!(removal.remove(&aside).await[..], [Removed::Gone]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_collection_set_aside_is_read_and_comes_back() {
    for content in contents() {
        for by_gc in [false, true] {
            let scene = Scene::new().await;
            let id = scene.putting.put(&content[..]).await.unwrap().id;
            for (number, entry) in (0..).zip(scene.putting.manifest(&id, 0, 3).await.unwrap()) {
                set_aside(&scene.files, entry.key, number).await;
            }
            assert_eq!(read(&scene.putting, &id).await, content);
            let options = VerifyOptions::default();
            let report = scene.putting.verify(&options, |_| ControlFlow::Continue(())).await.unwrap();
            assert!(report.is_clean(), "{report:?}");
            // The next collection settles it, and so does the first put of the next store.
            if by_gc {
                scene.collecting.gc(&GcOptions::default(), |_| ControlFlow::Continue(())).await.unwrap();
            } else {
                let next = open(scene.directory.path(), Arc::new(scene.files.clone())).await;
                next.put(&b"something else"[..]).await.unwrap();
            }
            scene.assert_holds(&id, &content).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_collection_set_aside_goes_if_nobody_needs_it() {
    let scene = Scene::new().await;
    let [small, large] = contents();
    let kept = scene.putting.put(&small[..]).await.unwrap().id;
    let id = scene.putting.put(&large[..]).await.unwrap().id;
    let key = scene.putting.manifest(&id, 0, 1).await.unwrap()[0].key;
    scene.putting.delete(&id).await.unwrap();
    let collection = scene.collection_that_stalls(Operation::EndRemoval).await;
    assert!(scene.in_doomed() > 200);
    // It is as if it had died here; what else finds the files settles them.
    let next = open(scene.directory.path(), Arc::new(scene.files.clone())).await;
    next.put(&b"something else"[..]).await.unwrap();
    assert_eq!(scene.in_doomed(), 0);
    assert_eq!(scene.files.length(&key).await.unwrap(), None);
    scene.faulty.mend();
    assert_eq!(collection.await.unwrap().blocks, 300);
    scene.assert_holds(&kept, &small).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_cannot_remove_anything_says_why() {
    let scene = Scene::new().await;
    let [small, _] = contents();
    let id = scene.putting.put(&small[..]).await.unwrap().id;
    scene.putting.delete(&id).await.unwrap();
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    let code = graviton_core::Code::Forbidden;
    scene.faulty.break_from(Operation::Remove, 1, Fault::Fail(code));
    let mut told = String::new();
    let collected = scene.collecting.gc(&options, |report| {
        told.clone_from(&report.failure);
        ControlFlow::Continue(())
    });
    let error = collected.await.unwrap_err();
    assert!(error.code() == code && told == error.to_string(), "{error}, {told}");
    // Its dooms are over: the content can be put again, and goes when it is removed again.
    assert_eq!(scene.putting.put(&small[..]).await.unwrap().id, id);
    scene.faulty.mend();
    scene.putting.delete(&id).await.unwrap();
    let report = scene.collecting.gc(&options, |_| ControlFlow::Continue(())).await.unwrap();
    assert_eq!((report.blocks, report.kept_failed, report.complete), (6, 0, true));
    assert_eq!(report.failure, "");
    assert_eq!(scene.in_doomed(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_cannot_be_removed_keeps_no_others_from_going() {
    let scene = Scene::new().await;
    let [small, _] = contents();
    let id = scene.putting.put(&small[..]).await.unwrap().id;
    scene.putting.delete(&id).await.unwrap();
    // One at a time, and the first fails.
    let options =
        GcOptions { grace: Some(Duration::ZERO), blocks_per_second: Some(1), ..GcOptions::default() };
    scene.faulty.break_at(Operation::Remove, 1, Fault::Fail(graviton_core::Code::Forbidden));
    let report = scene.collecting.gc(&options, |_| ControlFlow::Continue(())).await.unwrap();
    assert_eq!((report.blocks, report.kept_failed, report.complete), (5, 1, false));
    assert!(!report.failure.is_empty());
}

/// As root from cron, say: the owner puts, deletes and collects after it.
#[test]
fn a_collection_of_root_leaves_the_directories_to_the_owner_of_the_store() {
    if !rustix::process::geteuid().is_root() {
        return leave_out("what root leaves in a store of another", "this is not root");
    }
    let directory = tempfile::tempdir().unwrap();
    let owner = (12_345, 54_321);
    std::os::unix::fs::chown(directory.path(), Some(owner.0), Some(owner.1)).unwrap();
    let store = Config::for_directory(directory.path()).open().unwrap();
    let put = store.put(&b"content"[..]).unwrap();
    store.delete(&put.id).unwrap();
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    assert_eq!(store.gc(&options, |_| ControlFlow::Continue(())).unwrap().blocks, 1);
    store.close();
    let mut left = vec![directory.path().to_owned()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
        seen += 1;
        let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        left.extend(entries.filter(|path| path.is_dir()));
    }
    // The root, `cas`, `blocks`, `.tmp`, `.doomed`, and that of the algorithm.
    assert!(seen >= 6, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_bytes_is_kept_to_a_block() {
    let scene = Scene::new().await;
    let [small, _] = contents();
    let put = scene.putting.put(&small[..]).await.unwrap();
    scene.putting.delete(&put.id).await.unwrap();
    let largest = 16_384;
    for most in [put.id.size() / 2, 1] {
        let options =
            GcOptions { grace: Some(Duration::ZERO), max_bytes: Some(most), ..GcOptions::default() };
        let report = scene.collecting.gc(&options, |_| ControlFlow::Continue(())).await.unwrap();
        assert!(report.blocks > 0 && report.bytes < most + largest, "{report:?}");
        assert!(!report.complete);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_during_a_removal_latches_the_store() {
    let scene = Scene::new().await;
    let [small, _] = contents();
    let id = scene.putting.put(&small[..]).await.unwrap().id;
    scene.putting.delete(&id).await.unwrap();
    scene.faulty.break_at(Operation::Remove, 1, Fault::Stall);
    let collecting = scene.collecting.clone();
    let collection = tokio::spawn(async move {
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        collecting.gc(&options, |_| ControlFlow::Continue(())).await
    });
    scene.faulty.wait_for_hits(1).await;
    // Nobody waits for it any more; it goes on, and its end fails.
    collection.abort();
    scene.faulty.mend();
    scene.faulty.break_at(Operation::EndRemoval, 1, Fault::Fail(graviton_core::Code::Io));
    scene.faulty.wait_for_hits(2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = scene.collecting.put(&small[..]).await.unwrap_err();
    assert_eq!(refused.code(), graviton_core::Code::Latched);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_settled_keeps_nobody_from_putting() {
    let scene = Scene::new().await;
    let [small, large] = contents();
    let id = scene.putting.put(&small[..]).await.unwrap().id;
    let key = scene.putting.manifest(&id, 0, 1).await.unwrap()[0].key;
    set_aside(&scene.files, key, 1).await;
    // It cannot be unlinked, and does not keep the other from moving back.
    let doomed = scene.directory.path().join("cas/blocks/.doomed");
    let absent = BlockKey::of(graviton_core::Algo::Blake3, b"absent").unwrap();
    std::fs::create_dir(doomed.join(format!("{:016x}-0-blake3-{}", 5, absent.name()))).unwrap();
    let next = open(scene.directory.path(), Arc::new(scene.files.clone())).await;
    next.put(&large[..]).await.unwrap();
    assert_eq!(scene.in_doomed(), 1);
    assert!(scene.files.seems_intact(&[key]).await.unwrap()[0]);
}
