//! Faults after which a put that was acknowledged was lost: damaged blocks, and a database that is gone.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use graviton_core::{
    BlobId, Code, Config, CopyOptions, GcOptions, GcReport, PutOptions, PutReceipt, Store, VerifyOptions,
};

fn open(root: &Path) -> Store {
    let root = root.to_str().unwrap();
    let config = Config::new().set("GRAVITON_FS_ROOT", root).unwrap();
    config.set("GRAVITON_CHUNKER", "fixed:1000").unwrap().open().unwrap()
}

fn content(blocks: u32) -> Vec<u8> {
    (0..blocks * 250).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

fn block(root: &Path, store: &Store, put: &PutReceipt) -> PathBuf {
    let key = store.manifest(&put.id, 0, 1).unwrap()[0].key;
    root.join("cas/blocks/blake3").join(key.name())
}

/// Other bytes of the right length.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[0] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn is_readable(store: &Store, id: &BlobId, content: &[u8]) -> bool {
    store.read_range(id, 0..u64::MAX).is_ok_and(|bytes| bytes == content)
}

/// Runs the case for a blob of one block, for one of some and for one that is no small blob.
fn for_sizes(case: impl Fn(&Path, Store, &[u8], &PutReceipt)) {
    for blocks in [1, 5, 100] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let content = content(blocks);
        let put = store.put(&content[..]).unwrap();
        case(directory.path(), store, &content, &put);
    }
}

#[test]
fn after_a_read_that_found_damage_the_next_put_of_another_process_writes_the_block() {
    for_sizes(|root, reading, content, put| {
        spoil(&block(root, &reading, put));
        assert_eq!(reading.read_range(&put.id, 0..u64::MAX).unwrap_err().code(), Code::CorruptBlock);
        // As another process: what this one remembers is not asked.
        let putting = open(root);
        let again = putting.put(content).unwrap();
        assert_eq!((again.id, again.fresh_blocks, again.created), (put.id, 1, false));
        assert!(is_readable(&reading, &put.id, content));
    });
}

#[test]
fn after_a_read_that_found_damage_each_kind_of_put_writes_the_block() {
    type Put = fn(&Store, &[u8], &BlobId) -> u64;
    let kinds: [Put; 3] = [
        |store, content, _| store.put_bytes(content.to_vec()).unwrap().fresh_blocks,
        |store, content, id| {
            let options = PutOptions::new().expect(*id);
            store.put_with(&options).source(content).unwrap().fresh_blocks
        },
        |store, content, _| {
            // A new blob that shares the block.
            let longer = [content, b"more"].concat();
            store.put(&longer[..]).unwrap().fresh_blocks - 1
        },
    ];
    for put_again in kinds {
        for_sizes(|root, reading, content, put| {
            spoil(&block(root, &reading, put));
            let mut reader = reading.reader(&put.id).unwrap();
            assert!(std::io::copy(&mut reader, &mut std::io::sink()).is_err());
            assert_eq!(put_again(&open(root), content, &put.id), 1);
            assert!(is_readable(&reading, &put.id, content));
        });
    }
}

#[test]
fn a_store_that_is_opened_to_be_read_notes_no_damage() {
    for_sizes(|root, store, _, put| {
        let path = block(root, &store, put);
        let whole = std::fs::read(&path).unwrap();
        spoil(&path);
        store.close();
        let database = root.join("manifests.db");
        let before = std::fs::read(&database).unwrap();
        let config = Config::for_directory(root);
        let reading = config.open_read_only().unwrap();
        assert_eq!(reading.read_range(&put.id, 0..u64::MAX).unwrap_err().code(), Code::CorruptBlock);
        reading.close();
        assert_eq!(std::fs::read(&database).unwrap(), before);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, whole).unwrap();
    });
}

#[test]
fn what_was_only_unmounted_is_readable_when_it_is_back() {
    for_sizes(|root, store, content, put| {
        let path = block(root, &store, put);
        let key = store.manifest(&put.id, 0, 1).unwrap()[0].key;
        let away = root.join("away");
        std::fs::rename(&path, &away).unwrap();
        assert_eq!(store.read_range(&put.id, 0..u64::MAX).unwrap_err().code(), Code::MissingBlock);
        assert_eq!(store.block(&key).unwrap_err().code(), Code::MissingBlock);
        // A collection does not go by the note either.
        let options = GcOptions { grace: Some(std::time::Duration::ZERO), ..GcOptions::default() };
        assert_eq!(store.gc(&options, |_| ControlFlow::Continue(())).unwrap().blocks, 0);
        std::fs::rename(&away, &path).unwrap();
        assert!(is_readable(&store, &put.id, content));
        assert_eq!(store.block(&key).unwrap().len(), key.size());
    });
}

