//! The sums of `stats` over packs are those of their files, and receipts say what a put takes.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use graviton_core::{BlobId, GcOptions, Store, StoreStats};

use super::packs::{collect, content, packed, packs, verify};

/// The stats, after it was checked that they add up to what is on the disk.
fn sums(root: &Path, store: &Store) -> StoreStats {
    let stats = store.stats().unwrap();
    let headers = 64 * stats.packs;
    let known = stats.pack_live_bytes
        + stats.pack_dead_bytes
        + stats.pack_punched_bytes
        + stats.pack_pending_bytes
        + stats.pack_open_bytes
        + headers;
    let files: u64 = packs(root).iter().map(|pack| pack.metadata().unwrap().len()).sum();
    assert_eq!(known + stats.unknown_pack_bytes, files, "{stats:?}");
    assert_eq!(stats.packs + stats.unknown_packs, packs(root).len() as u64, "{stats:?}");
    stats
}

fn gc(store: &Store, grace: u64, max_blocks: Option<u64>) {
    let options = GcOptions { grace: Some(Duration::from_secs(grace)), max_blocks, ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn the_sums_of_packs_are_those_of_their_files_at_every_step() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = packed(root).open().unwrap();
    assert_eq!((sums(root, &store).packs, store.stats().unwrap().unknown_packs), (0, 0));
    let ids: Vec<BlobId> =
        (0..20).map(|nth| store.put(&content(&format!("xof:{nth}:40960"))[..]).unwrap().id).collect();
    let (records, open) = (20 * 10 * 4_160, sums(root, &store));
    assert_eq!((open.packs, open.pack_live_bytes), (1, records));
    assert!(open.pack_open_bytes > 0, "nothing is reserved");
    store.close();

    let store = packed(root).open().unwrap();
    let sealed = sums(root, &store);
    assert_eq!((sealed.pack_open_bytes, sealed.pack_live_bytes, sealed.pack_dead_bytes), (0, records, 0));
    for id in &ids[..10] {
        store.delete(id).unwrap();
    }
    // Released, and no more: the limit is reached.
    gc(&store, 0, Some(100));
    let released = sums(root, &store);
    assert_eq!((released.pack_live_bytes, released.pack_pending_bytes), (records / 2, records / 2));
    gc(&store, 0, None);
    let punched = sums(root, &store);
    assert_eq!((punched.pack_live_bytes, punched.pack_pending_bytes), (records / 2, 0));
    assert!(punched.pack_punched_bytes > 400_000 && punched.pack_dead_bytes < 10_000, "{punched:?}");
    is_on_the_disk(root, &punched);

    for id in &ids[10..19] {
        store.delete(id).unwrap();
    }
    gc(&store, 0, Some(90));
    gc(&store, 3_600, None);
    sums(root, &store);
    store.delete(&ids[19]).unwrap();
    gc(&store, 0, Some(10));
    gc(&store, 3_600, None);
    let waiting = sums(root, &store);
    assert_eq!((waiting.pack_live_bytes, waiting.pack_dead_bytes), (0, 0), "{waiting:?}");
    assert!(waiting.pack_pending_bytes > 0, "{waiting:?}");
    is_on_the_disk(root, &waiting);
    collect(&store);
    // The one that the collections wrote to is not sealed before.
    store.close();
    let store = packed(root).open().unwrap();
    collect(&store);
    assert_eq!(sums(root, &store).packs, 0);
}

/// Blocks of the filesystem are allocated for what is not punched, within a few of them for each pack.
fn is_on_the_disk(root: &Path, stats: &StoreStats) {
    let allocated: u64 = packs(root).iter().map(|pack| pack.metadata().unwrap().blocks() * 512).sum();
    let files: u64 = packs(root).iter().map(|pack| pack.metadata().unwrap().len()).sum();
    let expected = files - stats.pack_punched_bytes;
    assert!(
        allocated.abs_diff(expected) <= 8_192 * stats.packs,
        "{allocated} bytes, not {expected}: {stats:?}"
    );
}

#[test]
fn packs_that_the_database_does_not_know_are_counted_apart() {
    let root = tempfile::tempdir().unwrap();
    let store = packed(root.path()).open().unwrap();
    store.put(&b"content"[..]).unwrap();
    store.close();
    let directory = root.path().join("cas/blocks-packs");
    std::fs::write(directory.join(format!("{}.pack", "0".repeat(32))), [7; 1_000]).unwrap();
    let store = packed(root.path()).open().unwrap();
    let stats = sums(root.path(), &store);
    assert_eq!((stats.packs, stats.unknown_packs, stats.unknown_pack_bytes), (1, 1, 1_000));
    assert_eq!(verify(&store).unreferenced_bytes, 1_000);
    std::fs::remove_file(directory.join(format!("{}.pack", "0".repeat(32)))).unwrap();
    assert_eq!(sums(root.path(), &store).unknown_packs, 0);
}

#[test]
fn receipts_say_how_many_bytes_new_blocks_take() {
    for (layout, compression) in [("files", "none"), ("packs", "none"), ("packs", "zstd")] {
        if compression == "zstd" && !cfg!(feature = "zstd") {
            continue;
        }
        let root = tempfile::tempdir().unwrap();
        let config = packed(root.path()).set("GRAVITON_BLOCK_LAYOUT", layout).unwrap();
        let store = config.set("GRAVITON_COMPRESSION", compression).unwrap().open().unwrap();
        let mut before = 0;
        // By the short way, and by the long one.
        for recipe in ["lines:a:3000", "xof:b:3000", "lines:c:2000000", "xof:d:2000000"] {
            let put = store.put(&content(recipe)[..]).unwrap();
            let stored = store.stats().unwrap().stored_bytes;
            assert_eq!(put.fresh_stored_bytes, stored - before, "{layout} {compression} {recipe}");
            let shrinks = compression == "zstd" && recipe.starts_with("lines");
            assert_eq!(put.fresh_stored_bytes < put.fresh_bytes, shrinks, "{layout} {compression} {recipe}");
            let again = store.put(&content(recipe)[..]).unwrap();
            assert_eq!((again.fresh_bytes, again.fresh_stored_bytes), (0, 0));
            before = stored;
        }
    }
}
