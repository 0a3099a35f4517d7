//! Manifests in PostgreSQL: shared by any number of processes on any number of hosts.
//!
//! The operations are those of SQLite, with three differences. Others write at the same time, so rows are
//! locked before they are read. An operation that meets another's locks is run again. The connection can be
//! lost in the middle, even between a commit and its answer; then the operation is run again too, for it
//! leaves the same behind as if it had run once. So the outcome of a commit is found out, never guessed.
//!
//! Every operation is committed synchronously, pins too: unlike with SQLite, a writer outlives a crash of its
//! database, and must not go on with some of its pins lost. So our sessions set `synchronous_commit`. A
//! fail-over must lose no commit.
//!
//! A pooler that hands a session to others between two transactions is refused when the store is opened
//! (`pooler`): statements that are prepared in it are lost, which is told by name where it is met later. Each
//! transaction sets `synchronous_commit` for itself, so that nothing is acknowledged there that a crash could
//! take back.

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
