//! The engine over a failing block store: it fails at every operation in turn, in every way.
//!
//! In every case, a failed put leaves nothing visible, the same bytes can be put again, and a read returns
//! the right bytes or an error that names the problem, never a clean end before the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use graviton_core::block::memory::MemoryBlockStore;
use graviton_core::testing::{Fault, FaultyBlockStore, Operation, Recipe};
use graviton_core::{
    AsyncStore, BlobId, BlobReader, Code, Durability, Error, GcOptions, ManifestRepo, Result, Settings,
};
use tempfile::TempDir;

/// The parts of a store, which outlive an open store.
struct Parts {
    blocks: Arc<FaultyBlockStore>,
    memory: MemoryBlockStore,
    manifests: Arc<ManifestRepo>,
    directory: TempDir,
}

impl Parts {
    async fn new() -> Parts {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests.db");
        let manifests =
            ManifestRepo::open_sqlite(&path, Durability::Full, graviton_core::Opening::Create).await.unwrap();
        let memory = MemoryBlockStore::new();
        let blocks = Arc::new(FaultyBlockStore::new(Arc::new(memory.clone())));
        Parts { blocks, memory, manifests: Arc::new(manifests), directory }
    }

    async fn open(&self, chunker: &str) -> Result<AsyncStore> {
        self.open_with(Settings { chunker: chunker.parse()?, ..Settings::default() }).await
    }

    /// Changes rows directly in the database.
    fn sql(&self, statement: &str) {
        let path = self.directory.path().join("manifests.db");
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        assert!(connection.execute(statement, []).unwrap() > 0);
    }

    async fn open_with(&self, settings: Settings) -> Result<AsyncStore> {
        AsyncStore::new(Arc::clone(&self.blocks) as _, Arc::clone(&self.manifests), settings).await
    }
}

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

const CHUNKER: &str = "fixed:8000";

/// One block; several; none; as many as a small blob has, and one more; through the pipeline, in several
/// batches; and one that shares blocks with another.
fn workload() -> Vec<Vec<u8>> {
    [
        "xof:a:700",
        "xof:b:44000",
        "zeros:0",
        "xof:c:512000",
        "xof:d:512001",
        "xof:e:2400000",
        "xof:b:40000+xof:f:12000",
        "xof:e:800000+xof:g:1600000",
    ]
    .map(content)
    .into()
}

async fn put_all(
    store: &AsyncStore,
    contents: &[Vec<u8>],
    done: &mut BTreeMap<BlobId, Vec<u8>>,
) -> Vec<Result<()>> {
    let mut results = Vec::new();
    for bytes in contents {
        let result = store.put(&bytes[..]).await;
        if let Ok(put) = &result {
            assert_eq!(put.id, BlobId::of(put.id.algo(), bytes));
            done.insert(put.id, bytes.clone());
        }
        results.push(result.map(drop));
    }
    results
}

async fn read_to_end(reader: &mut BlobReader) -> (Vec<u8>, Option<Error>) {
    let mut bytes = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(next)) => bytes.extend_from_slice(&next),
            Ok(None) => return (bytes, None),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

/// Checks that the store holds exactly these blobs, and all of them whole.
async fn assert_holds_exactly(store: &AsyncStore, expected: &BTreeMap<BlobId, Vec<u8>>) {
    let listed: Vec<BlobId> = store.list(None, 1_000).await.unwrap().iter().map(|blob| blob.id).collect();
    assert_eq!(listed, expected.keys().copied().collect::<Vec<_>>());
    for (id, bytes) in expected {
        let (read, error) = read_to_end(&mut store.reader(id).await.unwrap()).await;
        assert!(error.is_none(), "cannot read {id}: {error:?}");
        assert!(read == *bytes, "other bytes in {id}");
    }
    let logical: usize = expected.values().map(Vec::len).sum();
    assert_eq!(store.stats().await.unwrap().logical_bytes, logical as u64);
}

