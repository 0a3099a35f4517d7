//! Blocks in S3 when the network or the server fails: every request ends in success after a retry, or in the
//! right error, and nothing is lost, incomplete, or different from what was put.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graviton_core::block::{Block, Identity, S3BlockStore};
use graviton_core::testing::Recipe;
use graviton_core::{
    Algo, AsyncStore, BlobId, BlockKey, BlockStore, Code, Config, CopyOptions, Durability, Error,
    ManifestRepo, PutOptions, Settings,
};
use tempfile::TempDir;

use crate::support::needs_servers;
use crate::support::proxy::{Fault, Proxy, Seen, error, refusal};
use crate::support::s3;
use crate::support::s3::Prefix;

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

fn block(recipe: &str) -> Block {
    let bytes = bytes::Bytes::from(content(recipe));
    Block { key: BlockKey::of(Algo::Blake3, &bytes).unwrap(), bytes }
}

/// A store with its blocks behind a proxy, and direct access to the same place.
struct Scene {
    proxy: Proxy,
    place: Prefix,
    blocks: S3BlockStore,
    directory: TempDir,
}

impl Scene {
    /// With the time limits of the product.
    async fn new() -> Scene {
        Scene::with(Prefix::store).await
    }

    /// A store with this time limit in milliseconds for an attempt, and this one for all attempts together.
    async fn hasty(attempt_ms: u64, total_ms: u64) -> Scene {
        Scene::with(|place| place.hasty_store(attempt_ms, total_ms)).await
    }

    async fn with(store: impl Fn(&Prefix) -> S3BlockStore) -> Scene {
        Scene::at(&s3::seaweedfs(), store).await
    }

