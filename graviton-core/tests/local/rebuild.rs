//! Blocks are rebuilt from packs that a restored database does not know.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graviton_core::block::pack::record::{Codec, HEADER, Header, pack_header, record_size};
use graviton_core::{
    BlobId, BlockKey, Code, Config, Finding, GcOptions, Store, VerifyCursor, VerifyEvent, VerifyOptions,
    VerifyReport,
};

use super::pack_space::replace_database;
use super::packs::{collect, content, number, packed, packs, verify};

/// A store whose database is older than its packs, and the blobs that it had when the backup was made.
struct Restored {
    root: tempfile::TempDir,
    blobs: Vec<(BlobId, Vec<u8>)>,
}

impl Restored {
    /// Every second one of so many blobs is deleted and collected after the backup, so that the blocks of the
    /// others move to a pack that the backup does not know.
    fn new(blobs: usize, config: impl Fn(&Path) -> Config) -> Restored {
        let root = tempfile::tempdir().unwrap();
        let config = || config(root.path());
        let store = config().open().unwrap();
        let blobs: Vec<(BlobId, Vec<u8>)> = (0..blobs)
            .map(|nth| {
                // Lines shrink when they are compressed.
                let kind = if nth % 4 == 0 { "lines" } else { "xof" };
                let bytes = content(&format!("{kind}:{nth}:3001"));
                (store.put(&bytes[..]).unwrap().id, bytes)
            })
            .collect();
        for (id, _) in blobs.iter().skip(1).step_by(2) {
            store.delete(id).unwrap();
        }
        store.close();
        let backup = root.path().join("backup.db");
        let store = config().open().unwrap();
        store.backup(&backup).unwrap();
        let before = packs(root.path());
        collect(&store);
        store.close();
        let store = config().open().unwrap();
        collect(&store);
        store.close();
        assert!(packs(root.path()).iter().all(|pack| !before.contains(pack)), "nothing has moved");
        let restored = Restored { root, blobs: blobs.into_iter().step_by(2).collect() };
        restored.replace_database(&backup);
        restored
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn replace_database(&self, by: &Path) {
        replace_database(self.path(), by);
    }

    fn open(&self) -> Store {
        packed(self.path()).take_over(true).open().unwrap()
    }

    /// The one pack that the database does not know.
    fn pack(&self) -> PathBuf {
        let packs = packs(self.path());
        let [pack] = &packs[..] else { panic!("{packs:?}") };
        pack.clone()
    }

    /// The number of blobs that can be read, all of them right.
    fn readable(&self, store: &Store) -> usize {
        let readable = self.blobs.iter().filter(|(id, bytes)| match store.read_range(id, 0..u64::MAX) {
            Ok(found) => {
                assert!(found == *bytes, "{id} has other bytes");
                true
            }
            Err(error) => {
                assert!(matches!(error.code(), Code::MissingBlock | Code::CorruptBlock), "{error}");
                false
            }
        });
        readable.count()
    }
}

fn rebuilding() -> VerifyOptions {
    VerifyOptions { rebuild: true, ..VerifyOptions::default() }
}

/// The report, and the findings that are about records.
fn rebuild(store: &Store, options: &VerifyOptions) -> (VerifyReport, Vec<(u64, Option<BlockKey>, String)>) {
    let mut found = Vec::new();
    let report = store.verify(options, |event| {
        if let VerifyEvent::Found(Finding::Record { offset, key, why, .. }) = event {
            found.push((offset, key, why));
        }
        ControlFlow::Continue(())
    });
    (report.unwrap(), found)
}

/// The records of a pack.
fn records(bytes: &[u8]) -> Vec<(u64, Header)> {
    let (mut at, mut records) = (HEADER, Vec::new());
    while at < bytes.len() as u64 {
        let header = Header::decode(&bytes[at as usize..]).unwrap();
        records.push((at, header));
        at += record_size(header.stored_size);
    }
    records
}

#[test]
fn blocks_that_were_moved_since_the_backup_are_rebuilt() {
    for (layout, compression) in [("packs", "none"), ("files", "none"), ("packs", "zstd")] {
        if compression == "zstd" && !cfg!(feature = "zstd") {
            continue;
        }
        let restored =
            Restored::new(80, |root| packed(root).set("GRAVITON_COMPRESSION", compression).unwrap());
        let config = packed(restored.path()).set("GRAVITON_BLOCK_LAYOUT", layout).unwrap();
        let store = config.take_over(true).open().unwrap();
        let error = store.read_range(&restored.blobs[0].0, 0..1).unwrap_err();
        assert_eq!(error.code(), Code::MissingBlock);
        let advice = error.advice().unwrap();
        assert!(advice.contains("graviton verify --rebuild"), "{advice}");
        let lost = verify(&store);
        assert_eq!((lost.missing, lost.rebuilt, lost.unreferenced), (40, 0, 1), "{lost:?}");
        // The advice is followed.
        let (report, found) = rebuild(&store, &rebuilding());
        assert!(report.is_clean() && report.complete && found.is_empty(), "{report:?} {found:?}");
        assert_eq!((report.rebuilt, report.rebuilt_bytes, report.unusable), (40, 40 * 3001, 0));
        assert_eq!(restored.readable(&store), 40);
        assert!(verify(&store).is_clean());
        let (again, _) = rebuild(&store, &rebuilding());
        assert_eq!((again.rebuilt, again.is_clean()), (0, true));
        // Copied, not found: no row points into the old pack.
        store.close();
        std::fs::remove_file(packs(restored.path()).iter().find(|pack| !is_known(&restored, pack)).unwrap())
            .unwrap();
        let store = packed(restored.path()).open().unwrap();
        assert_eq!(restored.readable(&store), 40);
        collect(&store);
        assert!(verify(&store).is_clean());
        assert_eq!(restored.readable(&store), 40);
    }
}

fn is_known(restored: &Restored, pack: &Path) -> bool {
    let name = pack.file_stem().unwrap().to_str().unwrap();
    number(restored.path(), &format!("SELECT count(*) FROM pack WHERE name = '{name}'")) == 1
}

#[test]
fn blobs_that_can_be_restored_are_rebuilt_too_and_adopted_packs_go() {
    let restored = Restored::new(40, packed);
    let store = restored.open();
    for (id, _) in &restored.blobs {
        assert!(store.delete(id).is_ok());
    }
    let options = VerifyOptions { adopt: true, ..rebuilding() };
    let (report, _) = rebuild(&store, &options);
    assert_eq!((report.rebuilt, report.unreferenced), (20, 1), "{report:?}");
    for (id, _) in &restored.blobs {
        store.restore(id).unwrap();
    }
    collect(&store);
    assert_eq!(restored.readable(&store), 20);
    let last = verify(&store);
    assert!(last.is_clean() && last.unreferenced == 0, "{last:?}");
    store.close();
    assert_eq!(packs(restored.path()).len(), 1, "the pack that was adopted is left");
}

/// A pack that is known and still being written when the backup is made gets records that the backup does not
/// know.
#[test]
fn blocks_in_known_packs_are_rebuilt_whether_or_not_they_were_sealed_since() {
    for collects in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let backup = root.path().join("backup.db");
        let old = packed(root.path()).open().unwrap();
        let moved = old.put(&b"moved"[..]).unwrap().id;
        old.close();
        let store = packed(root.path()).open().unwrap();
        store.put(&b"there"[..]).unwrap();
        store.backup(&backup).unwrap();
        // As a compaction moves it, into the pack that this store is writing.
        let first = super::packs::record(root.path(), b"moved").0;
        std::fs::remove_file(&first).unwrap();
        store.read_range(&moved, 0..1).unwrap_err();
        assert_eq!(store.put(&b"moved"[..]).unwrap().fresh_blocks, 1);
        store.close();
        let restored = Restored { root, blobs: vec![(moved, b"moved".to_vec())] };
        restored.replace_database(&backup);
        super::packs::database(restored.path()).execute("UPDATE writer SET expires_at = 1", []).unwrap();
        let store = restored.open();
        if collects {
            // It seals the pack. With a shorter grace it would drop it, for nothing is known to be in it.
            let options = GcOptions { grace: Some(Duration::from_secs(60)), ..GcOptions::default() };
            store.gc(&options, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!(number(restored.path(), "SELECT count(*) FROM pack WHERE state = 2"), 2);
        }
        assert_eq!(restored.readable(&store), 0);
        let (report, found) = rebuild(&store, &rebuilding());
        assert!(report.is_clean() && report.rebuilt == 1 && found.is_empty(), "{report:?} {found:?}");
        assert_eq!(restored.readable(&store), 1);
        assert!(verify(&store).is_clean());
    }
}

#[test]
fn rebuilding_can_be_interrupted_and_resumed() {
    let restored = Restored::new(2_400, |root| packed(root).set("GRAVITON_DURABILITY", "relaxed").unwrap());
    let store = restored.open();
    let (mut from, mut runs, mut rebuilt) = (None, 0, 0);
    loop {
        let mut ended = false;
        let options = VerifyOptions { from, ..rebuilding() };
        let report = store.verify(&options, |event| match event {
            VerifyEvent::Progress(report) if report.rebuilt > 0 && !ended => {
                ended = true;
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        let report = report.unwrap();
        rebuilt += report.rebuilt;
        runs += 1;
        if report.complete {
            break;
        }
        let text = report.cursor.unwrap().to_string();
        assert!(text.starts_with("packs/"), "{text}");
        from = Some(text.parse::<VerifyCursor>().unwrap());
    }
    assert!(runs >= 3, "it ran through in {runs} runs");
    assert_eq!(rebuilt, 1_200);
    assert_eq!(restored.readable(&store), 1_200);
    for text in ["packs/", "packs/x/1", "packs/00000000000000000000000000000000", "packs/1/2/3"] {
        assert_eq!(text.parse::<VerifyCursor>().unwrap_err().code(), Code::InvalidArgument, "{text}");
    }
    // Cursors that are not from here do no harm.
    for text in ["packs", "packs/00000000000000000000000000000000/18446744073709551615"] {
        let options = VerifyOptions { from: Some(text.parse().unwrap()), ..rebuilding() };
        assert!(rebuild(&store, &options).0.is_clean());
    }
}

#[test]
fn it_is_refused_where_it_could_do_nothing() {
    let restored = Restored::new(8, packed);
    let one = VerifyOptions { ids: vec![restored.blobs[0].0], ..rebuilding() };
    let refused = |store: &Store, options: &VerifyOptions| {
        store.verify(options, |_| ControlFlow::Continue(())).unwrap_err().code()
    };
    let store = packed(restored.path()).open_read_only().unwrap();
    assert_eq!(refused(&store, &rebuilding()), Code::Forbidden);
    store.close();
    // A copy that has not taken over.
    let store = packed(restored.path()).open().unwrap();
    assert_eq!(refused(&store, &rebuilding()), Code::Config);
    assert_eq!(refused(&store, &one), Code::InvalidArgument);
}

#[test]
fn it_runs_beside_puts_and_collections() {
    let restored = Restored::new(400, |root| packed(root).set("GRAVITON_DURABILITY", "relaxed").unwrap());
    let store = restored.open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0.. {
                // Blocks that are rebuilt at this moment, and others.
                let (_, bytes) = &restored.blobs[nth % restored.blobs.len()];
                store.put(&bytes[..]).unwrap();
                let id = store.put(format!("other {nth}").as_bytes()).unwrap().id;
                store.delete(&id).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let collecting = packed(restored.path()).open().unwrap();
        let ended = &done;
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                collect(&collecting);
            }
        });
        for _ in 0..3 {
            let (report, found) = rebuild(&store, &rebuilding());
            assert!(report.is_clean() && found.is_empty(), "{report:?} {found:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(restored.readable(&store), 200);
    collect(&store);
    assert!(verify(&store).is_clean());
    assert_eq!(restored.readable(&store), 200);
}

/// Writes a pack anew, as nobody of Graviton does.
fn forge(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_truncated_pack_gives_what_is_whole() {
    let restored = Restored::new(20, packed);
    let pack = restored.pack();
    let bytes = std::fs::read(&pack).unwrap();
    let records = records(&bytes);
    let (last, header) = records[records.len() - 1];
    for (cut, offset, key) in [
        // Within the payload, within the header, and behind the pack's own header.
        (bytes.len() as u64 - 1_000, last, Some(header.key)),
        (last + 30, last, None),
        (HEADER, 0, None),
        (10, 0, None),
    ] {
        forge(&pack, &bytes[..cut as usize]);
        let database = std::fs::read(restored.path().join("manifests.db")).unwrap();
        let store = restored.open();
        let (report, found) = rebuild(&store, &rebuilding());
        assert_eq!(report.rebuilt, if cut > HEADER { 9 } else { 0 }, "{cut}: {report:?}");
        assert_eq!(report.missing, 10 - report.rebuilt);
        assert_eq!(restored.readable(&store) as u64, report.rebuilt);
        if cut == HEADER {
            assert_eq!(found, []);
        } else {
            let [(at, of, why)] = &found[..] else { panic!("{cut}: {found:?}") };
            assert_eq!((*at, *of), (offset, key), "{cut}: {why}");
            assert_eq!(report.unusable, 1);
        }
        store.close();
        reset(&restored, &pack, &database);
    }
}

/// Puts the database back, and removes all packs but this one.
fn reset(restored: &Restored, pack: &Path, database: &[u8]) {
    for other in packs(restored.path()).iter().filter(|other| *other != pack) {
        std::fs::remove_file(other).unwrap();
    }
    let again = restored.path().join("again.db");
    std::fs::write(&again, database).unwrap();
    restored.replace_database(&again);
}

#[test]
fn a_pack_of_another_store_is_left_alone() {
    let restored = Restored::new(20, packed);
    let pack = restored.pack();
    let mut bytes = std::fs::read(&pack).unwrap();
    let name = pack.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let foreign = "0123456789abcdef0123456789abcdef";
    bytes[..HEADER as usize].copy_from_slice(&pack_header(foreign, &name).unwrap());
    forge(&pack, &bytes);
    // Names that no pack has.
    let directory = pack.parent().unwrap();
    for stray in ["notes.pack", "UPPER.pack", "copy of a.pack", "0123456789abcdef0123456789abcdef"] {
        std::fs::copy(&pack, directory.join(stray)).unwrap();
    }
    let store = restored.open();
    let (report, found) = rebuild(&store, &VerifyOptions { adopt: true, ..rebuilding() });
    assert_eq!((report.rebuilt, report.missing, report.unusable), (0, 10, 1), "{report:?}");
    let [(0, None, why)] = &found[..] else { panic!("{found:?}") };
    assert!(why.contains(foreign), "{why}");
    // Its owner may still need it.
    collect(&store);
    assert!(pack.exists() && directory.join("notes.pack").exists());
    assert!(!is_known(&restored, &pack));
}

#[test]
fn a_pack_whose_header_is_another_one_or_gone_gives_its_blocks() {
    let restored = Restored::new(20, packed);
    let pack = restored.pack();
    let bytes = std::fs::read(&pack).unwrap();
    let renamed = pack.with_file_name(format!("{}.pack", "7".repeat(32)));
    let database = std::fs::read(restored.path().join("manifests.db")).unwrap();
    for (path, bytes) in [(&renamed, bytes.clone()), (&pack, [&[0; 64], &bytes[64..]].concat())] {
        let _ = std::fs::remove_file(&pack);
        std::fs::write(path, &bytes).unwrap();
        let store = restored.open();
        let (report, found) = rebuild(&store, &rebuilding());
        assert_eq!((report.rebuilt, report.is_clean()), (10, true), "{report:?}");
        let [(0, None, why)] = &found[..] else { panic!("{found:?}") };
        assert!(why.contains("header"), "{why}");
        assert_eq!(restored.readable(&store), 10);
        store.close();
        reset(&restored, path, &database);
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_record_whose_length_lies_takes_no_memory_and_hides_no_other() {
    for length in [u32::MAX, 5_000_000, 3_000, 0] {
        for codec in [Codec::Raw, Codec::Zstd] {
            let restored = Restored::new(20, packed);
            let pack = restored.pack();
            let mut bytes = std::fs::read(&pack).unwrap();
            let (at, header) = records(&bytes)[3];
            let lying = Header { stored_size: length, codec, ..header }.encode();
            bytes[at as usize..(at + HEADER) as usize].copy_from_slice(&lying);
            forge(&pack, &bytes);
            let store = restored.open();
            let (report, found) = rebuild(&store, &rebuilding());
            assert_eq!((report.rebuilt, report.missing), (9, 1), "{length} {codec:?}: {report:?} {found:?}");
            let [(offset, key, _)] = &found[..] else { panic!("{length} {codec:?}: {found:?}") };
            assert_eq!((*offset, *key), (at, Some(header.key)), "{length} {codec:?}");
            assert_eq!(restored.readable(&store), 9);
        }
    }
}

#[test]
fn records_that_hold_something_else_are_told_and_the_next_one_is_tried() {
    let restored = Restored::new(20, packed);
    let pack = restored.pack();
    let mut bytes = std::fs::read(&pack).unwrap();
    let (at, header) = records(&bytes)[5];
    // The checksum is right, the digest is not. Behind it comes the record once more, whole.
    let whole = bytes[at as usize..(at + record_size(header.stored_size)) as usize].to_vec();
    let payload = vec![7; header.stored_size as usize];
    let forged = Header::of(header.key, Codec::Raw, &payload).encode();
    let start = at as usize;
    bytes[start..start + 64].copy_from_slice(&forged);
    bytes[start + 64..start + 64 + payload.len()].copy_from_slice(&payload);
    forge(&pack, &[&bytes[..], &whole].concat());
    let store = restored.open();
    let (report, found) = rebuild(&store, &rebuilding());
    assert_eq!((report.rebuilt, report.is_clean()), (10, true), "{report:?}");
    let [(offset, Some(key), why)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((*offset, *key, why.as_str()), (at, header.key, "its bytes are not those of the block"));
    assert_eq!(restored.readable(&store), 10);
}

#[cfg(feature = "zstd")]
#[test]
fn a_record_that_unpacks_to_more_than_its_block_is_refused() {
    let restored = Restored::new(20, packed);
    let pack = restored.pack();
    let mut bytes = std::fs::read(&pack).unwrap();
    let (at, header) = records(&bytes)[0];
    let mut bomb = zstd::bulk::compress(&vec![0; 1 << 30], 1).unwrap();
    assert!(bomb.len() > header.key.size());
    // As much of it as is possible in a record of this block, and as is there.
    bomb.truncate(header.stored_size as usize);
    let forged = Header::of(header.key, Codec::Zstd, &bomb).encode();
    bytes[at as usize..(at + HEADER) as usize].copy_from_slice(&forged);
    bytes[(at + HEADER) as usize..(at + HEADER) as usize + bomb.len()].copy_from_slice(&bomb);
    // A small one, whole.
    let small = zstd::bulk::compress(&vec![0; 10 << 20], 19).unwrap();
    assert!(small.len() < 3_001, "{}", small.len());
    let (again, second) = records(&std::fs::read(&pack).unwrap())[1];
    let appended = bytes.len().next_multiple_of(8);
    bytes.resize(appended, 0);
    bytes[again as usize..(again + HEADER) as usize].fill(0);
    bytes.extend(Header::of(second.key, Codec::Zstd, &small).encode());
    bytes.extend(&small);
    forge(&pack, &bytes);
    let store = restored.open();
    let (report, found) = rebuild(&store, &rebuilding());
    assert_eq!((report.rebuilt, report.missing, report.unusable), (8, 2, 2), "{report:?} {found:?}");
    let mut told: Vec<u64> = found.iter().map(|(at, ..)| *at).collect();
    told.sort_unstable();
    assert_eq!(told, [at, appended as u64]);
    assert!(found.iter().all(|(_, key, _)| *key == Some(header.key) || *key == Some(second.key)));
    assert_eq!(restored.readable(&store), 8);
}

/// Packs with bytes that are changed, cut out, doubled and made up, by fixed numbers. Each blob is read as it
/// was put, or not at all.
#[test]
fn no_bytes_of_a_pack_make_it_fail_or_give_a_wrong_block() {
    let rounds: u64 = std::env::var("GRAVITON_REBUILD_ROUNDS").map_or(40, |text| text.parse().unwrap());
    let compression = if cfg!(feature = "zstd") { "zstd" } else { "none" };
    let restored = Restored::new(24, |root| packed(root).set("GRAVITON_COMPRESSION", compression).unwrap());
    let pack = restored.pack();
    let whole = std::fs::read(&pack).unwrap();
    let database = std::fs::read(restored.path().join("manifests.db")).unwrap();
    let (mut rebuilt, mut missing) = (0, 0);
    for round in 0..rounds {
        let mut random = Random(blake3::Hasher::new().update(&round.to_le_bytes()).finalize_xof());
        let mut bytes = whole.clone();
        for _ in 0..=random.below(8) {
            random.change(&mut bytes);
        }
        forge(&pack, &bytes);
        let store = restored.open();
        let options = VerifyOptions { adopt: round % 2 == 0, deep: round % 3 == 0, ..rebuilding() };
        let (report, found) = rebuild(&store, &options);
        assert_eq!(report.rebuilt + report.missing, 12, "round {round}: {report:?} {found:?}");
        assert_eq!(restored.readable(&store) as u64, report.rebuilt, "round {round}: {found:?}");
        rebuilt += report.rebuilt;
        missing += report.missing;
        store.close();
        reset(&restored, &pack, &database);
    }
    eprintln!("{rounds} rounds: {rebuilt} blocks rebuilt, {missing} missing");
    assert!(rounds < 40 || rebuilt > 0 && missing > 0, "the changes do nothing, or too much");
}

struct Random(blake3::OutputReader);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).unwrap();
        (u64::from_le_bytes(bytes) % end.max(1) as u64) as usize
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(200)).min(bytes.len());
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => bytes[at..end].fill(0),
            4 => self.lie(bytes, at),
            5 => bytes[at] ^= 1 << self.below(8),
            6 => self.0.read_exact(&mut bytes[at..end]).unwrap(),
            // A hole, as a filesystem punches it.
            _ => {
                let start = at / 4_096 * 4_096;
                let end = (start + 4_096).min(bytes.len());
                bytes[start..end].fill(0);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }

    /// A header that is right as far as its checksum says, and is not right. At the next record, or where
    /// none is.
    fn lie(&mut self, bytes: &mut [u8], at: usize) {
        let at = at.next_multiple_of(8);
        let is_header = |at: &usize| Header::decode(&bytes[*at..]).is_some();
        let found = (at..bytes.len()).step_by(8).find(is_header);
        let Some(header) = found.and_then(|at| Header::decode(&bytes[at..])) else { return };
        let sizes = [0, 1, header.stored_size - 1, header.stored_size + 8, 1 << 24, u32::MAX];
        let stored_size = sizes[self.below(sizes.len())];
        let codec = if self.below(2) == 0 { Codec::Raw } else { Codec::Zstd };
        let lying = Header { stored_size, codec, checksum: self.below(1 << 32) as u32, ..header }.encode();
        let place = if self.below(3) == 0 { at } else { found.unwrap_or(at) };
        if let Some(into) = bytes.get_mut(place..place + lying.len()) {
            into.copy_from_slice(&lying);
        }
    }
}
