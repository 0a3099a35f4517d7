//! Stores of every pair of block store and database, created through settings alone, on the servers of
//! `tests/servers`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use graviton_core::{Config, Store};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use tempfile::TempDir;

use super::postgres::TestDatabase;
use super::servers::{self, variable};

pub(crate) const BUCKET: &str = "graviton-test";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    Files,
    /// Files, with new blocks in packs.
    Packs,
    S3,
    /// S3, with new blocks in packs.
    S3Packs,
}

impl Blocks {
    /// Whether new blocks are in packs.
    pub(crate) fn are_packed(self) -> bool {
        matches!(self, Blocks::Packs | Blocks::S3Packs)
    }

    pub(crate) fn are_in_s3(self) -> bool {
        matches!(self, Blocks::S3 | Blocks::S3Packs)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manifests {
    Sqlite,
    Postgres,
}

/// The settings of one store, and the directory that is its root on this "host".
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) blocks: Blocks,
    pub(crate) manifests: Manifests,
    pub(crate) root: TempDir,
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Pair {
    pub(crate) fn new(blocks: Blocks, manifests: Manifests) -> Pair {
        let mut settings = vec![("GRAVITON_CHUNKER", "fastcdc:1024:4096:16384".to_owned())];
        if blocks.are_packed() {
            settings.push(("GRAVITON_BLOCK_LAYOUT", "packs".to_owned()));
        }
        if blocks.are_in_s3() {
            settings.extend([
                ("GRAVITON_BLOB_BACKEND", "minio".to_owned()),
                ("QUASAR_MINIO_URL", variable("GRAVITON_TEST_S3")),
                ("MINIO_ROOT_USER", variable("GRAVITON_TEST_S3_USER")),
                ("MINIO_ROOT_PASSWORD", variable("GRAVITON_TEST_S3_PASSWORD")),
                ("GRAVITON_S3_BLOCK_BUCKET", BUCKET.to_owned()),
                ("GRAVITON_S3_BLOCK_PREFIX", new_prefix()),
            ]);
        }
        if manifests == Manifests::Postgres {
            settings.push(("GRAVITON_MANIFEST_URL", new_database()));
        }
        Pair { blocks, manifests, root: tempfile::tempdir().unwrap(), settings }
    }

    /// One of each kind that is available here: without servers, only files and packs with SQLite.
    pub(crate) fn all() -> Vec<Pair> {
        let mut all =
            vec![Pair::new(Blocks::Files, Manifests::Sqlite), Pair::new(Blocks::Packs, Manifests::Sqlite)];
        if servers::are_there("every pair but those with SQLite and without S3") {
            all.push(Pair::new(Blocks::Files, Manifests::Postgres));
            all.push(Pair::new(Blocks::Packs, Manifests::Postgres));
            all.push(Pair::new(Blocks::S3, Manifests::Sqlite));
            all.push(Pair::new(Blocks::S3, Manifests::Postgres));
            all.push(Pair::new(Blocks::S3Packs, Manifests::Sqlite));
            all.push(Pair::new(Blocks::S3Packs, Manifests::Postgres));
        }
        all
    }

    pub(crate) fn config(&self) -> Config {
        let set = |config: Config, (name, value): &(&str, String)| config.set(name, value).unwrap();
        self.settings.iter().fold(Config::for_directory(self.root.path()), set)
    }

    pub(crate) fn open(&self) -> Store {
        self.config().open().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// The same settings with these changes.
    pub(crate) fn with(&self, changes: &[(&'static str, &str)]) -> Pair {
        let mut settings = self.settings.clone();
        settings.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        settings.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Pair { root: tempfile::tempdir().unwrap(), settings, ..*self }
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        &self.settings.iter().find(|(set, _)| *set == name).unwrap().1
    }
}

/// A prefix that nobody has used. Its objects disappear with the server.
pub(crate) fn new_prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    format!("pairs/{}-{now}-{number}", std::process::id())
}

/// The URL of an empty database.
pub(crate) fn new_database() -> String {
    in_runtime(TestDatabase::create()).url
}

/// An independent client of SeaweedFS.
pub(crate) fn s3_client() -> AmazonS3 {
    let builder = AmazonS3Builder::new()
        .with_endpoint(variable("GRAVITON_TEST_S3"))
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(variable("GRAVITON_TEST_S3_USER"))
        .with_secret_access_key(variable("GRAVITON_TEST_S3_PASSWORD"));
    builder.build().unwrap()
}

pub(crate) fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
