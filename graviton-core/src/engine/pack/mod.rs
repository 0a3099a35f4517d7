//! Packs: blocks are appended to a file that this open store has created, found by their rows, and released.
//!
//! - `append`: a batch is written, then synced together with others, and only then marked in the rows.
//! - `read`: a record is compared with the key before any byte of it is returned.
//! - `scan`: reads the records of a pack without rows that describe them.
//! - `upkeep`: the collector releases blocks, seals packs of stores that died, punches holes, and drops
//!   packs.
//!
//! The rules (`docs/FORMAT.md`, "Packs"; the model is `tests/model/src/packs`, with a mutant for each):
//!
//! - Only the store that made a pack appends to it, under its lease, and no offset is written twice.
//! - A put relies on a sync that began after its own write had ended. After a failed one, the store is
//!   latched.
//! - A row gets a place only while the pack is being written and its maker holds it, and only if the row does
//!   not say `stored`, or still has the place that this put found damaged.
//! - A put relies on a record of a sealed pack or of its own pack if the header is there, and verifies any
//!   other record.
//! - A pack is sealed when none of its records is in progress, after a sync in every mode. A found pack is
//!   verified first.
//! - Bytes are released after the transaction that released their rows was synced. A pack is dropped when no
//!   row has pointed at it for the grace.

pub(super) mod append;
pub(super) mod read;
pub(super) mod scan;
pub(super) mod upkeep;
