//! A session of Postgres, as the steps see it. Statements are prepared once for each connection.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Column, Executor, PgConnection, Postgres, Row, TypeInfo};

use crate::digest::Digest;
use crate::error::{Code, Error};
use crate::manifest::connection::{Columns, Connection, Problem, Value};
use crate::manifest::sql::Sql;

impl Columns for PgRow {
    fn optional(&self, column: usize) -> Result<Option<i64>, Problem> {
        // Literals and conditions have the types that Postgres finds for them.
        Ok(match self.try_column(column)?.type_info().name() {
            "BOOL" => self.try_get::<Option<bool>, _>(column)?.map(i64::from),
            "INT2" => self.try_get::<Option<i16>, _>(column)?.map(i64::from),
            "INT4" => self.try_get::<Option<i32>, _>(column)?.map(i64::from),
            _ => self.try_get(column)?,
        })
    }

    fn text(&self, column: usize) -> Result<String, Problem> {
        Ok(self.try_get(column)?)
    }

    fn digest(&self, column: usize) -> Result<Digest, Problem> {
        let bytes: &[u8] = self.try_get(column)?;
        let bytes = bytes.try_into().map_err(|_| {
            Error::new(Code::CorruptDatabase, "the database holds a digest of another length")
        })?;
        Ok(Digest::from_bytes(bytes))
    }
}

fn query<'a>(sql: Sql, values: &'a [Value<'a>]) -> Query<'a, Postgres, PgArguments> {
    let query = sqlx::query(sql.postgres);
    values.iter().fold(query, |query, value| match *value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
}

impl Connection for PgConnection {
    const SHARED: bool = true;

    type Row<'row> = PgRow;

    async fn rows<T: Send>(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
        mut read: impl FnMut(&PgRow) -> Result<T, Problem> + Send,
    ) -> Result<Vec<T>, Problem> {
        let rows = self.fetch_all(query(sql, values)).await?;
        rows.iter().map(&mut read).collect()
    }

    async fn script(&mut self, statements: Sql) -> Result<(), Problem> {
        Executor::execute(self, sqlx::raw_sql(statements.postgres)).await?;
        Ok(())
    }

    async fn execute(&mut self, sql: Sql, values: &[Value<'_>]) -> Result<u64, Problem> {
        let done = Executor::execute(self, query(sql, values)).await?;
        Ok(done.rows_affected())
    }
}
