//! Cases that were once wrong, each as small as possible.

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::time::Duration;

use graviton_core::{BlobId, Code, Config, GcOptions, PutOptions, Store, VerifyOptions};

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn block_file(root: &std::path::Path, store: &Store, id: &BlobId, number: usize) -> std::path::PathBuf {
    let entries = store.manifest(id, 0, 1000).unwrap();
    let key = entries[number].key;
    root.join("cas/blocks").join(key.algo().name()).join(key.name())
}

fn replace(path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn blocks_larger_than_what_is_fetched_ahead_are_read_back() {
    let content = noise(1, 40 << 20);
    for chunker in ["fixed:8388609", "fixed:16777216"] {
        let directory = tempfile::tempdir().unwrap();
        let store =
            Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", chunker).unwrap().open().unwrap();
        let id = store.put(&content[..]).unwrap().id;
        let mut back = Vec::new();
        store.reader(&id).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == content, "{chunker}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_says_what_it_is_to_fetch_and_goes_on_after_it_gave_everything_back() {
    let content = noise(3, 3_000_000);
    let directory = tempfile::tempdir().unwrap();
    let config = Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", "fastcdc:4096:16384:65536");
    let store = config.unwrap().open_async().await.unwrap();
    let id = store.put(&content[..]).await.unwrap().id;
    let manifest = store.manifest(&id, 0, 1_000).await.unwrap();
    let ranges = [0..3_000_000_u64, 1_234_567..2_345_678, 100..200];
    for (range, often) in
        ranges.into_iter().flat_map(|range| [1, 2, 3, 50].map(|often| (range.clone(), often)))
    {
        let mut reader = store.reader(&id).await.unwrap();
        reader.seek(range.start);
        reader.limit(range.end);
        let mut back = Vec::new();
        for round in 1.. {
            let at = reader.position();
            let block = reader.block().await.unwrap();
            let whole = manifest.iter().find(|entry| (entry.offset..entry.end()).contains(&at));
            assert_eq!(block, whole.filter(|_| at < range.end).map(|entry| entry.offset..entry.end()));
            let Some(bytes) = reader.next_up_to(5_000).await.unwrap() else { break };
            assert!(block.unwrap().end >= reader.position());
            back.extend_from_slice(&bytes);
            if round % often == 0 {
                reader.release();
                assert_eq!(reader.ahead(), 0);
            }
        }
        assert!(back == content[range.start as usize..range.end as usize], "{range:?}, each {often}");
    }
}

#[test]
fn a_reader_that_failed_goes_on_after_a_seek_to_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let id = store.put(&noise(2, 300_000)[..]).unwrap().id;
    let path = block_file(directory.path(), &store, &id, 0);
    let (away, mut reader) = (path.with_extension("away"), store.reader(&id).unwrap());
    std::fs::rename(&path, &away).unwrap();
    let mut buffer = [0; 10];
    for _ in 0..2 {
        let error = graviton_core::Error::from(reader.read(&mut buffer).unwrap_err());
        assert_eq!(error.code(), Code::MissingBlock);
    }
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(reader.seek(SeekFrom::Start(0)).unwrap(), 0);
    reader.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, noise(2, 300_000)[..10]);
}

#[test]
fn a_block_that_was_read_altered_is_written_again_by_the_next_put() {
    for length in [10_000, 20 << 20] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let content = noise(3, length);
        let id = store.put(&content[..]).unwrap().id;
        replace(&block_file(directory.path(), &store, &id, 0), |bytes| bytes[0] ^= 1);
        assert_eq!(store.read_range(&id, 0..10).unwrap_err().code(), Code::CorruptBlock);
        assert_eq!(store.put(&content[..]).unwrap().fresh_blocks, 1);
        assert_eq!(store.read_range(&id, 0..10).unwrap(), content[..10]);
    }
}

