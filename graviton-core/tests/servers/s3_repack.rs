//! Blocks in S3 that move into packs, and out of them: whole, interrupted, damaged, beside others, and with
//! deletions that get no answer, come late or are refused.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graviton_core::block::pack::Compression;
use graviton_core::testing::Recipe;
use graviton_core::{
    AsyncStore, BlobId, BlockKey, BlockLayout, BlockStore, Code, Durability, GcOptions, GcReport,
    ManifestRepo, Opening, PutOptions, RepackReport, Settings, Store, Timing, VerifyOptions,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tempfile::TempDir;

use crate::support::exact::assert_exact_in;
use crate::support::needs_servers;
use crate::support::ownership::collect;
use crate::support::pair::{Blocks, Manifests, Pair};
use crate::support::proxy::{Fault, Proxy, error};
use crate::support::s3;
use crate::support::s3::Prefix;

const BLOCK: usize = 4_000;
const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

fn go_on<T>(_: &T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

struct Scene {
    proxy: Proxy,
    place: Prefix,
    directory: TempDir,
    doom: Duration,
    /// Repacks by way of the proxy.
    store: AsyncStore,
    bytes: Vec<u8>,
    /// A blob of eleven blocks.
    id: BlobId,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(HALF_AN_HOUR).await
    }

    /// Its dooms last so long.
    async fn with(doom: Duration) -> Scene {
        let proxy = Proxy::to(&s3::seaweedfs()).await;
        let place = Prefix::new(&s3::seaweedfs());
        let by_proxy = Prefix { url: proxy.url.clone(), prefix: place.prefix.clone() };
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory, by_proxy.store(), BlockLayout::Files, doom).await;
        let bytes = content("xof:one:44000");
        let id = store.put(&bytes[..]).await.unwrap().id;
        Scene { proxy, place, directory, doom, store, bytes, id }
    }

    /// Another process, as it were, which does not use the proxy.
    async fn other(&self, layout: BlockLayout) -> AsyncStore {
        open(&self.directory, self.place.store(), layout, self.doom).await
    }

    async fn repack(&self, to: BlockLayout) -> RepackReport {
        self.store.repack(to, go_on).await.unwrap()
    }

    async fn gc(&self) -> GcReport {
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        self.store.gc(&options, go_on).await.unwrap()
    }

    fn sql(&self, statement: &str) -> usize {
        let connection = rusqlite::Connection::open(self.directory.path().join("manifests.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection.execute(statement, []).unwrap()
    }

    fn count(&self, condition: &str) -> usize {
        let connection = rusqlite::Connection::open(self.directory.path().join("manifests.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        let sql = format!("SELECT count(*) FROM data_block WHERE {condition}");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize
    }

    /// As if so much time had gone by.
    fn end_dooms(&self) -> usize {
        self.sql("UPDATE data_block SET doomed_until = 1 WHERE doomed_until > 1")
    }

    async fn listed(&self, directory: &str) -> Vec<Path> {
        let path = Path::from(format!("{}{directory}", self.place.prefix));
        let listed = self.place.raw().list_with_delimiter(Some(&path)).await.unwrap();
        // SeaweedFS shows a directory that has become empty as an object.
        listed.objects.into_iter().map(|object| object.location).filter(|at| *at != path).collect()
    }

    /// The objects of blocks.
    async fn objects(&self) -> Vec<Path> {
        self.listed("/blake3").await
    }

    async fn packs(&self) -> Vec<Path> {
        self.listed("-packs").await
    }

    async fn keys(&self) -> Vec<BlockKey> {
        self.store.manifest(&self.id, 0, 100).await.unwrap().iter().map(|entry| entry.key).collect()
    }

    /// Alters the payload of each record.
    async fn damage_packs(&self) {
        for pack in self.packs().await {
            let mut bytes = self.place.raw().get(&pack).await.unwrap().bytes().await.unwrap().to_vec();
            for at in (64 + 64 + 8..bytes.len()).step_by(64 + BLOCK) {
                bytes[at] ^= 1;
            }
            self.place.raw().put(&pack, PutPayload::from(bytes)).await.unwrap();
        }
    }

    async fn is_readable(&self) -> bool {
        self.store.read_range(&self.id, 0..u64::MAX).await.unwrap() == self.bytes
    }

    /// Nothing is damaged, and nothing is there that no row knows.
    async fn assert_clean(&self) {
        assert!(self.is_readable().await);
        let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
        let report = self.store.verify(&options, go_on_verifying).await.unwrap();
        assert!(report.is_clean() && report.unreferenced == 0, "{report:?}");
    }
}

fn go_on_verifying(_: graviton_core::VerifyEvent<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

async fn open(
    directory: &TempDir,
    blocks: impl BlockStore,
    layout: BlockLayout,
    doom: Duration,
) -> AsyncStore {
    let path = directory.path().join("manifests.db");
    let manifests = ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap();
    let settings = Settings {
        chunker: format!("fixed:{BLOCK}").parse().unwrap(),
        layout,
        compression: Compression::None,
        timing: Timing { doom, ..usual() },
        ..Settings::default()
    };
    AsyncStore::new(Arc::new(blocks), Arc::new(manifests), settings).await.unwrap()
}

fn usual() -> Timing {
    Settings::default().timing
}

#[test]
fn all_blocks_move_into_packs_and_out_of_them_on_every_pair() {
    needs_servers!();
    for blocks in [Blocks::S3, Blocks::S3Packs] {
        for manifests in [Manifests::Sqlite, Manifests::Postgres] {
            let pair = Pair::new(blocks, manifests);
            let store = pair.open();
            let shared = content("xof:shared:40960");
            let contents = [
                content("xof:small:700"),
                [&shared[..], &content("xof:more:300000")].concat(),
                [&shared[..], &content("zeros:50000")].concat(),
            ];
            let blobs: Vec<_> =
                contents.iter().map(|bytes| (store.put(&bytes[..]).unwrap().id, bytes)).collect();
            let gone = store.put(&content("xof:gone:30000")[..]).unwrap().id;
            store.delete(&gone).unwrap();
            let all = store.stats().unwrap().blocks;
            let ways = [BlockLayout::Packs, BlockLayout::Files, BlockLayout::Packs];
            for to in ways.into_iter().skip(usize::from(blocks == Blocks::S3Packs)) {
                let mut told = Vec::new();
                let report = store.repack(to, |so_far: &RepackReport| {
                    told.push((so_far.blocks, so_far.remaining));
                    ControlFlow::Continue(())
                });
                let report = report.unwrap();
                assert_eq!(
                    (report.blocks, report.present, report.remaining),
                    (all, 0, 0),
                    "{pair:?}: {report:?}"
                );
                assert!(report.complete && report.kept_failed + report.damaged == 0, "{report:?}");
                assert!(told.iter().all(|(moved, left)| moved + left == all), "{told:?}");
                let again = store.repack(to, go_on).unwrap();
                assert_eq!((again.blocks, again.present, again.complete), (0, all, true));
                for (id, bytes) in &blobs {
                    assert!(store.read_range(id, 0..u64::MAX).unwrap() == **bytes);
                }
            }
            // It was no part of any of this, and can still be restored and collected.
            store.restore(&gone).unwrap();
            assert!(store.read_range(&gone, 0..u64::MAX).unwrap() == content("xof:gone:30000"));
            store.delete(&gone).unwrap();
            assert!(collect(&store).unwrap().complete);
            assert_exact_in(Blocks::S3Packs, &pair, &store);
            assert!(store.repack(BlockLayout::Files, go_on).unwrap().complete);
            // All of the packs are dead, and those of this process are sealed when it ends.
            store.close();
            let store = pair.open();
            assert!(collect(&store).unwrap().complete);
            assert_exact_in(Blocks::S3, &pair, &store);
            let stats = store.stats().unwrap();
            assert_eq!((stats.packs, stats.blobs), (0, 3), "{stats:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_repack_goes_on_where_it_was() {
    needs_servers!();
    let scene = Scene::new().await;
    let store = open(&scene.directory, scene.place.store(), BlockLayout::Files, HALF_AN_HOUR).await;
    let bytes = content("xof:large:9000000");
    let id = store.put(&bytes[..]).await.unwrap().id;
    let all = store.stats().await.unwrap().blocks;
    for to in [BlockLayout::Packs, BlockLayout::Files] {
        let stopped = store.repack(to, |_| ControlFlow::Break(())).await.unwrap();
        assert!(stopped.blocks > 0 && stopped.blocks < all && !stopped.complete, "{stopped:?}");
        assert!(store.read_range(&id, 0..u64::MAX).await.unwrap() == bytes);
        let rest = store.repack(to, go_on).await.unwrap();
        assert_eq!((rest.blocks, rest.present, rest.complete), (all - stopped.blocks, stopped.blocks, true));
    }
    assert!(store.read_range(&id, 0..u64::MAX).await.unwrap() == bytes);
    assert_eq!(scene.objects().await.len() as u64, all);
    scene.assert_clean().await;
}

/// Carried out, and the answers are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_whose_answer_was_lost_keeps_the_doom_of_its_name() {
    needs_servers!();
    let scene = Scene::new().await;
    scene.proxy.harm("DELETE", "/blake3/", 1, Fault::LostReply);
    let report = scene.repack(BlockLayout::Packs).await;
    assert_eq!(report.blocks, 11, "{report:?}");
    // Deletions that were not begun are tried again at once.
    assert_eq!((scene.objects().await.len(), report.remaining), (0, 0));
    assert!(scene.count("doomed_until > 1") >= 1);
    scene.proxy.heal();
    scene.assert_clean().await;
    // Neither puts nor reads wait for it, nor does a collection end it.
    for layout in [BlockLayout::Files, BlockLayout::Packs] {
        let store = scene.other(layout).await;
        assert_eq!(store.put(&scene.bytes[..]).await.unwrap().fresh_blocks, 0);
        let more = [&scene.bytes[..], b"more"].concat();
        store.put(&more[..]).await.unwrap();
    }
    let doomed = scene.count("doomed_until > 1");
    assert!(scene.gc().await.complete);
    assert_eq!(scene.count("doomed_until > 1"), doomed);
    // It does not move back meanwhile.
    let back = scene.repack(BlockLayout::Files).await;
    assert_eq!((back.remaining, back.complete), (doomed as u64, false), "{back:?}");
    assert!(scene.is_readable().await);
    scene.end_dooms();
    assert!(scene.repack(BlockLayout::Files).await.complete);
    assert_eq!(scene.count("doomed_by IS NOT NULL"), 0);
    scene.assert_clean().await;
}

/// Not carried out: the object is there, and goes when the doom is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_whose_deletion_got_no_answer_goes_once_its_doom_is_over() {
    needs_servers!();
    for (by_gc, is_deleted) in [(true, false), (false, false), (true, true)] {
        let scene = Scene::new().await;
        scene.proxy.harm("DELETE", "/blake3/", usize::MAX, Fault::Reset);
        let report = scene.repack(BlockLayout::Packs).await;
        assert_eq!((report.blocks, report.remaining, report.complete), (11, 0, false), "{report:?}");
        let left = scene.objects().await.len();
        assert_eq!((report.kept_failed, left), (11, 11), "{report:?}");
        assert!(!report.failure.is_empty());
        scene.proxy.heal();
        assert!(scene.is_readable().await);
        let doomed = scene.count("doomed_until > 1");
        assert!(doomed >= 1);
        let listed = scene.store.verify(&VerifyOptions::default(), go_on_verifying).await.unwrap();
        assert_eq!((listed.unreferenced, listed.is_clean()), (11, true));
        if is_deleted {
            scene.store.delete(&scene.id).await.unwrap();
        }
        // Those of which nothing is under way go at once.
        let report =
            if by_gc { scene.gc().await.leftovers } else { scene.repack(BlockLayout::Packs).await.leftovers };
        assert_eq!((report, scene.objects().await.len()), ((11 - doomed) as u64, doomed));
        assert_eq!(scene.count("doomed_until > 1"), doomed);
        // A put pins the blocks: that hides none of them.
        assert_eq!(scene.end_dooms(), doomed);
        if !is_deleted {
            scene.other(BlockLayout::Packs).await.put(&scene.bytes[..]).await.unwrap();
            let session = scene.store.open_session(Duration::from_secs(600)).await.unwrap();
            assert!(session.missing(&scene.keys().await).await.unwrap().is_empty());
            session.close().await.unwrap();
        }
        let report =
            if by_gc { scene.gc().await.leftovers } else { scene.repack(BlockLayout::Packs).await.leftovers };
        assert_eq!((report, scene.objects().await.len()), (doomed as u64, 0));
        scene.gc().await;
        assert_eq!(scene.count("doomed_by IS NOT NULL OR candidate"), 0);
        if is_deleted {
            assert_eq!(scene.count("TRUE"), 0);
        } else {
            scene.assert_clean().await;
        }
    }
}

/// A gateway holds a deletion until the block is an object again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_carried_out_late_is_refused_by_its_date() {
    needs_servers!();
    let scene = Scene::with(Duration::from_secs(16)).await;
    scene.proxy.harm("DELETE", "/blake3/", usize::MAX, Fault::Kept);
    scene.repack(BlockLayout::Packs).await;
    scene.proxy.heal();
    let back = scene.repack(BlockLayout::Files).await;
    assert!(back.remaining > 0, "{back:?}");
    let back = loop {
        let back = scene.repack(BlockLayout::Files).await;
        if back.complete {
            break back;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!((back.remaining, scene.objects().await.len()), (0, 11));
    scene.proxy.release().await;
    assert_eq!(scene.objects().await.len(), 11);
    scene.assert_clean().await;
}

/// The same one is carried out while the doom lasts, and harms nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_deletion_harms_no_put_that_finds_the_record_damaged() {
    needs_servers!();
    let scene = Scene::new().await;
    scene.proxy.harm("DELETE", "/blake3/", usize::MAX, Fault::Kept);
    scene.repack(BlockLayout::Packs).await;
    scene.proxy.heal();
    scene.damage_packs().await;
    let expect = PutOptions::new().expect(scene.id);
    // Where it is to write names it cannot, as long as the doom lasts.
    let names = scene.other(BlockLayout::Files).await;
    let refused = names.put_with(&expect).source(&scene.bytes[..]).await;
    // A look at the length shows nothing; a read does.
    assert_eq!(refused.unwrap().fresh_blocks, 0);
    assert_eq!(names.read_range(&scene.id, 0..u64::MAX).await.unwrap_err().code(), Code::CorruptBlock);
    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    assert_eq!(names.verify(&options, go_on_verifying).await.unwrap().corrupt, 11);
    let doomed = scene.count("doomed_until > 1");
    assert!(doomed >= 1);
    let refused = names.put(&scene.bytes[..]).await.unwrap_err();
    assert_eq!(refused.code(), Code::BackendUnavailable, "{refused}");
    assert!(refused.is_retryable() && refused.to_string().contains("repack"), "{refused}");
    // By the short path, and by the long one.
    let packs = scene.other(BlockLayout::Packs).await;
    assert_eq!(packs.put(&scene.bytes[..]).await.unwrap().fresh_blocks, 11);
    scene.proxy.release().await;
    assert_eq!(scene.count("doomed_until > 1"), doomed);
    assert!(scene.is_readable().await);
    scene.damage_packs().await;
    names.verify(&options, go_on_verifying).await.unwrap();
    packs.put_with(&expect).source(&scene.bytes[..]).await.unwrap();
    assert_eq!(scene.count("doomed_until > 1"), doomed);
    scene.end_dooms();
    scene.gc().await;
    assert_eq!(scene.repack(BlockLayout::Packs).await.remaining, 0);
    assert_eq!(scene.objects().await.len(), 0);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_refused_is_told_and_repeated_by_the_next_collection() {
    needs_servers!();
    let scene = Scene::new().await;
    scene.proxy.harm("DELETE", "/blake3/", usize::MAX, error(403, "AccessDenied"));
    let report = scene.repack(BlockLayout::Packs).await;
    assert_eq!((report.blocks, report.kept_failed, report.complete), (11, 11, false), "{report:?}");
    assert!(report.failure.contains("AccessDenied"), "{}", report.failure);
    // Nothing is under way: nobody waits, and nothing is forgotten.
    assert_eq!((scene.count("doomed_until > 1"), scene.count("doomed_until = 1")), (0, 11));
    assert!(scene.is_readable().await);
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    let refused = scene.store.gc(&options, go_on).await.unwrap_err();
    assert_eq!(refused.code(), Code::Forbidden, "{refused}");
    scene.proxy.heal();
    let report = scene.gc().await;
    assert_eq!((report.leftovers, report.blocks, report.complete), (11, 0, true), "{report:?}");
    assert_eq!((scene.objects().await.len(), scene.count("doomed_by IS NOT NULL OR candidate")), (0, 0));
    scene.assert_clean().await;
}

/// The object that a repack leaves which dies between its transaction and the deletion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_was_left_behind_goes_unless_the_record_is_damaged() {
    needs_servers!();
    for (is_doomed, by_gc, is_damaged) in [
        (true, true, false),
        (true, false, false),
        (false, false, false),
        (true, false, true),
        (true, true, true),
    ] {
        let scene = Scene::new().await;
        scene.repack(BlockLayout::Packs).await;
        let keys = scene.keys().await;
        for (number, key) in keys.iter().enumerate() {
            let block = scene.bytes[number * BLOCK..][..key.size()].to_vec();
            scene.place.damage(key, Some(block.into())).await;
        }
        if is_doomed {
            scene.sql("UPDATE data_block SET doomed_by = 7, doomed_until = 9000000000000, candidate = 1");
            scene.sql("UPDATE data_block SET doomed_until = unixepoch() * 1000 + 1000000");
            assert_eq!(scene.gc().await.leftovers + scene.repack(BlockLayout::Packs).await.leftovers, 0);
            assert_eq!((scene.objects().await.len(), scene.end_dooms()), (11, 11));
        }
        if is_damaged {
            scene.damage_packs().await;
        }
        let report =
            if by_gc { scene.gc().await.leftovers } else { scene.repack(BlockLayout::Packs).await.leftovers };
        let left = if is_damaged { 11 } else { 0 };
        assert_eq!((report, scene.objects().await.len()), (11 - left as u64, left));
        if is_damaged {
            // The next put of a store that writes objects has nothing left to do but that.
            let store = scene.other(BlockLayout::Files).await;
            assert_eq!(store.put(&scene.bytes[..]).await.unwrap().fresh_blocks, 11);
        }
        scene.gc().await;
        scene.assert_clean().await;
        assert_eq!(scene.count("doomed_by IS NOT NULL OR candidate"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_a_running_put_uses_stays_until_that_ends() {
    needs_servers!();
    let scene = Scene::new().await;
    let keys = scene.keys().await;
    let session = scene.store.open_session(Duration::from_secs(600)).await.unwrap();
    assert!(session.missing(&[keys[0], keys[3]]).await.unwrap().is_empty());
    let report = scene.repack(BlockLayout::Packs).await;
    assert_eq!((report.blocks, report.skipped, report.remaining), (9, 2, 2), "{report:?}");
    assert!(!report.complete && scene.objects().await.len() == 2);
    session.close().await.unwrap();
    let report = scene.repack(BlockLayout::Packs).await;
    assert_eq!((report.blocks, report.skipped, report.complete), (2, 0, true), "{report:?}");
    assert_eq!(scene.objects().await.len(), 0);
    scene.assert_clean().await;
}

/// Puts and reads go on while deletions are slow, and rely on the packs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_slow_deletion() {
    needs_servers!();
    for layout in [BlockLayout::Files, BlockLayout::Packs] {
        let scene = Scene::new().await;
        let other = scene.other(layout).await;
        let mut reader = other.reader(&scene.id).await.unwrap();
        scene.proxy.harm("DELETE", "/blake3/", usize::MAX, Fault::HeldAnswer);
        let store = scene.store.clone();
        let running = tokio::spawn(async move { store.repack(BlockLayout::Packs, go_on).await.unwrap() });
        while scene.count("pack_id IS NULL") > 0 || !scene.objects().await.is_empty() {
            assert!(!running.is_finished());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(other.put(&scene.bytes[..]).await.unwrap().fresh_blocks, 0);
        let longer = [&scene.bytes[..], b"more"].concat();
        let longer_id = other.put(&longer[..]).await.unwrap().id;
        assert!(other.read_range(&longer_id, 0..u64::MAX).await.unwrap() == longer);
        // It knows where the blocks were.
        let mut read = Vec::new();
        while let Some(next) = reader.next().await.unwrap() {
            read.extend_from_slice(&next);
        }
        assert!(read == scene.bytes);
        assert!(!running.is_finished());
        scene.proxy.heal();
        scene.proxy.release().await;
        let report = running.await.unwrap();
        assert!(report.blocks >= 11 && report.kept_failed == 0, "{report:?}");
        // A block that was put meanwhile may be an object still.
        assert!(scene.objects().await.len() <= 1);
        assert_eq!(scene.count("doomed_by IS NOT NULL"), 0);
        scene.assert_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_blocks_are_told_and_keep_no_other_one() {
    needs_servers!();
    let scene = Scene::new().await;
    let key = scene.keys().await[2];
    scene.place.damage(&key, Some(vec![b'x'; key.size()].into())).await;
    let report = scene.repack(BlockLayout::Packs).await;
    assert_eq!((report.blocks, report.damaged, report.remaining), (10, 1, 0), "{report:?}");
    let put = scene.store.put(&scene.bytes[..]).await.unwrap();
    assert_eq!(put.fresh_blocks, 1, "the damage was not marked");
    assert_eq!(scene.repack(BlockLayout::Packs).await.blocks, 1);
    scene.assert_clean().await;
    scene.damage_packs().await;
    let report = scene.repack(BlockLayout::Files).await;
    assert_eq!((report.blocks, report.damaged, report.remaining), (0, 11, 0), "{report:?}");
    assert_eq!(scene.store.put(&scene.bytes[..]).await.unwrap().fresh_blocks, 11);
    assert_eq!(scene.objects().await.len(), 11);
    scene.assert_clean().await;
}

/// One turn of a thread, and its number.
type Turn = Box<dyn FnMut(&Store, u64) + Send>;

/// Two that repack to and fro, one that puts and deletes, one that collects, one that reads.
#[test]
fn repacks_run_beside_everything_else() {
    needs_servers!();
    for manifests in [Manifests::Sqlite, Manifests::Postgres] {
        let pair = Pair::new(Blocks::S3, manifests);
        let kept = pair.open();
        let contents = ["xof:kept:150000", "xof:small:900"].map(content);
        let blobs: Vec<(BlobId, Vec<u8>)> =
            contents.into_iter().map(|bytes| (kept.put(&bytes[..]).unwrap().id, bytes)).collect();
        let over = AtomicBool::new(false);
        let until_over = |layout: &str, mut work: Turn| {
            let store = pair.config().set("GRAVITON_BLOCK_LAYOUT", layout).unwrap().open().unwrap();
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
                let to = if turn % 2 == 0 { BlockLayout::Packs } else { BlockLayout::Files };
                let report = store.repack(to, go_on).unwrap();
                assert_eq!(report.damaged, 0, "{report:?}");
            })
        };
        let puts: Turn = Box::new(|store, turn| {
            // Few contents, so that they come back while they go.
            let bytes = content(&format!("xof:{}:{}", turn * 7 % 5, 9_000 + (turn % 3) * 30_000));
            let id = store.put(&bytes[..]).unwrap().id;
            assert!(store.read_range(&id, 0..u64::MAX).unwrap() == bytes);
            store.delete(&id).unwrap();
        });
        let reads = blobs.clone();
        let reading: Turn = Box::new(move |store, _| {
            for (id, bytes) in &reads {
                assert!(store.read_range(id, 0..u64::MAX).unwrap() == *bytes);
            }
        });
        std::thread::scope(|scope| {
            let work = [
                scope.spawn(until_over("files", two_ways())),
                scope.spawn(until_over("packs", two_ways())),
                scope.spawn(until_over("files", puts)),
                scope.spawn(until_over("packs", reading)),
                scope.spawn(until_over("files", Box::new(|store, _| drop(collect(store).unwrap())))),
            ];
            std::thread::sleep(Duration::from_secs(6));
            over.store(true, Ordering::Relaxed);
            for work in work {
                assert!(work.join().unwrap() > 0);
            }
        });
        for (to, blocks) in [(BlockLayout::Packs, Blocks::S3Packs), (BlockLayout::Files, Blocks::S3)] {
            collect(&kept).unwrap();
            let report = kept.repack(to, go_on).unwrap();
            assert!(report.complete, "{report:?}");
            collect(&kept).unwrap();
            for (id, bytes) in &blobs {
                assert!(kept.read_range(id, 0..u64::MAX).unwrap() == *bytes);
            }
            assert_exact_in(blocks, &pair, &kept);
        }
        let ids: BTreeSet<BlobId> = kept.list(None, 100).unwrap().iter().map(|stat| stat.id).collect();
        assert_eq!(ids, blobs.iter().map(|(id, _)| *id).collect());
    }
}
