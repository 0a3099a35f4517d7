//! The guarantees of collection, verification, copies and backups, on the embedded default.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use graviton_core::{Code, Config, CopyOptions, GcOptions, PutReceipt, Store, VerifyEvent, VerifyOptions};

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A store with small blocks, so that there are many.
    fn store(&self) -> Store {
        let root = self.path("store");
        Config::new()
            .set("GRAVITON_FS_ROOT", root.to_str().unwrap())
            .unwrap()
            .set("GRAVITON_CHUNKER", "fixed:1000")
            .unwrap()
            .open()
            .unwrap()
    }

    fn damage(&self, store: &Store, put: &PutReceipt) {
        let key = store.manifest(&put.id, 0, 1).unwrap()[0].key;
        let path = self.path("store/cas/blocks/blake3").join(key.name());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

fn content(seed: u32, blocks: u32) -> Vec<u8> {
    (0..blocks * 250).flat_map(|word| (word ^ seed << 20).wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

#[test]
fn a_verification_is_ended_while_it_waits_and_goes_on_behind_the_last_block() {
    let place = Place::new();
    let store = place.store();
    store.put(&content(1, 100)[..]).unwrap();
    let options = VerifyOptions { deep: true, bytes_per_second: Some(1), ..VerifyOptions::default() };
    let started = Instant::now();
    let ended = store.verify(&options, |event| match event {
        VerifyEvent::Progress(_) if started.elapsed() > Duration::from_millis(300) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    ended.unwrap();
    // At that rate it takes more than a day.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());

    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    let first = store.verify(&options, |event| match event {
        VerifyEvent::Progress(report) if report.blocks == 40 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let first = first.unwrap();
    let from = first.cursor.as_ref().unwrap().to_string().parse().unwrap();
    let rest = store.verify(&VerifyOptions { from: Some(from), ..options }, |_| ControlFlow::Continue(()));
    let rest = rest.unwrap();
    assert_eq!((first.blocks, rest.blocks, rest.cursor), (40, 60, None));
}

#[test]
fn a_collection_is_ended_while_it_waits_and_deletes_no_faster_than_it_may() {
    let place = Place::new();
    let store = place.store();
    let put = store.put(&content(2, 100)[..]).unwrap();
    store.delete(&put.id).unwrap();
    let options =
        GcOptions { grace: Some(Duration::ZERO), blocks_per_second: Some(3), ..GcOptions::default() };
    let started = Instant::now();
    let report = store.gc(&options, |report| match report.blocks {
        0..6 => ControlFlow::Continue(()),
        _ if started.elapsed() < Duration::from_millis(1_300) => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    let report = report.unwrap();
    assert_eq!((report.blocks, report.complete), (6, false), "{report:?}");
    assert!(report.seconds >= 1.0, "{report:?}");
}

#[test]
fn a_copy_leaves_out_what_is_damaged_there_and_brings_the_rest() {
    let place = Place::new();
    let store = place.store();
    let bad = store.put(&content(3, 5)[..]).unwrap();
    let good: Vec<PutReceipt> = (4..8).map(|seed| store.put(&content(seed, 5)[..]).unwrap()).collect();
    place.damage(&store, &bad);
    let target = Store::open(place.path("target")).unwrap();
    let report = target.copy_from(&store, &CopyOptions::default(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.blobs, &report.damaged[..], report.complete), (4, &[bad.id][..], true));
    assert!(good.iter().all(|put| target.exists(&put.id).unwrap()) && !target.exists(&bad.id).unwrap());
    // The target is as good as it reports; a collection removes all that is left of the attempt.
    assert_eq!(target.stats().unwrap().logical_bytes, 20_000);
    let again = CopyOptions { ids: vec![bad.id, good[0].id] };
    let report = target.copy_from(&store, &again, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.blobs, report.present, report.damaged.len()), (0, 1, 1));
}

#[test]
fn a_copy_of_one_large_blob_can_be_ended_in_the_middle() {
    let place = Place::new();
    let store = place.store();
    let put = store.put(&content(9, 2_000)[..]).unwrap();
    let target = Store::open(place.path("target")).unwrap();
    let report = target.copy_from(&store, &CopyOptions::default(), |_| ControlFlow::Break(())).unwrap();
    assert!(report.blocks > 0 && report.blocks < 1_000 && !report.complete, "{report:?}");
    assert!(!target.exists(&put.id).unwrap());
    let report = target.copy_from(&store, &CopyOptions::default(), |_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete && target.exists(&put.id).unwrap());
}

#[test]
fn a_backup_is_the_manifests_of_one_moment() {
    let place = Place::new();
    let store = place.store();
    let before = store.put(&content(10, 5)[..]).unwrap();
    store.backup(place.path("backup")).unwrap();
    let after = store.put(&content(11, 5)[..]).unwrap();
    assert_eq!(store.backup(place.path("backup")).unwrap_err().code(), Code::InvalidArgument);
    store.close();
    std::fs::rename(place.path("backup"), place.path("store/manifests.db")).unwrap();
    Config::for_directory(place.path("store")).take_over(true).open().unwrap().close();
    let store = place.store();
    assert!(store.exists(&before.id).unwrap() && !store.exists(&after.id).unwrap());
    store.put(&content(11, 5)[..]).unwrap();
    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    let report = store.verify(&options, |_| ControlFlow::Continue(())).unwrap();
    assert!(report.is_clean() && report.unreferenced == 0, "{report:?}");
}

#[test]
fn a_store_that_must_exist_is_not_created() {
    let place = Place::new();
    let config = Config::for_directory(place.path("store"));
    assert_eq!(config.open_existing().unwrap_err().code(), Code::NotFound);
    assert!(!place.path("store").exists());
    config.open().unwrap().close();
    let store = config.open_existing().unwrap();
    store.put(&b"x"[..]).unwrap();
}

/// The database of a store that was emptied becomes small again.
#[test]
fn a_collection_gives_pages_of_the_database_back() {
    let place = Place::new();
    let root = place.path("store");
    let open = || Config::for_directory(&root).set("GRAVITON_CHUNKER", "fixed:16").unwrap().open().unwrap();
    // Closing it moves all of the log into the database.
    let size_after = |store: Store| {
        store.close();
        std::fs::metadata(root.join("manifests.db")).unwrap().len()
    };
    let store = open();
    let kept = store.put(&b"kept"[..]).unwrap().id;
    let large: Vec<u8> = (0..60_000_u64).flat_map(u64::to_le_bytes).collect();
    let id = store.put(&large[..]).unwrap().id;
    let full = size_after(store);
    assert!(full > 3 << 20, "{full}");
    let store = open();
    store.delete(&id).unwrap();
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    let report = store.gc(&options, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.blobs, report.blocks, report.complete), (1, 30_000, true));
    let emptied = size_after(store);
    assert!(emptied < full / 2, "{emptied} of {full}");
    let store = open();
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut store.reader(&kept).unwrap(), &mut content).unwrap();
    assert_eq!(content, b"kept");
    assert!(store.verify(&VerifyOptions::default(), |_| ControlFlow::Continue(())).unwrap().is_clean());
}
