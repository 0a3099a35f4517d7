//! Checks that a store at rest holds exactly the reachable blocks, no fewer and no more.
//!
//! The block store is listed without the engine (through the directory, or an independent S3 client), and the
//! rows are paged through the repository, so that the engine does not confirm its own sums.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graviton_core::block::s3::{S3Location, S3Server};
use graviton_core::block::{FsBlockStore, S3BlockStore};
use graviton_core::manifest::postgres::PostgresAddress;
use graviton_core::manifest::{BlockRecord, BlockRow};
use graviton_core::{
    BlobId, BlockStore, Durability, GcReport, ManifestRepo, Opening, Store, VerifyEvent, VerifyOptions,
    VerifyReport,
};
use object_store::ObjectStore;

pub(crate) use super::ownership::collect;
use super::pair::{self, Blocks, Pair, in_runtime, s3_client};

/// The two halves of a store with these settings (empty for unset ones), for code that goes between them and
/// the engine.
pub(crate) async fn halves(setting: impl Fn(&str) -> String) -> (Arc<dyn BlockStore>, ManifestRepo) {
    let root = PathBuf::from(setting("GRAVITON_FS_ROOT"));
    let blocks: Arc<dyn BlockStore> = if setting("GRAVITON_BLOB_BACKEND").is_empty() {
        Arc::new(FsBlockStore::new(&root, "cas/blocks", true))
    } else {
        let (user, password) = (setting("MINIO_ROOT_USER"), setting("MINIO_ROOT_PASSWORD"));
        let server = S3Server::new(&setting("QUASAR_MINIO_URL"), &user, &password).unwrap();
        let location = S3Location::new(pair::BUCKET, &setting("GRAVITON_S3_BLOCK_PREFIX")).unwrap();
        Arc::new(S3BlockStore::new(location.at(server).unwrap().in_region("us-east-1")).unwrap())
    };
    let url = setting("GRAVITON_MANIFEST_URL");
    let manifests = if url.is_empty() {
        let path = root.join("manifests.db");
        ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap()
    } else {
        let address = PostgresAddress::parse("GRAVITON_MANIFEST_URL", &url, None, None).unwrap();
        ManifestRepo::open_postgres(&address, Durability::Full, Opening::Create).await.unwrap()
    };
    (blocks, manifests)
}

/// A setting of this pair.
pub(crate) fn setting(pair: &Pair, name: &str) -> String {
    if name == "GRAVITON_FS_ROOT" {
        return pair.root.path().to_str().unwrap().to_owned();
    }
    let set = pair.settings.iter().find(|(set, _)| *set == name);
    set.map_or(String::new(), |(_, value)| value.clone())
}

/// Verifies everything, down to every byte, and returns the findings as text too.
pub(crate) fn verify(store: &Store, adopt: bool) -> graviton_core::Result<(VerifyReport, String)> {
    let mut findings = Vec::new();
    let options = VerifyOptions { deep: true, adopt, ..VerifyOptions::default() };
    let report = store.verify(&options, |event| {
        if let VerifyEvent::Found(finding) = event {
            findings.push(format!("{finding:?}"));
        }
        ControlFlow::Continue(())
    });
    Ok((report?, findings.join("\n")))
}

/// All live blobs, each read back whole.
pub(crate) fn live_and_intact(store: &Store) -> BTreeSet<BlobId> {
    let listed = store.list(None, 100_000).unwrap();
    for stat in &listed {
        let bytes = store
            .read_range(&stat.id, 0..u64::MAX)
            .unwrap_or_else(|error| panic!("{} is live, and cannot be read: {error}", stat.id));
        assert_eq!(BlobId::of(stat.id.algo(), &bytes), stat.id, "wrong bytes");
    }
    listed.iter().map(|stat| stat.id).collect()
}

