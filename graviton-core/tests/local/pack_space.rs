//! The space of packs: given back, moved to other packs, kept for the grace; and packs that nobody writes any
//! more, or that the database does not know.

use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use graviton_core::block::pack::record::{HEADER, record_size};
use graviton_core::testing::{Fault, Operation};
use graviton_core::{BlobId, Code, Config, GcOptions, VerifyOptions};

use crate::packs::{collect, content, database, faulty, number, packed, packs, read, record, verify};

#[test]
fn space_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    let contents: Vec<Vec<u8>> = (0..40).map(|nth| content(&format!("xof:{nth}:262144"))).collect();
    let ids: Vec<BlobId> = contents.iter().map(|bytes| store.put(&bytes[..]).unwrap().id).collect();
    store.close();
    let store = packed(root.path()).open().unwrap();
    let allocated = || allocated(root.path());
    let before = allocated();
    for id in ids.iter().take(20) {
        store.delete(id).unwrap();
    }
    let report = collect(&store);
    assert_eq!((report.blobs, report.blocks, report.bytes), (20, 20 * 64, 20 * 262_144));
    // The blocks of a blob lie together.
    assert!(allocated() < before * 11 / 20, "{before} bytes were allocated, and {} are", allocated());
    assert_eq!(number(root.path(), "SELECT count(*) FROM hole"), 0);
    for (id, bytes) in ids.iter().zip(&contents).skip(20) {
        assert!(read(&store, id) == *bytes);
    }
    assert!(verify(&store).is_clean());
    // Blocks that were released are written again, elsewhere.
    assert_eq!(store.put(&contents[0][..]).unwrap().fresh_blocks, 64);
    assert!(read(&store, &ids[0]) == contents[0]);
    for id in ids.iter().skip(20).chain(&ids[..1]) {
        store.delete(id).unwrap();
    }
    collect(&store);
    store.close();
    let store = packed(root.path()).open().unwrap();
    collect(&store);
    assert_eq!(packs(root.path()).len(), 0, "an empty pack is left");
    assert_eq!(number(root.path(), "SELECT count(*) FROM pack"), 0);
    assert_eq!(store.stats().unwrap().stored_bytes, 0);
}

/// Bytes that the packs take on the disk.
pub(crate) fn allocated(root: &Path) -> u64 {
    packs(root).iter().map(|path| std::fs::metadata(path).unwrap().blocks() * 512).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn space_of_small_blocks_comes_back_whether_or_not_holes_can_be_punched() {
    for punches in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let (_, store) = faulty(root.path()).await;
        let contents: Vec<Vec<u8>> = (0..600).map(|nth| content(&format!("xof:{nth}:3000"))).collect();
        let mut ids = Vec::new();
        for bytes in &contents {
            ids.push(store.put(&bytes[..]).await.unwrap().id);
        }
        store.close().await;
        let (blocks, store) = faulty(root.path()).await;
        if !punches {
            blocks.break_from(Operation::Punch, 1, Fault::Fail(Code::Unsupported));
        }
        for id in ids.iter().step_by(2) {
            store.delete(id).await.unwrap();
        }
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        let report = store.gc(&options, |_| ControlFlow::Continue(())).await.unwrap();
        assert_eq!((report.blocks, report.complete), (300, true));
        // The pack that the collection wrote is open, and has space reserved.
        store.close().await;
        let live = number(root.path(), "SELECT sum((stored_size + 71) / 8 * 8) FROM data_block") as u64;
        let taken = allocated(root.path());
        assert!(taken <= live * 11 / 10 + 8192, "{live} bytes are live, and {taken} are taken");
        let dead = number(root.path(), "SELECT sum(dead - punched) FROM pack") as u64;
        assert!(dead <= live / 10, "{dead} bytes are dead");
        let (_, store) = faulty(root.path()).await;
        for (bytes, id) in contents.iter().zip(&ids).skip(1).step_by(2) {
            assert!(store.read_range(id, 0..u64::MAX).await.unwrap() == *bytes);
        }
        let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
        assert!(store.verify(&options, |_| ControlFlow::Continue(())).await.unwrap().is_clean());
        store.close().await;
    }
}

