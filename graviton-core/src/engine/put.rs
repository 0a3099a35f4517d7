//! The ways into a store: what to put, and with which [`PutOptions`].

use std::path::Path;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::AsyncStore;
use super::write::{self, BlobWriter, source_failed};
use crate::error::Result;
use crate::key::BlobId;
use crate::report::PutReceipt;

/// What a put is told beside its content.
///
/// ```
/// use graviton_core::{Algo, BlobId, PutOptions};
/// let id = BlobId::of(Algo::Blake3, b"hello");
/// let options = PutOptions::new().expect(id);
/// assert_eq!(options.expect, Some(id));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// Only content with this id is committed; any other is `digest-mismatch`, and nothing becomes visible. The content
    /// is hashed with the algorithm of this id.
    pub expect: Option<BlobId>,
}

impl PutOptions {
    /// The defaults: any content is committed.
    pub fn new() -> PutOptions {
        PutOptions::default()
    }

    /// Sets [`expect`](PutOptions::expect): an id, or an `Option` of one.
    #[must_use]
    pub fn expect(mut self, id: impl Into<Option<BlobId>>) -> PutOptions {
        self.expect = id.into();
        self
    }
}

/// A put that has its options and waits for its content; made by [`AsyncStore::put_with`].
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is put before the content is given"]
pub struct AsyncPut<'a> {
    store: &'a AsyncStore,
    options: &'a PutOptions,
}

impl<'a> AsyncPut<'a> {
    pub(super) fn new(store: &'a AsyncStore, options: &'a PutOptions) -> AsyncPut<'a> {
        AsyncPut { store, options }
    }

    /// Puts everything that the source gives.
    pub async fn source(self, mut source: impl AsyncRead + Unpin) -> Result<PutReceipt> {
        let mut writer = self.writer().await?;
        loop {
            let count = source.read(writer.spare().await?).await.map_err(source_failed)?;
            if count == 0 {
                return writer.finish().await;
            }
            writer.advance(count).await?;
        }
    }

    /// Puts these bytes without copying them. Whatever owns them is held until the call has ended. If it fails or is
    /// dropped, they may be held a moment longer, until the work that was begun is done.
    pub async fn bytes(self, bytes: impl Into<Bytes>) -> Result<PutReceipt> {
        self.writer().await?.put_whole(bytes.into()).await
    }

    /// Puts the content of a file.
    pub async fn file(self, path: impl AsRef<Path>) -> Result<PutReceipt> {
        let path = path.as_ref().to_owned();
        write::fill_from_file(self.writer().await?, path).await
    }

    /// A blob to be written piece by piece.
    pub async fn writer(self) -> Result<BlobWriter> {
        let engine = self.store.engine()?;
        engine.prepare_to_write().await?;
        BlobWriter::new(engine, self.options)
    }
}
