//! Manifests in SQLite: the embedded default, shared by any number of processes on one host.
//!
//! One connection writes and a few read, in WAL mode, and one moves what was written (`checkpoint`). Within a process writers queue for the one
//! connection, for SQLite's own busy handler sleeps; between processes it decides. Transactions that write
//! are `BEGIN IMMEDIATE`, so that none has to be repeated half-way, and stay short.
//!
//! Only what must survive a power cut is synced: a durable step with `synchronous = FULL`, any other with
//! `NORMAL`, which leaves it to the next sync of the write-ahead log.
//!
//! The lease of a writer is renewed over the same connection: a transaction holds it for milliseconds, and
//! a second connection would only wait for the same lock.

mod checkpoint;
mod connection;
mod database;
mod forked;

use std::path::Path;

use super::repo::{SqlManifestRepo, needs_migration};
use super::schema::Schema;
use super::{Durability, Opening};
use crate::error::{Code, Error, Result};
use crate::{blocking, durable};

pub use database::SqliteDatabase;

/// Manifests in one SQLite file.
pub type SqliteManifestRepo = SqlManifestRepo<SqliteDatabase>;

impl SqliteManifestRepo {
    /// Opens the database at `path`; to create it makes its directory too.
    ///
    /// An existing database of this version is only read until the first write, so that it can be on a
    /// read-only filesystem. One that a newer version wrote is `version`, a file that is no database of
    /// Graviton's is `config`.
    pub async fn open(path: &Path, durability: Durability, opening: Opening) -> Result<SqliteManifestRepo> {
        let (database, there) = SqliteDatabase::new(path).await?;
        let repo = SqliteManifestRepo { database, durability };
        if !there && opening != Opening::Create {
            let why = format!("there is no store: {} does not exist", repo.database.path().display());
            return Err(Error::new(Code::NotFound, why)
                .with_advice("check the directory, or put something to create the store"));
        }
        let name = repo.database.path().display().to_string();
        let schema = if there { repo.schema(&name).await? } else { Schema::Absent };
        if needs_migration(schema, opening, &name)? {
            // SQLite syncs the directory for its journals; the name of the database itself is ours to sync.
            repo.make_directory().await?;
            repo.migrate(&name).await?;
            repo.make_directory().await?;
        }
        Ok(repo)
    }

    async fn make_directory(&self) -> Result<()> {
        let path = self.database.path().to_owned();
        blocking::run(move || path.parent().map_or(Ok(()), durable::create_directory)).await?
    }
}
