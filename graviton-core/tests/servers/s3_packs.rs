//! Packs as objects in S3: the number of requests, requests that fail, and objects that are damaged.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use graviton_core::block::S3BlockStore;
use graviton_core::block::pack::Compression;
use graviton_core::testing::Recipe;
use graviton_core::{
    AsyncStore, BlobId, BlockLayout, BlockStore, Code, Durability, Error, GcOptions, GcReport, ManifestRepo,
    Opening, PutOptions, Result, Settings, VerifyOptions,
};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tempfile::TempDir;

use crate::support::needs_servers;
use crate::support::proxy::{Fault, Proxy, error};
use crate::support::s3;
use crate::support::s3::Prefix;

const BLOCK: usize = 4_000;

/// A change to an object.
type Damage = fn(&mut Vec<u8>);

struct Scene {
    proxy: Proxy,
    place: Prefix,
    directory: TempDir,
    /// By way of the proxy.
    store: AsyncStore,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(Prefix::store).await
    }

    async fn with(make: impl FnOnce(&Prefix) -> S3BlockStore) -> Scene {
        let proxy = Proxy::to(&s3::seaweedfs()).await;
        let place = Prefix { url: proxy.url.clone(), ..Prefix::new(&s3::seaweedfs()) };
        let directory = tempfile::tempdir().unwrap();
        let store = Scene::open(make(&place), &directory).await;
        Scene { proxy, place, directory, store }
    }

    async fn open(blocks: S3BlockStore, directory: &TempDir) -> AsyncStore {
        Scene::try_open(blocks, directory).await.unwrap()
    }

    async fn try_open(blocks: S3BlockStore, directory: &TempDir) -> Result<AsyncStore> {
        let path = directory.path().join("manifests.db");
        let manifests = ManifestRepo::open_sqlite(&path, Durability::Full, Opening::Create).await.unwrap();
        let settings = Settings {
            chunker: format!("fixed:{BLOCK}").parse().unwrap(),
            layout: BlockLayout::Packs,
            compression: Compression::None,
            ..Settings::default()
        };
        let blocks: Arc<dyn BlockStore> = Arc::new(blocks);
        AsyncStore::new(blocks, Arc::new(manifests), settings).await
    }

    fn sql(&self, statement: &str) -> usize {
        let connection = rusqlite::Connection::open(self.directory.path().join("manifests.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection.execute(statement, []).unwrap()
    }

    async fn gc(&self) -> Result<GcReport, Error> {
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        self.store.gc(&options, |_| ControlFlow::Continue(())).await
    }

    /// The objects of packs.
    async fn packs(&self) -> Vec<(Path, u64)> {
        let path = Path::from(format!("{}-packs", self.place.prefix));
        let listed = self.raw().list_with_delimiter(Some(&path)).await.unwrap();
        listed
            .objects
            .into_iter()
            .map(|object| (object.location, object.size))
            .filter(|(at, _)| *at != path)
            .collect()
    }

    /// The objects under the prefix of the blocks.
    async fn objects_of_blocks(&self) -> usize {
        let path = Path::from(format!("{}/blake3", self.place.prefix));
        let listed = self.raw().list_with_delimiter(Some(&path)).await.unwrap();
        listed.objects.iter().filter(|object| object.location != path).count()
    }

    fn raw(&self) -> AmazonS3 {
        self.place.raw()
    }

    async fn change(&self, pack: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.raw().get(pack).await.unwrap().bytes().await.unwrap().to_vec();
        change(&mut bytes);
        self.raw().put(pack, PutPayload::from(bytes)).await.unwrap();
    }

    async fn read(&self, id: &BlobId) -> Result<Vec<u8>> {
        let mut reader = self.store.reader(id).await?;
        let mut bytes = Vec::new();
        while let Some(next) = reader.next().await? {
            bytes.extend_from_slice(&next);
        }
        Ok(bytes)
    }

    async fn is_clean(&self) -> bool {
        let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
        self.store.verify(&options, |_| ControlFlow::Continue(())).await.unwrap().is_clean()
    }

    /// The requests since the last call that put or get a pack.
    fn requests(&self, method: &str) -> usize {
        let seen = self.proxy.take_seen();
        seen.iter().filter(|seen| seen.method == method && seen.target.contains("-packs/")).count()
    }
}

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blocks_share_a_request() {
    needs_servers!();
    let scene = Scene::new().await;
    let puts: Vec<_> = (0..600)
        .map(|number| {
            let store = scene.store.clone();
            tokio::spawn(async move { store.put(&content(&format!("xof:{number}:{BLOCK}"))[..]).await })
        })
        .collect();
    let mut ids = Vec::new();
    for put in puts {
        ids.push(put.await.unwrap().unwrap().id);
    }
    let puts = scene.requests("PUT");
    assert!(puts <= 40, "600 small puts took {puts} requests");
    assert_eq!(scene.objects_of_blocks().await, 0);
    for (number, id) in ids.iter().enumerate() {
        assert!(scene.read(id).await.unwrap() == content(&format!("xof:{number}:{BLOCK}")));
    }

    let long = content("xof:long:30000000");
    scene.proxy.take_seen();
    let put = scene.store.put(&long[..]).await.unwrap();
    assert_eq!(put.fresh_blocks, long.len().div_ceil(BLOCK) as u64);
    let puts = scene.requests("PUT");
    assert!(puts <= 40, "7,500 blocks of a long put took {puts} requests");
    assert!(scene.read(&put.id).await.unwrap() == long);
    let gets = scene.requests("GET");
    assert!(gets <= 100, "7,500 blocks of a long get took {gets} requests");
    for (_, bytes) in scene.packs().await {
        assert!(bytes <= 16 << 20);
    }
    // Known content sends nothing.
    scene.store.put(&long[..]).await.unwrap();
    assert_eq!(scene.requests("PUT"), 0);
    assert!(scene.is_clean().await);
    let gets = scene.requests("GET");
    assert!(gets <= 300, "8,100 blocks of a deep verification took {gets} requests");
    scene.store.verify(&VerifyOptions::default(), |_| ControlFlow::Continue(())).await.unwrap();
    let heads = scene.requests("HEAD");
    assert!(heads <= 300, "8,100 blocks of a verification took {heads} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_jumps_read_the_right_bytes() {
    needs_servers!();
    let scene = Scene::new().await;
    let bytes = content("xof:ranges:900000");
    let id = scene.store.put(&bytes[..]).await.unwrap().id;
    let mut reader = scene.store.reader(&id).await.unwrap();
    for (from, length) in
        [(0, 10), (899_990, 10), (3_999, 2), (400_000, 300_000), (8_000, 4_000), (0, 900_000)]
    {
        let range = scene.store.read_range(&id, from..from + length).await.unwrap();
        assert!(range == bytes[from as usize..(from + length) as usize], "{from} {length}");
        reader.seek(from);
        let next = reader.next().await.unwrap().unwrap();
        assert!(next == bytes[from as usize..][..next.len()], "{from}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_objects_are_told_and_healed() {
    needs_servers!();
    let scene = Scene::new().await;
    let bytes = content("xof:damage:40000");
    let id = scene.store.put(&bytes[..]).await.unwrap().id;
    let expect = PutOptions::new().expect(id);
    let harms: [(Damage, Code); 5] = [
        (|bytes| bytes.truncate(9_000), Code::CorruptBlock),
        (Vec::clear, Code::MissingBlock),
        // In a payload.
        (|bytes| bytes[200] ^= 1, Code::CorruptBlock),
        // In the header of a record.
        (|bytes| bytes[64 + 20] ^= 1, Code::CorruptBlock),
        (|bytes| bytes.iter_mut().for_each(|byte| *byte = 0), Code::CorruptBlock),
    ];
    for (number, (harm, code)) in harms.into_iter().enumerate() {
        // Where the blocks are now.
        let name = scene.name_of(&id);
        scene.change(&name, harm).await;
        let error = scene.read(&id).await.unwrap_err();
        assert_eq!(error.code(), code, "{number}: {error}");
        let text = error.to_string();
        assert!(text.contains("-packs/") && text.contains("block blake3:"), "{number}: {text}");
        assert!(!scene.is_clean().await, "{number}");
        scene.store.put_with(&expect).source(&bytes[..]).await.unwrap();
        assert!(scene.read(&id).await.unwrap() == bytes, "{number}");
        assert!(scene.is_clean().await, "{number}");
    }
    // It is gone, and nobody has read since.
    let name = scene.name_of(&id);
    scene.raw().delete(&name).await.unwrap();
    scene.store.put_with(&expect).source(&bytes[..]).await.unwrap();
    assert!(scene.read(&id).await.unwrap() == bytes);
}

impl Scene {
    /// The pack that has the first block of the blob now.
    fn name_of(&self, id: &BlobId) -> Path {
        let connection = rusqlite::Connection::open(self.directory.path().join("manifests.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        let sql = "SELECT pack.name FROM blob JOIN blob_block ON blob_id = blob.id \
            JOIN data_block ON data_block.id = block_id JOIN pack ON pack.id = pack_id \
            WHERE blob.digest = ?1 AND blob.state = 1 AND block_offset = 0";
        let digest = id.digest().as_bytes().as_slice();
        let name: String = connection.query_row(sql, [digest], |row| row.get(0)).unwrap();
        Path::from(format!("{}-packs/{name}", self.place.prefix))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_of_deleted_blobs_comes_back_by_compaction() {
    needs_servers!();
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for number in 0..60 {
        let bytes = content(&format!("xof:{number}:40000"));
        ids.push((scene.store.put(&bytes[..]).await.unwrap().id, bytes));
    }
    // One pack with all of them, as a long put makes it.
    let all: Vec<u8> = ids.iter().flat_map(|(_, bytes)| bytes.iter().rev().copied()).collect();
    let whole = scene.store.put(&all[..]).await.unwrap().id;
    for (id, _) in ids.iter().step_by(2) {
        scene.store.delete(id).await.unwrap();
    }
    scene.store.delete(&whole).await.unwrap();
    // Moving and dropping come in this order in one run; what the moving wrote is sealed by the next.
    for _ in 0..2 {
        assert!(scene.gc().await.unwrap().complete);
    }
    let stored = scene.store.stats().await.unwrap().stored_bytes;
    let headers = 64 * 300;
    let held: u64 = scene.packs().await.iter().map(|(_, bytes)| bytes).sum();
    assert!(held * 10 <= (stored + headers) * 11, "{held} bytes are kept for {stored}");
    for (id, bytes) in ids.iter().skip(1).step_by(2) {
        assert!(scene.read(id).await.unwrap() == *bytes);
    }
    assert!(scene.is_clean().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_was_sent_twice_is_dropped_when_no_request_can_be_late() {
    needs_servers!();
    let scene = Scene::new().await;
    scene.proxy.harm("PUT", "-packs/", 1, Fault::LostReply);
    let bytes = content("xof:twice:9000");
    let id = scene.store.put(&bytes[..]).await.unwrap().id;
    assert!(scene.read(&id).await.unwrap() == bytes);
    scene.store.delete(&id).await.unwrap();
    scene.gc().await.unwrap();
    assert_eq!(scene.packs().await.len(), 1, "it might come back without a row");
    // Half an hour later; and a clock that was ahead counts for no longer than that.
    let later = "UPDATE pack SET in_doubt_until = 1 WHERE in_doubt_until > 1";
    assert_eq!(scene.sql(later), 1);
    scene.gc().await.unwrap();
    assert_eq!(scene.packs().await, []);

    let id = scene.store.put(&bytes[..]).await.unwrap().id;
    scene.sql("UPDATE pack SET in_doubt_until = 9000000000000");
    scene.store.delete(&id).await.unwrap();
    scene.gc().await.unwrap();
    assert_eq!(scene.packs().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_comes_after_its_put_failed_is_found_and_dropped() {
    needs_servers!();
    let scene = Scene::with(|place| place.hasty_store(500, 1_000)).await;
    scene.store.put(&b"first"[..]).await.unwrap();
    scene.proxy.harm("PUT", "-packs/", usize::MAX, Fault::Kept);
    let bytes = content("xof:late:9000");
    let failed = scene.store.put(&bytes[..]).await.unwrap_err();
    assert_eq!(failed.code(), Code::BackendUnavailable, "{failed}");
    assert!(failed.is_retryable());
    scene.proxy.heal();
    // Under another name.
    let id = scene.store.put(&bytes[..]).await.unwrap().id;
    scene.proxy.release().await;
    assert_eq!(scene.packs().await.len(), 3, "the late one is there");
    assert!(scene.read(&id).await.unwrap() == bytes && scene.is_clean().await);
    // The maker is gone.
    scene.sql("UPDATE writer SET expires_at = 1");
    scene.gc().await.unwrap();
    assert_eq!(scene.packs().await.len(), 3, "another attempt may be late as well");
    scene.sql("UPDATE pack SET in_doubt_until = 1");
    scene.gc().await.unwrap();
    assert_eq!(scene.packs().await.len(), 2);
    assert!(scene.read(&id).await.unwrap() == bytes && scene.is_clean().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_prefix_is_named_with_the_permission() {
    needs_servers!();
    let scene = Scene::new().await;
    scene.proxy.harm("PUT", "-packs/", usize::MAX, error(403, "AccessDenied"));
    let refused = scene.store.put(&b"something"[..]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Forbidden, "{refused}");
    let text = format!("{refused} {}", refused.advice().unwrap_or_default());
    assert!(text.contains(&format!("{}-packs/", scene.place.prefix)), "{text}");
    assert!(text.contains("s3:PutObject"), "{text}");
    scene.proxy.heal();
    scene.store.put(&b"something"[..]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_alone_are_blocks_that_another_database_may_not_take() {
    needs_servers!();
    let scene = Scene::new().await;
    scene.store.put(&b"something"[..]).await.unwrap();
    let id = Path::from(format!("{}/store-id", scene.place.prefix));
    scene.raw().delete(&id).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let blocks = scene.place.store();
    assert!(graviton_core::block::Identity::has_blocks(&blocks).await.unwrap());
    let refused = Scene::try_open(blocks, &other).await.unwrap_err();
    assert_eq!(refused.code(), Code::Config, "{refused}");
}
