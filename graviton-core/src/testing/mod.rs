//! Tools to test a backend: conformance suites, faults, and test data that is the same everywhere.
//!
//! The feature `testing` enables this module, so that a third party can test its own block store or manifest
//! repository by the same rules as ours:
//! - [`block_store_conformance`] and [`manifest_repo_conformance`] say in code what the traits say in words.
//!   They panic where a rule is broken, as tests do, and assert nothing about time.
//! - [`FaultyBlockStore`] fails on command.
//! - [`CrashingBlockStore`] and [`CrashingTransactions`] kill their process on command.
//! - [`Recipe`] generates data from a short text, for vectors and fixtures that contain no bytes.

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
