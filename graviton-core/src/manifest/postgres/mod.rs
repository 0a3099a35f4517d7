//! Manifests in Postgres: shared by any number of processes on any number of hosts.
//!
//! The steps are those of SQLite. What is different is that others write at the same time, so that rows are locked
//! before they are looked at; that a step can meet another's locks and is then run again; and that the connection can
//! be lost in the middle, even between a commit and its answer. Then the step is run again too, for it leaves the same
//! behind as if it had run once: so a commit's outcome is found out, never guessed.
//!
//! Every step is committed synchronously, pins too: other than with SQLite, a writer outlives a crash of its database,
//! and must not go on with some of its pins lost. Where the server's `synchronous_commit` is off, it is switched on for our
//! sessions; what is stronger stays. A fail-over must lose no commit.

mod address;
mod connection;
mod database;
mod failure;
mod integrity;
#[cfg(test)]
mod interleavings;

use super::repo::{SqlManifestRepo, needs_migration};
use super::{Durability, Opening};
use crate::error::Result;

pub use address::PostgresAddress;
pub use database::PostgresDatabase;

/// Manifests in a database of a Postgres server, in the schema `graviton`.
pub type PostgresManifestRepo = SqlManifestRepo<PostgresDatabase>;

impl PostgresManifestRepo {
    /// Opens the database, which has to be there; to create means to make the tables.
    ///
    /// Answers within 10 seconds: a server that cannot be reached is `backend-unavailable`, wrong credentials or a
    /// database that does not exist are `config`. A schema that a newer version wrote is `version`.
    pub async fn open(
        address: &PostgresAddress,
        durability: Durability,
        opening: Opening,
    ) -> Result<PostgresManifestRepo> {
        let repo = SqlManifestRepo { database: PostgresDatabase::new(address.clone()), durability };
        let name = address.name();
        if needs_migration(repo.schema(name).await?, opening, name)? {
            repo.migrate(name).await?;
        }
        Ok(repo)
    }
}
