//! Packs as objects: `<prefix>-packs/<name>`.
//!
//! A pack is gathered in memory and sent by one PUT. Its bytes are fixed before the first attempt, whatever
//! its outcome. An attempt that got no answer may be carried out later, and bring the object back with the
//! same bytes.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Extensions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::OnceCell;

use super::failure::{Action, Failure};
use super::shared::{MOST_OF_A_PAGE, Shared, closed, path};
use crate::block::pack::{OpenPack, Packs};
use crate::error::{Code, Error, Result};
use crate::place::PackName;

/// No pack has more bytes: it is in memory until it is sent.
const MOST_BYTES: u64 = 16 << 20;

/// Deletions at once.
const MOST_DELETIONS: usize = 32;

pub(super) struct S3Packs(pub(super) Arc<Shared>);

impl S3Packs {
    fn object(&self, name: &PackName) -> Result<(String, Path)> {
        let key = self.0.location.key_of_pack(Some(name));
        let path = path(&key)?;
        Ok((key, path))
    }

    /// The error for a request about this pack.
    fn explain(&self, failure: Failure, action: Action, name: &PackName, verb: &str) -> Error {
        let key = self.0.location.key_of_pack(Some(name));
        let tried = format!("cannot {verb} pack {}", self.place(name));
        self.0.explain(failure, action, &key, &tried)
    }

    async fn remove_one(&self, name: &PackName) -> Result<()> {
        let (_, path) = self.object(name)?;
        let removed = self.0.ask(self.0.usual, 0, async |_: Extensions| self.0.s3.delete(&path).await).await;
        match removed {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_absence() => Ok(()),
            Err(failure) => Err(self.explain(failure, Action::Delete, name, "delete")),
        }
    }
}

#[async_trait]
impl Packs for S3Packs {
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>> {
        Ok(Arc::new(Gathering {
            packs: S3Packs(Arc::clone(&self.0)),
            name: *name,
            parts: Mutex::new(Some(vec![(0, vec![header])])),
            sent: OnceCell::new(),
            in_doubt: AtomicBool::new(false),
        }))
    }

    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        let (_, path) = self.object(name)?;
        let wanted = (range.end - range.start) as usize;
        let _permit = self.0.gets.acquire().await.map_err(|_| closed())?;
        let range = Some(GetRange::Bounded(range));
        let get = |extensions| async {
            let options = GetOptions { range, extensions, ..GetOptions::default() };
            self.0.s3.get_opts(&path, options).await?.bytes().await
        };
        match self.0.ask(self.0.usual.for_bytes(wanted), wanted, get).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(failure) if failure.is_absence() => Ok(None),
            // It ends before.
            Err(failure) if failure.status() == Some(416) => Ok(Some(Bytes::new())),
            Err(failure) => Err(self.explain(failure, Action::Read, name, "read")),
        }
    }

    async fn length(&self, name: &PackName) -> Result<Option<u64>> {
        let (_, path) = self.object(name)?;
        let head = |extensions| {
            self.0.s3.get_opts(&path, GetOptions { head: true, extensions, ..GetOptions::default() })
        };
        match self.0.ask(self.0.usual, 0, head).await {
            Ok(found) => Ok(Some(found.meta.size)),
            Err(failure) if failure.is_absence() => Ok(None),
            Err(failure) => Err(self.explain(failure, Action::Read, name, "look for")),
        }
    }

    /// An object is durable once it is there.
    async fn sync(&self, _name: &PackName) -> Result<()> {
        Ok(())
    }

    /// An object has no tail.
    async fn cut(&self, _name: &PackName, _bytes: u64) -> Result<()> {
        Ok(())
    }

    /// An object keeps its bytes until it goes.
    async fn punch(&self, _name: &PackName, _ranges: &[Range<u64>]) -> Result<u64> {
        Ok(0)
    }

    async fn remove(&self, names: &[PackName]) -> Result<()> {
        let requests: Vec<_> = names.iter().map(|name| self.remove_one(name)).collect();
        futures_util::stream::iter(requests).buffer_unordered(MOST_DELETIONS).try_collect().await
    }

    async fn list(&self) -> Result<Vec<(PackName, u64)>> {
        let prefix = self.0.location.key_of_pack(None);
        let (mut all, mut token) = (Vec::new(), None);
        loop {
            let page_token = token.take();
            let list = |extensions: Extensions| {
                let options =
                    PaginatedListOptions { page_token, extensions, ..PaginatedListOptions::default() };
                self.0.s3.list_paginated(Some(&prefix), options)
            };
            let page = self.0.ask(self.0.usual, MOST_OF_A_PAGE, list).await.map_err(|failure| {
                let tried = format!("cannot list the packs of {}", self.0.name);
                self.0.explain(failure, Action::List, &prefix, &tried)
            })?;
            for object in page.result.objects {
                let name = object.location.as_ref().strip_prefix(&prefix);
                if let Some(name) = name.and_then(|name| name.parse().ok()) {
                    all.push((name, object.size));
                }
            }
            match page.page_token {
                Some(next) => token = Some(next),
                None => return Ok(all),
            }
        }
    }

    fn place(&self, name: &PackName) -> String {
        let location = &self.0.location;
        let server = self.0.name.strip_suffix(&location.path()).unwrap_or_default();
        format!("{server}{}/{}", location.bucket(), location.key_of_pack(Some(name)))
    }

    fn most_bytes(&self) -> u64 {
        MOST_BYTES
    }

    fn grows(&self) -> bool {
        false
    }
}

