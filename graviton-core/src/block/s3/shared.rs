//! One place in S3, and the requests that are sent to it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::HttpClient;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Extensions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use once_cell::sync::OnceCell;
use tokio::sync::Semaphore;

use super::client::Patience;
use super::failure::{Action, Failure};
use super::location::S3Location;
use super::transport::Trace;
use crate::block::{Block, Listed, missing, parse_generation, wrong_length};
use crate::blocking;
use crate::digest::Algo;
use crate::error::{Code, Error, Result, root_cause};
use crate::key::BlockKey;
use crate::random;

const STORE_ID: &str = "store-id";

const GENERATION: &str = "generation";

/// An id is a few dozen letters; what is longer was not written by us.
const MOST_OF_AN_ID: usize = 256;

/// A page of one key.
const MOST_OF_A_LIST: usize = 64 << 10;

/// A page of a thousand keys.
pub(super) const MOST_OF_A_PAGE: usize = 8 << 20;

pub(super) struct Shared {
    pub(super) location: S3Location,
    pub(super) endpoint: String,
    /// The answer of [`Identity::location`](crate::block::Identity::location).
    pub(super) name: String,
    pub(super) s3: AmazonS3,
    /// The client whose puts carry no checksum, made when a server refuses one: to make it reads
    /// certificates.
    pub(super) without_checksum: (AmazonS3Builder, OnceCell<AmazonS3>),
    /// Whether the server was found to take no put with a checksum.
    pub(super) refuses_checksums: AtomicBool,
    /// The client underneath, for requests that are signed here.
    pub(super) http: HttpClient,
    pub(super) usual: Patience,
    pub(super) opening: Patience,
    pub(super) puts: Arc<Semaphore>,
    pub(super) gets: Semaphore,
}

/// The answer of a GET.
enum Found {
    Bytes(Bytes),
    /// An object of another length than the key says; its bytes were not taken.
    Length(u64),
}

impl Shared {
    pub(super) fn place(&self, key: &BlockKey) -> String {
        format!("{}/{}/{}", self.name, key.algo().name(), key.name())
    }

    /// Sends a request, again and again while it fails in a way that passes, until it or the patience is
    /// at its end. Answers are at most so long.
    pub(super) async fn ask<T, F>(
        &self,
        patience: Patience,
        most: usize,
        send: impl FnOnce(Extensions) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        self.ask_traced(&Trace::new(patience.attempt, most), patience, send).await
    }

