//! The synchronous store in every place where a program may call it: plain threads, inside a tokio runtime of
//! any kind, and after it was closed. A test of a forked child needs `fork`, which safe Rust does not have;
//! the Python package tests that.

use std::io::{Read, Seek, SeekFrom, Write};

use graviton_core::testing::Recipe;
use graviton_core::{Code, Config, Error, PutOptions, Result, Store};
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", "fixed:20000").unwrap();
    let store = config.open().unwrap();
    (directory, store)
}

/// Makes every kind of call, small and through the pipeline.
fn use_everything(store: &Store, seed: &str) {
    for length in [0, 10, 2_500_000] {
        let bytes = format!("xof:{seed}:{length}").parse::<Recipe>().unwrap().bytes();
        let id = store.put(&bytes[..]).unwrap().id;
        let mut writer = store.put_with(&PutOptions::new().expect(id)).writer().unwrap();
        writer.write_all(&bytes).unwrap();
        assert!(!writer.finish().unwrap().created);
        let mut read = Vec::new();
        let mut reader = store.reader(&id).unwrap();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        reader.seek(SeekFrom::Start(length / 2)).unwrap();
        read.clear();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == bytes[bytes.len() / 2..]);
        assert_eq!(store.stat(&id).unwrap().id, id);
        assert_eq!(store.manifest(&id, 0, 1_000).unwrap().len() as u64, length.div_ceil(20_000));
        // Dropped half-way.
        store.writer().unwrap().write_all(&bytes).unwrap();
    }
    assert!(store.list(None, 10).unwrap().len() >= 3);
    assert!(store.stats().unwrap().blobs >= 3);
}

#[test]
fn the_store_works_inside_a_runtime_of_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The store is opened, used and dropped inside the runtime.
        let (_directory, store) = store();
        use_everything(&store, "inside");
        tokio::spawn(async move { use_everything(&store, "in a task") }).await.unwrap();
    });
    // A runtime without timers and sockets, too.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (_directory, store) = store();
        use_everything(&store, "bare");
        store.close();
    });
}

#[test]
fn the_store_works_inside_a_runtime_of_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_directory, store) = store();
    runtime.block_on(async {
        // More callers than the runtime has threads, all of them blocking.
        let tasks: Vec<_> = (0..6)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { use_everything(&store, &format!("task {number}")) })
            })
            .collect();
        let blocking = store.clone();
        let blocking = tokio::task::spawn_blocking(move || use_everything(&blocking, "blocking"));
        use_everything(&store, "block_on");
        for task in tasks {
            task.await.unwrap();
        }
        blocking.await.unwrap();
    });
    drop(runtime);
    use_everything(&store, "after the runtime");
}

#[test]
fn the_asynchronous_store_works_on_a_runtime_of_one_thread() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let bytes = "xof:async:5000000".parse::<Recipe>().unwrap().bytes();
        let id = store.put(&bytes[..]).await.unwrap().id;
        // In one task, and in several at once.
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.read_range(&id, 0..u64::MAX).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap() == bytes);
        }
        store.close().await;
        assert_eq!(store.stat(&id).await.unwrap_err().code(), Code::Closed);
    });
}

#[test]
fn threads_share_a_store() {
    let (_directory, store) = store();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let store = store.clone();
            scope.spawn(move || use_everything(&store, &format!("thread {}", number % 3)));
        }
    });
    assert_eq!(store.list(None, 100).unwrap().len(), 7);
}

#[test]
fn a_closed_store_says_so() {
    let (_directory, store) = store();
    let clone = store.clone();
    let id = store.put(&b"before"[..]).unwrap().id;
    let mut reader = store.reader(&id).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    let large = "xof:large:2500000".parse::<Recipe>().unwrap().bytes();
    let mut piped = store.writer().unwrap();
    piped.write_all(&large).unwrap();
    store.close();
    store.close();
    let closed = |error: Error| assert_eq!(error.code(), Code::Closed, "{error}");
    for store in [&store, &clone] {
        closed(store.put(&b"after"[..]).unwrap_err());
        closed(store.put_with(&PutOptions::new().expect(id)).source(&b"before"[..]).unwrap_err());
        closed(store.put_file("/dev/null").unwrap_err());
        closed(store.writer().unwrap_err());
        closed(store.reader(&id).unwrap_err());
        closed(store.read_range(&id, 0..1).unwrap_err());
        closed(store.stat(&id).unwrap_err());
        closed(store.exists(&id).unwrap_err());
        closed(store.manifest(&id, 0, 1).unwrap_err());
        closed(store.list(None, 1).unwrap_err());
        closed(store.stats().unwrap_err());
    }
    closed(writer.finish().unwrap_err());
    closed(piped.finish().unwrap_err());
    // A reader that has its manifest may continue; it must not report the end of the blob.
    let mut read = Vec::new();
    let result: Result<usize> = reader.read_to_end(&mut read).map_err(Error::from);
    assert!(result.is_err() || read == b"before");
}

#[test]
fn a_store_that_was_dropped_without_closing_is_whole() {
    let (directory, store) = store();
    let id = store.put(&b"kept"[..]).unwrap().id;
    store.writer().unwrap().write_all(b"not kept").unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.read_range(&id, 0..9).unwrap(), "kept");
    assert_eq!(store.list(None, 9).unwrap().len(), 1);
}

/// A source that fails, and one that is interrupted or returns a byte at a time.
#[test]
fn sources_are_read_as_sources_are() {
    struct Source(Vec<std::io::Result<Vec<u8>>>);
    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let mut piece = self.0.remove(0)?;
            let count = piece.len().min(buffer.len());
            let rest = piece.split_off(count);
            buffer[..count].copy_from_slice(&piece);
            if !rest.is_empty() {
                self.0.insert(0, Ok(rest));
            }
            Ok(count)
        }
    }
    let (_directory, store) = store();
    let interrupted = || Err(std::io::ErrorKind::Interrupted.into());
    let put = store.put(Source(vec![interrupted(), Ok(vec![b'a']), interrupted(), Ok(vec![b'b'])])).unwrap();
    assert_eq!(store.read_range(&put.id, 0..9).unwrap(), "ab");
    for before in [0, 60] {
        let mut pieces: Vec<_> = (0..before).map(|_| Ok(vec![7; 50_000])).collect();
        pieces.push(Err(std::io::Error::other("the tape tore")));
        let error = store.put(Source(pieces)).unwrap_err();
        assert!(error.to_string().contains("the tape tore"), "{error}");
        assert_eq!(error.code(), Code::Io);
        assert_eq!(store.list(None, 9).unwrap().len(), 1);
    }
    // The failure was the source's and not the store's.
    store.put(&b"next"[..]).unwrap();
}
