//! The steps of the protocol and of reading, each one transaction, once for both databases.
//!
//! With row locks the order is always: blocks in key order, then blobs. What a step decides on, it looks up in a
//! statement after the locks are held.

use super::connection::Value;

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

/// How many rows at most.
fn limit<'a>(rows: usize) -> Value<'a> {
    Value::Number(i64::try_from(rows).unwrap_or(i64::MAX))
}
