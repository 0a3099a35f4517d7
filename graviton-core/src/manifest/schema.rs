//! The tables, as numbered migrations. Each exists in both dialects and runs at open.
//!
//! A released migration never changes; the next one changes the tables that it made. However many processes
//! open a new or old database at once, each migration runs once: writers queue for the file in SQLite, and
//! for an advisory lock in PostgreSQL.

use std::time::Duration;

use super::connection::{Connection, Ending, Problem, Value, text};
use super::sql::{self, Sql};
use crate::error::{Code, Error, Result};

macro_rules! migration {
    ($file:literal) => {
        Sql::new(
            include_str!(concat!("../../migrations/sqlite/", $file)),
            include_str!(concat!("../../migrations/postgres/", $file)),
        )
    };
}

pub(super) const MIGRATIONS: &[Sql] = &[
    migration!("0001_first.sql"),
    migration!("0002_collect.sql"),
    migration!("0003_ownership.sql"),
    migration!("0004_packs.sql"),
];

/// The schema that this version gives a new store.
const VERSION: i64 = MIGRATIONS.len() as i64;

/// The last version without packs. Programs of that version may be using the database, so only an upgrade
/// goes further ([`ManifestRepo::upgrade`](super::ManifestRepo::upgrade)).
const WITHOUT_PACKS: i64 = 3;

/// Takes the advisory lock; its number is the ASCII of "graviton". Then creates the schema that the session
/// was made for, if it does not exist: creating an existing one would need a right that the user need not
/// have.
const BEFORE: Sql = Sql::new(
    "",
    "SELECT pg_advisory_xact_lock(7454127494454865774); \
        DO $$ BEGIN IF to_regnamespace(current_setting('search_path')) IS NULL THEN \
        EXECUTE format('CREATE SCHEMA %I', current_setting('search_path')); END IF; END $$",
);

/// The state of a database, seen from this version of Graviton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Current,
    /// The last version without packs.
    WithoutPacks,
    /// An older version, which is brought up to the last one without packs.
    Old,
    /// The database is empty.
    Absent,
}

/// Reads the version of the schema. A schema of a newer version or of another program is an error.
pub(super) async fn look(connection: &mut Connection<'_>, name: &str) -> Result<Ending<Schema>, Problem> {
    Ok(Ending::Commit(match version(connection, name).await? {
        None => Schema::Absent,
        Some(VERSION) => Schema::Current,
        Some(WITHOUT_PACKS) => Schema::WithoutPacks,
        Some(_) => Schema::Old,
    }))
}

/// The time limit of [`migrate`]: it may build an index over everything.
pub(super) const PATIENCE: Duration = Duration::from_secs(3_600);

/// The version that a database is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// A new database gets this version; an existing one is brought up to the last version without packs.
    Ordinary,
    /// This version.
    Upgrade,
    /// Never packs: the database is as the last version without them made it.
    #[cfg(any(test, feature = "testing"))]
    WithoutPacks,
}

/// Brings the database up to date. A new store gets this `id`.
pub(super) async fn migrate(
    connection: &mut Connection<'_>,
    name: &str,
    id: &str,
    goal: Goal,
) -> Result<Ending<()>, Problem> {
    connection.script(BEFORE).await?;
    let before = version(connection, name).await?;
    if goal == Goal::Upgrade && before.is_some_and(|before| before < VERSION) {
        let writers = connection.rows(sql::LIVE_WRITERS, &[], |row| row.number(0)).await?;
        if let Some(writers @ 1..) = writers.first().copied() {
            let why =
                format!("cannot upgrade {name}: {writers} open stores are putting, or were a minute ago");
            let error = Error::new(Code::BackendUnavailable, why);
            let advice = "end the programs that use it, wait for a minute, and try again";
            return Err(error.with_advice(advice).into());
        }
    }
    let after = match (before, goal) {
        (Some(before), Goal::Ordinary) => before.max(WITHOUT_PACKS),
        (None, Goal::Ordinary) | (_, Goal::Upgrade) => VERSION,
        #[cfg(any(test, feature = "testing"))]
        (before, Goal::WithoutPacks) => before.unwrap_or(0).max(WITHOUT_PACKS),
    };
    for migration in &MIGRATIONS[before.unwrap_or(0) as usize..after as usize] {
        connection.script(*migration).await?;
    }
    let version = Value::Number(after);
    match before {
        None => connection.execute(sql::INSERT_STORE, &[text(id), version]).await?,
        Some(_) => connection.execute(sql::SET_SCHEMA_VERSION, &[version]).await?,
    };
    Ok(Ending::Commit(()))
}

/// The version of the schema; `None` for an empty database.
async fn version(connection: &mut Connection<'_>, name: &str) -> Result<Option<i64>, Problem> {
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
