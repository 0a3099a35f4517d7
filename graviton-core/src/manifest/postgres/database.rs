//! The connections to one PostgreSQL database, and the retries of operations.
//!
//! A few connections are kept and reused. sqlx's own pool is not used, for two reasons. While connections are
//! refused, it retries until its time is up, and then reports only that it took too long. After a restart of
//! the server, each dead connection in it costs one failed call (or costs each call one more round trip to
//! find out). Here the first lost connection discards all idle ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection as _, Executor, PgConnection, Row as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::failure::{Remedy, failed, has_no_more, pooled, remedy};
use super::{PostgresAddress, pooler};
use crate::descriptor;
use crate::error::{Code, Error, Result};
use crate::manifest::Connections;
use crate::manifest::connection::{self, Ending, Problem};
use crate::manifest::operation::{Access, Operation, Watch};
use crate::manifest::prepared::Prepared;
use crate::random;

/// How long a call waits for a free connection. The one that renews the lease is not among them.
const QUEUE: Duration = Duration::from_secs(30);
/// The time limit for connecting: opening a store succeeds or fails within 10 seconds.
const CONNECT: Duration = Duration::from_secs(8);
/// An idle connection is closed after this time, before a firewall forgets it.
const IDLE: Duration = Duration::from_secs(120);
/// The time limit for rolling back a transaction; after that, the connection is closed instead.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// A step that conflicts with locks of others is retried for this long.
const CONFLICTS: Duration = Duration::from_secs(60);
/// If the answer to a commit was lost, its outcome is asked for this long.
const UNKNOWN: Duration = Duration::from_secs(40);
/// A step gives up after this many lost connections one after another.
const LOSSES: u32 = 3;

/// Bounds how long a row stays locked for others, by us or by a session of ours that was cut off. Then checks
/// that the session has the parameters that we set when connecting; some poolers drop them.
///
/// Limits of the user on statements (`statement_timeout`) or transactions (`transaction_timeout`, from
/// PostgreSQL 17 on) are lifted: a step has its own time limit, and one that the server cut off each time
/// would never finish.
const AS_ASKED: &str = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; \
    SET statement_timeout = 0; SELECT current_setting('search_path'), \
    current_setting('synchronous_commit') NOT IN ('off', 'local'), \
    coalesce(current_setting('graviton.session', true), '') <> '', \
    (SELECT set_config(name, '0', FALSE) FROM pg_settings WHERE name = 'transaction_timeout')";

/// Sets the parameters once more, in the same round trip: through a pooler that shares sessions, another
/// client may have changed them.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; \
    SET LOCAL statement_timeout = 0";

/// One database of a Postgres server.
#[derive(Debug)]
pub(in crate::manifest) struct PostgresDatabase {
    address: PostgresAddress,
    pool: Arc<Pool>,
    /// The session that renews the lease, so that the renewal never waits for the others.
    renewal: tokio::sync::Mutex<Option<PgConnection>>,
    /// Set once a check has shown that a pooler keeps sessions for their clients.
    has_own_sessions: AtomicBool,
}

#[derive(Debug)]
struct Pool {
    /// Idle connections, and since when they are idle.
    idle: Mutex<Vec<(PgConnection, Instant)>>,
    places: Arc<Semaphore>,
    closed: AtomicBool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. If it is dropped, it is closed, and the server rolls back its transaction; if it is
/// given back, it is kept.
struct Session {
    connection: PgConnection,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Session {
    fn give_back(self) {
        self.pool.idle().push((self.connection, Instant::now()));
    }
}

/// The failure of one attempt of a step.
struct Failure {
    error: Error,
    remedy: Remedy,
    /// Whether the step may have been committed nevertheless.
    unknown: bool,
}

impl PostgresDatabase {
    pub(in crate::manifest) fn new(address: PostgresAddress) -> PostgresDatabase {
        let places = Arc::new(Semaphore::new(address.connections()));
        PostgresDatabase {
            address,
            pool: Arc::new(Pool { idle: Mutex::default(), places, closed: AtomicBool::new(false) }),
            renewal: tokio::sync::Mutex::new(None),
            has_own_sessions: AtomicBool::new(false),
        }
    }

    async fn session(&self) -> Result<Session> {
        let name = self.address.name();
        let place = timeout(QUEUE, Arc::clone(&self.pool.places).acquire_owned()).await;
        let place = place.map_err(|_| {
            let most = self.address.connections();
            let why = format!("all {most} connections to the database {name} are busy");
            Error::new(Code::BackendUnavailable, why)
                .with_advice("do less at once, raise GRAVITON_PG_CONNECTIONS, or try again")
        })?;
        let (Ok(place), false) = (place, self.pool.closed.load(Ordering::Acquire)) else {
            return Err(Error::new(Code::Closed, "the store is closed"));
        };
        let connection = self.connection().await?;
        Ok(Session { connection, pool: Arc::clone(&self.pool), _place: place })
    }

