//! A connection to either database: statements go in, rows come out.
//!
//! The operations of the repository are written once, against [`Connection`]. SQLite answers before a call
//! returns; PostgreSQL makes a round trip.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::PlacedEntry;
#[cfg(feature = "postgres")]
use super::postgres;
use super::sql::{Sql, Tables};
use super::sqlite;
use crate::digest::{Algo, Digest};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey, MAX_BLOCK_SIZE};
use crate::place::{Codec, Located, PackRow, Place};

/// The reason why an operation failed: an error of its database, or our own.
pub(super) enum Problem {
    Sqlite(rusqlite::Error),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Problem {
        Problem::Sqlite(error)
    }
}

#[cfg(feature = "postgres")]
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        Problem::Postgres(error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Ours(error)
    }
}

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Number(i64),
    Text(Cow<'a, str>),
    Digest(Digest),
}

impl Value<'static> {
    /// The most rows to return.
    pub(super) fn limit(rows: usize) -> Value<'static> {
        Value::Number(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// A duration that is longer than the database can count becomes the longest one that it can.
    pub(super) fn milliseconds(duration: Duration) -> Value<'static> {
        Value::Number(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// The three columns of a blob's id.
    pub(super) fn id(id: &BlobId) -> [Value<'static>; 3] {
        [Value::Number(id.algo().number()), Value::Digest(*id.digest()), Value::Number(id.size() as i64)]
    }
}

pub(super) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(text.into())
}

/// The columns of a row that a query found, numbered from 0.
pub(super) enum Columns<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    #[cfg(feature = "postgres")]
    Postgres(&'r sqlx::postgres::PgRow),
}

