//! Packs: blocks are appended to a file that this open store has made, found by their rows, and given up.
//!
//! - `append`: a batch is written, then synced together with others, and only then marked in the rows.
//! - `read`: a record is compared with the key before a byte of it is handed out.
//! - `scan`: the records of a pack are walked over that no row describes.
//! - `upkeep`: the collector releases blocks, seals packs of stores that died, punches holes, and drops
//!   packs.
//!
//! The rules (`docs/FORMAT.md`, "Packs"; the model is `tests/model/src/packs`, with a mutant for each):
//!
//! - A pack is appended to by the store that made it, under its lease, and no offset is written twice.
//! - A put relies on a sync that began after its own write had ended. After one that failed the store is
//!   latched.
//! - A row gets a place only while the pack is being written and its maker holds it, and only if the row does
//!   not say `stored`, or still has the place that this put found damaged.
//! - A put relies on a record of a pack that is sealed or its own if the header is there, and verifies any
//!   other.
//! - A pack is sealed when nothing of it is under way, after a sync in every mode. One that was found is
//!   verified.
//! - Bytes are given up after the transaction that released them was synced; a pack when no row has pointed
//!   at it for the grace.

pub(super) mod append;
pub(super) mod read;
pub(super) mod scan;
pub(super) mod upkeep;
