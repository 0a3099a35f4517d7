//! Blocks in packs: put, read, damaged; beside files, and after an upgrade.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use graviton_core::block::FsBlockStore;
use graviton_core::block::pack::record::{HEADER, Header, is_pack_header, record_size};
use graviton_core::testing::{Fault, FaultyBlockStore, Operation, Recipe};
use graviton_core::{
    AsyncStore, BlobId, BlockLayout, Code, Config, Durability, GcOptions, GcReport, ManifestRepo, Opening,
    PutOptions, Settings, Store, VerifyOptions,
};
use rusqlite::Connection;

pub(crate) fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

pub(crate) fn packed(root: &Path) -> Config {
    let config = Config::for_directory(root).set("GRAVITON_BLOCK_LAYOUT", "packs").unwrap();
    let config = config.set("GRAVITON_CHUNKER", "fixed:4096").unwrap();
    // So that sizes are known.
    config.set("GRAVITON_COMPRESSION", "none").unwrap()
}

pub(crate) fn read(store: &Store, id: &BlobId) -> Vec<u8> {
    store.read_range(id, 0..u64::MAX).unwrap().to_vec()
}

pub(crate) fn collect(store: &Store) -> GcReport {
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(())).unwrap()
}

pub(crate) fn verify(store: &Store) -> graviton_core::VerifyReport {
    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    store.verify(&options, |_| ControlFlow::Continue(())).unwrap()
}

fn entries(path: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

pub(crate) fn packs(root: &Path) -> Vec<PathBuf> {
    entries(root.join("cas/blocks-packs"))
}

pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    entries(root.join("cas/blocks/blake3"))
}

