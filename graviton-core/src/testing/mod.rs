//! What it takes to test a backend: conformance suites, faults, and content that is the same everywhere.
//!
//! Behind the feature `testing`, so that a third party can hold a block store or manifest repository of its
//! own to the same rules as ours:
//! - [`block_store_conformance`] and [`manifest_repo_conformance`] say in code what the traits say in words.
//!   They panic where a rule is broken, as tests do, and assert nothing about time.
//! - [`FaultyBlockStore`] fails when it is told to.
//! - [`CrashingBlockStore`] and [`CrashingTransactions`] kill their process when they are told to.
//! - [`Recipe`] makes content from a short text, for vectors and fixtures that hold no bytes.

#![allow(clippy::missing_panics_doc, reason = "suites panic where a test would")]

mod block_store;
mod collection;
mod crashing;
mod database_place;
mod faulty;
mod manifest_repo;
mod packs;
mod protocol;
mod recipe;
mod repack;

pub use block_store::{BlockPlace, block_store_conformance};
pub use crashing::{Crash, CrashingBlockStore, CrashingTransactions, Moment};
pub use database_place::DatabasePlace;
pub use faulty::{Fault, FaultyBlockStore, Operation};
pub use manifest_repo::manifest_repo_conformance;
pub use recipe::Recipe;