    async fn at(server: &str, store: impl Fn(&Prefix) -> S3BlockStore) -> Scene {
        let proxy = Proxy::to(server).await;
        let place = Prefix::new(server);
        let blocks = store(&Prefix { url: proxy.url.clone(), prefix: place.prefix.clone() });
        Scene { proxy, place, blocks, directory: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Result<AsyncStore, Error> {
        self.open_with(Settings::default()).await
    }

    async fn open_with(&self, settings: Settings) -> Result<AsyncStore, Error> {
        let path = self.directory.path().join("manifests.db");
        let manifests =
            ManifestRepo::open_sqlite(&path, Durability::Full, graviton_core::Opening::Create).await.unwrap();
        AsyncStore::new(Arc::new(self.blocks.clone()), Arc::new(manifests), settings).await
    }

    fn blocks_seen(&self) -> Vec<Seen> {
        let mut seen = self.proxy.take_seen();
        seen.retain(|seen| seen.target.contains("/blake3/"));
        seen
    }
}

fn settings(chunker: &str) -> Settings {
    Settings { chunker: chunker.parse().unwrap(), ..Settings::default() }
}

async fn read(store: &AsyncStore, id: &BlobId) -> Result<Vec<u8>, Error> {
    let mut reader = store.reader(id).await?;
    let mut bytes = Vec::new();
    while let Some(next) = reader.next().await? {
        bytes.extend_from_slice(&next);
    }
    Ok(bytes)
}

/// Faults that pass, by themselves or at the next attempt.
fn passing() -> Vec<Fault> {
    vec![
        error(500, "InternalError"),
        error(503, "SlowDown"),
        error(429, "TooManyRequests"),
        error(400, "RequestTimeout"),
        Fault::Answer(502, "<html>bad gateway</html>"),
        Fault::Answer(504, ""),
        Fault::Reset,
        Fault::LostReply,
        Fault::Slow(Duration::from_millis(100)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_vanished_are_written_again_by_puts_that_look_and_after_a_read() {
    needs_servers!();
    for recipe in ["xof:vanished:20000", "xof:vanished:9000000"] {
        let scene = Scene::new().await;
        let store = scene.open().await.unwrap();
        let content = content(recipe);
        let put = store.put_bytes(content.clone()).await.unwrap();
        let entries = store.manifest(&put.id, 0, 1_000).await.unwrap();
        let vanish = async || {
            for entry in &entries {
                scene.place.damage(&entry.key, None).await;
            }
        };

        // An ordinary put does not check its blocks: that would be a request for each.
        vanish().await;
        assert_eq!(store.put_bytes(content.clone()).await.unwrap().fresh_blocks, 0);
        let expected = PutOptions::new().expect(put.id);
        let again = store.put_with(&expected).bytes(content.clone()).await.unwrap();
        assert_eq!((again.fresh_blocks, again.created), (put.blocks, false));
        assert!(store.read_range(&put.id, 0..u64::MAX).await.unwrap() == content);

        // A copy from a store that has the blocks.
        let other = tempfile::tempdir().unwrap();
        let good = Config::for_directory(other.path()).open_async().await.unwrap();
        good.put_bytes(content.clone()).await.unwrap();
        vanish().await;
        store.copy_from(&good, &CopyOptions::default(), |_| ControlFlow::Continue(())).await.unwrap();
        assert!(store.read_range(&put.id, 0..u64::MAX).await.unwrap() == content);

        // A read notes the first missing block that it meets.
        vanish().await;
        let error = store.read_range(&put.id, 0..u64::MAX).await.unwrap_err();
        assert_eq!(error.code(), Code::MissingBlock);
        assert!(store.put_bytes(content.clone()).await.unwrap().fresh_blocks > 0);
        good.close().await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_not_noticed() {
    needs_servers!();
    for (number, fault) in passing().into_iter().enumerate() {
        let scene = Scene::new().await;
        // The store-id and every block, twice each.
        let times = 2;
        scene.proxy.harm("GET", "store-id", times, fault.clone());
        let store = scene.open_with(settings("fixed:1000")).await.unwrap();
        scene.proxy.harm("PUT", "store-id", times, fault.clone());
        scene.proxy.harm("PUT", "/blake3/", times, fault.clone());
        let bytes = content(&format!("xof:passing{number}:4500"));
        let put = store.put(&bytes[..]).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!((put.blocks, put.fresh_blocks), (5, 5));
        scene.proxy.harm("GET", "/blake3/", times, fault.clone());
        assert!(read(&store, &put.id).await.unwrap_or_else(|error| panic!("{fault:?}: {error}")) == bytes);
        // The code of a 400 is in its body, and a HEAD has none.
        let times = if matches!(fault, Fault::Answer(400, _)) { 0 } else { times };
        scene.proxy.harm("HEAD", "/blake3/", times, fault.clone());
        let key = store.manifest(&put.id, 0, 1).await.unwrap()[0].key;
        assert_eq!(scene.blocks.length(&key).await.unwrap(), Some(1000), "{fault:?}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_read_again() {
    needs_servers!();
    let scene = Scene::new().await;
    let block = block("xof:broken:300000");
    scene.blocks.put(vec![block.clone()]).await.unwrap();
    for length in [0, 1, 150_000, 299_999] {
        scene.proxy.harm("GET", "/blake3/", 3, Fault::BrokenOff(length));
        assert!(scene.blocks.get(&block.key, None).await.unwrap() == block.bytes);
        scene.proxy.harm("GET", "/blake3/", 3, Fault::BrokenOff(length.min(9)));
        assert!(scene.blocks.get(&block.key, Some(7..17)).await.unwrap() == block.bytes[7..17]);
    }
    assert_eq!(scene.blocks_seen().len(), 1 + 8 * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_late_is_asked_for_again() {
    needs_servers!();
    let scene = Scene::hasty(300, 3_000).await;
    let block = block("xof:late:5000");
    for fault in [Fault::Slow(Duration::from_secs(2)), Fault::Silent] {
        for method in ["PUT", "GET", "HEAD"] {
            scene.proxy.harm(method, "/blake3/", 2, fault.clone());
        }
        let started = Instant::now();
        scene.blocks.put(vec![block.clone()]).await.unwrap();
        assert!(scene.blocks.get(&block.key, None).await.unwrap() == block.bytes);
        assert_eq!(scene.blocks.length(&block.key).await.unwrap(), Some(5_000));
        assert!(started.elapsed() > Duration::from_millis(6 * 300));
        assert_eq!(scene.blocks_seen().len(), 9);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_damaged_on_its_way_is_sent_again() {
    needs_servers!();
    let scene = Scene::new().await;
    let block = block("xof:upload:5000");
    scene.proxy.harm("PUT", "/blake3/", 2, Fault::FlippedRequest(4_999));
    scene.blocks.put(vec![block.clone()]).await.unwrap();
    assert_eq!(scene.blocks_seen().len(), 3);
    assert_eq!(scene.place.object(&block.key).await.unwrap(), block.bytes);
}

/// Faults that last: while they do, the put fails and nothing of the blob is visible. The same put works when
/// they are over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lasts_is_the_right_error_and_leaves_nothing() {
    needs_servers!();
    for (fault, code, named) in [
        (error(503, "SlowDown"), Code::BackendUnavailable, "503 SlowDown"),
        (error(500, "InternalError"), Code::BackendUnavailable, "500 InternalError"),
        (error(429, "TooManyRequests"), Code::BackendUnavailable, "429"),
        (Fault::Reset, Code::BackendUnavailable, "reset"),
        (Fault::LostReply, Code::BackendUnavailable, "closed"),
        (Fault::Silent, Code::BackendUnavailable, "no answer within"),
        (Fault::Slow(Duration::from_secs(9)), Code::BackendUnavailable, "no answer within"),
        (Fault::FlippedRequest(0), Code::BackendUnavailable, "BadDigest"),
        (error(403, "AccessDenied"), Code::Forbidden, "s3:PutObject"),
        (error(400, "ExpiredToken"), Code::Config, "credentials"),
        (error(403, "InvalidAccessKeyId"), Code::Config, "credentials"),
        (error(404, "NoSuchBucket"), Code::Config, "does not exist"),
        (error(507, "XMinioStorageFull"), Code::NoSpace, "507"),
    ] {
        let scene = Scene::hasty(400, 1_200).await;
        let store = scene.open_with(settings("fixed:1000")).await.unwrap();
        let other = content("xof:before:2500");
        let before = store.put(&other[..]).await.unwrap();

        let bytes = [&content("xof:lasting:9500")[..], &other].concat();
        let id = BlobId::of(Algo::Blake3, &bytes);
        scene.proxy.harm("PUT", "/blake3/", usize::MAX, fault.clone());
        let started = Instant::now();
        let error = store.put(&bytes[..]).await.expect_err("the server fails");
        assert_eq!(error.code(), code, "{fault:?}: {error}");
        let text = format!("{error} {}", error.advice().unwrap());
        assert!(text.contains(named) && text.contains(&scene.proxy.url), "{fault:?}: {text}");
        assert!(!text.contains(&s3::password()), "{text}");
        assert!(started.elapsed() < Duration::from_secs(6), "{fault:?} took {:?}", started.elapsed());
        assert!(!store.exists(&id).await.unwrap(), "{fault:?}");
        assert_eq!(store.list(None, 10).await.unwrap().len(), 1);
        assert_eq!(store.stats().await.unwrap().stored_bytes, 2_500, "{fault:?}");
        assert!(read(&store, &before.id).await.unwrap() == other);

        scene.proxy.heal();
        let put = store.put(&bytes[..]).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(put.id, id);
        assert!(read(&store, &id).await.unwrap() == bytes, "{fault:?}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_is_the_right_error_and_never_the_wrong_bytes() {
    needs_servers!();
    for (fault, code, named) in [
        (error(503, "SlowDown"), Code::BackendUnavailable, "503 SlowDown"),
        (Fault::Reset, Code::BackendUnavailable, "reset"),
        (Fault::BrokenOff(10), Code::BackendUnavailable, ""),
        (Fault::Silent, Code::BackendUnavailable, "no answer within"),
        (Fault::Truncated(999), Code::CorruptBlock, "999"),
        (Fault::Truncated(0), Code::CorruptBlock, "0 bytes"),
        (Fault::FlippedAnswer(500), Code::CorruptBlock, "another digest"),
        (error(403, "AccessDenied"), Code::Forbidden, "s3:GetObject"),
        (error(400, "ExpiredToken"), Code::Config, "credentials"),
        (error(404, "NoSuchBucket"), Code::Config, "GRAVITON_S3_BLOCK_BUCKET"),
        (error(404, "NoSuchKey"), Code::MissingBlock, "missing"),
        (Fault::Answer(404, ""), Code::MissingBlock, "missing"),
        (Fault::Answer(404, "<html>nothing here</html>"), Code::MissingBlock, "missing"),
    ] {
        let scene = Scene::hasty(300, 800).await;
        let store = scene.open_with(settings("fixed:1000")).await.unwrap();
        let bytes = content("xof:reads:5000");
        let put = store.put(&bytes[..]).await.unwrap();
        let key = store.manifest(&put.id, 3_000, 1).await.unwrap()[0].key;

        scene.proxy.harm("GET", &key.name(), usize::MAX, fault.clone());
        let mut reader = store.reader(&put.id).await.unwrap();
        let mut got = Vec::new();
        let failed = loop {
            match reader.next().await {
                Ok(Some(next)) => got.extend_from_slice(&next),
                Ok(None) => panic!("{fault:?} was the end of the stream"),
                Err(error) => break error,
            }
        };
        assert!(got == bytes[..3_000], "{fault:?}: {} bytes", got.len());
        assert_eq!(failed.code(), code, "{fault:?}: {failed}");
        let text = format!("{failed} {}", failed.advice().unwrap());
        assert!(text.contains(named) && text.contains(&scene.proxy.url), "{fault:?}: {text}");
        scene.proxy.heal();
        assert!(read(&store, &put.id).await.unwrap() == bytes, "{fault:?}");
        store.close().await;
    }
}

/// Only a 404 means that a block is absent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_never_absence() {
    needs_servers!();
    let scene = Scene::hasty(300, 600).await;
    let key = block("xof:absence:10").key;
    for (fault, code) in [
        (Fault::Answer(500, ""), Code::BackendUnavailable),
        (Fault::Answer(503, ""), Code::BackendUnavailable),
        (Fault::Answer(403, ""), Code::Forbidden),
        (Fault::Answer(400, ""), Code::Config),
        (Fault::Answer(405, ""), Code::Config),
        (Fault::Answer(301, ""), Code::Config),
        (Fault::Reset, Code::BackendUnavailable),
        (Fault::Silent, Code::BackendUnavailable),
    ] {
        scene.proxy.harm("", "", usize::MAX, fault.clone());
        for error in [
            scene.blocks.length(&key).await.unwrap_err(),
            scene.blocks.get(&key, None).await.unwrap_err(),
            scene.blocks.get(&key, Some(1..2)).await.unwrap_err(),
            scene.blocks.get(&key, Some(1..1)).await.unwrap_err(),
            scene.blocks.store_id().await.unwrap_err(),
            scene.blocks.has_blocks().await.unwrap_err(),
            scene.blocks.create_store_id("id").await.unwrap_err(),
        ] {
            assert_eq!(error.code(), code, "{fault:?}: {error}");
        }
        scene.proxy.heal();
    }
    for fault in [Fault::Answer(404, ""), error(404, "NoSuchKey"), Fault::Answer(404, "<html>")] {
        scene.proxy.harm("", "", usize::MAX, fault);
        assert_eq!(scene.blocks.length(&key).await.unwrap(), None);
        assert_eq!(scene.blocks.get(&key, None).await.unwrap_err().code(), Code::MissingBlock);
        assert_eq!(scene.blocks.store_id().await.unwrap(), None);
        assert_eq!(scene.blocks.has_blocks().await.unwrap_err().code(), Code::Config);
        scene.proxy.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_to_the_id_does_not_lose_the_id() {
    needs_servers!();
    for fault in [Fault::LostReply, error(503, "SlowDown"), error(409, "ConditionalRequestConflict")] {
        let scene = Scene::new().await;
        scene.proxy.harm("PUT", "store-id", 2, fault);
        assert_eq!(scene.blocks.create_store_id("mine").await.unwrap(), "mine");
        assert_eq!(scene.place.store().create_store_id("theirs").await.unwrap(), "mine");
    }
}

/// Some servers ignore If-None-Match, others know no conditions at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_conditions_is_given_no_new_store() {
    needs_servers!();
    for (fault, how) in [
        (Fault::Unconditional, "ignores If-None-Match"),
        (error(501, "NotImplemented"), "refuses If-None-Match"),
        (refusal("if-none-match", 400, "InvalidArgument"), "refuses If-None-Match"),
        (refusal("if-none-match", 405, "MethodNotAllowed"), "refuses If-None-Match"),
    ] {
        // This server does not check signatures, which cover the condition.
        let scene = Scene::at(&s3::moto(), Prefix::store).await;
        scene.proxy.harm("PUT", "store-id", usize::MAX, fault);
        let store = scene.open().await.unwrap();
        let refused = store.put(&b"content"[..]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported, "{refused}");
        assert!(refused.to_string().contains(how), "{refused}");
        assert_eq!(scene.place.store().store_id().await.unwrap(), None);
        // The advice works.
        let advice = refused.advice().unwrap().to_owned();
        let id = advice.split_once("write ").unwrap().1.split_once(' ').unwrap().0;
        assert_eq!(scene.place.store().create_store_id(id).await.unwrap(), id);
        store.put(&b"content"[..]).await.unwrap();
    }
}

/// Older servers and some gateways refuse the header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_checksums_gets_none() {
    needs_servers!();
    for (status, code) in [(400, "InvalidRequest"), (501, "NotImplemented")] {
        let scene = Scene::new().await;
        scene.proxy.harm("PUT", "", usize::MAX, refusal("x-amz-checksum-sha256", status, code));
        let store = scene.open_with(settings("fixed:1000")).await.unwrap();
        let bytes = content("xof:checksums:9500");
        let put = store.put(&bytes[..]).await.unwrap();
        assert!(read(&store, &put.id).await.unwrap() == bytes);
        // The server is asked at most once for each put that was in progress when the refusal was noticed.
        scene.proxy.take_seen();
        store.put(&content("xof:more checksums:9500")[..]).await.unwrap();
        let seen = scene.blocks_seen();
        assert!(seen.len() == 10 && seen.iter().all(|seen| seen.method == "PUT"), "{seen:?}");
    }
    // A request that is refused for another reason stays refused.
    let scene = Scene::new().await;
    let store = scene.open_with(settings("fixed:1000")).await.unwrap();
    scene.proxy.harm("PUT", "", usize::MAX, error(400, "InvalidRequest"));
    let refused = store.put(&b"content"[..]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Config, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_needed_is_sent() {
    needs_servers!();
    let scene = Scene::new().await;
    let store = scene.open_with(settings("fixed:1000")).await.unwrap();
    let bytes = content("xof:counted:99500");
    scene.proxy.take_seen();
    let put = store.put(&bytes[..]).await.unwrap();
    assert_eq!(put.fresh_blocks, 100);
    let seen = scene.blocks_seen();
    assert!(seen.len() == 100 && seen.iter().all(|seen| seen.method == "PUT"), "{seen:?}");

    // The same bytes again, and then with something new: no request is made for blocks that SQL knows.
    store.put(&bytes[..]).await.unwrap();
    assert_eq!(scene.proxy.take_seen().len(), 0);
    let more = [&bytes[..99_000], b"a new end"].concat();
    assert_eq!(store.put(&more[..]).await.unwrap().fresh_blocks, 1);
    assert_eq!(scene.proxy.take_seen().len(), 1);

    // A read is one GET for each block.
    assert!(read(&store, &put.id).await.unwrap() == bytes);
    let seen = scene.blocks_seen();
    assert!(seen.len() == 100 && seen.iter().all(|seen| seen.method == "GET"), "{seen:?}");
    store.close().await;

    // Reopening requests only the id.
    let again = scene.open().await.unwrap();
    let seen = scene.proxy.take_seen();
    assert!(seen.len() == 1 && seen[0].target.ends_with("/store-id"), "{seen:?}");
    again.close().await;
}

/// Reads one range, with and without verification.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_read_fetches_what_it_needs() {
    needs_servers!();
    let scene = Scene::new().await;
    let bytes = content("xof:ranges:9500");
    let store = scene.open_with(settings("fixed:1000")).await.unwrap();
    let id = store.put(&bytes[..]).await.unwrap().id;
    store.close().await;
    for (verify_reads, range, ranges) in [
        (true, 1_250..1_260, vec![None]),
        (true, 1_250..3_001, vec![None, None, None]),
        (false, 1_250..1_260, vec![Some("bytes=250-259")]),
        (false, 1_250..3_001, vec![Some("bytes=250-999"), None, Some("bytes=0-0")]),
        (false, 2_000..4_000, vec![None, None]),
        (false, 9_400..99_999, vec![Some("bytes=400-499")]),
        (false, 5..5, vec![]),
    ] {
        let store = scene.open_with(Settings { verify_reads, ..settings("fixed:1000") }).await.unwrap();
        scene.proxy.take_seen();
        let end = range.end.min(9_500) as usize;
        let got = store.read_range(&id, range.clone()).await.unwrap();
        assert!(got == bytes[range.start as usize..end], "{range:?}");
        let mut seen: Vec<Option<String>> = scene.blocks_seen().into_iter().map(|seen| seen.range).collect();
        let mut expected: Vec<Option<String>> = ranges.iter().map(|range| range.map(str::to_owned)).collect();
        // Blocks are fetched at the same time.
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected, "{range:?}, verified: {verify_reads}");
        store.close().await;
    }
}

/// Positions, directions and limits in any order, over parts of blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_jumps_reads_the_right_bytes() {
    needs_servers!();
    let scene = Scene::new().await;
    let bytes = content("xof:jumps:9500");
    let store = scene.open_with(Settings { verify_reads: false, ..settings("fixed:1000") }).await.unwrap();
    let id = store.put(&bytes[..]).await.unwrap().id;
    let mut reader = store.reader(&id).await.unwrap();
    let mut numbers = 1_u64;
    let mut next = |below: u64| {
        numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (numbers >> 33) % below
    };
    for _ in 0..150 {
        let position = if next(3) == 0 { reader.position() } else { next(9_501) };
        reader.limit(if next(2) == 0 { 9_500 } else { next(9_501) });
        reader.seek(position);
        for _ in 0..next(4) {
            let at = reader.position() as usize;
            if let Some(got) = reader.next_up_to(1 + next(1_500)).await.unwrap() {
                assert!(got == bytes[at..at + got.len()], "other bytes at {at}");
                assert_eq!(reader.position() as usize, at + got.len());
            }
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_store_are_bounded_and_end_together() {
    needs_servers!();
    let scene = Scene::new().await;
    let blocks: Vec<Block> = (0..200).map(|number| block(&format!("xof:bounded{number}:100"))).collect();
    scene.proxy.harm("PUT", "/blake3/", usize::MAX, Fault::Slow(Duration::from_millis(20)));
    let (one, two) =
        tokio::join!(scene.blocks.put(blocks[..100].to_vec()), scene.blocks.put(blocks[100..].to_vec()));
    one.and(two).unwrap();
    let most = scene.proxy.take_most_under_way();
    assert!((8..=32).contains(&most), "{most} requests at once");
    assert_eq!(scene.blocks_seen().len(), 200);

    // One is refused while the others wait.
    scene.proxy.heal();
    // The order of the requests is not specified.
    scene.proxy.harm("PUT", "/blake3/", 1, error(403, "AccessDenied"));
    scene.proxy.harm("PUT", "/blake3/", usize::MAX, Fault::Silent);
    // It would wait for 30 s for each of the silent ones, and then try again.
    let put = scene.blocks.put(blocks.clone());
    let error = tokio::time::timeout(Duration::from_secs(20), put).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Forbidden);

    // The call is dropped.
    scene.proxy.take_seen();
    let under_way = scene.proxy.seen(8);
    tokio::select! {
        _ = scene.blocks.put(blocks.clone()) => panic!("it does not wait"),
        () = under_way => {}
    }
    scene.proxy.heal();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Those that were on their way arrive, and no others.
    let seen = scene.proxy.take_seen().len();
    assert!(seen <= 32, "a put that was dropped goes on: {seen} requests");
    scene.blocks.put(blocks).await.unwrap();
}
