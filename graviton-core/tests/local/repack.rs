//! Blocks that move into packs, and out of them: whole, interrupted, damaged, and beside others.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graviton_core::block::FsBlockStore;
use graviton_core::block::memory::MemoryBlockStore;
use graviton_core::testing::{Fault, FaultyBlockStore, Operation, Recipe};
use graviton_core::{
    AsyncStore, BlobId, BlockLayout, BlockStore, Code, Config, Durability, GcOptions, GcReport, ManifestRepo,
    Opening, RepackReport, Settings, Store, VerifyOptions, VerifyReport,
};
use rusqlite::Connection;

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

fn config(root: &Path, layout: &str) -> Config {
    let config = Config::for_directory(root).set("GRAVITON_BLOCK_LAYOUT", layout).unwrap();
    config.set("GRAVITON_CHUNKER", "fixed:4096").unwrap()
}

fn read(store: &Store, id: &BlobId) -> Vec<u8> {
    store.read_range(id, 0..u64::MAX).unwrap().to_vec()
}

fn go_on<T>(_: &T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn repack(store: &Store, to: BlockLayout) -> RepackReport {
    store.repack(to, go_on).unwrap()
}

fn collect(store: &Store) -> GcReport {
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, go_on).unwrap()
}

fn verify(store: &Store) -> VerifyReport {
    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    store.verify(&options, |_| ControlFlow::Continue(())).unwrap()
}

/// Nothing is damaged, and nothing is there that no row knows.
fn assert_clean(store: &Store) {
    let report = verify(store);
    assert!(report.is_clean() && report.unreferenced == 0, "{report:?}");
}