impl fmt::Debug for S3Packs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Packs").field(&self.0.name).finish()
    }
}

/// An offset, and the bytes there.
type Part = (u64, Vec<Bytes>);

/// A pack that is gathered in memory.
struct Gathering {
    packs: S3Packs,
    name: PackName,
    /// `None` from the first request on.
    parts: Mutex<Option<Vec<Part>>>,
    sent: OnceCell<Result<()>>,
    in_doubt: AtomicBool,
}

impl Gathering {
    /// All bytes of the pack, in order; nobody adds any from now on.
    fn take(&self) -> Option<PutPayload> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        parts.sort_unstable_by_key(|(offset, _)| *offset);
        let (mut all, mut end) = (Vec::new(), 0);
        for (offset, parts) in parts {
            // Of a write that was given up.
            if offset > end {
                all.push(Bytes::from(vec![0; (offset - end) as usize]));
            }
            end = offset + parts.iter().map(|part| part.len() as u64).sum::<u64>();
            all.extend(parts);
        }
        Some(all.into_iter().collect())
    }

    async fn send(&self) -> Result<()> {
        let Some(payload) = self.take() else { return Err(begun()) };
        let (_, path) = self.packs.object(&self.name)?;
        let shared = &self.packs.0;
        let _permit = shared.puts.acquire().await.map_err(|_| closed())?;
        let patience = shared.usual.for_bytes(payload.content_length());
        // Also if nobody waits for the answer any more.
        self.in_doubt.store(true, Ordering::Relaxed);
        match shared.write_new(patience, &path, payload).await {
            Ok(in_doubt) => {
                self.in_doubt.store(in_doubt, Ordering::Relaxed);
                Ok(())
            }
            Err(failure) => Err(self.packs.explain(failure, Action::Write, &self.name, "write")),
        }
    }
}

/// The error for a pack that was, or is being, sent.
fn begun() -> Error {
    Error::new(Code::Internal, "a pack is written to that was sent")
}

#[async_trait]
impl OpenPack for Gathering {
    async fn write(&self, offset: u64, bytes: Vec<Bytes>) -> Result<()> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.as_mut().ok_or_else(begun)?.push((offset, bytes));
        Ok(())
    }

    async fn sync(&self) -> Result<()> {
        self.sent.get_or_init(|| self.send()).await.clone()
    }

    fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering").field("name", &self.name).finish_non_exhaustive()
    }
}
