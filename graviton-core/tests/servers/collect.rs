//! Deletion and collection on every pair of block store and database.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::support::pair::Pair;
use graviton_core::{
    BlobId, Code, CopyOptions, Finding, GcOptions, GcReport, Store, VerifyEvent, VerifyOptions, VerifyReport,
};

fn content(seed: u32, words: u32) -> Vec<u8> {
    (0..words)
        .flat_map(|word| (word ^ seed).wrapping_mul(0x9e37_79b1).rotate_left(seed % 31).to_le_bytes())
        .collect()
}

fn collect(store: &Store) -> GcReport {
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(())).unwrap()
}

fn verify(store: &Store, options: &VerifyOptions) -> (VerifyReport, Vec<Finding>) {
    let mut findings = Vec::new();
    let report = store.verify(options, |event| {
        if let VerifyEvent::Found(finding) = event {
            findings.push(finding);
        }
        ControlFlow::Continue(())
    });
    (report.unwrap(), findings)
}

fn deep() -> VerifyOptions {
    VerifyOptions { deep: true, ..VerifyOptions::default() }
}

fn read(store: &Store, id: &BlobId) -> Vec<u8> {
    store.read_range(id, 0..u64::MAX).unwrap().to_vec()
}

#[test]
fn what_is_deleted_goes_and_what_is_shared_stays() {
    for pair in Pair::all() {
        let store = pair.open();
        let shared = content(1, 50_000);
        let one = [shared.clone(), content(2, 30_000)].concat();
        let two = [shared, content(3, 30_000)].concat();
        let (first, second) = (store.put(&one[..]).unwrap(), store.put(&two[..]).unwrap());
        let small = store.put(&b"small"[..]).unwrap();
        let before = store.stats().unwrap();
        assert_eq!((before.dead_blobs, before.reclaimable_bytes), (0, 0), "{pair:?}");

        store.delete(&first.id).unwrap();
        store.delete(&small.id).unwrap();
        for id in [&first.id, &small.id] {
            assert_eq!(store.delete(id).unwrap_err().code(), Code::NotFound);
            assert_eq!(store.stat(id).unwrap_err().code(), Code::NotFound);
            assert!(store.reader(id).is_err() && !store.exists(id).unwrap());
        }
        assert_eq!(store.list(None, 10).unwrap().len(), 1);
        let dead = store.stats().unwrap();
        assert_eq!((dead.dead_blobs, dead.dead_bytes), (2, one.len() as u64 + 5));
        assert!(dead.reclaimable_bytes > 5 && dead.reclaimable_bytes < 200_000, "{dead:?}");

        // Within the grace nothing goes, and everything can come back.
        let kept = store.gc(&GcOptions::default(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((kept.blobs, kept.blocks, kept.complete), (0, 0, true), "{pair:?}");
        store.restore(&small.id).unwrap();
        assert_eq!(read(&store, &small.id), b"small");
        store.restore(&small.id).unwrap();
        store.delete(&small.id).unwrap();

        let dry = GcOptions { grace: Some(Duration::ZERO), dry_run: true, ..GcOptions::default() };
        let plan = store.gc(&dry, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((plan.blobs, plan.bytes), (2, dead.reclaimable_bytes), "{pair:?}");
        assert_eq!(plan.named.len(), 2);
        assert_eq!(store.stats().unwrap(), dead, "a plan changed something");

        let report = collect(&store);
        assert_eq!((report.blobs, report.blocks, report.bytes), (2, plan.blocks, plan.bytes), "{pair:?}");
        assert!(report.kept_referenced > 0 && report.complete, "{report:?}");
        assert_eq!(store.restore(&first.id).unwrap_err().code(), Code::NotFound);
        let after = store.stats().unwrap();
        assert_eq!((after.dead_blobs, after.reclaimable_bytes), (0, 0));
        assert_eq!(after.stored_bytes, before.stored_bytes - plan.bytes);
        assert_eq!(read(&store, &second.id), two);
        assert_eq!(collect(&store).blocks, 0, "there was something left");

        // It can be put again at any moment, and shares what is still there.
        let again = store.put(&one[..]).unwrap();
        assert!(again.created && again.fresh_blocks > 0 && again.fresh_blocks < again.blocks);
        assert_eq!(read(&store, &again.id), one);
        let (report, findings) = verify(&store, &deep());
        assert!(report.is_clean() && findings.is_empty(), "{pair:?}: {findings:?}");
        assert_eq!(report.bytes, store.stats().unwrap().stored_bytes);
        assert_eq!(report.unreferenced, 0);
    }
}

#[test]
fn a_blob_that_is_put_again_while_it_is_dead_lives_on() {
    for pair in Pair::all() {
        let store = pair.open();
        let content = content(7, 40_000);
        let first = store.put(&content[..]).unwrap();
        store.delete(&first.id).unwrap();
        let second = store.put(&content[..]).unwrap();
        assert!(second.created && second.fresh_blocks == 0, "{second:?}");
        // The older row goes; the blocks are the newer one's too.
        let report = collect(&store);
        assert_eq!((report.blobs, report.blocks), (1, 0), "{pair:?}");
        assert_eq!(read(&store, &second.id), content);
        store.delete(&second.id).unwrap();
        assert!(collect(&store).blocks > 0);
        assert_eq!(verify(&store, &VerifyOptions::default()).0.unreferenced, 0);
    }
}

#[test]
fn a_read_goes_on_after_the_deletion_and_a_collection_within_the_grace() {
    use std::io::Read;
    for pair in Pair::all() {
        let store = pair.open();
        let content = content(9, 400_000);
        let put = store.put(&content[..]).unwrap();
        let mut reader = store.reader(&put.id).unwrap();
        let mut bytes = vec![0; 1_000];
        reader.read_exact(&mut bytes).unwrap();
        store.delete(&put.id).unwrap();
        store.gc(&GcOptions::default(), |_| ControlFlow::Continue(())).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes == content, "{pair:?}");
    }
}

#[test]
fn limits_and_the_caller_end_a_collection_early_and_the_next_one_goes_on() {
    for pair in Pair::all() {
        let store = pair.open();
        let put = store.put(&content(11, 600_000)[..]).unwrap();
        assert!(put.fresh_blocks > 300, "{}", put.fresh_blocks);
        store.delete(&put.id).unwrap();
        let zero = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        let ten =
            store.gc(&GcOptions { max_blocks: Some(10), ..zero.clone() }, |_| ControlFlow::Continue(()));
        let ten = ten.unwrap();
        assert_eq!((ten.blocks, ten.complete), (10, false));
        let stopped = store.gc(&zero, |report| match report.blocks {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        let stopped = stopped.unwrap();
        assert!(stopped.blocks > 0 && !stopped.complete);
        assert_eq!(ten.blocks + stopped.blocks + collect(&store).blocks, put.fresh_blocks, "{pair:?}");
        assert_eq!(store.stats().unwrap().stored_bytes, 0);
        let (_, findings) = verify(&store, &deep());
        assert!(findings.is_empty(), "{findings:?}");
    }
}

#[test]
fn blobs_are_copied_between_all_pairs() {
    let from = Pair::all();
    let source = from[0].open();
    let contents =
        [content(21, 300_000), content(22, 10), Vec::new(), [content(21, 200_000), content(23, 9)].concat()];
    let ids: Vec<BlobId> = contents.iter().map(|content| source.put(&content[..]).unwrap().id).collect();
    let mut source = source;
    for pair in &from[1..] {
        let target = pair.open();
        let first = CopyOptions { ids: vec![ids[0]] };
        let report = target.copy_from(&source, &first, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.blobs, report.present, report.complete), (1, 0, true), "{pair:?}");
        let report =
            target.copy_from(&source, &CopyOptions::default(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.blobs, report.present), (3, 1));
        assert!(report.bytes < 100_000, "blocks that were there were moved: {report:?}");
        for (id, content) in ids.iter().zip(&contents) {
            assert!(read(&target, id) == *content);
            assert_eq!(target.stat(id).unwrap().chunker, source.stat(id).unwrap().chunker);
        }
        let (report, findings) = verify(&target, &deep());
        assert!(report.is_clean() && findings.is_empty(), "{findings:?}");
        let absent = CopyOptions {
            ids: vec![graviton_core::Algo::Blake3.digest(b"x")]
                .into_iter()
                .map(|digest| BlobId::new(graviton_core::Algo::Blake3, digest, 1).unwrap())
                .collect(),
        };
        let error = target.copy_from(&source, &absent, |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        source = target;
    }
}

#[test]
fn a_grace_longer_than_time_can_be_counted_keeps_everything() {
    for pair in Pair::all() {
        let store = pair.open();
        let put = store.put(&b"for ever"[..]).unwrap();
        store.delete(&put.id).unwrap();
        for dry_run in [true, false] {
            let options = GcOptions { grace: Some(Duration::MAX), dry_run, ..GcOptions::default() };
            let report = store.gc(&options, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!((report.blobs, report.blocks), (0, 0), "{pair:?}");
        }
        store.restore(&put.id).unwrap();
        assert_eq!(read(&store, &put.id), b"for ever");
    }
}
