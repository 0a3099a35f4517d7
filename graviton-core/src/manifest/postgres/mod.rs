//! Manifests in PostgreSQL: shared by any number of processes on any number of hosts.
//!
//! The operations are those of SQLite, with three differences. Others write at the same time, so rows are
//! locked before they are read. An operation that conflicts with another's locks is run again. The connection
//! can be lost at any point, even between a commit and its answer; then the operation is run again too,
//! because it leaves the same state behind as if it had run once. So the outcome of a commit is determined,
//! never guessed.
//!
//! Every operation is committed synchronously, pins too: unlike with SQLite, a writer outlives a crash of its
//! database, and must not continue with some of its pins lost. So our sessions set `synchronous_commit`. A
//! fail-over must lose no commit.
//!
//! A pooler that moves a session to other clients between two transactions is refused when the store is
//! opened (`pooler`): prepared statements are lost in it. If such a pooler appears later, the error names it.
//! Each transaction sets `synchronous_commit` for itself, so that even there nothing is acknowledged that a
//! crash could undo.

mod address;
pub(super) mod connection;
mod database;
mod failure;
#[cfg(test)]
mod interleavings;
mod pooler;
#[cfg(test)]
pub(super) mod stepped;

pub use address::PostgresAddress;
pub(super) use database::PostgresDatabase;
pub(super) use failure::keeps_to_itself;
