//! The tables, and how they came to be: numbered migrations, each in both dialects, run at open.
//!
//! A migration that was released never changes; the tables it made are changed by the next one. However many
//! processes open a new or old database at once, each migration runs once: SQLite's writers queue for the file, and
//! in Postgres they queue for an advisory lock.

use super::connection::{Columns, Connection, Ending, Problem, Step, Value};
use super::sql::{self, Sql};
use std::time::Duration;

use crate::error::{Code, Error, Result};

macro_rules! migration {
    ($file:literal) => {
        Sql {
            sqlite: include_str!(concat!("../../migrations/sqlite/", $file)),
            postgres: include_str!(concat!("../../migrations/postgres/", $file)),
        }
    };
}

pub(super) const MIGRATIONS: &[Sql] = &[migration!("0001_first.sql"), migration!("0002_collect.sql")];

/// The schema that this version writes.
const VERSION: i64 = MIGRATIONS.len() as i64;

/// The number is the ASCII of "graviton".
const BEFORE: Sql = Sql {
    sqlite: "",
    postgres: "SELECT pg_advisory_xact_lock(7454127494454865774); CREATE SCHEMA IF NOT EXISTS graviton",
};

/// What a database is to this version of Graviton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Current,
    /// Of an older version, which can be brought up to date.
    Old,
    /// There is nothing in it.
    Absent,
}

/// Looks what schema is there. That of a newer version is an error, and that of another program too.
pub(super) struct Look {
    /// What the database is called in messages.
    pub(super) name: String,
}

impl Step for Look {
    type Answer = Schema;
    const SINGLE: bool = true;

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Schema>, Problem> {
        let schema = match version(connection, &self.name).await? {
            None => Schema::Absent,
            Some(VERSION) => Schema::Current,
            Some(_) => Schema::Old,
        };
        Ok(Ending::Commit(schema))
    }
}

/// Brings the database up to date.
pub(super) struct Migrate {
    pub(super) name: String,
    /// The id of the store, if it is made now.
    pub(super) id: String,
}

impl Step for Migrate {
    type Answer = ();
    const SINGLE: bool = false;
    /// It may build an index over everything.
    const PATIENCE: Duration = Duration::from_secs(3_600);

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<()>, Problem> {
        connection.script(BEFORE).await?;
        let before = version(connection, &self.name).await?;
        for migration in &MIGRATIONS[before.unwrap_or(0) as usize..] {
            connection.script(*migration).await?;
        }
        let version = Value::Number(VERSION);
        match before {
            None => connection.execute(sql::INSERT_STORE, &[Value::Text(&self.id), version]).await?,
            Some(_) => connection.execute(sql::SET_SCHEMA_VERSION, &[version]).await?,
        };
        Ok(Ending::Commit(()))
    }
}

/// The version of the schema; `None` where there is none.
async fn version<C: Connection>(connection: &mut C, name: &str) -> Result<Option<i64>, Problem> {
    let tables = connection.rows(sql::TABLES, &[], |row| row.text(0)).await?;
    if tables.is_empty() {
        return Ok(None);
    }
    if !tables.iter().any(|table| table == "store") {
        let error = Error::new(Code::Config, format!("{name} is a database of another program"));
        return Err(error.with_advice("choose another directory or another GRAVITON_MANIFEST_URL").into());
    }
    let versions = connection.rows(sql::STORE, &[], |row| row.number(3)).await?;
    let version = versions.first().copied().unwrap_or_default();
    if !(1..=VERSION).contains(&version) {
        let why = format!(
            "{name} was written by a newer version of Graviton (schema {version}; this version knows {VERSION})"
        );
        return Err(Error::new(Code::Version, why).with_advice("use that version of Graviton").into());
    }
    Ok(Some(version))
}
