//! A small blob in memory is read on the thread that asks: it needs none that may block, and gives the same
//! answers.

use std::sync::mpsc;

use graviton_core::{Algo, BlobId, Code, Config};

#[test]
fn a_small_blob_in_memory_needs_no_thread_that_may_block() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let put = store.put(&b"small"[..]).await.unwrap();
        // Opens a connection, which is not done at once.
        store.stat(&put.id).await.unwrap();
        let (busy, wait) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || wait.recv());
        let reading = async {
            assert_eq!(store.stat(&put.id).await.unwrap().blocks, 1);
            let mut reader = store.reader(&put.id).await.unwrap();
            assert_eq!(reader.next().await.unwrap().as_deref(), Some(&b"small"[..]));
            assert_eq!(reader.next().await.unwrap(), None);
            reader.seek(2);
            assert_eq!(reader.next().await.unwrap().as_deref(), Some(&b"all"[..]));
            let other = BlobId::of(Algo::Blake3, b"never put");
            assert_eq!(store.reader(&other).await.unwrap_err().code(), Code::NotFound);
            assert_eq!(store.stat(&other).await.unwrap_err().code(), Code::NotFound);
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(60), reading).await;
        drop(busy);
        read.expect("it waits for a thread that may block");
        let _ = occupied.await;
        store.close().await;
        assert_eq!(store.reader(&put.id).await.unwrap_err().code(), Code::Closed);
    });
}

#[test]
fn what_is_wrong_with_its_block_is_said_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let put = store.put(&b"small"[..]).await.unwrap();
        store.stat(&put.id).await.unwrap();
        let key = store.manifest(&put.id, 0, 1).await.unwrap()[0].key;
        let file = directory.path().join("cas/blocks/blake3").join(key.name());
        for (content, code) in [
            (Some(&b"smalL"[..]), Code::CorruptBlock),
            (Some(&b"smal"[..]), Code::CorruptBlock),
            (Some(&b"small and more"[..]), Code::CorruptBlock),
            (None, Code::MissingBlock),
        ] {
            std::fs::remove_file(&file).unwrap();
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let mut reader = store.reader(&put.id).await.unwrap();
            assert_eq!(reader.next().await.unwrap_err().code(), code, "{content:?}");
        }
    });
}
