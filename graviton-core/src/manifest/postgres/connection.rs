//! Statements on a connection to PostgreSQL: each is prepared once for each connection.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Column, Executor, PgConnection, Postgres, Row, TypeInfo};

use crate::digest::Digest;
use crate::error::{Code, Error};
use crate::manifest::connection::{Columns, Problem, Value};

pub(in crate::manifest) fn optional(row: &PgRow, column: usize) -> Result<Option<i64>, Problem> {
    // PostgreSQL chooses the types of literals and conditions.
    Ok(match row.try_column(column)?.type_info().name() {
        "BOOL" => row.try_get::<Option<bool>, _>(column)?.map(i64::from),
        "INT2" => row.try_get::<Option<i16>, _>(column)?.map(i64::from),
        "INT4" => row.try_get::<Option<i32>, _>(column)?.map(i64::from),
        _ => row.try_get(column)?,
    })
}

pub(in crate::manifest) fn digest(row: &PgRow, column: usize) -> Result<Digest, Problem> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes = bytes
        .try_into()
        .map_err(|_| Error::new(Code::CorruptDatabase, "the database holds a digest of another length"))?;
    Ok(Digest::from_bytes(bytes))
}

fn query<'a>(sql: &'static str, values: &'a [Value<'a>]) -> Query<'a, Postgres, PgArguments> {
    let query = sqlx::query(sql);
    values.iter().fold(query, |query, value| match value {
        Value::Number(number) => query.bind(*number),
        Value::Text(text) => query.bind(&**text),
        Value::Digest(digest) => query.bind(&digest.as_bytes()[..]),
    })
}

pub(in crate::manifest) async fn rows<T: Send>(
    connection: &mut PgConnection,
    sql: &'static str,
    values: &[Value<'_>],
    mut read: impl FnMut(&Columns<'_>) -> Result<T, Problem> + Send,
) -> Result<Vec<T>, Problem> {
    let rows = connection.fetch_all(query(sql, values)).await?;
    rows.iter().map(|row| read(&Columns::Postgres(row))).collect()
}

pub(in crate::manifest) async fn execute(
    connection: &mut PgConnection,
    sql: &'static str,
    values: &[Value<'_>],
) -> Result<u64, Problem> {
    Ok(connection.execute(query(sql, values)).await?.rows_affected())
}

pub(in crate::manifest) async fn script(
    connection: &mut PgConnection,
    statements: &'static str,
) -> Result<(), Problem> {
    connection.execute(sqlx::raw_sql(statements)).await?;
    Ok(())
}