#[test]
fn a_copy_from_a_good_store_mends_what_is_gone_here() {
    for_sizes(|root, store, content, put| {
        let other = tempfile::tempdir().unwrap();
        let good = open(other.path());
        good.put(content).unwrap();
        std::fs::remove_file(block(root, &store, put)).unwrap();
        let report = store.copy_from(&good, &CopyOptions::default(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.present, report.blocks), (1, 1));
        assert!(is_readable(&store, &put.id, content));
    });
}

#[test]
fn nothing_is_acknowledged_once_the_database_is_gone() {
    for replaced in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.put(&b"before"[..]).unwrap();
        let database = directory.path().join("manifests.db");
        let away = directory.path().join("away.db");
        std::fs::rename(&database, &away).unwrap();
        if replaced {
            std::fs::copy(&away, &database).unwrap();
        }
        let error = store.put(&b"after"[..]).unwrap_err();
        assert_eq!(error.code(), Code::Io, "{error}");
        assert!(error.to_string().contains(if replaced { "replaced" } else { "removed" }), "{error}");
        // Nor anything later, of whatever size.
        assert_eq!(store.put(&content(300)[..]).unwrap_err().code(), Code::Latched);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(runtime.block_on(store.as_async().ping()).is_err());
    }
}

#[test]
fn a_store_that_only_reads_is_not_ready_once_the_database_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).put(&b"before"[..]).unwrap();
    let store = open(directory.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.as_async().ping()).unwrap();
    std::fs::remove_file(directory.path().join("manifests.db")).unwrap();
    assert!(runtime.block_on(store.as_async().ping()).is_err());
}

/// The log of the database or its index is taken away, or others are put in the place.
fn take_log_away(root: &Path, names: &[&str], replaced: bool) {
    for name in names {
        let path = root.join(name);
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::write(&path, "").unwrap();
        }
    }
}

const LOSSES: [&[&str]; 3] =
    [&["manifests.db-wal"], &["manifests.db-shm"], &["manifests.db-wal", "manifests.db-shm"]];

#[test]
fn nothing_is_acknowledged_once_the_log_of_the_database_is_gone() {
    for names in LOSSES {
        for replaced in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let before = store.put(&b"before"[..]).unwrap();
            take_log_away(directory.path(), names, replaced);
            // Not even a put that changes nothing: what it found may be gone.
            let error = store.put(&b"before"[..]).unwrap_err();
            assert_eq!(error.code(), Code::Io, "{error}");
            assert!(error.to_string().contains(if replaced { "replaced" } else { "removed" }), "{error}");
            assert!(error.to_string().contains("log"), "{error}");
            assert!(store.put(&b"after"[..]).is_err());
            assert!(store.put(&content(300)[..]).is_err());
            let runtime = tokio::runtime::Runtime::new().unwrap();
            assert!(runtime.block_on(store.as_async().ping()).is_err());
            // The process that has the store open is killed; what it still had of the log was saved before.
            std::mem::forget(store);
            if !replaced {
                let again = open(directory.path());
                assert!(is_readable(&again, &before.id, b"before"), "{names:?}");
                again.put(&b"after"[..]).unwrap();
            }
        }
    }
}

/// Puts another directory in the place of that of the blocks, as a mount does.
fn mount_over(root: &Path, other: &Path) {
    let blocks = root.join("cas/blocks");
    std::fs::rename(&blocks, root.join("hidden")).unwrap();
    std::fs::rename(other, &blocks).unwrap();
}

