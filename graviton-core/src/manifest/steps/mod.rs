//! The steps of the protocol and of reading, each one transaction, once for both databases.
//!
//! With row locks the order is always: blocks in key order, then blobs. What a step decides on, it looks up in a
//! statement after the locks are held.

mod collect;
mod put;
mod read;
mod verify;

pub(super) use collect::*;
pub(super) use put::*;
pub(super) use read::*;
pub(super) use verify::*;

/// The only row of an answer that has one.
fn only<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}
