//! The identity of a collection: block stores lock it, and rows of doomed blocks carry it.

/// One run of the collector: a random number that no other run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Collection(pub i64);
