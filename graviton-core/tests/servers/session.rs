//! Sessions: a client that asks first and sends only what is missing, over any number of processes, beside
//! collectors.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::support::pair::Pair;
use bytes::Bytes;
use graviton_core::{
    Algo, AsyncStore, BlobId, BlockKey, Code, GcOptions, Session, SessionCommit, VerifyOptions,
};

const LONG: Duration = Duration::from_secs(600);

fn blocks(seed: u8) -> Vec<Bytes> {
    (0..5_u8).map(|index| Bytes::from(vec![seed ^ index; 1000 + usize::from(index)])).collect()
}

fn key(block: &Bytes) -> BlockKey {
    BlockKey::of(Algo::Blake3, block).unwrap()
}

fn keys(blocks: &[Bytes]) -> Vec<BlockKey> {
    blocks.iter().map(key).collect()
}

fn id(blocks: &[Bytes]) -> BlobId {
    BlobId::of(Algo::Blake3, &blocks.concat())
}

async fn collect(store: &AsyncStore) -> u64 {
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(())).await.unwrap().blocks
}

async fn assert_clean(store: &AsyncStore) {
    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    let report = store.verify(&options, |event| {
        println!("{event:?}");
        ControlFlow::Continue(())
    });
    assert!(report.await.unwrap().is_clean());
}

fn committed(outcome: SessionCommit) -> graviton_core::PutReceipt {
    match outcome {
        SessionCommit::Committed(receipt) => receipt,
        SessionCommit::Missing(missing) => panic!("missing: {missing:?}"),
    }
}

/// Runs on every pair of backends.
fn everywhere<F: Future<Output = ()>>(test: impl Fn(Pair) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for pair in Pair::all() {
        println!("{:?} {:?}", pair.blocks, pair.manifests);
        runtime.block_on(test(pair));
    }
}

#[test]
fn a_client_sends_only_what_is_missing_through_two_processes() {
    everywhere(|pair| async move {
        let (one, other) =
            (pair.config().open_async().await.unwrap(), pair.config().open_async().await.unwrap());
        let all = blocks(1);
        one.put(&all[2][..]).await.unwrap();
        let session = one.open_session(LONG).await.unwrap();
        let twice = [keys(&all), keys(&all)].concat();
        let missing = session.missing(&twice).await.unwrap();
        assert_eq!(missing, [key(&all[0]), key(&all[1]), key(&all[3]), key(&all[4])]);

        let there: Session = other.session(&session.token()).unwrap();
        for block in &all {
            let fresh = there.put_block(&key(block), block.clone()).await.unwrap();
            assert_eq!(fresh, *block != all[2]);
        }
        assert_eq!(session.missing(&keys(&all)).await.unwrap(), []);
        assert_eq!(one.block(&key(&all[1])).await.unwrap(), all[1]);
        let receipt = committed(session.commit(&keys(&all), &id(&all)).await.unwrap());
        assert!(receipt.created && receipt.blocks == 5);
        // Again, and in another session: it is there.
        assert!(!committed(there.commit(&keys(&all), &id(&all)).await.unwrap()).created);
        session.close().await.unwrap();
        collect(&other).await;
        assert_eq!(other.read_range(&id(&all), 0..u64::MAX).await.unwrap(), all.concat());
        assert_clean(&one).await;
    });
}

#[test]
fn what_a_session_relies_on_stays_and_goes_when_it_is_over() {
    everywhere(|pair| async move {
        let store = pair.config().open_async().await.unwrap();
        let all = blocks(2);
        let session = store.open_session(LONG).await.unwrap();
        // One that a deleted blob holds, and one that is sent.
        let deleted = store.put(&all[0][..]).await.unwrap().id;
        assert_eq!(session.missing(&keys(&all[..1])).await.unwrap(), []);
        session.put_block(&key(&all[1]), all[1].clone()).await.unwrap();
        store.delete(&deleted).await.unwrap();
        assert_eq!(collect(&store).await, 0);
        assert!(store.has_block(&key(&all[0])).await.unwrap());
        committed(session.commit(&keys(&all[..2]), &id(&all[..2])).await.unwrap());
        store.delete(&id(&all[..2])).await.unwrap();
        assert_eq!(collect(&store).await, 0);

        session.close().await.unwrap();
        assert_eq!(collect(&store).await, 2);
        assert!(!store.has_block(&key(&all[0])).await.unwrap());
        assert_eq!(store.block(&key(&all[0])).await.unwrap_err().code(), Code::NotFound);
        for result in [
            session.missing(&keys(&all)).await.map(drop),
            session.put_block(&key(&all[0]), all[0].clone()).await.map(drop),
            session.commit(&[], &id(&[])).await.map(drop),
        ] {
            assert_eq!(result.unwrap_err().code(), Code::WriterExpired);
        }
        // Closing what is over is no error.
        session.close().await.unwrap();
        assert_clean(&store).await;
    });
}

