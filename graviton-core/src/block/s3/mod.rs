//! Blocks as objects in S3 or in a server that speaks S3, such as MinIO: `<prefix>/<algo>/<hex>-<size>`, each
//! object the raw bytes of its block. Beside the prefixes of the algorithms is `store-id`, the id of the
//! database that owns the blocks. Packs are beside the prefix: `<prefix>-packs/<name>`.
//!
//! The server must show an object whole or not at all, and must show it to everybody once the put has
//! returned. AWS, MinIO and SeaweedFS do. Puts carry a checksum. A server that does not compare it, or that
//! refuses it and gets puts without one, may store bytes that were damaged in transit; the next read detects
//! that.
//!
//! `location` is the address, `client` makes the client of `object_store`, `transport` is below it and sees
//! each attempt, `failure` classifies the errors, `shared` sends the requests, `removal` deletes. `packs` are
//! objects of many blocks.
//!
//! Two databases may open a place for the first time *at the same moment*: the condition `If-None-Match`
//! gives it to one of them. A test object of our own detects a server that ignores the condition; such a
//! server is refused.

mod client;
mod failure;
mod location;
mod packs;
mod removal;
mod shared;
mod transport;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use once_cell::sync::OnceCell;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Aside, Asides, Block, BlockStore, Disk, Identity, Listed, Listing, Packs, Published, Removal};
use crate::blocking;
use crate::digest::Algo;
use crate::error::Result;
use crate::key::BlockKey;

use client::client;
use packs::S3Packs;
use removal::SignedRemoval;
use shared::{Shared, closed};

pub use client::Patience;
pub use location::{S3Location, S3Server};
pub(crate) use location::{check_bucket, check_prefix, check_url};

/// Requests of one store at once.
const MOST_PUTS: usize = 32;
const MOST_GETS: usize = 64;

/// Blocks in S3. Clones share everything.
#[derive(Clone)]
pub struct S3BlockStore(Arc<Shared>);
impl S3BlockStore {
    /// Blocks in this place. Sends nothing.
    pub fn new(location: S3Location) -> Result<S3BlockStore> {
        S3BlockStore::with_patience(location, Patience::USUAL, Patience::OPENING)
    }

    /// The same with other time-outs: the usual ones, and those of what is asked when a store is opened.
    pub fn with_patience(location: S3Location, usual: Patience, opening: Patience) -> Result<S3BlockStore> {
        let client = client(&location, usual.attempt)?;
        let scheme = if client.is_aws { "s3:/" } else { client.endpoint.as_str() };
        Ok(S3BlockStore(Arc::new(Shared {
            name: format!("{scheme}/{}", location.path()),
            location,
            endpoint: client.endpoint,
            s3: client.s3,
            without_checksum: (client.without_checksum, OnceCell::new()),
            refuses_checksums: AtomicBool::new(false),
            http: client.http,
            usual,
            opening,
            puts: Arc::new(Semaphore::new(MOST_PUTS)),
            gets: Semaphore::new(MOST_GETS),
        })))
    }
}
/// The objects of the algorithms, one after the other.
struct BucketListing {
    shared: Arc<Shared>,
    rest: Vec<Algo>,
    /// Where to go on.
    next: Option<(Algo, String)>,
}

#[async_trait]
impl Listing for BucketListing {
    async fn next(&mut self) -> Result<Vec<Listed>> {
        loop {
            let (algo, token) = match self.next.take() {
                Some((algo, token)) => (algo, Some(token)),
                None => match self.rest.pop() {
                    Some(algo) => (algo, None),
                    None => return Ok(Vec::new()),
                },
            };
            let (page, token) = self.shared.page(algo, token).await?;
            self.next = token.map(|token| (algo, token));
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}
#[async_trait]
impl BlockStore for S3BlockStore {
    async fn put(&self, blocks: Vec<Block>) -> Result<Published> {
        let mut puts = JoinSet::new();
        for block in blocks {
            let shared = Arc::clone(&self.0);
            puts.spawn(async move {
                let _permit = Arc::clone(&shared.puts).acquire_owned().await.map_err(|_| closed())?;
                shared.put(block).await
            });
        }
        // The others end with the set, be it by an error or because nobody waits any more.
        while let Some(put) = puts.join_next().await {
            blocking::joined(put)??;
        }
        Ok(Published::without_proof())
    }

    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        self.0.get(key, range).await
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        self.0.length(key).await
    }

    async fn seems_intact(&self, keys: &[BlockKey]) -> Result<Vec<bool>> {
        Ok(vec![true; keys.len()])
    }

    fn place(&self, key: &BlockKey) -> String {
        self.0.place(key)
    }

    async fn prepare_removal(&self, blocks: &[Aside], valid: Duration) -> Result<Box<dyn Removal>> {
        Ok(Box::new(SignedRemoval::prepare(Arc::clone(&self.0), blocks, valid).await?))
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        Ok(Box::new(BucketListing { shared: Arc::clone(&self.0), rest: Algo::ALL.to_vec(), next: None }))
    }

    fn is_local(&self) -> bool {
        false
    }

    fn proves_publication(&self) -> bool {
        false
    }

    fn asides(&self) -> Option<Box<dyn Asides>> {
        None
    }

    fn disk(&self) -> Option<Box<dyn Disk>> {
        None
    }

    fn packs(&self) -> Option<Arc<dyn Packs>> {
        Some(Arc::new(S3Packs(Arc::clone(&self.0))))
    }
}

#[async_trait]
impl Identity for S3BlockStore {
    fn location(&self) -> String {
        self.0.name.clone()
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.0.store_id().await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        self.0.create_store_id(id).await
    }

    async fn generation(&self) -> Result<u64> {
        self.0.generation().await
    }

    async fn raise_generation(&self, to: u64) -> Result<()> {
        self.0.raise_generation(to).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        self.0.has_blocks().await
    }
}

impl fmt::Debug for S3BlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3BlockStore").field(&self.0.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_is_polled_once_sends_nothing() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let location = S3Location::new("bucket", "prefix").unwrap();
        let location = location.at(S3Server::new(&url, "somebody", "secret").unwrap()).unwrap();
        let store = S3BlockStore::new(location).unwrap();
        let key = BlockKey::of(Algo::Blake3, b"a block").unwrap();
        assert!(blocking::at_once(store.get(&key, None)).is_none());
        assert!(blocking::at_once(store.length(&key)).is_none());
        assert!(blocking::at_once(store.store_id()).is_none());
        assert!(blocking::at_once(store.has_blocks()).is_none());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        // A call that may wait does connect.
        let asking = tokio::time::timeout(Duration::from_millis(500), store.length(&key));
        assert!(asking.await.is_err());
        server.accept().unwrap();
    }
}
