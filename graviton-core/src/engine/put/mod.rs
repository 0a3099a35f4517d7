//! Puts.
//!
//! ```text
//! writer ─┬─ all in memory ─> small ──> committed in one transaction (commit)
//!         │                     └─ a block was taken away ─┐
//!         └─ longer ─> pipeline ─────────────────────────> pinned ──> commit
//! ```
//! The engine writes a block durably before a row says so, and makes a blob live last.

pub(super) mod blob;
pub(super) mod commit;
pub(super) mod options;
pub(super) mod pinned;
mod pipeline;
pub(super) mod small;
pub(super) mod writer;
