//! What the programs of this crate share.

// By path, and not from graviton-core's feature `testing`: the programs are to run the core that is shipped.
#[path = "../../../graviton-core/src/testing/recipe.rs"]
pub mod recipe;