fn copy_of_blocks(root: &Path) -> PathBuf {
    let (from, to) = (root.join("cas/blocks"), root.join("copy"));
    std::fs::create_dir_all(to.join("blake3")).unwrap();
    for name in ["store-id", "generation"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    for entry in std::fs::read_dir(from.join("blake3")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join("blake3").join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn a_disk_that_was_mounted_after_the_store_was_opened_is_read() {
    for_sizes(|root, store, content, put| {
        let copy = copy_of_blocks(root);
        for entry in std::fs::read_dir(root.join("cas/blocks/blake3")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!(store.read_range(&put.id, 0..u64::MAX).unwrap_err().code(), Code::MissingBlock);
        mount_over(root, &copy);
        assert!(is_readable(&store, &put.id, content));
        assert_eq!(store.block(&store.manifest(&put.id, 0, 1).unwrap()[0].key).unwrap()[..], content[..1000]);
        let report = store.verify(&VerifyOptions::default(), |_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_clean(), "{report:?}");
    });
}

#[test]
fn no_put_is_acknowledged_that_went_into_a_hidden_directory() {
    for_sizes(|root, store, content, _| {
        mount_over(root, &copy_of_blocks(root));
        let new = [content, b"new"].concat();
        let error = store.put(&new[..]).unwrap_err();
        assert!(error.code() == Code::Io && error.to_string().contains("replaced"), "{error}");
        assert_eq!(store.put(content).unwrap_err().code(), Code::Latched);
        let again = open(root);
        let put = again.put(&new[..]).unwrap();
        assert!(is_readable(&again, &put.id, &new));
    });
}

#[test]
fn no_put_is_acknowledged_that_went_into_a_hidden_pack() {
    for blocks in [1, 100] {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let config = Config::for_directory(root).set("GRAVITON_BLOCK_LAYOUT", "packs").unwrap();
        let store = config.open().unwrap();
        store.put(&b"before"[..]).unwrap();
        let packs = root.join("cas/blocks-packs");
        std::fs::rename(&packs, root.join("hidden")).unwrap();
        std::fs::create_dir(&packs).unwrap();
        assert_eq!(store.put(&content(blocks)[..]).unwrap_err().code(), Code::Io);
        assert_eq!(store.put(&b"more"[..]).unwrap_err().code(), Code::Latched);
    }
}

#[test]
fn a_disk_that_was_unmounted_before_the_first_put_gets_no_store_id() {
    for_sizes(|root, store, content, put| {
        store.close();
        let store = open(root);
        let empty = root.join("empty");
        std::fs::create_dir(&empty).unwrap();
        mount_over(root, &empty);
        let new = [content, b"new"].concat();
        let error = store.put(&new[..]).unwrap_err();
        assert!(error.code() == Code::Config && error.to_string().contains("store-id"), "{error}");
        assert_eq!(std::fs::read_dir(root.join("cas/blocks")).unwrap().count(), 0);
        // Back again, all of it works, also in the store that is open.
        std::fs::remove_dir(root.join("cas/blocks")).unwrap();
        std::fs::rename(root.join("hidden"), root.join("cas/blocks")).unwrap();
        let again = store.put(&new[..]).unwrap();
        assert!(is_readable(&store, &again.id, &new) && is_readable(&store, &put.id, content));
    });
}

#[test]
fn a_database_behind_a_link_has_its_log_where_the_link_leads() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).put(&b"before"[..]).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(directory.path().join("manifests.db"), &link).unwrap();
    let url = format!("sqlite:{}", link.display());
    let config = Config::for_directory(directory.path()).set("GRAVITON_MANIFEST_URL", &url).unwrap();
    let store = config.open().unwrap();
    store.put(&b"through the link"[..]).unwrap();
    take_log_away(directory.path(), &["manifests.db-wal"], false);
    assert_eq!(store.put(&b"after"[..]).unwrap_err().code(), Code::Io);
}

fn collect(store: &Store) -> GcReport {
    let options = GcOptions { grace: Some(std::time::Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn what_killed_puts_left_is_counted_by_a_collection_and_freed_after_a_verification() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.put(&b"before"[..]).unwrap();
    assert_eq!(collect(&store).unreferenced, 0);
    let blocks = directory.path().join("cas/blocks/blake3");
    std::fs::write(blocks.join(format!("{:064x}-3", 1)), "abc").unwrap();
    let packs = directory.path().join("cas/blocks-packs");
    std::fs::create_dir(&packs).unwrap();
    std::fs::write(packs.join(format!("{:032x}.pack", 1)), [0; 100]).unwrap();
    let collected = collect(&store);
    assert_eq!((collected.unreferenced, collected.unreferenced_bytes, collected.blocks), (2, 103, 0));
    let options = VerifyOptions { adopt: true, ..VerifyOptions::default() };
    store.verify(&options, |_| ControlFlow::Continue(())).unwrap();
    let collected = collect(&store);
    assert_eq!((collected.unreferenced, collected.blocks), (0, 1), "{collected:?}");
    assert_eq!(std::fs::read_dir(&blocks).unwrap().count(), 1);
}

#[test]
fn what_killed_creations_of_the_database_left_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.put(&b"before"[..]).unwrap();
    let left = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let two_hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7_200);
        std::fs::File::open(&path).unwrap().set_modified(two_hours_ago).unwrap();
        path
    };
    // Only an empty file is certain to be one.
    let (mine, others) = (left(".manifests-x1", ""), left(".manifests-x2", "content"));
    assert_eq!(collect(&store).leftovers, 1);
    assert!(!mine.exists() && others.exists());
}
