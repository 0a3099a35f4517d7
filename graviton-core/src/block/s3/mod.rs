//! Blocks as objects in S3 or in a server that speaks S3, such as MinIO: `<prefix>/<algo>/<hex>-<size>`,
//! each object the raw bytes of its block. Beside the algorithms' prefixes stands `store-id`, the id of the
//! database these blocks belong to.
//!
//! The server must show an object whole or not at all, and show it to everybody once the put has
//! returned. AWS, MinIO and SeaweedFS do. Puts carry a checksum; a server that does not compare it may
//! store what was damaged on its way, which the next read finds.
//!
//! `location` is where, `client` makes the client of `object_store`, `transport` is below it and sees each
//! attempt, `failure` gives the errors their names.
//!
//! Not guaranteed: that the first opening of a place by two databases *at the same moment* gives it to
//! one of them, where the server ignores `If-None-Match` (AWS, MinIO, SeaweedFS and moto heed it). Then
//! the later one wins, and the other's next opening says that the blocks belong to another database.

mod client;
mod failure;
mod location;
mod transport;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Extensions, GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{
    Block, BlockStore, CollectionLock, Deadline, Deleted, Listed, Listing, Published, missing, wrong_length,
};
use crate::blocking;
use crate::collection::Collection;
use crate::digest::Algo;
use crate::error::{Code, Error, Result, root_cause};
use crate::key::BlockKey;

use client::client;
use failure::{Action, Failure, Refusal};
use transport::Trace;

pub use client::Patience;
pub use location::{S3Location, S3Server};
pub(crate) use location::{check_bucket, check_prefix, check_url};

const STORE_ID: &str = "store-id";

/// An id is a few dozen letters; what is longer was not written by us.
const MOST_OF_AN_ID: usize = 256;

/// A page of one key.
const MOST_OF_A_LIST: usize = 64 << 10;

/// Requests of one store at once.
const MOST_PUTS: usize = 32;
const MOST_GETS: usize = 64;

/// Objects that one request deletes, and how long it may take.
const MOST_DELETED: usize = 1_000;
const DELETION: Duration = Duration::from_secs(10);

/// A page of a thousand keys.
const MOST_OF_A_PAGE: usize = 8 << 20;

/// In practice the total time ends the repeating, not the count.
const RETRIES: usize = 1_000;

/// Blocks in S3. Clones share everything.
#[derive(Clone)]
pub struct S3BlockStore(Arc<Shared>);

struct Shared {
    location: S3Location,
    endpoint: String,
    /// The answer of [`BlockStore::location`].
    name: String,
    s3: AmazonS3,
    /// For deletions, which are never repeated by the client underneath; made with the first.
    deleting: OnceLock<AmazonS3>,
    usual: Patience,
    opening: Patience,
    puts: Arc<Semaphore>,
    gets: Semaphore,
}

impl S3BlockStore {
    /// Blocks in this place. Sends nothing.
    pub fn new(location: S3Location) -> Result<S3BlockStore> {
        S3BlockStore::with_patience(location, Patience::USUAL, Patience::OPENING)
    }

    /// The same with other time-outs: the usual ones, and those of what is asked when a store is opened.
    pub fn with_patience(location: S3Location, usual: Patience, opening: Patience) -> Result<S3BlockStore> {
        let client = client(&location, RETRIES, usual.attempt)?;
        let scheme = if client.is_aws { "s3:/" } else { client.endpoint.as_str() };
        Ok(S3BlockStore(Arc::new(Shared {
            name: format!("{scheme}/{}", location.path()),
            location,
            endpoint: client.endpoint,
            s3: client.s3,
            deleting: OnceLock::new(),
            usual,
            opening,
            puts: Arc::new(Semaphore::new(MOST_PUTS)),
            gets: Semaphore::new(MOST_GETS),
        })))
    }
}

/// The answer of a GET.
enum Found {
    Bytes(Bytes),
    /// An object of another length than the key says; its bytes were not taken.
    Length(u64),
}

