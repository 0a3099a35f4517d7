//! Checks whether a pooler in front of the server keeps a session for each client.
//!
//! A pooler that shares sessions between transactions also shares their prepared statements and settings: the
//! first put works, and a later one meets the statements of another client. So it is refused when the store
//! is opened. A session of the server itself is recognised by a parameter that poolers drop
//! ([`MARK`](super::address::MARK)), so that the check costs something only behind a pooler.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection as _, Executor, PgConnection, Row as _};
use tokio::time::timeout;

use super::PostgresAddress;
use super::failure::{failed, has_no_more, pooled};
use crate::error::Result;

/// How long the second client may take. A pooler that has no second session to give hands none on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fails if the pooler gives the session of this connection to others. Another client begins a transaction,
/// which takes the session that was used last if nobody keeps it.
pub(super) async fn check(address: &PostgresAddress, connection: &mut PgConnection) -> Result<()> {
    let probing = async {
        let own = session(connection).await?;
        let mut other = address.options().connect().await?;
        other.execute(sqlx::raw_sql("BEGIN")).await?;
        let others = session(&mut other).await?;
        let again = session(connection).await;
        other.execute(sqlx::raw_sql("ROLLBACK")).await?;
        other.close().await?;
        Ok::<bool, sqlx::Error>(others == own || again? != own)
    };
    let Ok(probed) = timeout(PATIENCE, probing).await else { return Ok(()) };
    match probed.map_err(|error| failed(address, error.into())) {
        Ok(true) => Err(pooled(address, "it hands sessions on between transactions")),
        Err(error) if !has_no_more(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The number of the session's process.
async fn session(connection: &mut PgConnection) -> sqlx::Result<i32> {
    connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)
}
