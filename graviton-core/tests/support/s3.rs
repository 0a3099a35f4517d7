//! The servers that speak S3, and places in their bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use graviton_core::BlockKey;
use graviton_core::block::S3BlockStore;
use graviton_core::block::s3::{Patience, S3Location, S3Server};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::servers::variable;

pub(crate) const BUCKET: &str = "graviton-test";

/// The URL of SeaweedFS.
pub(crate) fn seaweedfs() -> String {
    variable("GRAVITON_TEST_S3")
}

/// The URL of moto.
pub(crate) fn moto() -> String {
    variable("GRAVITON_TEST_MOTO")
}

pub(crate) fn user() -> String {
    variable("GRAVITON_TEST_S3_USER")
}

pub(crate) fn password() -> String {
    variable("GRAVITON_TEST_S3_PASSWORD")
}

pub(crate) fn server(url: &str) -> S3Server {
    S3Server::new(url, &user(), &password()).unwrap()
}

/// A prefix that nobody has used.
pub(crate) fn new_prefix() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    format!("core-tests/{}-{now}-{number}", std::process::id())
}

/// A prefix in the bucket of one server, which is left behind: the server is gone after the tests.
pub(crate) struct Prefix {
    pub(crate) url: String,
    pub(crate) prefix: String,
}

impl Prefix {
    pub(crate) fn new(url: &str) -> Prefix {
        Prefix { url: url.to_owned(), prefix: new_prefix() }
    }

    pub(crate) fn location(&self) -> S3Location {
        S3Location::new(BUCKET, &self.prefix).unwrap().at(server(&self.url)).unwrap().in_region("us-east-1")
    }

    pub(crate) fn store(&self) -> S3BlockStore {
        S3BlockStore::new(self.location()).unwrap()
    }

    /// A store that loses its patience soon.
    pub(crate) fn hasty_store(&self, attempt_ms: u64, total_ms: u64) -> S3BlockStore {
        let patience =
            Patience { attempt: Duration::from_millis(attempt_ms), total: Duration::from_millis(total_ms) };
        S3BlockStore::with_patience(self.location(), patience, patience).unwrap()
    }

    /// A client that is not ours.
    pub(crate) fn raw(&self) -> AmazonS3 {
        let builder = AmazonS3Builder::new().with_endpoint(&self.url).with_allow_http(true);
        let builder = builder.with_access_key_id(user()).with_secret_access_key(password());
        builder.with_region("us-east-1").with_bucket_name(BUCKET).build().unwrap()
    }

    /// The path of a block's object, written down once more than in the store.
    pub(crate) fn path(&self, key: &BlockKey) -> Path {
        let Prefix { prefix, .. } = self;
        Path::parse(format!("{prefix}/{}/{}-{}", key.algo().name(), key.digest(), key.size())).unwrap()
    }

    /// Puts any bytes under the key, or takes the object away.
    pub(crate) async fn damage(&self, key: &BlockKey, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => drop(self.raw().put(&self.path(key), PutPayload::from(bytes)).await.unwrap()),
            None => self.raw().delete(&self.path(key)).await.unwrap(),
        }
    }

    /// The bytes under the key, as they are.
    pub(crate) async fn object(&self, key: &BlockKey) -> Option<Bytes> {
        match self.raw().get_opts(&self.path(key), object_store::GetOptions::default()).await {
            Ok(found) => Some(found.bytes().await.unwrap()),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }
}
