//! Opens a repository: its tables are created or brought up to date, if that is allowed.

use std::path::Path;

use super::operation::Operation;
#[cfg(feature = "postgres")]
use super::postgres::{PostgresAddress, PostgresDatabase};
use super::repo::Database;
use super::schema::{self, Goal, Schema};
use super::sql::Tables;
use super::sqlite::SqliteDatabase;
use super::{Durability, ManifestRepo, Opening};
use crate::error::{Code, Error, Result};
use crate::random;

impl ManifestRepo {
    /// Opens the SQLite file at `path`; to create it makes its directory too.
    ///
    /// An existing database of this version is only read until the first write, so that it can be on a
    /// read-only filesystem. One that a newer version wrote is `version`, a file that is no database of
    /// Graviton's is `config`.
    pub async fn open_sqlite(path: &Path, durability: Durability, opening: Opening) -> Result<ManifestRepo> {
        ManifestRepo::open_sqlite_to(Goal::Ordinary, path, durability, opening).await
    }

    /// The same as the last version without packs did it, for tests of what it left.
    #[cfg(any(test, feature = "testing"))]
    pub async fn open_sqlite_without_packs(path: &Path, durability: Durability) -> Result<ManifestRepo> {
        ManifestRepo::open_sqlite_to(Goal::WithoutPacks, path, durability, Opening::Create).await
    }

    async fn open_sqlite_to(
        goal: Goal,
        path: &Path,
        durability: Durability,
        opening: Opening,
    ) -> Result<ManifestRepo> {
        let (database, exists) = SqliteDatabase::new(path).await?;
        let name = database.path().display().to_string();
        if !exists && opening != Opening::Create {
            return Err(Error::new(Code::NotFound, format!("there is no store: {name} does not exist"))
                .with_advice("check the directory, or put something to create the store"));
        }
        let mut repo = ManifestRepo::new(Database::Sqlite(database), durability);
        let mut schema = if exists { repo.schema(&name).await? } else { Schema::Absent };
        if needs_migration(schema, opening, &name)?
            && let Database::Sqlite(database) = &repo.database
        {
            // SQLite syncs the directory for its journals. That of the database file itself is left to us.
            database.make_directory().await?;
            repo.migrate(&name, goal).await?;
            database.make_directory().await?;
            schema = repo.schema(&name).await?;
        }
        repo.tables = tables(schema);
        Ok(repo)
    }

    /// Opens the PostgreSQL database at `address`, which has to exist; to create means to make the tables.
    ///
    /// Answers within 10 seconds: a server that cannot be reached is `backend-unavailable`, wrong credentials
    /// or a database that does not exist are `config`. A schema that a newer version wrote is `version`.
    #[cfg(feature = "postgres")]
    pub async fn open_postgres(
        address: &PostgresAddress,
        durability: Durability,
        opening: Opening,
    ) -> Result<ManifestRepo> {
        ManifestRepo::open_postgres_to(Goal::Ordinary, address, durability, opening).await
    }

    /// The same as the last version without packs did it, for tests of what it left.
    #[cfg(all(feature = "postgres", any(test, feature = "testing")))]
    pub async fn open_postgres_without_packs(
        address: &PostgresAddress,
        durability: Durability,
    ) -> Result<ManifestRepo> {
        ManifestRepo::open_postgres_to(Goal::WithoutPacks, address, durability, Opening::Create).await
    }

    #[cfg(feature = "postgres")]
    async fn open_postgres_to(
        goal: Goal,
        address: &PostgresAddress,
        durability: Durability,
        opening: Opening,
    ) -> Result<ManifestRepo> {
        let database = PostgresDatabase::new(address.clone());
        let mut repo = ManifestRepo::new(Database::Postgres(Box::new(database)), durability);
        let name = address.name();
        let mut schema = repo.schema(name).await?;
        if needs_migration(schema, opening, name)? {
            repo.migrate(name, goal).await?;
            schema = repo.schema(name).await?;
        }
        repo.tables = tables(schema);
        Ok(repo)
    }

    /// Reads which kind of content the database has. It is called `name` in messages.
    async fn schema(&self, name: &str) -> Result<Schema> {
        self.run(Operation::read("schema"), name.to_owned(), |mut connection, name| {
            Box::pin(async move { schema::look(&mut connection, name).await })
        })
        .await
    }

    /// Synced in a relaxed store too: its id is soon written beside the blocks, synced. If that outlived the
    /// database, the blocks would belong to a database that nobody has, and no other would open with them.
    async fn migrate(&self, name: &str, goal: Goal) -> Result<()> {
        let id = format!("{:032x}", u128::from_be_bytes(random::bytes()?));
        let operation = Operation::transaction("migrate").synced(true).patience(schema::PATIENCE);
        self.run(operation, (name.to_owned(), id, goal), |mut connection, (name, id, goal)| {
            Box::pin(async move { schema::migrate(&mut connection, name, id, *goal).await })
        })
        .await
    }

    /// Whether the database can hold packs. One of an older version cannot, before it is
    /// [upgraded](Self::upgrade).
    pub fn has_packs(&self) -> bool {
        self.tables == Tables::Packs
    }

    /// Gives a database of an older version the tables for packs; false if it has them. Programs of that
    /// version that use the database get an error from then on. So does this repository, which has to be
    /// opened again.
    ///
    /// As long as a store holds a lease, which every put needs, it is `backend-unavailable`, and nothing is
    /// changed.
    pub async fn upgrade(&self) -> Result<bool> {
        let name = self.name();
        if self.schema(&name).await? == Schema::Current {
            return Ok(false);
        }
        self.migrate(&name, Goal::Upgrade).await?;
        Ok(true)
    }
}

fn tables(schema: Schema) -> Tables {
    if schema == Schema::Current { Tables::Packs } else { Tables::Files }
}

/// Whether the tables have to be made or brought up to date. An older schema can be read as it is: since then
/// there are other indexes, and columns that only those need who write.
fn needs_migration(schema: Schema, opening: Opening, name: &str) -> Result<bool> {
    match (schema, opening) {
        (Schema::Current | Schema::WithoutPacks, _) | (Schema::Old, Opening::ToRead) => Ok(false),
        (Schema::Old, _) | (Schema::Absent, Opening::Create) => Ok(true),
        (Schema::Absent, _) => {
            Err(Error::new(Code::NotFound, format!("there is no store: {name} has no tables of Graviton's"))
                .with_advice("check the setting, or put something to create the store"))
        }
    }
}
