//! The identity of a collection: rows of doomed blocks carry it, and so do the names of files set aside.

/// One run of the collector, or of a repack: a random number that no other run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collection(pub i64);
