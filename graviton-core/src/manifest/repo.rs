//! The repository: one of the two databases, and the only place where operations begin and end.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::connection::{Columns, Ending, Problem, Value, Work};
use super::operation::{Operation, TransactionHook, Watch};
#[cfg(feature = "postgres")]
use super::postgres;
use super::prepared::{Answered, Prepared};
use super::sql::{Sql, Tables};
use super::sqlite::SqliteDatabase;
use super::{Connections, Durability};
use crate::blocking;
use crate::error::{Code, Error, Result};

/// The database of manifests: an SQLite file, or a PostgreSQL database.
///
/// All methods may be called from any number of tasks, processes and hosts at once. A call whose future is
/// dropped takes effect as a whole or not at all. A database that is busy, gone or restarted is the
/// retryable `backend-unavailable`.
///
/// Only what must survive a power cut is synced. Pins serve living processes, so their transactions are left
/// to the next sync, which a commit makes.
pub struct ManifestRepo {
    pub(super) database: Database,
    pub(super) durability: Durability,
    pub(super) tables: Tables,
    hook: Option<Arc<dyn TransactionHook>>,
}

/// An enum and not a trait: there are two databases, and an operation is written once for both.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite(SqliteDatabase),
    #[cfg(feature = "postgres")]
    Postgres(Box<postgres::PostgresDatabase>),
    #[cfg(all(test, feature = "postgres"))]
    Stepped(postgres::stepped::Stepped),
}

impl ManifestRepo {
    pub(super) fn new(database: Database, durability: Durability) -> ManifestRepo {
        ManifestRepo { database, durability, tables: Tables::Packs, hook: None }
    }

    /// The same repository, watched by this hook.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with_hook(self, hook: Arc<dyn TransactionHook>) -> ManifestRepo {
        ManifestRepo { hook: Some(hook), ..self }
    }

    /// Runs an operation. Every operation runs here.
    pub(super) async fn run<A, T>(
        &self,
        operation: Operation,
        arguments: A,
        work: impl Work<A, T>,
    ) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let operation = operation.on(self.tables);
        let watch = Watch::new(self.hook.as_ref(), operation);
        watch.before_begin()?;
        let prepared = Arc::new(Answered::new(arguments, work));
        let ended = self.run_prepared(operation, &watch, Arc::clone(&prepared) as Arc<dyn Prepared>).await;
        watch.after_end()?;
        ended.and_then(|()| prepared.answer())
    }

    async fn run_prepared(
        &self,
        operation: Operation,
        watch: &Watch,
        prepared: Arc<dyn Prepared>,
    ) -> Result<()> {
        match &self.database {
            Database::Sqlite(database) => database.run(operation, watch.clone(), prepared).await,
            #[cfg(feature = "postgres")]
            // Boxed: it connects and tries again, and would make the future of every operation large.
            Database::Postgres(database) => Box::pin(database.run(operation, watch, &*prepared)).await,
            #[cfg(all(test, feature = "postgres"))]
            Database::Stepped(database) => database.run(&*prepared).await,
        }
    }

    /// An operation that is one statement: the rows that it finds.
    pub(super) async fn rows<const N: usize, T: Send + 'static>(
        &self,
        operation: Operation,
        sql: Sql,
        values: [Value<'static>; N],
        read: impl Fn(&Columns<'_>) -> Result<T, Problem> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        self.run(operation, (values, read), move |mut connection, (values, read)| {
            Box::pin(async move { Ok(Ending::Commit(connection.rows(sql, values, read).await?)) })
        })
        .await
    }

    /// An operation that is one statement: how many rows it changes.
    pub(super) async fn execute<const N: usize>(
        &self,
        operation: Operation,
        sql: Sql,
        values: [Value<'static>; N],
    ) -> Result<u64> {
        self.run(operation, values, move |mut connection, values| {
            Box::pin(async move { Ok(Ending::Commit(connection.execute(sql, values).await?)) })
        })
        .await
    }

    /// The answer of a call, if the database is a file of this host and the call waits for nobody. On an
    /// error the call is to be made again in the usual way, which says why.
    pub(super) fn at_once<T>(&self, call: impl Future<Output = Result<T>>) -> Option<T> {
        if self.is_local() { blocking::at_once(call)?.ok() } else { None }
    }

    /// The database, for messages.
    pub(super) fn name(&self) -> String {
        match &self.database {
            Database::Sqlite(database) => database.path().display().to_string(),
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.name().to_owned(),
            #[cfg(all(test, feature = "postgres"))]
            Database::Stepped(_) => "the database".to_owned(),
        }
    }

    /// Writes a consistent copy of the database to a new file, while it is in use.
    pub async fn backup(&self, to: &Path) -> Result<()> {
        match &self.database {
            Database::Sqlite(database) => database.backup(to).await,
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.backup(),
            #[cfg(all(test, feature = "postgres"))]
            Database::Stepped(_) => Ok(()),
        }
    }

    /// Removes what processes left that died while they made the database. Returns how many files.
    pub async fn remove_leftovers(&self) -> Result<u64> {
        match &self.database {
            Database::Sqlite(database) => database.remove_leftovers().await,
            #[cfg(feature = "postgres")]
            _ => Ok(0),
        }
    }

    /// Whether the database is on this host, used by its processes only.
    pub fn is_local(&self) -> bool {
        matches!(self.database, Database::Sqlite(_))
    }

    /// Fails if the database of an open store was taken away: a file of SQLite was removed or replaced.
    pub async fn check_in_place(&self) -> Result<()> {
        match &self.database {
            Database::Sqlite(database) => database.check_in_place().await,
            #[cfg(feature = "postgres")]
            _ => Ok(()),
        }
    }

    /// The same, at once.
    pub fn look_in_place(&self) -> Result<()> {
        match &self.database {
            Database::Sqlite(database) => database.look_in_place(),
            #[cfg(feature = "postgres")]
            _ => Ok(()),
        }
    }

    /// The connections to the database.
    pub fn connections(&self) -> Connections {
        match &self.database {
            Database::Sqlite(database) => database.connections(),
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.connections(),
            #[cfg(all(test, feature = "postgres"))]
            Database::Stepped(_) => Connections { busy: 1, most: 1 },
        }
    }

    /// Closes the connections in an orderly way. Later calls fail with `closed`.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(database) => database.close().await,
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.close().await,
            #[cfg(all(test, feature = "postgres"))]
            Database::Stepped(_) => {}
        }
    }
}

impl fmt::Debug for ManifestRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManifestRepo { database, durability, tables: _, hook: _ } = self;
        f.debug_struct("ManifestRepo")
            .field("database", database)
            .field("durability", durability)
            .finish_non_exhaustive()
    }
}

/// The only row of an answer that has one.
pub(super) fn only<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

/// The only row of an answer that always has one.
pub(super) fn the_only<T>(rows: Vec<T>) -> Result<T> {
    only(rows).ok_or_else(|| {
        Error::new(Code::CorruptDatabase, "the database gave no row where there is always one")
            .with_advice("restore the database from a backup")
    })
}