    /// An idle connection, or a new one. While the server has none to give, waits as it would for one of the
    /// store's own.
    async fn connection(&self) -> Result<PgConnection> {
        let started = Instant::now();
        for tries in 0.. {
            let idle = {
                let mut idle = self.pool.idle();
                idle.retain(|(_, since)| since.elapsed() < IDLE);
                idle.pop()
            };
            if let Some((connection, _)) = idle {
                return Ok(connection);
            }
            match self.connect().await {
                Err(error) if has_no_more(&error) && started.elapsed() < QUEUE => {
                    tokio::time::sleep(pause(tries)).await;
                }
                connected => return connected,
            }
        }
        unreachable!("the loop ends by itself only after four billion tries")
    }

    async fn connect(&self) -> Result<PgConnection> {
        descriptor::occupy_standard();
        let Ok(connected) = timeout(CONNECT, self.address.options().connect()).await else {
            let (name, seconds) = (self.address.name(), CONNECT.as_secs());
            let why = format!("the database {name} cannot be reached: no answer within {seconds} seconds");
            return Err(Error::new(Code::BackendUnavailable, why).with_advice(format!(
                "check that it runs and that {} names its host",
                self.address.variable()
            )));
        };
        let mut connection = connected.map_err(|error| failed(&self.address, error.into()))?;
        // Without our search_path the session would create the tables in another schema, and without
        // synchronous_commit an acknowledged commit could be lost.
        let as_asked = timeout(CLEAN_UP, connection.fetch_one(sqlx::raw_sql(AS_ASKED))).await;
        let as_asked = as_asked.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())).flatten();
        let as_asked = as_asked.and_then(|row| {
            let schema_and_commits =
                row.try_get::<&str, _>(0)? == self.address.schema() && row.try_get::<bool, _>(1)?;
            Ok((schema_and_commits, row.try_get::<bool, _>(2)?))
        });
        let (as_asked, is_marked) = as_asked.map_err(|error| failed(&self.address, error.into()))?;
        if !as_asked {
            return Err(pooled(&self.address, "a pooler leaves out the parameters of the session"));
        }
        if !is_marked && !self.has_own_sessions.load(Ordering::Acquire) {
            pooler::check(&self.address, &mut connection).await?;
            self.has_own_sessions.store(true, Ordering::Release);
        }
        Ok(connection)
    }

    /// Runs an operation.
    pub(in crate::manifest) async fn run(
        &self,
        operation: Operation,
        watch: &Watch,
        prepared: &dyn Prepared,
    ) -> Result<()> {
        let call = Call { operation, watch, prepared };
        if operation.access == Access::Renewal { self.renew(&call).await } else { self.repeat(&call).await }
    }

    /// Runs the operation until it succeeds, or a retry cannot help.
    async fn repeat(&self, call: &Call<'_>) -> Result<()> {
        let started = Instant::now();
        let mut unknown = false;
        let mut losses = 0;
        for tries in 0.. {
            let Err(failure) = self.try_once(call).await else { return Ok(()) };
            unknown |= failure.unknown;
            let again = match failure.remedy {
                Remedy::RunAgain => started.elapsed() < CONFLICTS,
                Remedy::Reconnect => {
                    losses += 1;
                    losses < LOSSES || unknown && started.elapsed() < UNKNOWN
                }
                Remedy::None => unknown && failure.error.is_retryable() && started.elapsed() < UNKNOWN,
            };
            if !again && unknown {
                let advice = "the blobs may have been committed all the same; put them again to be sure";
                return Err(failure.error.with_advice(advice));
            }
            if !again {
                return Err(failure.error);
            }
            tokio::time::sleep(pause(tries)).await;
        }
        unreachable!("the loop ends by itself only after four billion tries")
    }

    async fn try_once(&self, call: &Call<'_>) -> Result<(), Failure> {
        let connected = self.session().await;
        let mut session =
            connected.map_err(|error| Failure { error, remedy: Remedy::None, unknown: false })?;
        let mut outcome = Outcome::new();
        let running = call.run_on(&mut session.connection, &mut outcome);
        let Ok(result) = timeout(call.operation.patience, running).await else {
            let (name, seconds) = (self.address.name(), call.operation.patience.as_secs());
            let why = format!("the database {name} did not answer within {seconds} seconds");
            let error = Error::new(Code::BackendUnavailable, why).with_advice("try again");
            // The network that lost this answer loses those of the other connections too.
            self.pool.idle().clear();
            return Err(Failure { error, remedy: Remedy::None, unknown: outcome.committing });
        };
        let problem = match result {
            Ok(()) => {
                if outcome.usable {
                    session.give_back();
                }
                return Ok(());
            }
            Err(problem) => problem,
        };
        let remedy = remedy(&problem);
        if remedy == Remedy::Reconnect {
            self.pool.idle().clear();
        } else if !call.is_transaction()
            || matches!(timeout(CLEAN_UP, session.connection.execute("ROLLBACK")).await, Ok(Ok(_)))
        {
            session.give_back();
        }
        let unknown = outcome.committing && remedy == Remedy::Reconnect;
        Err(Failure { error: failed(&self.address, problem), remedy, unknown })
    }
}

