//! What of a verification only the database can answer.

use std::time::Duration;

use crate::error::Result;
use crate::manifest::connection::{Columns, Connection, Ending, Problem, Step};
use crate::manifest::sql::Sql;

/// References to rows that are not there, which the constraints of an intact database rule out.
pub(super) struct Dangling;

const DANGLING: Sql = Sql {
    sqlite: "",
    postgres: "SELECT 'a reference of blob row ' || blob_id || ' at ' || block_offset || ' leads nowhere' \
        FROM blob_block WHERE NOT EXISTS (SELECT 1 FROM blob WHERE id = blob_id) \
        OR NOT EXISTS (SELECT 1 FROM block WHERE id = block_id) LIMIT 100",
};

impl Step for Dangling {
    type Answer = Vec<String>;
    const PATIENCE: Duration = Duration::from_secs(3_600);

    async fn run<C: Connection>(&self, connection: &mut C) -> Result<Ending<Self::Answer>, Problem> {
        Ok(Ending::Commit(connection.rows(DANGLING, &[], |row| row.text(0)).await?))
    }
}