#[test]
fn small_packs_are_merged_and_blocks_of_damaged_ones_are_told() {
    let root = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for nth in 0..70 {
        let store = packed(root.path()).open().unwrap();
        ids.push(store.put(format!("run {nth}").as_bytes()).unwrap().id);
        store.close();
    }
    assert_eq!(packs(root.path()).len(), 70);
    let (path, offset) = record(root.path(), b"run 7");
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"Run", offset + HEADER)
        .unwrap();
    // A store of files does it, too.
    let store = Config::for_directory(root.path()).open().unwrap();
    collect(&store);
    collect(&store);
    assert_eq!(packs(root.path()).len(), 2, "the merged one, and the one with the damaged block");
    for (nth, id) in ids.iter().enumerate() {
        match store.read_range(id, 0..u64::MAX) {
            Ok(bytes) => assert_eq!(bytes, format!("run {nth}")),
            Err(error) => assert_eq!((nth, error.code()), (7, Code::CorruptBlock), "{error}"),
        }
    }
    assert_eq!(verify(&store).corrupt, 1);
    store.put(&b"run 7"[..]).unwrap();
    collect(&store);
    assert!(verify(&store).is_clean());
    store.close();
    assert_eq!(packs(root.path()).len(), 1);
}

#[test]
fn a_reader_follows_a_block_that_is_moved() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    let (kept, other) = (content("xof:kept:40000"), content("xof:other:400000"));
    let ids = [&kept, &other].map(|bytes| store.put(&bytes[..]).unwrap().id);
    store.close();
    let reading = packed(root.path()).open_read_only().unwrap();
    let mut reader = reading.reader(&ids[0]).unwrap();
    let mut first = vec![0; 100];
    std::io::Read::read_exact(&mut reader, &mut first).unwrap();
    let collecting = packed(root.path()).open().unwrap();
    collecting.delete(&ids[1]).unwrap();
    collect(&collecting);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut rest).unwrap();
    assert!([first, rest].concat() == kept);
    assert_eq!(packs(root.path()).len(), 1);
}

#[test]
fn an_empty_pack_stays_for_the_grace() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    let id = store.put(&b"content"[..]).unwrap().id;
    store.close();
    let store = packed(root.path()).open().unwrap();
    store.delete(&id).unwrap();
    collect(&store);
    // With no grace it went at once: the next one is put by a store that has one.
    assert_eq!(packs(root.path()).len(), 0);
    let id = store.put(&b"content"[..]).unwrap().id;
    store.close();
    let store = packed(root.path()).open().unwrap();
    store.delete(&id).unwrap();
    let hour = GcOptions { grace: Some(Duration::from_secs(3_600)), ..GcOptions::default() };
    database(root.path()).execute("UPDATE blob SET deleted_at = deleted_at - 7200000", []).unwrap();
    for _ in 0..2 {
        store.gc(&hour, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(packs(root.path()).len(), 1, "a pack went before its grace");
    }
    database(root.path()).execute("UPDATE pack SET empty_at = empty_at - 7200000", []).unwrap();
    store.gc(&hour, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(packs(root.path()).len(), 0);
}

#[test]
fn packs_of_a_store_that_is_gone_are_verified_and_sealed() {
    let root = tempfile::tempdir().unwrap();
    let maker = packed(root.path()).open().unwrap();
    let contents = ["xof:good:4000", "xof:bad:4000", "xof:last:4000"].map(content);
    let ids = contents.clone().map(|bytes| maker.put(&bytes[..]).unwrap().id);
    // It was a relaxed one, and a power cut took a record.
    let (path, offset) = record(root.path(), &contents[1]);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&[0; 2000], offset + 500)
        .unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() >= 1 << 20, "no space is reserved");
    database(root.path()).execute("UPDATE writer SET expires_at = 1", []).unwrap();
    let other = packed(root.path()).open().unwrap();
    collect(&other);
    assert_eq!(number(root.path(), "SELECT state FROM pack"), 2);
    assert_eq!(number(root.path(), "SELECT count(*) FROM data_block WHERE NOT stored"), 1);
    let (_, last) = record(root.path(), &contents[2]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), last + record_size(4000), "the tail is cut");
    assert!(read(&other, &ids[0]) == contents[0]);
    // Its maker goes on, in another pack, and what it puts is there.
    let more = content("xof:more:4000");
    let put = maker.put(&more[..]).unwrap();
    assert_eq!(maker.put(&contents[1][..]).unwrap().fresh_blocks, 1);
    assert_eq!(packs(root.path()).len(), 2);
    assert!(read(&other, &put.id) == more && read(&other, &ids[1]) == contents[1]);
    maker.close();
    assert!(verify(&other).is_clean());
}