/// The state of an attempt, however it ends.
struct Outcome {
    /// Whether it may have taken effect.
    committing: bool,
    /// Whether the connection can be used again.
    usable: bool,
}

impl Outcome {
    fn new() -> Outcome {
        Outcome { committing: false, usable: true }
    }
}

/// An operation with its arguments, which can run any number of times.
struct Call<'a> {
    operation: Operation,
    watch: &'a Watch,
    prepared: &'a dyn Prepared,
}

impl Call<'_> {
    /// Whether the operation is more than one writing statement. PostgreSQL makes a transaction of a single
    /// one.
    fn is_transaction(&self) -> bool {
        self.operation.access == Access::Transaction
    }

    /// Runs it once on this connection.
    async fn run_on(
        &self,
        connection: &mut PgConnection,
        Outcome { committing, usable }: &mut Outcome,
    ) -> Result<(), Problem> {
        if !self.is_transaction() {
            self.watch.before_commit()?;
            let connection = connection::Connection::Postgres(connection, self.operation.tables);
            self.prepared.run_on(connection).await?;
            return Ok(());
        }
        connection.execute(sqlx::raw_sql(BEGIN)).await?;
        let running = connection::Connection::Postgres(&mut *connection, self.operation.tables);
        match self.prepared.run_on(running).await? {
            Ending::Commit(()) => {
                self.watch.before_commit()?;
                *committing = true;
                connection.execute("COMMIT").await?;
                Ok(())
            }
            Ending::RollBack(()) => {
                // The answer holds either way: nothing was changed. The operation must not be retried for
                // this, because its work outside the database may still be in progress.
                *usable = matches!(timeout(CLEAN_UP, connection.execute("ROLLBACK")).await, Ok(Ok(_)));
                Ok(())
            }
        }
    }
}

/// How long to wait before the next attempt: longer each time, and different for each waiter.
fn pause(tries: u32) -> Duration {
    let most = 10_u64 << tries.min(6);
    // Without a random number all waiters wait equally long, which is only slower.
    let random = random::bytes().map_or(0, u64::from_le_bytes);
    Duration::from_millis(most / 2 + random % (most / 2 + 1))
}

impl PostgresDatabase {
    /// Runs the renewal of a lease, over its own connection.
    async fn renew(&self, call: &Call<'_>) -> Result<()> {
        let mut held = self.renewal.lock().await;
        let mut again = held.is_some();
        loop {
            if self.pool.closed.load(Ordering::Acquire) {
                return Err(Error::new(Code::Closed, "the store is closed"));
            }
            // The connection is taken out, so that one in an unknown state is never used again.
            let mut connection = match held.take() {
                Some(connection) => connection,
                None => match self.connect().await {
                    // A late renewal over one of the other connections is better than none.
                    Err(error) if has_no_more(&error) => return self.repeat(call).await,
                    connected => connected?,
                },
            };
            let mut outcome = Outcome::new();
            let problem = match timeout(CONNECT, call.run_on(&mut connection, &mut outcome)).await {
                Ok(Ok(())) => {
                    *held = Some(connection);
                    return Ok(());
                }
                Ok(Err(problem)) => problem,
                Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into(),
            };
            if !again {
                return Err(failed(&self.address, problem));
            }
            again = false;
        }
    }

    pub(in crate::manifest) fn name(&self) -> &str {
        self.address.name()
    }

    pub(in crate::manifest) fn connections(&self) -> Connections {
        let most = self.address.connections();
        Connections { busy: most - self.pool.places.available_permits(), most }
    }

    /// Always fails: a PostgreSQL database is not a file that could be copied.
    pub(in crate::manifest) fn backup(&self) -> Result<()> {
        let why =
            format!("the manifests are in {}, which is not a file of ours to copy", self.address.name());
        Err(Error::new(Code::Unsupported, why).with_advice(format!(
            "use pg_dump --schema={}, or the server's own backups",
            self.address.schema()
        )))
    }

    pub(in crate::manifest) async fn close(&self) {
        self.pool.closed.store(true, Ordering::Release);
        // Running operations finish first.
        let _all = timeout(QUEUE, self.pool.places.acquire_many(self.address.connections() as u32)).await;
        let idle = std::mem::take(&mut *self.pool.idle());
        let renewal = self.renewal.lock().await.take();
        for connection in idle.into_iter().map(|(connection, _)| connection).chain(renewal) {
            let _ = timeout(Duration::from_secs(1), connection.close()).await;
        }
    }
}
