//! Statements on a connection to SQLite: each is compiled once and kept.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ToSql, params_from_iter};

use crate::manifest::connection::{Columns, Problem, Value};

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Number(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Digest(digest) => ValueRef::Blob(digest.as_bytes()),
        }))
    }
}

pub(in crate::manifest) fn rows<T>(
    connection: &mut rusqlite::Connection,
    sql: &'static str,
    values: &[Value<'_>],
    mut read: impl FnMut(&Columns<'_>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        all.push(read(&Columns::Sqlite(row))?);
    }
    Ok(all)
}

pub(in crate::manifest) fn execute(
    connection: &mut rusqlite::Connection,
    sql: &'static str,
    values: &[Value<'_>],
) -> Result<u64, Problem> {
    Ok(connection.prepare_cached(sql)?.execute(params_from_iter(values))? as u64)
}