fn entries(path: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn files(root: &Path) -> Vec<PathBuf> {
    entries(root.join("cas/blocks/blake3"))
}

fn packs(root: &Path) -> Vec<PathBuf> {
    entries(root.join("cas/blocks-packs"))
}

fn doomed(root: &Path) -> Vec<PathBuf> {
    entries(root.join("cas/blocks/.doomed"))
}

fn number(root: &Path, sql: &str) -> i64 {
    let connection = Connection::open(root.join("manifests.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn change(root: &Path, sql: &str) {
    let connection = Connection::open(root.join("manifests.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// Blobs that share blocks, and the ids of them.
fn put_some(store: &Store) -> Vec<(BlobId, Vec<u8>)> {
    let shared = content("xof:shared:40960");
    let contents = [
        content("xof:small:700"),
        [&shared[..], &content("xof:more:300000")].concat(),
        [&shared[..], &content("zeros:50000")].concat(),
        content("xof:large:1200000"),
    ];
    contents.into_iter().map(|bytes| (store.put(&bytes[..]).unwrap().id, bytes)).collect()
}

fn keys(store: &Store, blobs: &[(BlobId, Vec<u8>)]) -> BTreeSet<String> {
    let entries = blobs.iter().flat_map(|(id, _)| store.manifest(id, 0, 10_000).unwrap());
    entries.map(|entry| entry.key.to_string()).collect()
}

#[test]
fn all_blocks_move_into_packs_and_out_of_them() {
    for durability in ["full", "relaxed"] {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path(), "files").set("GRAVITON_DURABILITY", durability).unwrap();
        let store = config.open().unwrap();
        let blobs = put_some(&store);
        let gone = store.put(&content("xof:gone:30000")[..]).unwrap().id;
        store.delete(&gone).unwrap();
        let all = files(root.path()).len() as u64;
        let reachable = keys(&store, &blobs).len() as u64;
        assert_eq!(all, reachable + 8);
        let mut told = Vec::new();
        let report = store.repack(BlockLayout::Packs, |so_far: &RepackReport| {
            told.push((so_far.blocks, so_far.remaining));
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        assert_eq!((report.blocks, report.present, report.remaining, report.complete), (all, 0, 0, true));
        assert_eq!(report.bytes, number(root.path(), "SELECT sum(size) FROM data_block") as u64);
        assert!(told.iter().all(|(moved, left)| moved + left == all), "{told:?}");
        assert_eq!((files(root.path()).len(), doomed(root.path()).len()), (0, 0));
        let dooms =
            "SELECT count(*) FROM data_block WHERE doomed_by IS NOT NULL OR pack_id IS NULL OR candidate";
        assert_eq!(number(root.path(), dooms), 0);
        assert_clean(&store);

        let again = repack(&store, BlockLayout::Packs);
        assert_eq!((again.blocks, again.present, again.complete), (0, all, true));
        // It was no part of any of this, and can still be restored and collected.
        store.restore(&gone).unwrap();
        assert_eq!(read(&store, &gone), content("xof:gone:30000"));
        store.delete(&gone).unwrap();
        assert_eq!(collect(&store).blocks, 8);

        let back = repack(&store, BlockLayout::Files);
        assert_eq!((back.blocks, back.present, back.complete), (reachable, 0, true), "{back:?}");
        assert_eq!(files(root.path()).len() as u64, reachable);
        assert_eq!(number(root.path(), "SELECT count(*) FROM data_block WHERE pack_id IS NOT NULL"), 0);
        for (id, bytes) in &blobs {
            assert!(read(&store, id) == *bytes);
        }
        assert_clean(&store);
        store.close();
        let store = config.open().unwrap();
        // All of the packs is dead now.
        assert_eq!(
            number(
                root.path(),
                "SELECT count(*) FROM pack WHERE state = 2 AND dead <> bytes - 64 - \
            (SELECT coalesce(sum(hole.bytes), 0) FROM hole WHERE hole.pack_id = pack.id)"
            ),
            0
        );
        collect(&store);
        assert_eq!(packs(root.path()).len(), 0);
        assert_clean(&store);
        assert_eq!(number(root.path(), "SELECT count(*) FROM data_block"), reachable as i64);
    }
}

#[test]
fn an_interrupted_repack_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), "files").set("GRAVITON_CHUNKER", "fixed:1048576").unwrap();
    let store = config.open().unwrap();
    let bytes = content("xof:large:25165824");
    let id = store.put(&bytes[..]).unwrap().id;
    for to in [BlockLayout::Packs, BlockLayout::Files] {
        let stopped = store.repack(to, |_| ControlFlow::Break(())).unwrap();
        assert!(stopped.blocks > 0 && stopped.blocks < 24 && !stopped.complete, "{stopped:?}");
        assert_eq!(stopped.remaining, 24 - stopped.blocks);
        assert!(read(&store, &id) == bytes);
        assert_clean(&store);
        let rest = repack(&store, to);
        assert_eq!((rest.blocks, rest.present, rest.complete), (24 - stopped.blocks, stopped.blocks, true));
    }
    assert!(read(&store, &id) == bytes);
    assert_clean(&store);
}

#[test]
fn a_damaged_block_is_told_and_keeps_no_other_one() {
    let root = tempfile::tempdir().unwrap();
    let store = config(root.path(), "files").open().unwrap();
    let blobs = put_some(&store);
    let all = files(root.path()).len() as u64;
    let (id, bytes) = &blobs[0];
    let name = format!("{}-{}", blake3::hash(bytes), bytes.len());
    std::fs::remove_file(root.path().join("cas/blocks/blake3").join(&name)).unwrap();
    std::fs::write(root.path().join("cas/blocks/blake3").join(&name), vec![b'x'; bytes.len()]).unwrap();
    let report = repack(&store, BlockLayout::Packs);
    assert_eq!((report.blocks, report.damaged, report.remaining), (all - 1, 1, 0), "{report:?}");
    assert!(report.complete);
    assert_eq!(verify(&store).corrupt, 1);
    assert!(store.put(&bytes[..]).unwrap().fresh_blocks == 1, "the damage was not marked");
    assert_eq!(repack(&store, BlockLayout::Packs).blocks, 1);
    assert_clean(&store);
    store.close();

    // The same in a pack.
    let store = config(root.path(), "files").open().unwrap();
    let place = "SELECT pack_offset FROM data_block WHERE size = 700";
    let offset = number(root.path(), place) as u64;
    let of_it = "SELECT name FROM pack JOIN data_block ON pack.id = pack_id WHERE size = 700";
    let connection = Connection::open(root.path().join("manifests.db")).unwrap();
    let pack: String = connection.query_row(of_it, [], |row| row.get(0)).unwrap();
    let path = root.path().join(format!("cas/blocks-packs/{pack}.pack"));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"damage", offset + 100).unwrap();
    let report = repack(&store, BlockLayout::Files);
    assert_eq!((report.blocks, report.damaged, report.remaining), (all - 1, 1, 0), "{report:?}");
    assert_eq!(store.read_range(id, 0..10).unwrap_err().code(), Code::CorruptBlock);
    assert_eq!(store.put(&bytes[..]).unwrap().fresh_blocks, 1);
    assert!(read(&store, id) == *bytes);
    assert_clean(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_a_running_put_uses_stays_until_that_ends() {
    let root = tempfile::tempdir().unwrap();
    let store = config(root.path(), "files").open_async().await.unwrap();
    let bytes = content("xof:used:40960");
    let id = store.put(&bytes[..]).await.unwrap().id;
    let entries = store.manifest(&id, 0, 100).await.unwrap();
    let session = store.open_session(Duration::from_secs(600)).await.unwrap();
    assert!(session.missing(&[entries[0].key, entries[3].key]).await.unwrap().is_empty());
    let report = store.repack(BlockLayout::Packs, go_on).await.unwrap();
    assert_eq!((report.blocks, report.skipped, report.remaining), (8, 2, 2), "{report:?}");
    assert!(!report.complete && files(root.path()).len() == 2);
    session.close().await.unwrap();
    let report = store.repack(BlockLayout::Packs, go_on).await.unwrap();
    assert_eq!((report.blocks, report.skipped, report.complete), (2, 0, true), "{report:?}");
    assert_eq!(store.read_range(&id, 0..u64::MAX).await.unwrap(), bytes);
    assert_eq!(files(root.path()).len(), 0);
}

/// The file that a repack leaves which dies between its transaction and the deletion.
#[test]
fn a_file_that_was_left_behind_is_listed_and_goes() {
    // By its doom, in a collection and in a repack; without one, in a repack; with one, and set aside
    // already.
    for (is_doomed, is_aside, by_gc) in [
        (true, false, true),
        (true, false, false),
        (false, false, false),
        (true, true, true),
        (false, true, true),
    ] {
        let root = tempfile::tempdir().unwrap();
        let store = config(root.path(), "files").open().unwrap();
        let blobs = put_some(&store);
        let left = files(root.path()).into_iter().next().unwrap();
        let (name, good) = (left.file_name().unwrap().to_owned(), std::fs::read(&left).unwrap());
        repack(&store, BlockLayout::Packs);
        if is_aside {
            let name = name.to_str().unwrap();
            let aside = root.path().join(format!("cas/blocks/.doomed/{:016x}-1-blake3-{name}", 7));
            std::fs::write(aside, &good).unwrap();
        } else {
            std::fs::write(&left, &good).unwrap();
        }
        if is_doomed {
            let digest = name.to_str().unwrap().split('-').next().unwrap();
            change(
                root.path(),
                &format!(
                    "UPDATE data_block SET doomed_by = 7, doomed_until = 0, candidate = 1 WHERE digest = x'{digest}'"
                ),
            );
        }
        let listed = verify(&store);
        assert_eq!((listed.unreferenced, listed.is_clean()), (u64::from(!is_aside), true));
        if by_gc {
            assert_eq!(collect(&store).leftovers, u64::from(!is_aside));
        } else {
            assert_eq!(repack(&store, BlockLayout::Packs).leftovers, 1);
        }
        assert_eq!((files(root.path()).len(), doomed(root.path()).len()), (0, 0));
        if is_doomed && by_gc {
            assert_eq!(number(root.path(), "SELECT count(*) FROM data_block WHERE doomed_by IS NOT NULL"), 0);
        }
        for (id, bytes) in &blobs {
            assert!(read(&store, id) == *bytes);
        }
        assert_clean(&store);
    }
}

/// A put that pins the block takes its doom away; the file does not stay for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_left_behind_goes_once_no_put_uses_its_block() {
    let scene = Scene::new(BlockLayout::Files).await;
    let bytes = content("xof:small:44000");
    let id = scene.putting.put(&bytes[..]).await.unwrap().id;
    scene.faulty.break_from(Operation::Remove, 1, Fault::Fail(Code::Forbidden));
    scene.repacking.repack(BlockLayout::Packs, go_on).await.unwrap();
    scene.faulty.mend();
    let left = files(scene.root.path()).len() as u64;
    let keys: Vec<_> = scene.putting.manifest(&id, 0, 9).await.unwrap().iter().map(|e| e.key).collect();
    let session = scene.putting.open_session(Duration::from_secs(600)).await.unwrap();
    assert!(session.missing(&keys).await.unwrap().is_empty());
    let collected = scene.putting.gc(&GcOptions::default(), go_on).await.unwrap();
    assert_eq!((collected.leftovers, files(scene.root.path()).len() as u64 >= left), (0, true));
    session.close().await.unwrap();
    let collected = scene.putting.gc(&GcOptions::default(), go_on).await.unwrap();
    assert!(collected.leftovers >= left && left > 0, "{collected:?}");
    assert_eq!(files(scene.root.path()).len(), 0);
    scene.assert_holds(&id, &bytes).await;
}

/// The last good copy does not go.
#[test]
fn a_file_that_was_left_behind_stays_if_the_record_is_damaged() {
    let root = tempfile::tempdir().unwrap();
    let store = config(root.path(), "files").open().unwrap();
    let put = store.put(&content("xof:one:3000")[..]).unwrap();
    let left = files(root.path()).into_iter().next().unwrap();
    let good = std::fs::read(&left).unwrap();
    repack(&store, BlockLayout::Packs);
    store.close();
    std::fs::write(&left, &good).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&packs(root.path())[0]).unwrap();
    file.write_all_at(b"damage", 200).unwrap();
    let store = config(root.path(), "files").open().unwrap();
    assert_eq!(repack(&store, BlockLayout::Packs).leftovers, 0);
    assert!(left.exists());
    assert_eq!(store.put(&good[..]).unwrap().fresh_blocks, 1);
    assert!(read(&store, &put.id) == good);
}

struct Scene {
    root: tempfile::TempDir,
    faulty: FaultyBlockStore,
    /// Repacks by way of the faulty block store.
    repacking: AsyncStore,
    /// Another process, as it were.
    putting: AsyncStore,
}

async fn open(root: &Path, blocks: Arc<dyn BlockStore>, layout: BlockLayout) -> AsyncStore {
    let path = root.join("manifests.db");
    let manifests = ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap();
    let settings = Settings { layout, chunker: "fixed:8000".parse().unwrap(), ..Settings::default() };
    AsyncStore::new(blocks, Arc::new(manifests), settings).await.unwrap()
}

impl Scene {
    async fn new(layout: BlockLayout) -> Scene {
        let root = tempfile::tempdir().unwrap();
        let files = FsBlockStore::new(root.path(), "cas/blocks", true);
        let faulty = FaultyBlockStore::new(Arc::new(files.clone()));
        let repacking = open(root.path(), Arc::new(faulty.clone()), BlockLayout::Files).await;
        let putting = open(root.path(), Arc::new(files), layout).await;
        Scene { root, faulty, repacking, putting }
    }

    /// Starts a repack into packs that stalls in the operation.
    async fn repack_that_stalls(&self, at: Operation) -> tokio::task::JoinHandle<RepackReport> {
        self.faulty.break_at(at, 1, Fault::Stall);
        let store = self.repacking.clone();
        let running = tokio::spawn(async move { store.repack(BlockLayout::Packs, go_on).await.unwrap() });
        self.faulty.wait_for_hits(1).await;
        running
    }

    async fn assert_holds(&self, id: &BlobId, content: &[u8]) {
        assert_eq!(self.putting.read_range(id, 0..u64::MAX).await.unwrap(), content);
        let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
        let report = self.putting.verify(&options, |_| ControlFlow::Continue(())).await.unwrap();
        assert!(report.is_clean() && report.unreferenced == 0, "{report:?}");
        assert_eq!(doomed(self.root.path()).len(), 0);
    }

    fn damage_packs(&self) {
        for pack in packs(self.root.path()) {
            let file = std::fs::OpenOptions::new().write(true).open(pack).unwrap();
            let length = file.metadata().unwrap().len();
            file.write_all_at(&vec![0; length as usize - 64], 64).unwrap();
        }
    }
}

/// A put finds the record damaged while the removal of the file is under way, and writes the name anew: the
/// late removal takes that file, and it moves back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_put_again_before_a_late_removal_stays() {
    for recipe in ["xof:small:44000", "xof:large:2400000"] {
        for at in [Operation::Remove, Operation::EndRemoval] {
            let scene = Scene::new(BlockLayout::Files).await;
            let bytes = content(recipe);
            let id = scene.putting.put(&bytes[..]).await.unwrap().id;
            let repack = scene.repack_that_stalls(at).await;
            scene.damage_packs();
            assert!(scene.putting.put(&bytes[..]).await.unwrap().fresh_blocks > 0, "no damage was found");
            scene.faulty.mend();
            repack.await.unwrap();
            assert_eq!(files(scene.root.path()).len(), bytes.len().div_ceil(8_000));
            scene.assert_holds(&id, &bytes).await;
        }
    }
}

/// Puts and reads go on while a removal is late, and rely on the packs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_late_removal() {
    for layout in [BlockLayout::Files, BlockLayout::Packs] {
        for at in [Operation::Remove, Operation::EndRemoval] {
            let scene = Scene::new(layout).await;
            let bytes = content("xof:large:2400000");
            let id = scene.putting.put(&bytes[..]).await.unwrap().id;
            scene.repacking.repack(BlockLayout::Files, go_on).await.unwrap();
            let repack = scene.repack_that_stalls(at).await;
            let put = tokio::time::timeout(Duration::from_secs(20), scene.putting.put(&bytes[..]));
            assert_eq!(put.await.expect("a put waits for a repack").unwrap().fresh_blocks, 0);
            let more = [&bytes[..], b"more"].concat();
            let longer = scene.putting.put(&more[..]).await.unwrap().id;
            assert_eq!(scene.putting.read_range(&id, 0..u64::MAX).await.unwrap(), bytes);
            scene.faulty.mend();
            repack.await.unwrap();
            // A block that was put meanwhile may be a file still.
            assert!(files(scene.root.path()).len() <= 1);
            scene.assert_holds(&longer, &more).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_removed_is_told_and_goes_with_the_next_collection() {
    let scene = Scene::new(BlockLayout::Files).await;
    let bytes = content("xof:small:44000");
    let id = scene.putting.put(&bytes[..]).await.unwrap().id;
    scene.faulty.break_from(Operation::Remove, 1, Fault::Fail(Code::Forbidden));
    let report = scene.repacking.repack(BlockLayout::Packs, go_on).await.unwrap();
    assert_eq!((report.blocks, report.complete), (6, false), "{report:?}");
    // A call that fails may have done a part.
    let kept = files(scene.root.path()).len() as u64;
    assert!(report.kept_failed >= kept && kept > 0 && !report.failure.is_empty(), "{report:?}");
    scene.faulty.mend();
    assert_eq!(scene.putting.read_range(&id, 0..u64::MAX).await.unwrap(), bytes);
    let report = scene.repacking.gc(&GcOptions::default(), go_on).await.unwrap();
    assert_eq!((report.leftovers, report.blocks, report.complete), (kept, 0, true), "{report:?}");
    assert_eq!(files(scene.root.path()).len(), 0);
    scene.assert_holds(&id, &bytes).await;

    scene.faulty.break_at(Operation::Put, 1, Fault::Fail(Code::Io));
    let error = scene.repacking.repack(BlockLayout::Files, go_on).await.unwrap_err();
    assert_eq!(error.code(), Code::Io);
    let error = scene.repacking.repack(BlockLayout::Files, go_on).await.unwrap_err();
    assert_eq!(error.code(), Code::Latched);
    // The files that it has published are nobody's: their rows were not moved.
    let published = files(scene.root.path()).len() as u64;
    let report = scene.putting.gc(&GcOptions::default(), go_on).await.unwrap();
    assert!(report.leftovers == published && published > 0, "{report:?}");
    scene.assert_holds(&id, &bytes).await;
}

#[test]
fn a_reader_follows_blocks_into_packs_and_out_of_them() {
    let root = tempfile::tempdir().unwrap();
    let store = config(root.path(), "files").open().unwrap();
    let bytes = content("xof:read:400000");
    let id = store.put(&bytes[..]).unwrap().id;
    for to in [BlockLayout::Packs, BlockLayout::Files] {
        let reading = config(root.path(), "files").open_read_only().unwrap();
        let mut reader = reading.reader(&id).unwrap();
        let mut first = vec![0; 100];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(repack(&store, to).blocks, 98);
        // Packs that nobody needs go as well.
        collect(&store);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!([first, rest].concat() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_packs_it_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), Arc::new(MemoryBlockStore::new()), BlockLayout::Files).await;
    store.put(&b"content"[..]).await.unwrap();
    for to in [BlockLayout::Packs, BlockLayout::Files] {
        let error = store.repack(to, go_on).await.unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
    }
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), "files");
    config.open_async().await.unwrap().put(&b"content"[..]).await.unwrap();
    let store = config.open_read_only_async().await.unwrap();
    assert_eq!(store.repack(BlockLayout::Packs, go_on).await.unwrap_err().code(), Code::Forbidden);
}

/// One turn of a thread, and its number.
type Turn = Box<dyn FnMut(&Store, u64) + Send>;

/// Two that repack to and fro, one that puts and deletes, one that collects, one that reads.
#[test]
fn repacks_run_beside_everything_else() {
    let root = tempfile::tempdir().unwrap();
    let kept = config(root.path(), "files").open().unwrap();
    let blobs = put_some(&kept);
    let over = AtomicBool::new(false);
    let until_over = |layout: &str, mut work: Turn| {
        let store = config(root.path(), layout).open().unwrap();
        let over = &over;
        move || {
            let mut turn = 0;
            while !over.load(Ordering::Relaxed) {
                work(&store, turn);
                turn += 1;
            }
            store.close();
            turn
        }
    };
    let two_ways = || -> Turn {
        Box::new(|store, turn| {
            let report = repack(store, if turn % 2 == 0 { BlockLayout::Packs } else { BlockLayout::Files });
            assert_eq!((report.damaged, report.kept_failed), (0, 0), "{report:?}");
        })
    };
    let puts = |seed: u64| -> Turn {
        Box::new(move |store, turn| {
            // Few contents, so that they come back while they go.
            let bytes = content(&format!("xof:{}:{}", (turn * 7 + seed) % 5, 9_000 + (turn % 3) * 30_000));
            let id = store.put(&bytes[..]).unwrap().id;
            assert!(read(store, &id) == bytes);
            match store.delete(&id) {
                Err(error) if error.code() == Code::NotFound => {}
                deleted => deleted.unwrap(),
            }
        })
    };
    let reads = blobs.clone();
    let reading: Turn = Box::new(move |store, _| {
        for (id, bytes) in &reads {
            assert!(read(store, id) == *bytes);
        }
    });
    std::thread::scope(|scope| {
        let work = [
            scope.spawn(until_over("files", two_ways())),
            scope.spawn(until_over("packs", two_ways())),
            scope.spawn(until_over("files", puts(0))),
            scope.spawn(until_over("packs", reading)),
            scope.spawn(until_over("files", Box::new(|store, _| drop(collect(store))))),
        ];
        std::thread::sleep(Duration::from_secs(4));
        over.store(true, Ordering::Relaxed);
        for work in work {
            assert!(work.join().unwrap() > 0);
        }
    });
    for to in [BlockLayout::Packs, BlockLayout::Files] {
        collect(&kept);
        let report = repack(&kept, to);
        assert!(report.complete, "{report:?}");
        collect(&kept);
        for (id, bytes) in &blobs {
            assert!(read(&kept, id) == *bytes);
        }
        assert_clean(&kept);
        let stored = number(root.path(), "SELECT count(*) FROM data_block WHERE stored");
        assert_eq!(stored, keys(&kept, &blobs).len() as i64);
        assert_eq!(number(root.path(), "SELECT count(*) FROM data_block"), stored);
        assert_eq!(doomed(root.path()).len(), 0);
    }
}
