//! The tables, as numbered migrations, each in both dialects, run at open.
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

/// The last one without packs. Programs of that version may be using the database, so that only an upgrade
/// goes further ([`ManifestRepo::upgrade`](super::ManifestRepo::upgrade)).
const WITHOUT_PACKS: i64 = 3;

/// The number is the ASCII of "graviton". The schema is the one that the session was made for. One that is
/// there is not made: that would ask for a right which the user need not have.
const BEFORE: Sql = Sql::new(
    "",
    "SELECT pg_advisory_xact_lock(7454127494454865774); \
        DO $$ BEGIN IF to_regnamespace(current_setting('search_path')) IS NULL THEN \
        EXECUTE format('CREATE SCHEMA %I', current_setting('search_path')); END IF; END $$",
);

/// What a database is to this version of Graviton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Current,
    /// The last one without packs.
    WithoutPacks,
    /// Of an older version, which is brought up to the last one without packs.
    Old,
    /// It is empty.
    Absent,
}

/// Reads which schema there is. That of a newer version is an error, and that of another program too.
pub(super) async fn look(connection: &mut Connection<'_>, name: &str) -> Result<Ending<Schema>, Problem> {
    Ok(Ending::Commit(match version(connection, name).await? {
        None => Schema::Absent,
        Some(VERSION) => Schema::Current,
        Some(WITHOUT_PACKS) => Schema::WithoutPacks,
        Some(_) => Schema::Old,
    }))
}

/// How long [`migrate`] may take: it may build an index over everything.
pub(super) const PATIENCE: Duration = Duration::from_secs(3_600);

/// How far a database is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// One that is made now is of this version; another one is brought to the last one without packs.
    Ordinary,
    /// To this version.
    Upgrade,
    /// Never to packs: as the last version without them made it.
    #[cfg(any(test, feature = "testing"))]
    WithoutPacks,
}

/// Brings the database up to date. A store that is made now gets this `id`.
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

/// The version of the schema; `None` where there is none.
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