pub(crate) fn database(root: &Path) -> Connection {
    let connection = Connection::open(root.join("manifests.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection
}

pub(crate) fn number(root: &Path, sql: &str) -> i64 {
    database(root).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The file and offset of the record of a blob of one block.
pub(crate) fn record(root: &Path, bytes: &[u8]) -> (PathBuf, u64) {
    let digest = blake3::hash(bytes);
    let (name, offset): (String, i64) = database(root)
        .query_row(
            "SELECT pack.name, pack_offset FROM data_block JOIN pack ON pack.id = pack_id WHERE digest = ?",
            [digest.as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    (root.join("cas/blocks-packs").join(format!("{name}.pack")), offset as u64)
}

#[test]
fn blocks_are_records_of_one_file_as_the_format_says() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    let contents =
        ["xof:a:700", "xof:b:44000", "zeros:0", "xof:c:512000", "zeros:9000", "xof:d:1200000"].map(content);
    let mut blocks = BTreeSet::new();
    for bytes in &contents {
        let put = store.put(&bytes[..]).unwrap();
        assert_eq!((put.id, put.created), (BlobId::of(graviton_core::Algo::Blake3, bytes), true));
        assert!(read(&store, &put.id) == *bytes);
        blocks.extend(store.manifest(&put.id, 0, 10_000).unwrap().iter().map(|entry| entry.key));
        let again = store.put(&bytes[..]).unwrap();
        assert_eq!((again.created, again.fresh_blocks), (false, 0));
    }
    let stats = store.stats().unwrap();
    assert_eq!(stats.blocks, blocks.len() as u64);
    assert_eq!(stats.stored_bytes, blocks.iter().map(|key| key.size() as u64).sum::<u64>());
    store.close();

    assert_eq!(files(root.path()).len(), 0, "a block has a file of its own");
    let [pack] = &packs(root.path())[..] else { panic!("{:?}", packs(root.path())) };
    let bytes = std::fs::read(pack).unwrap();
    let name = pack.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let id = std::fs::read_to_string(root.path().join("cas/blocks/store-id")).unwrap();
    assert!(is_pack_header(&bytes[..HEADER as usize], id.trim(), &name));
    // Exactly the records, one behind the other.
    let (mut at, mut found) = (HEADER, BTreeSet::new());
    while at < bytes.len() as u64 {
        let header = Header::decode(&bytes[at as usize..]).unwrap();
        let start = (at + HEADER) as usize;
        let payload = &bytes[start..start + header.stored_size as usize];
        assert!(header.has_payload(payload) && header.key.algo().digest(payload) == *header.key.digest());
        assert!(found.insert(header.key));
        at += record_size(header.stored_size);
    }
    assert_eq!((at, found), (bytes.len() as u64, blocks));
    assert_eq!(number(root.path(), "SELECT bytes FROM pack WHERE state = 2"), bytes.len() as i64);

    let store = packed(root.path()).open_read_only().unwrap();
    for bytes in &contents {
        assert!(read(&store, &BlobId::of(graviton_core::Algo::Blake3, bytes)) == *bytes);
    }
    assert!(verify(&store).is_clean());
}

#[test]
fn files_and_packs_are_read_in_one_store_and_stored_once() {
    let root = tempfile::tempdir().unwrap();
    let (shared, more) = (content("xof:shared:40960"), content("xof:more:8192"));
    let both = [&shared[..], &more[..]].concat();
    let named =
        Config::for_directory(root.path()).set("GRAVITON_CHUNKER", "fixed:4096").unwrap().open().unwrap();
    let one = named.put(&shared[..]).unwrap().id;
    let in_packs = packed(root.path()).open().unwrap();
    let put = in_packs.put(&both[..]).unwrap();
    assert_eq!(put.fresh_blocks, 2, "blocks that are files were written again");
    assert_eq!((files(root.path()).len(), packs(root.path()).len()), (10, 1));
    // The pack is not sealed, and its maker lives.
    assert_eq!(named.put(&both[..]).unwrap().fresh_blocks, 0);
    assert_eq!(named.put(&more[..]).unwrap().fresh_blocks, 0);
    for store in [&named, &in_packs] {
        assert!(read(store, &one) == shared && read(store, &put.id) == both);
        assert!(verify(store).is_clean());
    }
    in_packs.close();
    assert!(read(&named, &put.id) == both);
}

#[test]
fn a_damaged_record_is_told_with_its_place_and_put_again() {
    for (verifies, layout) in [("true", "packs"), ("false", "packs"), ("true", "files")] {
        let root = tempfile::tempdir().unwrap();
        let bytes = content("xof:damaged:4000");
        let id = packed(root.path()).open().unwrap().put(&bytes[..]).unwrap().id;
        let damage = |what: &str| {
            let (path, offset) = record(root.path(), &bytes);
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            match what {
                "a payload" => file.write_all_at(b"other bytes", offset + HEADER + 100).unwrap(),
                "a hole" => file.write_all_at(&[0; 4000], offset + HEADER).unwrap(),
                "a header" => file.write_all_at(&[0; 64], offset).unwrap(),
                "an end" => file.set_len(offset + HEADER + 3999).unwrap(),
                _ => std::fs::remove_file(&path).unwrap(),
            }
            path
        };
        for what in ["a payload", "a hole", "a header", "an end", "a pack"] {
            if layout == "files" && what != "a payload" {
                continue;
            }
            let path = damage(what);
            let config = packed(root.path()).set("GRAVITON_VERIFY_READS", verifies).unwrap();
            let store = config.set("GRAVITON_BLOCK_LAYOUT", layout).unwrap().open().unwrap();
            let error = store.read_range(&id, 0..10).unwrap_err();
            assert!(matches!(error.code(), Code::CorruptBlock | Code::MissingBlock), "{what}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(path.to_str().unwrap()) && text.contains(&id.to_string()),
                "{what}: {text}"
            );
            assert_eq!(store.put(&bytes[..]).unwrap().fresh_blocks, 1, "{what}");
            assert!(read(&store, &id) == bytes, "{what}");
            assert!(verify(&store).is_clean(), "{what}");
            store.close();
        }
        assert_eq!(files(root.path()).len(), usize::from(layout == "files"));
    }
}

#[test]
fn a_put_finds_damage_that_nobody_has_read() {
    for expects in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let (small, large) = (content("xof:small:4000"), content("xof:large:900000"));
        let store = packed(root.path()).open().unwrap();
        let ids = [&small, &large].map(|bytes| store.put(&bytes[..]).unwrap().id);
        store.close();
        let [pack] = &packs(root.path())[..] else { panic!("not one pack") };
        std::fs::remove_file(pack).unwrap();
        let store = packed(root.path()).open().unwrap();
        for (bytes, id) in [&small, &large].into_iter().zip(ids) {
            let options = PutOptions::new().expect(expects.then_some(id));
            let put = store.put_with(&options).source(&bytes[..]).unwrap();
            assert_eq!(put.fresh_bytes, bytes.len() as u64);
            assert!(read(&store, &id) == *bytes);
        }
    }
}

#[test]
fn a_pack_that_is_full_is_followed_by_another() {
    let root = tempfile::tempdir().unwrap();
    let config = packed(root.path()).set("GRAVITON_CHUNKER", "fixed:1048576").unwrap();
    let store = config.set("GRAVITON_DURABILITY", "relaxed").unwrap().open().unwrap();
    let bytes = content("xof:long:150000000");
    let put = store.put(&bytes[..]).unwrap();
    assert!(read(&store, &put.id) == bytes);
    store.close();
    assert_eq!(number(root.path(), "SELECT count(*) FROM pack WHERE state = 2"), 3);
    for pack in packs(root.path()) {
        assert!(std::fs::metadata(&pack).unwrap().len() <= 65 << 20);
    }
}

/// The parts of a store in packs that fails.
pub(crate) async fn faulty(root: &Path) -> (FaultyBlockStore, AsyncStore) {
    let blocks = FaultyBlockStore::new(Arc::new(FsBlockStore::new(root, "cas/blocks", true)));
    let path = root.join("manifests.db");
    let manifests = ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap();
    let chunker = "fixed:8000".parse().unwrap();
    let settings = Settings { layout: BlockLayout::Packs, chunker, ..Settings::default() };
    let store = AsyncStore::new(Arc::new(blocks.clone()), Arc::new(manifests), settings).await.unwrap();
    (blocks, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_fails_leaves_nothing_visible_and_can_be_repeated() {
    for recipe in ["xof:small:4000", "xof:large:2400000"] {
        let bytes = content(recipe);
        let id = BlobId::of(graviton_core::Algo::Blake3, &bytes);
        for operation in [Operation::WritePack, Operation::SyncPack] {
            for fault in [Fault::Fail(Code::NoSpace), Fault::FailAfter(Code::NoSpace), Fault::Fail(Code::Io)]
            {
                let root = tempfile::tempdir().unwrap();
                let (blocks, store) = faulty(root.path()).await;
                let before = store.put(&b"before"[..]).await.unwrap().id;
                blocks.break_at(operation, 1, fault);
                let error = store.put(&bytes[..]).await.unwrap_err();
                let (Fault::Fail(code) | Fault::FailAfter(code)) = fault else { unreachable!() };
                assert_eq!(error.code(), code, "{operation:?} {fault:?}: {error}");
                assert_eq!(blocks.hits(), 1);
                assert!(!store.exists(&id).await.unwrap());
                if code == Code::Io {
                    assert_eq!(store.put(&bytes[..]).await.unwrap_err().code(), Code::Latched);
                } else {
                    assert!(store.put(&bytes[..]).await.unwrap().created);
                    assert!(store.read_range(&id, 0..u64::MAX).await.unwrap() == bytes);
                }
                assert_eq!(store.read_range(&before, 0..9).await.unwrap(), "before");
                store.close().await;
            }
        }
        let root = tempfile::tempdir().unwrap();
        let (blocks, store) = faulty(root.path()).await;
        blocks.break_at(Operation::CreatePack, 1, Fault::Fail(Code::NoSpace));
        assert_eq!(store.put(&bytes[..]).await.unwrap_err().code(), Code::NoSpace);
        assert!(store.put(&bytes[..]).await.unwrap().created);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_is_dropped_while_it_writes_keeps_nobody_from_closing() {
    let root = tempfile::tempdir().unwrap();
    let (blocks, store) = faulty(root.path()).await;
    blocks.break_at(Operation::WritePack, 1, Fault::Stall);
    let bytes = content("xof:dropped:4000");
    tokio::select! {
        _ = store.put(&bytes[..]) => panic!("it does not stall"),
        () = blocks.wait_for_hits(1) => {}
    }
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!closing.is_finished(), "the pack was sealed while it was written to");
    blocks.mend();
    closing.await.unwrap();
    assert_eq!(number(root.path(), "SELECT count(*) FROM pack WHERE state = 2"), 1);
    let (_, store) = faulty(root.path()).await;
    // It may have been committed all the same.
    store.put(&bytes[..]).await.unwrap();
    assert!(
        store.read_range(&BlobId::of(graviton_core::Algo::Blake3, &bytes), 0..u64::MAX).await.unwrap()
            == bytes
    );
}

#[test]
fn a_small_put_of_a_store_of_files_mends_a_record_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let shared = content("xof:shared:4096");
    let in_packs = packed(root.path()).open().unwrap();
    let old = in_packs.put(&shared[..]).unwrap().id;
    in_packs.close();
    let [pack] = &packs(root.path())[..] else { panic!("not one pack") };
    std::fs::remove_file(pack).unwrap();
    let config = packed(root.path()).set("GRAVITON_BLOCK_LAYOUT", "files").unwrap();
    let store = config.open().unwrap();
    let both = [&shared[..], b"and more"].concat();
    let new = store.put(&both[..]).unwrap();
    assert_eq!(new.fresh_blocks, 2);
    assert!(read(&store, &new.id) == both && read(&store, &old) == shared);
    assert!(verify(&store).is_clean());
}

#[test]
fn a_store_whose_pack_was_taken_goes_on_in_another_one() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    store.put(&b"before"[..]).unwrap();
    let take = || {
        database(root.path()).execute("UPDATE pack SET state = 1 WHERE state = 0", []).unwrap();
    };
    take();
    let small = store.put(&b"small"[..]).unwrap();
    assert_eq!((small.created, packs(root.path()).len()), (true, 2));
    take();
    let bytes = content("xof:large:900000");
    // The first one may have to be put again, as its error says.
    if let Err(error) = store.put(&bytes[..]) {
        assert!(error.is_retryable(), "{error}");
        store.put(&bytes[..]).unwrap();
    }
    let id = BlobId::of(graviton_core::Algo::Blake3, &bytes);
    assert!(read(&store, &id) == bytes && read(&store, &small.id) == b"small");
    collect(&store);
    store.close();
    let store = packed(root.path()).open().unwrap();
    assert!(verify(&store).is_clean());
    assert_eq!(number(root.path(), "SELECT count(*) FROM pack WHERE state <> 2"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sync_that_failed_nothing_more_goes_to_that_pack() {
    let root = tempfile::tempdir().unwrap();
    let (blocks, store) = faulty(root.path()).await;
    let before = store.put(&b"before"[..]).await.unwrap().id;
    blocks.break_at(Operation::SyncPack, 1, Fault::Fail(Code::NoSpace));
    assert_eq!(store.put(&b"lost"[..]).await.unwrap_err().code(), Code::NoSpace);
    let after = store.put(&b"after"[..]).await.unwrap().id;
    let rows = "SELECT count(*) FROM data_block JOIN pack ON pack.id = pack_id WHERE pack.id = 1";
    assert_eq!(number(root.path(), rows), 1, "a later sync that succeeded was relied on");
    for (id, bytes) in [(before, &b"before"[..]), (after, b"after")] {
        assert_eq!(store.read_range(&id, 0..9).await.unwrap(), bytes);
    }
    store.close().await;
    // Nobody seals what may be lost, but after verifying it.
    assert_eq!(number(root.path(), "SELECT state FROM pack WHERE id = 1"), 0);
    database(root.path()).execute("UPDATE writer SET expires_at = 1", []).unwrap();
    let (_, store) = faulty(root.path()).await;
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(())).await.unwrap();
    assert_eq!(store.read_range(&before, 0..9).await.unwrap(), "before");
}

#[test]
fn a_row_that_was_tampered_with_is_an_error_and_takes_no_memory() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    let id = store.put(&b"content"[..]).unwrap().id;
    store.close();
    for change in [
        "pack_offset = -1",
        "pack_offset = 0",
        "pack_offset = 9223372036854775807",
        "stored_size = 4294967295",
        "stored_size = -1",
        "codec = 7",
    ] {
        let before = std::fs::read(root.path().join("manifests.db")).unwrap();
        database(root.path()).execute(&format!("UPDATE data_block SET {change}"), []).unwrap();
        let store = packed(root.path()).open().unwrap();
        let error = store.read_range(&id, 0..7).unwrap_err();
        assert_eq!(error.code(), Code::CorruptDatabase, "{change}: {error}");
        store.close();
        std::fs::write(root.path().join("manifests.db"), before).unwrap();
    }
    // One that only lies: nothing else is read for it.
    for change in ["stored_size = 8", "stored_size = 6", "pack_offset = 72", "pack_offset = 65", "codec = 1"]
    {
        let before = std::fs::read(root.path().join("manifests.db")).unwrap();
        database(root.path()).execute(&format!("UPDATE data_block SET {change}"), []).unwrap();
        let store = packed(root.path()).open().unwrap();
        let error = store.read_range(&id, 0..7).unwrap_err();
        assert!(matches!(error.code(), Code::CorruptBlock | Code::MissingBlock), "{change}: {error}");
        store.close();
        std::fs::write(root.path().join("manifests.db"), before).unwrap();
    }
}

#[cfg(feature = "zstd")]
#[test]
fn blocks_are_compressed_where_it_saves_something_and_read_whatever_the_setting() {
    let root = tempfile::tempdir().unwrap();
    let open = |compression: &str| {
        let config = Config::for_directory(root.path()).set("GRAVITON_BLOCK_LAYOUT", "packs").unwrap();
        config.set("GRAVITON_COMPRESSION", compression).unwrap().open().unwrap()
    };
    let contents = [
        ("none", "lines:a:400000"),
        ("zstd", "lines:b:400000"),
        ("zstd:9", "lines:c:400000"),
        ("zstd", "xof:d:400000"),
    ];
    let mut ids = Vec::new();
    let mut sizes = Vec::new();
    for (compression, recipe) in contents {
        let store = open(compression);
        let before = store.stats().unwrap().stored_bytes;
        let put = store.put(&content(recipe)[..]).unwrap();
        assert_eq!(put.id, BlobId::of(graviton_core::Algo::Blake3, &content(recipe)));
        assert_eq!(put.fresh_bytes, 400_000);
        ids.push(put.id);
        sizes.push(store.stats().unwrap().stored_bytes - before);
        store.close();
    }
    assert_eq!((sizes[0], sizes[3]), (400_000, 400_000));
    assert!(sizes[1] < 300_000 && sizes[2] < 300_000, "{sizes:?}");
    for verifies in ["true", "false"] {
        let config = Config::for_directory(root.path()).set("GRAVITON_VERIFY_READS", verifies).unwrap();
        let store = config.open().unwrap();
        for (id, (_, recipe)) in ids.iter().zip(contents) {
            let bytes = content(recipe);
            assert!(read(&store, id) == bytes);
            assert_eq!(store.read_range(id, 77_777..77_877).unwrap()[..], bytes[77_777..77_877]);
        }
        assert!(verify(&store).is_clean());
    }
    // It is moved as it is read, and stays what it is.
    let store = open("zstd:3");
    for id in [ids[0], ids[3]] {
        store.delete(&id).unwrap();
    }
    collect(&store);
    for (id, (_, recipe)) in ids.iter().zip(contents).skip(1).take(2) {
        assert!(read(&store, id) == content(recipe));
    }
    // One byte of a payload is enough.
    store.close();
    for pack in packs(root.path()) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&pack).unwrap();
        let end = file.metadata().unwrap().len();
        for at in (HEADER + HEADER..end).step_by(997) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        }
    }
    for verifies in ["true", "false"] {
        let config = Config::for_directory(root.path()).set("GRAVITON_VERIFY_READS", verifies).unwrap();
        let store = config.open_read_only().unwrap();
        for id in &ids[1..3] {
            assert_eq!(store.read_range(id, 0..u64::MAX).unwrap_err().code(), Code::CorruptBlock);
        }
    }
}
