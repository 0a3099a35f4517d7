//! Shared parts of the programs of this crate.

// Included by path, and not from graviton-core's feature `testing`, because the programs must run the core
// that is shipped.
#[path = "../../../graviton-core/src/testing/recipe.rs"]
pub mod recipe;