/// Breaks each operation of the workload in turn.
async fn every_operation_fails(fault: Fault, code: Code) {
    let contents = workload();
    for nth in 1.. {
        let parts = Parts::new().await;
        parts.blocks.break_at(Operation::Any, nth, fault);
        let mut done = BTreeMap::new();
        let store = match parts.open(CHUNKER).await {
            Ok(store) => store,
            Err(error) => {
                assert_eq!(error.code(), code, "operation {nth}: {error}");
                parts.open(CHUNKER).await.expect("it works the next time")
            }
        };
        let results = put_all(&store, &contents, &mut done).await;
        let errors: Vec<&Error> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        for error in &errors {
            assert!([code, Code::Latched].contains(&error.code()), "operation {nth}: {error:?}");
        }
        let hit = parts.blocks.hits() > 0;
        parts.blocks.mend();
        assert_eq!(errors.is_empty(), !hit || nth <= 2, "operation {nth}: {errors:?}");
        assert_holds_exactly(&store, &done).await;

        // The effect of failed writes on a store has a test of its own.
        let latched = code == Code::Io && store.put(&b""[..]).await.is_err();
        let store = if latched { parts.open(CHUNKER).await.unwrap() } else { store };
        assert!(put_all(&store, &contents, &mut done).await.iter().all(Result::is_ok), "operation {nth}");
        assert_eq!(done.len(), contents.len());
        assert_holds_exactly(&store, &done).await;
        if !hit {
            assert!(nth > 12, "the workload has only {nth} operations");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_every_operation() {
    every_operation_fails(Fault::Fail(Code::NoSpace), Code::NoSpace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_at_every_operation() {
    every_operation_fails(Fault::Fail(Code::Io), Code::Io).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_at_every_operation() {
    every_operation_fails(Fault::FailAfter(Code::BackendUnavailable), Code::BackendUnavailable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_latches_and_a_full_disk_does_not() {
    for (code, latches) in [(Code::Io, true), (Code::NoSpace, false), (Code::BackendUnavailable, false)] {
        for large in [false, true] {
            let parts = Parts::new().await;
            let store = parts.open(CHUNKER).await.unwrap();
            let bytes = content(if large { "xof:large:2500000" } else { "xof:small:25000" });
            let before = store.put(&b"before"[..]).await.unwrap();
            parts.blocks.break_at(Operation::Put, 1, Fault::Fail(code));
            assert_eq!(store.put(&bytes[..]).await.unwrap_err().code(), code);
            let again = store.put(&bytes[..]).await;
            if latches {
                let error = again.unwrap_err();
                assert_eq!(error.code(), Code::Latched);
                assert!(error.advice().is_some());
                assert_eq!(store.read_range(&before.id, 0..9).await.unwrap(), "before", "reads go on");
                parts.open(CHUNKER).await.unwrap().put(&bytes[..]).await.unwrap();
            } else {
                again.unwrap();
            }
        }
    }
}

/// The first put writes the store's id. Its syncs are of the same disk as all later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_before_the_first_block_latches_too() {
    let parts = Parts::new().await;
    let store = parts.open(CHUNKER).await.unwrap();
    parts.blocks.break_at(Operation::Identity, 1, Fault::Fail(Code::Io));
    assert_eq!(store.put(&b"first"[..]).await.unwrap_err().code(), Code::Io);
    assert_eq!(store.put(&b"again"[..]).await.unwrap_err().code(), Code::Latched);
    parts.open(CHUNKER).await.unwrap().put(&b"again"[..]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stays_full_refuses_everything_and_works_once_there_is_room() {
    let parts = Parts::new().await;
    let store = parts.open(CHUNKER).await.unwrap();
    let contents = workload();
    parts.blocks.break_from(Operation::Put, 1, Fault::Fail(Code::NoSpace));
    let mut done = BTreeMap::new();
    let results = put_all(&store, &contents, &mut done).await;
    assert_eq!(done.len(), 1, "all but the empty blob need room");
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|e| e.code() == Code::NoSpace));
    assert_holds_exactly(&store, &done).await;
    parts.blocks.mend();
    assert!(put_all(&store, &contents, &mut done).await.iter().all(Result::is_ok));
    assert_holds_exactly(&store, &done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_proof_a_small_blob_goes_the_long_way() {
    let parts = Parts::new().await;
    let store = parts.open(CHUNKER).await.unwrap();
    parts.blocks.break_from(Operation::Put, 1, Fault::Unproven);
    let mut done = BTreeMap::new();
    assert!(put_all(&store, &workload(), &mut done).await.iter().all(Result::is_ok));
    assert!(parts.blocks.hits() > 0);
    assert_holds_exactly(&store, &done).await;
}

/// Small puts that arrive together share their writing. A failed one must not be told that it succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_puts_get_their_own_results() {
    for nth in 1..8 {
        let parts = Parts::new().await;
        let store = parts.open(CHUNKER).await.unwrap();
        parts.blocks.break_at(Operation::Put, nth, Fault::Fail(Code::NoSpace));
        let puts: Vec<_> = (0..40)
            .map(|number| {
                let store = store.clone();
                let bytes = content(&format!("xof:{}:12000", number % 30));
                tokio::spawn(async move { (store.put(&bytes[..]).await, bytes) })
            })
            .collect();
        let mut done = BTreeMap::new();
        for put in puts {
            let (result, bytes) = put.await.unwrap();
            match result {
                Ok(put) => drop(done.insert(put.id, bytes)),
                Err(error) => assert_eq!(error.code(), Code::NoSpace),
            }
        }
        assert_holds_exactly(&store, &done).await;
    }
}

/// The window slows down a source that is faster than the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_holds_the_source_back() {
    let window = 8 << 20;
    let parts = Parts::new().await;
    let chunker = "fixed:65536".parse().unwrap();
    let store = parts.open_with(Settings { chunker, window, ..Settings::default() }).await.unwrap();
    parts.blocks.break_from(Operation::Put, 1, Fault::Stall);
    let written = Arc::new(AtomicUsize::new(0));
    let source = {
        let (store, written) = (store.clone(), Arc::clone(&written));
        tokio::spawn(async move {
            let mut writer = store.writer().await?;
            // Not a multiple of a block, so that no two blocks are the same.
            for piece in content("repeat:slow:999999:24000000").chunks(100_000) {
                writer.write(piece).await?;
                written.fetch_add(piece.len(), Ordering::Relaxed);
            }
            writer.finish().await
        })
    };
    // Waits until it has stopped. On a slow machine the test only checks less.
    let mut quiet = (0, 0);
    while quiet.1 < 10 {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let now = written.load(Ordering::Relaxed);
        quiet = if now == quiet.0 && now > 0 { (now, quiet.1 + 1) } else { (now, 0) };
    }
    assert!(quiet.0 <= window, "{} bytes are under way", quiet.0);
    assert!(!source.is_finished());
    parts.blocks.mend();
    let put = source.await.unwrap().unwrap();
    let (read, error) = read_to_end(&mut store.reader(&put.id).await.unwrap()).await;
    assert!(error.is_none() && BlobId::of(put.id.algo(), &read) == put.id);
}

/// For each read of a block: the output is a prefix of the blob and then the error, and the rest can be read
/// once the fault is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_read_is_an_error_and_never_wrong_bytes() {
    let faults = [
        (Fault::Flip, Code::CorruptBlock),
        (Fault::Short, Code::CorruptBlock),
        (Fault::Missing, Code::MissingBlock),
        (Fault::Fail(Code::BackendUnavailable), Code::BackendUnavailable),
    ];
    let mut parts = Parts::new().await;
    let store = parts.open("fixed:1000").await.unwrap();
    let bytes = content("xof:read:95500");
    let id = store.put(&bytes[..]).await.unwrap().id;
    for (fault, code) in faults {
        for nth in 1..=96 {
            // A fetch that an earlier reader abandoned may still be running. The new store keeps it away from
            // the faults of this round.
            parts.blocks = Arc::new(FaultyBlockStore::new(Arc::new(parts.memory.clone())));
            let store = parts.open("fixed:1000").await.unwrap();
            let hits = parts.blocks.hits();
            parts.blocks.break_at(Operation::Get, nth, fault);
            let mut reader = store.reader(&id).await.unwrap();
            let (mut read, error) = read_to_end(&mut reader).await;
            assert_eq!(parts.blocks.hits(), hits + 1, "{fault:?} at {nth} was not reached");
            let error = error.unwrap_or_else(|| panic!("{fault:?} at {nth}: the end after {}", read.len()));
            assert_eq!(error.code(), code, "{fault:?} at {nth}: {error}");
            assert!(error.to_string().contains(&id.to_string()), "no blob in {error}");
            assert!(bytes.starts_with(&read), "{fault:?} at {nth}: wrong bytes");
            let again = reader.next().await.expect_err("a reader that failed stays failed");
            assert_eq!(again.code(), code);
            reader.seek(read.len() as u64);
            let (rest, error) = read_to_end(&mut reader).await;
            assert!(error.is_none(), "{fault:?} at {nth}: {error:?}");
            read.extend(rest);
            assert!(read == bytes, "{fault:?} at {nth}: wrong bytes after the fault");
        }
        let store = parts.open("fixed:1000").await.unwrap();
        for nth in 1..=3 {
            // All reads from there on fail, because blocks are fetched in any order.
            parts.blocks.break_from(Operation::Get, nth, fault);
            let read = store.read_range(&id, 1_500..3_500).await.map(|bytes| bytes.len());
            assert_eq!(read.unwrap_err().code(), code);
            parts.blocks.mend();
        }
        assert_eq!(store.read_range(&id, 1_500..3_500).await.unwrap(), bytes[1_500..3_500]);
    }
}

/// A block that was damaged directly on disk: every read that needs it reports it, every other read works,
/// and putting the same bytes again mends it where the damage is cheap to detect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_is_reported_and_mended_by_the_next_put() {
    let parts = Parts::new().await;
    let store = parts.open("fixed:1000").await.unwrap();
    // Through the short path and through the pipeline.
    for recipe in ["xof:short:5500", "xof:long:2500500"] {
        let bytes = content(recipe);
        let id = store.put(&bytes[..]).await.unwrap().id;
        let entries = store.manifest(&id, 2_000, 1).await.unwrap();
        let key = entries[0].key;
        assert_eq!(entries[0].offset, 2_000);
        for (damage, code) in [
            (None, Code::MissingBlock),
            (Some(bytes[2_000..2_999].to_vec()), Code::CorruptBlock),
            (Some(bytes[2_000..3_001].to_vec()), Code::CorruptBlock),
            (Some(Vec::new()), Code::CorruptBlock),
        ] {
            parts.memory.damage(&key, damage.map(Into::into));
            let error = store.read_range(&id, 2_999..3_000).await.unwrap_err();
            assert_eq!(error.code(), code);
            let text = error.to_string();
            assert!(text.contains(&key.to_string()) && text.contains(&id.to_string()), "{text}");
            let (read, error) = read_to_end(&mut store.reader(&id).await.unwrap()).await;
            assert_eq!((read.len(), error.map(|error| error.code())), (2_000, Some(code)));
            assert_eq!(store.read_range(&id, 0..1_999).await.unwrap(), bytes[..1_999]);
            assert_eq!(
                store.read_range(&id, 3_000..9_000).await.unwrap(),
                bytes[3_000..bytes.len().min(9_000)]
            );

            let put = store.put(&bytes[..]).await.unwrap();
            assert_eq!((put.created, put.fresh_blocks, put.fresh_bytes), (false, 1, 1_000), "{recipe}");
            let (read, error) = read_to_end(&mut store.reader(&id).await.unwrap()).await;
            assert!(error.is_none() && read == bytes, "{recipe} is not mended");
        }
        // The length is right, so only a read can notice, and the store remembers the result.
        parts.memory.damage(&key, Some(vec![0; 1_000].into()));
        assert_eq!(store.read_range(&id, 2_000..2_001).await.unwrap_err().code(), Code::CorruptBlock);
        assert_eq!(store.put(&bytes[..]).await.unwrap().fresh_blocks, 1);
        assert_eq!(store.read_range(&id, 2_000..3_000).await.unwrap(), bytes[2_000..3_000]);
        // No read of this process has seen the damage, and `verify` has cleared the row.
        parts.memory.damage(&key, Some(vec![0; 1_000].into()));
        parts.sql(&format!(
            "UPDATE data_block SET stored = FALSE WHERE hex(digest) = upper('{}')",
            key.digest()
        ));
        assert_eq!(store.put(&bytes[..]).await.unwrap().fresh_blocks, 1);
        assert_eq!(store.read_range(&id, 2_000..3_000).await.unwrap(), bytes[2_000..3_000]);
        let stored = parts.manifests.known(&[], &[key]).await.unwrap().stored;
        assert_eq!(stored, [Some(true)], "{recipe}");
    }
}

/// A range read requests the blocks that it needs and no others: neither the block after a range that ends
/// with its block, nor blocks ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_read_touches_only_its_blocks() {
    let parts = Parts::new().await;
    let store = parts.open("fixed:1000").await.unwrap();
    let bytes = content("xof:ranges:100000");
    let id = store.put(&bytes[..]).await.unwrap().id;
    for (start, end, blocks) in [
        (0, 1, 1),
        (500, 1_000, 1),
        (0, 2_000, 2),
        (999, 1_001, 2),
        (50_000, 60_000, 10),
        (99_999, 100_000, 1),
    ] {
        let before = parts.blocks.count(Operation::Get);
        let read = store.read_range(&id, start as u64..end as u64).await.unwrap();
        assert!(read == bytes[start..end]);
        // Nobody waits for blocks that are fetched ahead; a pause gives them time to be counted.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(parts.blocks.count(Operation::Get) - before, blocks, "for {start}..{end}");
    }
    // Blocks beside a range may therefore be damaged.
    let behind = store.manifest(&id, 2_000, 1).await.unwrap()[0].key;
    parts.memory.damage(&behind, None);
    assert!(store.read_range(&id, 0..2_000).await.unwrap() == bytes[..2_000]);
}

/// Without verification, a block of another length must not end the stream early or cause a panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_read_is_an_error_without_verification_too() {
    let parts = Parts::new().await;
    let settings =
        Settings { chunker: "fixed:1000".parse().unwrap(), verify_reads: false, ..Settings::default() };
    let store = parts.open_with(settings).await.unwrap();
    let bytes = content("xof:unverified:5500");
    let id = store.put(&bytes[..]).await.unwrap().id;
    for nth in 1..=6 {
        parts.blocks.break_at(Operation::Get, nth, Fault::Short);
        let mut reader = store.reader(&id).await.unwrap();
        let mut read = 0;
        // The loop is bounded, because an empty piece makes no progress.
        let error = loop {
            match reader.next().await {
                Ok(Some(next)) if !next.is_empty() => read += next.len(),
                Ok(_) => panic!("the stream ends after {read} bytes"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::CorruptBlock);
    }
}

/// A put that is stopped for longer than its lease continues, and writes blocks that a collection has
/// forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_outlives_its_lease_leaves_nothing_for_ever() {
    let parts = Parts::new().await;
    let store = parts.open(CHUNKER).await.unwrap();
    parts.blocks.break_from(Operation::Put, 1, Fault::Stall);
    let putting = store.clone();
    let put = tokio::spawn(async move { putting.put(&content("xof:late:800000")[..]).await });
    while parts.blocks.count(Operation::Put) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    parts.sql("UPDATE writer SET expires_at = 1");
    let collect = async || {
        let options = GcOptions { grace: Some(std::time::Duration::ZERO), ..GcOptions::default() };
        store.gc(&options, |_| std::ops::ControlFlow::Continue(())).await.unwrap()
    };
    assert_eq!(collect().await.abandoned_puts, 1);
    parts.blocks.mend();
    assert_eq!(put.await.unwrap().unwrap_err().code(), Code::WriterExpired);
    assert!(!parts.memory.keys().is_empty(), "it wrote nothing, and this shows nothing");
    collect().await;
    assert_eq!(parts.memory.keys(), []);
}