impl Shared {
    fn place(&self, key: &BlockKey) -> String {
        format!("{}/{}/{}", self.name, key.algo().name(), key.name())
    }

    /// Sends a request, again and again while it fails in a way that passes, until it or the patience is
    /// at its end. Answers are at most so long.
    async fn ask<T, F>(
        &self,
        patience: Patience,
        most: usize,
        send: impl FnOnce(Extensions) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        blocking::begins().await;
        let trace = Trace::new(patience.attempt, most);
        match tokio::time::timeout(patience.total, send(trace.extensions())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(trace.last_failure().unwrap_or_else(|| Failure::Senseless(root_cause(&error))))
            }
            Err(_) => Err(trace.last_failure().unwrap_or_else(|| Failure::silent(patience.total))),
        }
    }

    fn explain(&self, failure: Failure, action: Action, key: &str, tried: &str) -> Error {
        failure.explain(&self.location, &self.endpoint, action, key, tried)
    }

    async fn put(&self, block: Block) -> Result<()> {
        let key = self.location.key_of(&block.key);
        let patience = self.usual.for_bytes(block.bytes.len());
        let path = path(&key)?;
        let payload = PutPayload::from(block.bytes);
        let put =
            |extensions| self.s3.put_opts(&path, payload, PutOptions { extensions, ..PutOptions::default() });
        match self.ask(patience, MOST_OF_AN_ID, put).await {
            Ok(_) => Ok(()),
            Err(failure) => {
                let tried = format!("cannot write block {} to {}", block.key, self.place(&block.key));
                Err(self.explain(failure, Action::Write, &key, &tried))
            }
        }
    }

    /// The object, or a range of it, if it is as long as it should be.
    async fn fetch(&self, path: &Path, range: Option<Range<usize>>, size: usize) -> Result<Found, Failure> {
        let wanted = range.as_ref().map_or(size, Range::len);
        let range = range.map(|range| GetRange::Bounded(range.start as u64..range.end as u64));
        let get = |extensions| async {
            let got =
                self.s3.get_opts(path, GetOptions { range, extensions, ..GetOptions::default() }).await?;
            if got.meta.size != size as u64 {
                return Ok(Found::Length(got.meta.size));
            }
            got.bytes().await.map(Found::Bytes)
        };
        self.ask(self.usual.for_bytes(wanted), wanted, get).await
    }

    async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
        let size = key.size();
        let range = range.filter(|range| *range != (0..size));
        if let Some(Range { start, end }) = range.clone()
            && (start > end || end > size)
        {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("block {key} has no range {start}..{end}"),
            ));
        }
        let wanted = range.as_ref().map_or(size, Range::len);
        let object = self.location.key_of(key);
        if wanted > 0 {
            let _permit = self.gets.acquire().await.map_err(|_| closed())?;
            match self.fetch(&path(&object)?, range, size).await {
                Ok(Found::Bytes(bytes)) if bytes.len() == wanted => return Ok(bytes),
                Ok(Found::Bytes(bytes)) => {
                    return Err(wrong_length(key, &self.place(key), bytes.len() as u64));
                }
                Ok(Found::Length(length)) => return Err(wrong_length(key, &self.place(key), length)),
                Err(failure) if failure.is_absence() => return Err(missing(key, &self.place(key))),
                // The object ends before the range begins.
                Err(failure) if failure.status() == Some(416) => {}
                Err(failure) => {
                    let tried = format!("cannot read block {key} from {}", self.place(key));
                    return Err(self.explain(failure, Action::Read, &object, &tried));
                }
            }
        }
        match self.length(key).await? {
            Some(length) if wanted == 0 && length == size as u64 => Ok(Bytes::new()),
            Some(length) => Err(wrong_length(key, &self.place(key), length)),
            None => Err(missing(key, &self.place(key))),
        }
    }

    async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
        let object = self.location.key_of(key);
        let path = path(&object)?;
        let head = |extensions| {
            self.s3.get_opts(&path, GetOptions { head: true, extensions, ..GetOptions::default() })
        };
        match self.ask(self.usual, 0, head).await {
            Ok(found) => Ok(Some(found.meta.size)),
            Err(failure) if failure.is_absence() => Ok(None),
            Err(failure) => {
                let tried = format!("cannot look for block {key} at {}", self.place(key));
                Err(self.explain(failure, Action::Read, &object, &tried))
            }
        }
    }

    async fn store_id(&self) -> Result<Option<String>> {
        let key = self.location.under_prefix(STORE_ID);
        let path = path(&key)?;
        let get = |extensions| async {
            let got = self.s3.get_opts(&path, GetOptions { extensions, ..GetOptions::default() }).await?;
            if got.meta.size > MOST_OF_AN_ID as u64 {
                return Ok(None);
            }
            got.bytes().await.map(Some)
        };
        let tried = || format!("cannot read {}/{STORE_ID}", self.name);
        let found = match self.ask(self.opening, MOST_OF_AN_ID, get).await {
            Ok(found) => found,
            Err(failure) if failure.is_absence() => return Ok(None),
            Err(failure) => return Err(self.explain(failure, Action::Read, &key, &tried())),
        };
        let id = found.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim_end);
        // A server's console answers everything with a page.
        match id {
            Some(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(id.to_owned()))
            }
            _ => Err(Error::new(Code::Config, format!("{}: what is there is no id", tried())).with_advice(
                format!("check that {} is the address of an S3 server, not of its console", self.endpoint),
            )),
        }
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        // Asked first for the sake of servers that ignore the condition below.
        if let Some(id) = self.store_id().await? {
            return Ok(id);
        }
        let key = self.location.under_prefix(STORE_ID);
        let path = path(&key)?;
        let put = |mode| {
            let payload = PutPayload::from(format!("{id}\n").into_bytes());
            self.ask(self.usual, MOST_OF_AN_ID, |extensions| {
                self.s3.put_opts(&path, payload, PutOptions { mode, extensions, ..PutOptions::default() })
            })
        };
        let written = match put(PutMode::Create).await {
            // The server knows no conditions.
            Err(failure) if failure.status() == Some(501) => put(PutMode::Overwrite).await,
            written => written,
        };
        match written {
            Ok(_) => {}
            // Another was faster; or this is a second attempt, and the first one succeeded.
            Err(failure) if matches!(failure.status(), Some(409 | 412)) => {}
            Err(failure) => {
                let tried = format!("cannot write {}/{STORE_ID}", self.name);
                return Err(self.explain(failure, Action::Write, &key, &tried));
            }
        }
        self.store_id().await?.ok_or_else(|| {
            Error::new(Code::Config, format!("{}/{STORE_ID} was just written and is gone", self.name))
        })
    }

    /// One request, which is not repeated.
    async fn delete(&self, keys: &[BlockKey]) -> Result<()> {
        let paths: Result<Vec<Path>> = keys.iter().map(|key| path(&self.location.key_of(key))).collect();
        if self.deleting.get().is_none() {
            let _ = self.deleting.set(client(&self.location, 0, DELETION)?.s3);
        }
        let deleting = self.deleting.wait();
        let paths = futures_util::stream::iter(paths?.into_iter().map(Ok)).boxed();
        let deleting = deleting.delete_stream(paths).try_for_each(|_| async { Ok(()) });
        let failure = match tokio::time::timeout(DELETION, deleting).await {
            Ok(Ok(())) => return Ok(()),
            // Its text may hold all of the server's answer, and the access key in that.
            Ok(Err(
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            )) => Failure::Refused(Refusal::new(403, "<Code>AccessDenied</Code>", None)),
            Ok(Err(_)) => Failure::Broken("the server refused it, or the connection was lost".to_owned()),
            Err(_) => Failure::silent(DELETION),
        };
        let tried = format!("cannot delete {} blocks from {}", keys.len(), self.name);
        Err(self.explain(failure, Action::Delete, &self.location.under_prefix(""), &tried))
    }

    async fn page(&self, algo: Algo, token: Option<String>) -> Result<(Vec<Listed>, Option<String>)> {
        let prefix = format!("{}/", self.location.under_prefix(algo.name()));
        let list = |extensions: Extensions| {
            let options =
                PaginatedListOptions { page_token: token, extensions, ..PaginatedListOptions::default() };
            self.s3.list_paginated(Some(&prefix), options)
        };
        let listed = self.ask(self.usual, MOST_OF_A_PAGE, list).await.map_err(|failure| {
            let tried = format!("cannot list the blocks in {}", self.name);
            self.explain(failure, Action::List, &prefix, &tried)
        })?;
        let block = |object: &object_store::ObjectMeta| {
            let name = object.location.as_ref().strip_prefix(&prefix)?;
            Some(Listed { key: BlockKey::from_name(algo, name).ok()?, length: object.size })
        };
        Ok((listed.result.objects.iter().filter_map(block).collect(), listed.page_token))
    }

    async fn has_blocks(&self) -> Result<bool> {
        let prefixes = Algo::ALL.map(|algo| format!("{}/", self.location.under_prefix(algo.name())));
        let list = |extensions: Extensions| async move {
            for prefix in &prefixes {
                let options = PaginatedListOptions {
                    max_keys: Some(1),
                    extensions: extensions.clone(),
                    ..PaginatedListOptions::default()
                };
                if !self.s3.list_paginated(Some(prefix), options).await?.result.objects.is_empty() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let listed = self.ask(self.opening, MOST_OF_A_LIST, list).await;
        listed.map_err(|failure| {
            let tried = format!("cannot look for blocks in {}", self.name);
            self.explain(failure, Action::List, &self.location.under_prefix(""), &tried)
        })
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

fn path(key: &str) -> Result<Path> {
    // Location and key are checked where they are made.
    Path::parse(key).map_err(|error| Error::new(Code::Internal, format!("{key:?} is no key of S3: {error}")))
}

fn closed() -> Error {
    Error::new(Code::Closed, "the store is closed")
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

    /// The server makes each object durable before it answers.
    async fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        self.0.name.clone()
    }

    fn place(&self, key: &BlockKey) -> String {
        self.0.place(key)
    }

    async fn store_id(&self) -> Result<Option<String>> {
        self.0.store_id().await
    }

    async fn create_store_id(&self, id: &str) -> Result<String> {
        self.0.create_store_id(id).await
    }

    async fn has_blocks(&self) -> Result<bool> {
        self.0.has_blocks().await
    }

    async fn delete(&self, keys: &[BlockKey], until: Deadline) -> Vec<Deleted> {
        let mut deleted = Vec::with_capacity(keys.len());
        for part in keys.chunks(MOST_DELETED) {
            if until.has_passed() {
                deleted.extend(part.iter().map(|_| Deleted::NotBegun));
                continue;
            }
            match self.0.delete(part).await {
                Ok(()) => deleted.extend(part.iter().map(|_| Deleted::Gone)),
                Err(error) => deleted.extend(part.iter().map(|_| Deleted::Unknown(error.clone()))),
            }
        }
        deleted
    }

    fn deletion_takes(&self) -> Duration {
        DELETION
    }

    async fn list(&self) -> Result<Box<dyn Listing>> {
        Ok(Box::new(BucketListing { shared: Arc::clone(&self.0), rest: Algo::ALL.to_vec(), next: None }))
    }

    /// A put is visible as a whole or not at all, and what a server keeps of half a put is its own.
    async fn remove_leftovers(&self) -> Result<u64> {
        Ok(0)
    }

    fn lock_collection(&self, _by: Collection) -> Result<Option<CollectionLock>> {
        Ok(None)
    }

    fn is_collection_gone(&self, _by: Collection) -> bool {
        false
    }

    async fn release_reserve(&self) -> Result<bool> {
        Ok(false)
    }

    async fn keep_reserve(&self) -> Result<()> {
        Ok(())
    }

    fn is_local(&self) -> bool {
        false
    }

    fn proves_publication(&self) -> bool {
        false
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
        let location = location.at(S3Server::new(&url, "somebody", "secret").unwrap());
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
