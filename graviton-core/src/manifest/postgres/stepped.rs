//! A database for tests that stops before every statement until it is told to continue.

use std::fmt;

use sqlx::{Executor, PgConnection};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::failure::{Remedy, remedy};
use crate::error::Result;
use crate::manifest::connection::{Connection, Ending, Problem};
use crate::manifest::prepared::Prepared;

/// A session asks for leave before each statement, and says when it has its answer.
pub(in crate::manifest) struct Gate {
    pub(super) asks: mpsc::UnboundedSender<(usize, oneshot::Sender<()>)>,
    pub(super) session: usize,
}

impl Gate {
    pub(in crate::manifest) async fn pass(&self) {
        let (leave, granted) = oneshot::channel();
        if self.asks.send((self.session, leave)).is_ok() {
            let _ = granted.await;
        }
    }
}

/// One connection, with its gate.
pub(in crate::manifest) struct Stepped {
    pub(super) connection: Mutex<PgConnection>,
    pub(super) gate: Gate,
}

impl fmt::Debug for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stepped").field(&self.gate.session).finish()
    }
}

impl Stepped {
    /// Does what `PostgresDatabase` does with a transaction, statement by statement.
    pub(in crate::manifest) async fn run(&self, prepared: &dyn Prepared) -> Result<()> {
        let mut connection = self.connection.lock().await;
        loop {
            self.gate.pass().await;
            connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
            let problem = match prepared.run_on(Connection::Stepped(&mut connection, &self.gate)).await {
                Ok(Ending::RollBack(())) => {
                    connection.execute("ROLLBACK").await.unwrap();
                    return Ok(());
                }
                Ok(Ending::Commit(())) => {
                    self.gate.pass().await;
                    match connection.execute("COMMIT").await {
                        Ok(_) => return Ok(()),
                        Err(error) => Problem::Postgres(error),
                    }
                }
                Err(problem) => problem,
            };
            connection.execute("ROLLBACK").await.unwrap();
            match (remedy(&problem), problem) {
                (Remedy::RunAgain, _) => {}
                (_, Problem::Postgres(error)) => panic!("an operation failed for good: {error}"),
                (_, Problem::Ours(error)) => panic!("an operation failed for good: {error:?}"),
                (_, Problem::Sqlite(_)) => unreachable!("that is another database"),
            }
        }
    }
}