/// The names of the existing blocks, as listed from outside; for files also the entries of `.tmp`.
fn names(pair: &Pair, blocks: Blocks) -> (BTreeSet<String>, BTreeSet<String>) {
    let entries = |directory: &str| -> BTreeSet<String> {
        let path = pair.root.path().join("cas/blocks").join(directory);
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let objects = || {
        let directory = format!("{}/blake3", pair.setting("GRAVITON_S3_BLOCK_PREFIX"));
        let path = object_store::path::Path::from(directory);
        let listed = in_runtime(async { s3_client().list_with_delimiter(Some(&path)).await.unwrap() });
        let name = |path: &object_store::path::Path| path.filename().unwrap().to_owned();
        // SeaweedFS shows a directory that has become empty as an object.
        let objects = listed.objects.iter().filter(|object| object.location != path);
        objects.map(|object| name(&object.location)).collect::<BTreeSet<String>>()
    };
    let of_rows = || rows(pair).iter().map(|row| row.key.name()).collect();
    match blocks {
        Blocks::Files => (entries("blake3"), entries(".tmp")),
        // A record without a row belongs to nobody. The verification below checks that each row has its
        // record.
        Blocks::Packs => {
            assert_eq!(entries("blake3"), BTreeSet::new(), "there are files beside packs");
            (of_rows(), entries(".tmp"))
        }
        Blocks::S3 => (objects(), BTreeSet::new()),
        Blocks::S3Packs => {
            assert_eq!(objects(), BTreeSet::new(), "there are objects beside packs");
            (of_rows(), BTreeSet::new())
        }
    }
}

/// All rows of blocks.
fn rows(pair: &Pair) -> Vec<BlockRecord> {
    in_runtime(async {
        let (_, manifests) = halves(|name| setting(pair, name)).await;
        let rows = manifests.blocks(BlockRow(0), 1_000_000).await.unwrap();
        manifests.close().await;
        rows
    })
}

/// Collects until leases and dooms of dead processes have run out and nothing is left to do. Returns the
/// number of blocks.
pub(crate) fn collect_all(pair: &Pair, store: &Store, within: Duration) -> u64 {
    let deadline = Instant::now() + within;
    let mut blocks = 0;
    // No row knows the blocks of a put on the short path that died.
    verify(store, true).unwrap();
    loop {
        let report = collect(store).unwrap();
        blocks += report.blocks;
        let stats = store.stats().unwrap();
        let idle = report.blobs + report.blocks + report.abandoned_puts + report.kept_doomed == 0;
        if idle && report.complete && stats.reclaimable_bytes == 0 && stats.dead_blobs == 0 {
            // A pending blob is not garbage before its lease is over.
            let pending: Vec<_> = rows(pair).into_iter().filter(|row| !(row.stored && row.live)).collect();
            if pending.is_empty() {
                return blocks;
            }
            assert!(Instant::now() < deadline, "these are still kept: {pending:?}");
        }
        assert!(Instant::now() < deadline, "there is still garbage: {report:?} {stats:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Checks that stored blocks, rows that say `stored`, and blocks that live blobs reference are the same set.
pub(crate) fn assert_exact(pair: &Pair, store: &Store) {
    assert_exact_in(pair.blocks, pair, store);
}

/// The same, with all blocks in another layout than the pair's.
pub(crate) fn assert_exact_in(blocks: Blocks, pair: &Pair, store: &Store) {
    let mut referenced = BTreeSet::new();
    for stat in store.list(None, 100_000).unwrap() {
        let entries = store.manifest(&stat.id, 0, 100_000).unwrap();
        referenced.extend(entries.iter().map(|entry| entry.key.name()));
    }
    let (found, temporary) = names(pair, blocks);
    let difference = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.difference(other).cloned().collect()
    };
    assert_eq!(difference(&referenced, &found), [""; 0], "blocks that live blobs need are not there");
    assert_eq!(difference(&found, &referenced), [""; 0], "blocks that nothing needs are there");
    assert!(temporary.is_empty(), "there are leftovers: {temporary:?}");

    let rows = rows(pair);
    assert!(rows.iter().all(|row| row.stored && row.live), "there are rows of garbage: {rows:?}");
    let is_packed = blocks.are_packed();
    assert!(
        rows.iter().all(|row| row.located.is_some() == is_packed),
        "a block is in the wrong place: {rows:?}"
    );
    let rows: BTreeSet<String> = rows.iter().map(|row| row.key.name()).collect();
    assert_eq!(rows, referenced);
    let (report, findings) = verify(store, false).unwrap();
    assert!(report.is_clean() && findings.is_empty(), "{findings}");
}