#[test]
fn a_full_store_does_not_take_over_what_was_not_synced() {
    let directory = tempfile::tempdir().unwrap();
    let full = Store::open(directory.path()).unwrap();
    full.put(&b"first"[..]).unwrap();
    let relaxed = Config::for_directory(directory.path())
        .set("GRAVITON_DURABILITY", "relaxed")
        .unwrap()
        .open()
        .unwrap();
    relaxed.put(&b"not synced"[..]).unwrap();
    let recorded = || -> String {
        let database = rusqlite::Connection::open(directory.path().join("manifests.db")).unwrap();
        database.query_row("SELECT durability FROM store", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(recorded(), "relaxed");
    assert!(!full.put(&b"not synced"[..]).unwrap().created);
    assert_eq!(recorded(), "full");
}

#[test]
fn a_writer_whose_row_is_gone_is_registered_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    // Long enough for the long path.
    store.put(&noise(4, 5 << 20)[..]).unwrap();
    let database = rusqlite::Connection::open(directory.path().join("manifests.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM writer", []).unwrap(), 1);
    store.put(&noise(5, 5 << 20)[..]).unwrap();
    let rows: i64 = database.query_row("SELECT count(*) FROM writer", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    store.close();
    let rows: i64 = database.query_row("SELECT count(*) FROM writer", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn a_put_whose_pending_row_was_expired_fails_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut writer = store.writer().unwrap();
    let content = noise(6, 10 << 20);
    std::io::Write::write_all(&mut writer, &content).unwrap();
    let database = rusqlite::Connection::open(directory.path().join("manifests.db")).unwrap();
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    // A collector does this to the blobs of a writer whose lease is over.
    let expired = database.execute("UPDATE blob SET state = 2, deleted_at = 1 WHERE state = 0", []).unwrap();
    assert_eq!(expired, 1);
    assert_eq!(writer.finish().unwrap_err().code(), Code::WriterExpired);
    assert_eq!(store.list(None, 10).unwrap(), []);
    assert!(store.put(&content[..]).unwrap().created);
}

/// Futures that are polled once and then abandoned hold nothing that others need. Blocks that wait to be
/// stored together may hold every buffer that the source could have: they must not wait for the source.
#[test]
fn puts_with_small_windows_get_through_beside_each_other_whatever_they_share() {
    for (chunker, shared) in [
        ("fixed:1048576", 0),
        ("fastcdc:16384:65536:262144", 16 << 20),
        ("fixed:4194304", 16 << 20),
        ("fixed:65536", 4 << 20),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", chunker).unwrap();
        let store = config.put_window(0).shared_put_window(shared).open().unwrap();
        std::thread::scope(|scope| {
            for number in 1..=24 {
                let store = &store;
                scope.spawn(move || {
                    let content = noise(number, 10 << 20);
                    let id = store.put(&content[..]).unwrap().id;
                    let mut back = Vec::new();
                    store.reader(&id).unwrap().read_to_end(&mut back).unwrap();
                    assert!(back == content);
                });
            }
        });
    }
}

#[test]
fn puts_that_nobody_drives_do_not_stop_others() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        store.put(&b"the first put makes the directories"[..]).await.unwrap();
        let mut idle = Vec::new();
        for number in 0..3_000_u32 {
            let store = store.clone();
            let mut put = Box::pin(async move { store.put(&number.to_le_bytes()[..]).await });
            for _ in 0..3 {
                let polled =
                    std::future::poll_fn(|context| std::task::Poll::Ready(put.as_mut().poll(context)));
                // On a busy machine it may reach its end.
                if polled.await.is_ready() {
                    break;
                }
            }
            idle.push(put);
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        store.put(&b"another"[..]).await.unwrap();
    });
}

/// The owner of the bytes of a put, which counts how often it was dropped.
struct Owned(Vec<u8>, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn bytes_in_memory_are_stored_as_a_stream_is_and_let_go() {
    let released = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    // No bytes, a small blob, one with too many blocks to be small, a buffer and its neighbours, and many
    // buffers.
    let buffer = 4 << 20;
    let few: &[usize] = &[0, 1, 70_000, 1_100_000];
    let many: &[usize] = &[0, 1, 70_000, buffer - 1, buffer, buffer + 1, 5 * buffer + 7];
    for (chunker, sizes) in
        [("fastcdc:65536:262144:1048576", many), ("fixed:5000", few), ("delimiter:0a:100000", few)]
    {
        let open = |directory: &tempfile::TempDir| {
            Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", chunker).unwrap().open().unwrap()
        };
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [streams, whole] = directories.each_ref().map(open);
        for &size in sizes {
            let content = noise(size as u64, size);
            let before = released.load(std::sync::atomic::Ordering::SeqCst);
            let owned = || bytes::Bytes::from_owner(Owned(content.clone(), released.clone()));
            let (stream, receipt) = (streams.put(&content[..]).unwrap(), whole.put_bytes(owned()).unwrap());
            assert_eq!(stream, receipt, "{chunker} {size}");
            let manifest = |store: &Store| store.manifest(&receipt.id, 0, 10_000).unwrap();
            assert_eq!(manifest(&streams), manifest(&whole), "{chunker} {size}");
            assert!(whole.read_range(&receipt.id, 0..size as u64).unwrap() == content, "{chunker} {size}");
            // And again, this time with the expected id.
            let expected = PutOptions::new().expect(receipt.id);
            assert!(!whole.put_with(&expected).bytes(owned()).unwrap().created);
            for other in [noise(99, size + 1), noise(98, size.max(1))] {
                let wrong = BlobId::of(graviton_core::Algo::Blake3, &other);
                let refused = whole.put_with(&PutOptions::new().expect(wrong)).bytes(owned()).unwrap_err();
                assert_eq!(refused.code(), Code::DigestMismatch, "{chunker} {size}");
                assert!(!whole.exists(&wrong).unwrap());
            }
            let now = released.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!(now - before, 4, "{chunker} {size}: somebody still holds the bytes");
        }
        assert_eq!(streams.stats().unwrap().blobs, whole.stats().unwrap().blobs);
    }
}

/// Commits that never pause are always ahead of the thread that empties the log, which must not grow without
/// bound.
#[test]
fn the_log_of_the_database_stays_short_and_is_gone_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::for_directory(directory.path()).set("GRAVITON_DURABILITY", "relaxed").unwrap();
    let store = config.open().unwrap();
    let database = directory.path().join("manifests.db");
    let log = directory.path().join("manifests.db-wal");
    let length = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut longest = 0;
    // Each put changes about seven pages of 4 KiB.
    for number in 0..3_000_u64 {
        store.put(&number.to_le_bytes()[..]).unwrap();
        longest = longest.max(length(&log));
    }
    assert!(longest > 4_000_000, "there was nothing to do");
    assert!(longest < 32 << 20, "{longest} bytes of log");
    assert!(length(&database) > 300_000, "nothing was moved: {}", length(&database));
    store.close();
    assert!(!log.exists());
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.stats().unwrap().blobs, 3_000);
}

/// The stack size that the documentation requires.
#[test]
fn a_thread_with_a_small_stack_can_do_everything() {
    const STACK: usize = 256 << 10;
    let work = || {
        let directory = tempfile::tempdir().unwrap();
        let store = Config::for_directory(directory.path()).open().unwrap();
        let bytes = noise(9, 3_000_000);
        let id = store.put(&bytes[..]).unwrap().id;
        assert!(store.read_range(&id, 0..u64::MAX).unwrap() == bytes);
        store.delete(&id).unwrap();
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        assert_eq!(store.gc(&options, |_| ControlFlow::Continue(())).unwrap().blobs, 1);
        store.put(&b"small"[..]).unwrap();
        let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
        assert!(store.verify(&options, |_| ControlFlow::Continue(())).unwrap().is_clean());
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}
