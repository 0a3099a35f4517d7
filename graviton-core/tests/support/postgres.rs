//! Databases of the Postgres server that `tests/servers` started.

use std::sync::atomic::{AtomicU32, Ordering};

use graviton_core::manifest::postgres::PostgresAddress;
use sqlx::{Connection, Executor, PgConnection};

use super::servers::variable;

/// A database of its own on the server; dropped with the server.
#[derive(Debug, Clone)]
pub(crate) struct TestDatabase {
    pub(crate) url: String,
}

impl TestDatabase {
    pub(crate) async fn create() -> TestDatabase {
        TestDatabase::create_on(&variable("GRAVITON_TEST_POSTGRES")).await
    }

    /// On the server of this URL, which has no database part.
    pub(crate) async fn create_on(server: &str) -> TestDatabase {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        connection.execute(sqlx::raw_sql(&format!("CREATE DATABASE {name}"))).await.unwrap();
        TestDatabase { url: format!("{server}/{name}") }
    }

    pub(crate) fn address(&self) -> PostgresAddress {
        PostgresAddress::parse("GRAVITON_MANIFEST_URL", &self.url, None, None).unwrap()
    }

    /// A session of the test's own, in the schema of the tables.
    pub(crate) async fn connect(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        connection.execute("SET search_path = graviton").await.unwrap();
        connection
    }

    pub(crate) async fn sql(&self, statement: &str) {
        let mut connection = self.connect().await;
        connection.execute(sqlx::raw_sql(statement)).await.unwrap();
    }
}