#[test]
fn packs_that_an_older_database_does_not_know_are_listed_and_go_when_they_are_adopted() {
    let root = tempfile::tempdir().unwrap();
    let backup = root.path().join("backup.db");
    let store = packed(root.path()).open().unwrap();
    let kept = store.put(&b"kept"[..]).unwrap().id;
    store.close();
    let store = packed(root.path()).open().unwrap();
    store.backup(&backup).unwrap();
    store.put(&content("xof:later:900000")[..]).unwrap();
    store.close();
    replace_database(root.path(), &backup);
    let store = packed(root.path()).take_over(true).open().unwrap();
    let mut found = Vec::new();
    let options = VerifyOptions { adopt: true, ..VerifyOptions::default() };
    let report = store.verify(&options, |event| {
        if let graviton_core::VerifyEvent::Found(finding) = event {
            found.push(finding);
        }
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert!(
        report.is_clean() && report.unreferenced == 1 && report.unreferenced_bytes > 900_000,
        "{report:?}"
    );
    assert!(matches!(found[..], [graviton_core::Finding::Pack { .. }]), "{found:?}");
    collect(&store);
    assert_eq!(packs(root.path()).len(), 1);
    assert_eq!(verify(&store).unreferenced, 0);
    assert_eq!(read(&store, &kept), b"kept");
}

pub(crate) fn replace_database(root: &Path, by: &Path) {
    for name in ["manifests.db-wal", "manifests.db-shm"] {
        let _ = std::fs::remove_file(root.join(name));
    }
    std::fs::rename(by, root.join("manifests.db")).unwrap();
}

/// The header of a record is still there where the other database had its bytes punched.
#[test]
fn a_put_after_a_restore_relies_on_no_record_that_was_punched_since() {
    for collects in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let backup = root.path().join("backup.db");
        // Most of the pack is kept, and so the pack is.
        let (kept, bytes) = (content("xof:kept:300000"), content("xof:gone:100000"));
        let store = packed(root.path()).open().unwrap();
        let [gone, kept_id] = [&bytes, &kept].map(|bytes| store.put(&bytes[..]).unwrap().id);
        store.close();
        let store = packed(root.path()).open().unwrap();
        store.delete(&gone).unwrap();
        store.backup(&backup).unwrap();
        collect(&store);
        store.close();
        assert_eq!(packs(root.path()).len(), 1);
        replace_database(root.path(), &backup);
        let store = packed(root.path()).take_over(true).open().unwrap();
        if collects {
            collect(&store);
        }
        assert!(store.put(&bytes[..]).unwrap().created);
        assert!(read(&store, &gone) == bytes && read(&store, &kept_id) == kept);
        assert!(verify(&store).is_clean());
        // Sealed again after it was verified.
        let options = GcOptions { grace: Some(Duration::from_secs(60)), ..GcOptions::default() };
        store.gc(&options, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(number(root.path(), "SELECT count(*) FROM pack WHERE state = 1"), 0);
        assert!(read(&store, &gone) == bytes && read(&store, &kept_id) == kept);
    }
}

/// Bytes that nobody has marked: of a put that died, of two that wrote the same.
#[test]
fn records_that_no_row_points_at_are_given_back() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    let kept = store.put(&b"kept"[..]).unwrap().id;
    // A put that is given up after its blocks were written.
    let mut writer = store.writer().unwrap();
    std::io::Write::write_all(&mut writer, &content("xof:given up:20000000")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while allocated(root.path()) < 4 << 20 {
        assert!(std::time::Instant::now() < deadline, "nothing is written");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(writer);
    store.close();
    assert!(allocated(root.path()) > 2 << 20);
    let store = packed(root.path()).open().unwrap();
    database(root.path()).execute("UPDATE writer SET expires_at = 1", []).unwrap();
    collect(&store);
    collect(&store);
    store.close();
    assert!(allocated(root.path()) < 100_000, "{} bytes are taken", allocated(root.path()));
    assert_eq!(read(&packed(root.path()).open().unwrap(), &kept), b"kept");
}
