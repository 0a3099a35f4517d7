//! What the two databases have in common: statements go in, rows come out, and a [`Step`] is one transaction.
//!
//! The steps of the protocol are written once (`steps`), against [`Connection`]; `sqlite` and `postgres` only
//! carry them out. SQLite's connection answers before it returns, and Postgres' makes a round trip.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use super::sql::Sql;
use crate::digest::{Algo, Digest};
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{Connections, ManifestEntry};

/// What can go wrong inside a step: the database says so, or we do.
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

/// A value for a place in a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Number(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// The columns of a row that was found, from 0.
pub(super) trait Columns {
    /// A number or a truth; `None` for null.
    fn optional(&self, column: usize) -> Result<Option<i64>, Problem>;

    fn text(&self, column: usize) -> Result<String, Problem>;

    fn digest(&self, column: usize) -> Result<Digest, Problem>;

    fn number(&self, column: usize) -> Result<i64, Problem> {
        Ok(self.optional(column)?.ok_or_else(foreign)?)
    }

    fn truth(&self, column: usize) -> Result<bool, Problem> {
        Ok(self.number(column)? != 0)
    }

    /// Algorithm, digest and size in three columns: a blob.
    fn id(&self, first: usize) -> Result<BlobId, Problem> {
        Ok(BlobId::new(self.algo(first)?, self.digest(first + 1)?, self.number(first + 2)? as u64)?)
    }

    /// Algorithm, digest and size in three columns: a block.
    fn key(&self, first: usize) -> Result<BlockKey, Problem> {
        Ok(BlockKey::new(self.algo(first)?, self.digest(first + 1)?, self.number(first + 2)? as u64)?)
    }

    /// Offset and key.
    fn entry(&self, first: usize) -> Result<ManifestEntry, Problem> {
        Ok(ManifestEntry { offset: self.number(first)? as u64, key: self.key(first + 1)? })
    }

    fn algo(&self, column: usize) -> Result<Algo, Problem> {
        Ok(Algo::from_number(self.number(column)?).ok_or_else(foreign)?)
    }
}

/// The error for a row that no Graviton wrote.
fn foreign() -> Error {
    Error::new(Code::CorruptDatabase, "the database holds a row that Graviton never wrote")
        .with_advice("restore the database from a backup")
}

/// A session of a database, inside a transaction or with one statement to run.
pub(super) trait Connection: Send {
    /// Whether others write at the same time, so that rows have to be locked before they are looked at. In
    /// SQLite a transaction that writes has the database to itself.
    const SHARED: bool;

    type Row<'row>: Columns;

    /// The rows that the statement finds.
    fn rows<T: Send>(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
        read: impl FnMut(&Self::Row<'_>) -> Result<T, Problem> + Send,
    ) -> impl Future<Output = Result<Vec<T>, Problem>> + Send;

    /// Runs several statements without values.
    fn script(&mut self, statements: Sql) -> impl Future<Output = Result<(), Problem>> + Send;

    /// How many rows the statement changed.
    fn execute(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, Problem>> + Send;
}

/// How a transaction ends, and its answer.
pub(super) enum Ending<T> {
    Commit(T),
    /// Nothing was changed.
    RollBack(T),
}

impl<T> Ending<T> {
    /// The answer, where there is no transaction to end.
    pub(super) fn answer(self) -> T {
        let (Ending::Commit(answer) | Ending::RollBack(answer)) = self;
        answer
    }
}

/// One transaction, or one query. It may be run several times until it gets through, and leaves the same behind
/// as if it had run once.
pub(super) trait Step: Send + Sync + 'static {
    type Answer: Send + 'static;

    /// Whether it is one statement, which needs no transaction around it.
    const SINGLE: bool = true;

    /// How long it may take before the database counts as gone.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn run<C: Connection>(
        &self,
        connection: &mut C,
    ) -> impl Future<Output = Result<Ending<Self::Answer>, Problem>> + Send;
}

/// A database that carries out steps.
pub(super) trait Database: std::fmt::Debug + Send + Sync + 'static {
    /// A query.
    fn read<S: Step>(&self, step: S) -> impl Future<Output = Result<S::Answer>> + Send;

    /// The same query, if it can be answered on this thread without waiting for anybody; otherwise `None`.
    fn read_at_once<S: Step>(&self, step: &S) -> Option<S::Answer> {
        let _ = step;
        None
    }

    /// Both: a short query right before a transaction that writes, without waiting.
    fn read_to_write_at_once<S: Step>(&self, step: &S) -> Option<S::Answer> {
        self.read_at_once(step)
    }

    /// A short query right before a transaction that writes, by whoever is about to run that.
    fn read_to_write<S: Step>(&self, step: S) -> impl Future<Output = Result<S::Answer>> + Send {
        self.read(step)
    }

    /// A transaction. A `durable` one survives power loss once this has returned.
    fn write<S: Step>(&self, durable: bool, step: S) -> impl Future<Output = Result<S::Answer>> + Send;

    /// A transaction that must not wait for others of this process: the renewal of the lease.
    fn renew<S: Step>(&self, step: S) -> impl Future<Output = Result<S::Answer>> + Send {
        self.write(false, step)
    }

    /// Whether it is on this host, used by its processes only.
    const LOCAL: bool;

    /// What the database itself finds wrong with its file or indexes.
    fn integrity(&self) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Writes a consistent copy to a new file.
    fn backup(&self, to: &Path) -> impl Future<Output = Result<()>> + Send;

    /// Those that are in use, and how many can be.
    fn connections(&self) -> Connections;

    /// Closes the connections in an orderly way.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