impl Columns<'_> {
    /// A number or a truth value; `None` for null.
    pub(super) fn optional(&self, column: usize) -> Result<Option<i64>, Problem> {
        match self {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            #[cfg(feature = "postgres")]
            Columns::Postgres(row) => postgres::connection::optional(row, column),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<String, Problem> {
        match self {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            #[cfg(feature = "postgres")]
            Columns::Postgres(row) => Ok(sqlx::Row::try_get(*row, column)?),
        }
    }

    pub(super) fn digest(&self, column: usize) -> Result<Digest, Problem> {
        match self {
            Columns::Sqlite(row) => Ok(Digest::from_bytes(row.get(column)?)),
            #[cfg(feature = "postgres")]
            Columns::Postgres(row) => postgres::connection::digest(row, column),
        }
    }

    pub(super) fn number(&self, column: usize) -> Result<i64, Problem> {
        Ok(self.optional(column)?.ok_or_else(foreign)?)
    }

    pub(super) fn truth(&self, column: usize) -> Result<bool, Problem> {
        Ok(self.number(column)? != 0)
    }

    /// Algorithm, digest and size in three columns: a blob.
    pub(super) fn id(&self, first: usize) -> Result<BlobId, Problem> {
        Ok(BlobId::new(self.algo(first)?, self.digest(first + 1)?, self.number(first + 2)? as u64)?)
    }

    /// Algorithm, digest and size in three columns: a block.
    pub(super) fn key(&self, first: usize) -> Result<BlockKey, Problem> {
        Ok(BlockKey::new(self.algo(first)?, self.digest(first + 1)?, self.number(first + 2)? as u64)?)
    }

    /// Offset, key and place.
    pub(super) fn entry(&self, first: usize) -> Result<PlacedEntry, Problem> {
        Ok(PlacedEntry {
            offset: self.number(first)? as u64,
            key: self.key(first + 1)?,
            located: self.located(first + 4)?,
        })
    }

    /// The six columns of a place; `None` for the block's own name.
    pub(super) fn located(&self, first: usize) -> Result<Option<Located>, Problem> {
        let Some(pack) = self.optional(first)? else { return Ok(None) };
        let (offset, stored_size) = (self.number(first + 2)?, self.number(first + 3)?);
        // A row that was tampered with must not make us allocate memory, nor read outside a pack.
        let is_possible =
            (1..=MAX_OFFSET).contains(&offset) && (1..=MAX_BLOCK_SIZE as i64).contains(&stored_size);
        if !is_possible {
            return Err(foreign().into());
        }
        let codec = Codec::from_number(self.number(first + 4)?).ok_or_else(foreign)?;
        let place = Place {
            pack: PackRow(pack),
            name: self.text(first + 1)?.parse().map_err(|_| foreign())?,
            offset: offset as u64,
            stored_size: stored_size as u32,
            codec,
        };
        Ok(Some(Located { place, is_sealed: self.truth(first + 5)? }))
    }

    fn algo(&self, column: usize) -> Result<Algo, Problem> {
        Ok(Algo::from_number(self.number(column)?).ok_or_else(foreign)?)
    }
}

/// An upper bound: no pack is this long.
const MAX_OFFSET: i64 = 1 << 40;

/// The error for a row that no Graviton wrote.
fn foreign() -> Error {
    Error::new(Code::CorruptDatabase, "the database holds a row that Graviton never wrote")
        .with_advice("restore the database from a backup")
}

/// A connection that an operation runs on.
pub(super) enum Connection<'c> {
    Sqlite(&'c mut rusqlite::Connection, Tables),
    #[cfg(feature = "postgres")]
    Postgres(&'c mut sqlx::PgConnection, Tables),
    #[cfg(all(test, feature = "postgres"))]
    Stepped(&'c mut sqlx::PgConnection, &'c postgres::stepped::Gate),
}

impl Connection<'_> {
    /// Whether others write at the same time, so that rows have to be locked before they are read. In SQLite
    /// a writing transaction has the database to itself.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self, Connection::Sqlite(..))
    }

    /// The rows that the statement finds.
    pub(super) async fn rows<T: Send>(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
        read: impl FnMut(&Columns<'_>) -> Result<T, Problem> + Send,
    ) -> Result<Vec<T>, Problem> {
        match self {
            Connection::Sqlite(connection, tables) => {
                sqlite::connection::rows(connection, sql.sqlite(*tables), values, read)
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection, tables) => {
                postgres::connection::rows(connection, sql.postgres(*tables), values, read).await
            }
            #[cfg(all(test, feature = "postgres"))]
            Connection::Stepped(connection, gate) => {
                gate.pass().await;
                postgres::connection::rows(connection, sql.postgres(Tables::Packs), values, read).await
            }
        }
    }

    /// How many rows the statement changed.
    pub(super) async fn execute(&mut self, sql: Sql, values: &[Value<'_>]) -> Result<u64, Problem> {
        match self {
            Connection::Sqlite(connection, tables) => {
                sqlite::connection::execute(connection, sql.sqlite(*tables), values)
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection, tables) => {
                postgres::connection::execute(connection, sql.postgres(*tables), values).await
            }
            #[cfg(all(test, feature = "postgres"))]
            Connection::Stepped(connection, gate) => {
                gate.pass().await;
                postgres::connection::execute(connection, sql.postgres(Tables::Packs), values).await
            }
        }
    }

    /// Runs several statements without parameters.
    pub(super) async fn script(&mut self, statements: Sql) -> Result<(), Problem> {
        match self {
            Connection::Sqlite(connection, tables) => {
                Ok(connection.execute_batch(statements.sqlite(*tables))?)
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection, tables) => {
                postgres::connection::script(connection, statements.postgres(*tables)).await
            }
            #[cfg(all(test, feature = "postgres"))]
            Connection::Stepped(connection, gate) => {
                gate.pass().await;
                postgres::connection::script(connection, statements.postgres(Tables::Packs)).await
            }
        }
    }
}

/// How a transaction ends, and its answer. After a query both endings are the same.
pub(super) enum Ending<T> {
    Commit(T),
    /// Nothing was changed.
    RollBack(T),
}

/// An operation in progress. It is boxed because stable Rust has no other way to require that the future of a
/// closure that borrows the connection is `Send`.
pub(super) type Running<'c, T> = Pin<Box<dyn Future<Output = Result<Ending<T>, Problem>> + Send + 'c>>;

/// The function that runs an operation on a connection, with its arguments. It may run several times until it
/// gets through, and leaves the same state behind as if it had run once. The arguments are passed to it
/// rather than captured, so that each run borrows them.
pub(super) trait Work<A, T>:
    for<'c> Fn(Connection<'c>, &'c A) -> Running<'c, T> + Send + Sync + 'static
{
}

impl<A, T, W> Work<A, T> for W where
    W: for<'c> Fn(Connection<'c>, &'c A) -> Running<'c, T> + Send + Sync + 'static
{
}