    /// The same with a trace of the caller's.
    async fn ask_traced<T, F>(
        &self,
        trace: &Trace,
        patience: Patience,
        send: impl FnOnce(Extensions) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        blocking::begins().await;
        match tokio::time::timeout(patience.total, send(trace.extensions())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(trace.last_failure().unwrap_or_else(|| Failure::Senseless(root_cause(&error))))
            }
            Err(_) => Err(trace.last_failure().unwrap_or_else(|| Failure::silent(patience.total))),
        }
    }

    /// Writes an object that nobody has written before, and says whether an attempt may still be carried out.
    pub(super) async fn write_new(
        &self,
        patience: Patience,
        path: &Path,
        payload: PutPayload,
    ) -> Result<bool, Failure> {
        let trace = Trace::new(patience.attempt, MOST_OF_AN_ID);
        self.write_traced(&trace, patience, path, payload, PutMode::Overwrite).await?;
        Ok(trace.is_in_doubt())
    }

    fn without_checksum(&self) -> Result<AmazonS3, Failure> {
        let (builder, made) = &self.without_checksum;
        let s3 = made.get_or_try_init(|| builder.clone().build());
        s3.cloned().map_err(|error| Failure::Senseless(root_cause(&error)))
    }

    /// Writes an object; with a condition, only if there is none.
    async fn write(
        &self,
        patience: Patience,
        path: &Path,
        payload: PutPayload,
        mode: PutMode,
    ) -> Result<(), Failure> {
        let trace = Trace::new(patience.attempt, MOST_OF_AN_ID);
        self.write_traced(&trace, patience, path, payload, mode).await
    }

    async fn write_traced(
        &self,
        trace: &Trace,
        patience: Patience,
        path: &Path,
        payload: PutPayload,
        mode: PutMode,
    ) -> Result<(), Failure> {
        let send = |s3: AmazonS3| {
            let (path, payload, mode) = (path.clone(), payload.clone(), mode.clone());
            self.ask_traced(trace, patience, async move |extensions| {
                let options = PutOptions { mode, extensions, ..PutOptions::default() };
                s3.put_opts(&path, payload, options).await.map(drop)
            })
        };
        if self.refuses_checksums.load(Ordering::Relaxed) {
            return send(self.without_checksum()?).await;
        }
        match send(self.s3.clone()).await {
            Err(failure) if failure.is_about_the_request() => {
                let again = send(self.without_checksum()?).await;
                match again {
                    // Something on the way may have answered, and not the server: then it is asked again each
                    // time.
                    Ok(()) if failure.is_of_s3() => self.refuses_checksums.store(true, Ordering::Relaxed),
                    Ok(()) => {}
                    Err(again) if again.is_passing() => return Err(again),
                    Err(_) => return Err(failure),
                }
                Ok(())
            }
            result => result,
        }
    }

    pub(super) fn explain(&self, failure: Failure, action: Action, key: &str, tried: &str) -> Error {
        failure.explain(&self.location, &self.endpoint, action, key, tried)
    }

    pub(super) async fn put(&self, block: Block) -> Result<()> {
        let key = self.location.key_of(&block.key);
        let patience = self.usual.for_bytes(block.bytes.len());
        let path = path(&key)?;
        let payload = PutPayload::from(block.bytes);
        match self.write(patience, &path, payload, PutMode::Overwrite).await {
            Ok(()) => Ok(()),
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

    pub(super) async fn get(&self, key: &BlockKey, range: Option<Range<usize>>) -> Result<Bytes> {
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

    pub(super) async fn length(&self, key: &BlockKey) -> Result<Option<u64>> {
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

    /// The content of a small object beside the blocks, and `Some(None)` if it is larger than one of ours.
    async fn small_object(&self, name: &str) -> Result<Option<Option<Bytes>>> {
        let key = self.location.under_prefix(name);
        let path = path(&key)?;
        let get = |extensions| async {
            let got = self.s3.get_opts(&path, GetOptions { extensions, ..GetOptions::default() }).await?;
            if got.meta.size > MOST_OF_AN_ID as u64 {
                return Ok(None);
            }
            got.bytes().await.map(Some)
        };
        match self.ask(self.opening, MOST_OF_AN_ID, get).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_absence() => Ok(None),
            Err(failure) => {
                let tried = format!("cannot read {}/{name}", self.name);
                Err(self.explain(failure, Action::Read, &key, &tried))
            }
        }
    }

    pub(super) async fn generation(&self) -> Result<u64> {
        let Some(found) = self.small_object(GENERATION).await? else { return Ok(0) };
        parse_generation(&found.unwrap_or_default(), &format!("{}/{GENERATION}", self.name))
    }

    pub(super) async fn raise_generation(&self, to: u64) -> Result<()> {
        if self.generation().await? >= to {
            return Ok(());
        }
        let key = self.location.under_prefix(GENERATION);
        let path = path(&key)?;
        let payload = PutPayload::from(format!("{to}\n").into_bytes());
        match self.write(self.usual, &path, payload, PutMode::Overwrite).await {
            Ok(()) => Ok(()),
            Err(failure) => {
                let tried = format!("cannot write {}/{GENERATION}", self.name);
                Err(self.explain(failure, Action::Write, &key, &tried))
            }
        }
    }

    pub(super) async fn store_id(&self) -> Result<Option<String>> {
        let Some(found) = self.small_object(STORE_ID).await? else { return Ok(None) };
        let id = found.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim_end);
        // A server's console answers everything with a page.
        match id {
            Some(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(id.to_owned()))
            }
            _ => {
                let why = format!("cannot read {}/{STORE_ID}: its content is no id", self.name);
                Err(Error::new(Code::Config, why).with_advice(format!(
                    "check that {} is the address of an S3 server, not of its console",
                    self.endpoint
                )))
            }
        }
    }

    pub(super) async fn create_store_id(&self, id: &str) -> Result<String> {
        if let Some(id) = self.store_id().await? {
            return Ok(id);
        }
        if let Some(how) = self.disregards_conditions().await? {
            let why = format!(
                "cannot create a store in {}: the server {how} If-None-Match, so that another database could take \
                 the same place at the same moment",
                self.name
            );
            return Err(Error::new(Code::Unsupported, why).with_advice(format!(
                "use a server that heeds it (AWS, MinIO and SeaweedFS do); or make sure that no other database is given \
                 this place, and write {id} into {}/{STORE_ID} by hand",
                self.name
            )));
        }
        self.write_id(STORE_ID, id).await?;
        self.store_id().await?.ok_or_else(|| {
            Error::new(Code::Config, format!("{}/{STORE_ID} was just written and is gone", self.name))
        })
    }

    /// How the server treats the wish that it writes no object over another, if it does not heed it. Asked
    /// with an object of our own.
    async fn disregards_conditions(&self) -> Result<Option<&'static str>> {
        let name = format!("{STORE_ID}-probe-{:016x}", u64::from_le_bytes(random::bytes()?));
        let how = match self.write_id(&name, "probe").await {
            // A second attempt that is refused shows that it is heeded.
            Ok(written) => (written && self.write_id(&name, "probe").await?).then_some("ignores"),
            Err(error) if error.code() == Code::Unsupported => Some("refuses"),
            // Some refuse a condition as they would anything wrong: without it they write.
            Err(error) if error.code() == Code::Config => {
                let payload = PutPayload::from_static(b"probe\n");
                let path = path(&self.location.under_prefix(&name))?;
                if self.write(self.usual, &path, payload, PutMode::Overwrite).await.is_err() {
                    return Err(error);
                }
                Some("refuses")
            }
            Err(error) => return Err(error),
        };
        let path = path(&self.location.under_prefix(&name))?;
        // If it stays, it is in nobody's way.
        let _ = tokio::time::timeout(self.opening.total, self.s3.delete(&path)).await;
        Ok(how)
    }

    /// Writes an id to an object that is not there yet. False if it is there, or if this was a second attempt
    /// and the first one succeeded.
    async fn write_id(&self, name: &str, id: &str) -> Result<bool> {
        let key = self.location.under_prefix(name);
        let path = path(&key)?;
        let payload = PutPayload::from(format!("{id}\n").into_bytes());
        match self.write(self.usual, &path, payload, PutMode::Create).await {
            Ok(()) => Ok(true),
            Err(failure) if matches!(failure.status(), Some(409 | 412)) => Ok(false),
            Err(failure) if failure.status() == Some(501) => {
                Err(Error::new(Code::Unsupported, format!("{} knows no conditions", self.endpoint)))
            }
            Err(failure) => {
                let tried = format!("cannot write {}/{name}", self.name);
                Err(self.explain(failure, Action::Write, &key, &tried))
            }
        }
    }

    pub(super) async fn page(
        &self,
        algo: Algo,
        token: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>)> {
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

    pub(super) async fn has_blocks(&self) -> Result<bool> {
        let mut prefixes =
            Algo::ALL.map(|algo| format!("{}/", self.location.under_prefix(algo.name()))).to_vec();
        prefixes.push(self.location.key_of_pack(None));
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

pub(super) fn path(key: &str) -> Result<Path> {
    // Location and key are checked where they are made.
    Path::parse(key).map_err(|error| Error::new(Code::Internal, format!("{key:?} is no key of S3: {error}")))
}

pub(super) fn closed() -> Error {
    Error::new(Code::Closed, "the store is closed")
}
