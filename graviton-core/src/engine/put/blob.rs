//! The input and the outcome of a small put: [`SmallBlob`], [`Small`].

use std::sync::Arc;

use bytes::Bytes;

use crate::key::BlobId;
use crate::manifest::ManifestEntry;
use crate::report::PutReceipt;

/// A blob that is all in memory, cut and hashed.
#[derive(Debug)]
pub(crate) struct SmallBlob {
    pub(crate) id: BlobId,
    pub(crate) entries: Arc<[ManifestEntry]>,
    /// The bytes of each entry.
    pub(crate) bytes: Vec<Bytes>,
}

/// The outcome of a small put.
pub(crate) enum Small {
    Done(PutReceipt),
    /// A block is not in place any more, or doomed: the blob has to be pinned.
    NotInPlace,
}
