//! A session of SQLite, as the steps see it: statements are compiled once and kept.

use std::future::{Future, ready};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql, params_from_iter};

use crate::digest::Digest;
use crate::manifest::connection::{Columns, Connection, Problem, Value};
use crate::manifest::sql::Sql;

impl Columns for Row<'_> {
    fn optional(&self, column: usize) -> Result<Option<i64>, Problem> {
        Ok(self.get(column)?)
    }

    fn text(&self, column: usize) -> Result<String, Problem> {
        Ok(self.get(column)?)
    }

    fn digest(&self, column: usize) -> Result<Digest, Problem> {
        Ok(Digest::from_bytes(self.get(column)?))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Number(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Connection for rusqlite::Connection {
    const SHARED: bool = false;

    type Row<'row> = Row<'row>;

    fn rows<T: Send>(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Problem> + Send,
    ) -> impl Future<Output = Result<Vec<T>, Problem>> + Send {
        let mut query = || {
            let mut statement = self.prepare_cached(sql.sqlite)?;
            let mut found = statement.query(params_from_iter(values))?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                all.push(read(row)?);
            }
            Ok(all)
        };
        ready(query())
    }

    fn script(&mut self, statements: Sql) -> impl Future<Output = Result<(), Problem>> + Send {
        ready(self.execute_batch(statements.sqlite).map_err(Problem::from))
    }

    fn execute(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, Problem>> + Send {
        let changed = || Ok(self.prepare_cached(sql.sqlite)?.execute(params_from_iter(values))? as u64);
        ready(changed())
    }
}