#[test]
fn a_session_that_nobody_uses_is_over() {
    everywhere(|pair| async move {
        let store = pair.config().open_async().await.unwrap();
        let all = blocks(3);
        let session = store.open_session(Duration::from_secs(1)).await.unwrap();
        session.put_block(&key(&all[0]), all[0].clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(collect(&store).await, 1);
        let late = session.commit(&keys(&all[..1]), &id(&all[..1])).await;
        assert_eq!(late.unwrap_err().code(), Code::WriterExpired);
        assert_clean(&store).await;
    });
}

#[test]
fn nothing_is_committed_that_is_not_there_or_not_what_it_says() {
    everywhere(|pair| async move {
        let store = pair.config().open_async().await.unwrap();
        let all = blocks(4);
        let session = store.open_session(LONG).await.unwrap();
        let whole = id(&all);
        for block in &all[1..] {
            session.put_block(&key(block), block.clone()).await.unwrap();
        }
        let outcome = session.commit(&[keys(&all), keys(&all[..1])].concat(), &whole).await;
        assert_eq!(outcome.unwrap_err().code(), Code::InvalidArgument, "the sizes");
        let outcome = session.commit(&keys(&all), &whole).await.unwrap();
        assert_eq!(outcome, SessionCommit::Missing(vec![key(&all[0])]));
        let wrong = session.put_block(&key(&all[0]), all[1].clone()).await;
        assert_eq!(wrong.unwrap_err().code(), Code::DigestMismatch);
        session.put_block(&key(&all[0]), all[0].clone()).await.unwrap();

        let mut swapped = keys(&all);
        swapped.swap(0, 1);
        let outcome = session.commit(&swapped, &whole).await;
        assert_eq!(outcome.unwrap_err().code(), Code::DigestMismatch);
        assert!(!store.exists(&whole).await.unwrap());
        committed(session.commit(&keys(&all), &whole).await.unwrap());
        let nothing = BlobId::of(Algo::Blake3, b"");
        assert_eq!(committed(session.commit(&[], &nothing).await.unwrap()).blocks, 0);
        assert_clean(&store).await;
    });
}

#[test]
fn a_token_cannot_be_made_up() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |directory: &tempfile::TempDir| graviton_core::Config::for_directory(directory.path());
        let store = open(&directory).open_async().await.unwrap();
        let stranger = open(&elsewhere).open_async().await.unwrap();
        let token = store.open_session(LONG).await.unwrap().token();
        store.session(&token).unwrap().renew().await.unwrap();
        assert_eq!(stranger.session(&token).unwrap_err().code(), Code::InvalidArgument);
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(store.session(&changed).unwrap_err().code(), Code::InvalidArgument, "{changed}");
        }
        for made_up in ["", ".", "1", "1.2.3", "1.2.3.", "a.b.c.d", "1.2.3.é"] {
            assert_eq!(store.session(made_up).unwrap_err().code(), Code::InvalidArgument, "{made_up}");
        }
        for lifetime in [Duration::ZERO, Duration::from_secs(86_401)] {
            let refused = store.open_session(lifetime).await;
            assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        }
    });
}

#[test]
fn a_damaged_block_is_missing_until_it_is_sent_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let open = || graviton_core::Config::for_directory(directory.path());
        let store = open().open_async().await.unwrap();
        let all = blocks(5);
        let session = store.open_session(LONG).await.unwrap();
        for block in &all {
            session.put_block(&key(block), block.clone()).await.unwrap();
        }
        let file = directory.path().join("cas/blocks/blake3").join(key(&all[3]).name());
        std::fs::write(&file, vec![0; all[3].len()]).unwrap();
        let missing = SessionCommit::Missing(vec![key(&all[3])]);
        assert_eq!(session.commit(&keys(&all), &id(&all)).await.unwrap(), missing);
        // Another process, which has not seen it.
        let other = open().open_async().await.unwrap().session(&session.token()).unwrap();
        assert_eq!(other.missing(&keys(&all)).await.unwrap(), [key(&all[3])]);
        assert!(other.put_block(&key(&all[3]), all[3].clone()).await.unwrap());
        committed(session.commit(&keys(&all), &id(&all)).await.unwrap());
        assert_clean(&store).await;
    });
}
