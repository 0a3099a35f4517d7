//! [`PutOptions`]: the options of a put.

use crate::key::BlobId;

/// Options of a put. Plain data: a new option is a new field.
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
    /// Only content with this id is committed; any other is `digest-mismatch`, and nothing becomes visible.
    /// The content is hashed with the algorithm of this id. In a store with blocks in S3, such a put also
    /// requests the length of each stored block, and writes missing ones again.
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
