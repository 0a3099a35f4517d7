//! The statements, once for both dialects.
//!
//! A batch goes over as one JSON text in `$1`, never as one round trip a block. Places for values appear in the
//! order of their numbers, which is how SQLite numbers them. `CROSS JOIN` with the batch on the left is the order
//! of the loops in SQLite: the batch is walked, and its rows are looked up by index. Blocks are always touched
//! before blobs, in key order: with row locks that order is what avoids deadlocks. Times are milliseconds since
//! 1970 by the database's clock.
//!
//! Why JSON for Postgres too, where arrays of bytes would do: one text serves both. To look up 256 keys takes 0.8 ms with
//! it and 0.55 ms with arrays (`tests/bench/batches.sql`), which is nothing beside the bytes of 256 blocks.

/// One statement in both dialects.
#[derive(Debug, Clone, Copy)]
pub(in crate::manifest) struct Sql {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

/// A statement from pieces: texts that both understand, and those below.
macro_rules! sql {
    ($($piece:tt)+) => {
        Sql { sqlite: concat!($(sqlite!($piece)),+), postgres: concat!($(postgres!($piece)),+) }
    };
}

/// The pieces in SQLite's words.
macro_rules! sqlite {
    ($text:literal) => { $text };
    // The database's clock.
    (now) => { "CAST(unixepoch('subsec') * 1000 AS INTEGER)" };
    // Row locks: its transactions have the whole database.
    (for_update) => { "" };
    (for_share) => { "" };
    (skip_locked) => { "" };
    (skip_locked_blobs) => { "" };
    // The rows of a JSON array `[[algo, hex, size, ...], ...]` in the batch; more columns by name.
    ((keys $path:literal $(, $index:literal $type:ident $name:literal)*)) => {
        concat!(
            "(SELECT key AS place, value->>0 AS algo, unhex(value->>1) AS digest, value->>2 AS size",
            $(", ", sqlite!((column $type $index)), " AS ", $name,)*
            " FROM json_each($1, '$.", $path, "')) AS input"
        )
    };
    ((column hex $index:literal)) => { concat!("unhex(value->>", $index, ")") };
    ((column $type:ident $index:literal)) => { concat!("value->>", $index) };
    // The elements of a JSON array of numbers in the batch.
    ((numbers $path:literal)) => {
        concat!("(SELECT key AS place, value AS number FROM json_each($1, '$.", $path, "')) AS input")
    };
    ((same $left:literal)) => { same_key!($left) };
}

/// The pieces in Postgres' words.
macro_rules! postgres {
    ($text:literal) => { $text };
    (now) => { "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)" };
    (for_update) => { " FOR UPDATE" };
    (for_share) => { " FOR SHARE" };
    (skip_locked) => { " FOR UPDATE SKIP LOCKED" };
    (skip_locked_blobs) => { " FOR UPDATE OF blob SKIP LOCKED" };
    ((keys $path:literal $(, $index:literal $type:ident $name:literal)*)) => {
        concat!(
            "(SELECT ordinality - 1 AS place, CAST(value->>0 AS SMALLINT) AS algo, ",
            "decode(value->>1, 'hex') AS digest, CAST(value->>2 AS BIGINT) AS size",
            $(", ", postgres!((column $type $index)), " AS ", $name,)*
            " FROM jsonb_array_elements($1::jsonb->'", $path, "') WITH ORDINALITY) AS input"
        )
    };
    ((column hex $index:literal)) => { concat!("decode(value->>", $index, ", 'hex')") };
    ((column text $index:literal)) => { concat!("value->>", $index) };
    ((column number $index:literal)) => { concat!("CAST(value->>", $index, " AS BIGINT)") };
    ((numbers $path:literal)) => {
        concat!(
            "(SELECT ordinality - 1 AS place, CAST(value AS BIGINT) AS number ",
            "FROM jsonb_array_elements_text($1::jsonb->'", $path, "') WITH ORDINALITY) AS input"
        )
    };
    ((same $left:literal)) => { same_key!($left) };
}

/// The row of the batch with the key of a row of this table.
macro_rules! same_key {
    ($left:literal) => {
        concat!(
            $left,
            ".algo = input.algo AND ",
            $left,
            ".digest = input.digest AND ",
            $left,
            ".size = input.size"
        )
    };
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = [$($piece:tt)+];)+) => {
        $($(#[$doc])* pub(in crate::manifest) const $name: Sql = sql!($($piece)+);)+

        #[cfg(test)]
        pub(super) const STATEMENTS: &[(&str, Sql)] = &[$((stringify!($name), $name)),+];
    };
}

mod collect;
mod put;
mod read;
mod verify;

pub(super) use collect::*;
pub(super) use put::*;
pub(super) use read::*;
pub(super) use verify::*;

#[cfg(test)]
mod tests {
    /// SQLite numbers named places by their first appearance, Postgres by their name.
    #[test]
    fn places_appear_in_the_order_of_their_numbers() {
        use crate::manifest::sql::{collect, put, read, verify};
        let all = [collect::STATEMENTS, put::STATEMENTS, read::STATEMENTS, verify::STATEMENTS];
        for (name, sql) in all.concat() {
            for text in [sql.sqlite, sql.postgres] {
                let mut most = 0;
                for (at, _) in text.match_indices('$') {
                    let number = text[at + 1..].chars().next().and_then(|digit| digit.to_digit(10));
                    // `$.path` is JSON's.
                    let Some(number) = number else { continue };
                    assert!(number <= most + 1, "{name}: ${number} comes before ${}", most + 1);
                    most = most.max(number);
                }
            }
        }
    }

    /// What a collection costs is what was deleted, not what is stored: no statement of it walks over a whole table. What
    /// it walks over by index are partial ones, which hold only what is pending, deleted or a candidate.
    #[test]
    fn no_statement_of_the_collector_looks_at_everything() {
        use crate::manifest::schema::MIGRATIONS;
        use crate::manifest::sql::collect;
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for migration in MIGRATIONS {
            connection.execute_batch(migration.sqlite).unwrap();
        }
        let walks = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let none: Vec<Option<i64>> = vec![None; statement.parameter_count()];
            let lines = statement.query_map(rusqlite::params_from_iter(none), |row| row.get::<_, String>(3));
            let lines: Vec<String> = lines.unwrap().map(Result::unwrap).collect();
            let walk = |line: &String| line.starts_with("SCAN blob") || line.starts_with("SCAN block");
            lines.into_iter().filter(walk).collect()
        };
        for (name, sql) in collect::STATEMENTS {
            for walk in walks(sql.sqlite) {
                let partial = ["blob_pending", "blob_deleted", "blob_nameless", "block_candidate"];
                assert!(partial.iter().any(|index| walk.contains(index)), "{name}: {walk}");
            }
        }
        assert_eq!(
            walks("SELECT count(*) FROM blob_block WHERE block_offset > 1").len(),
            1,
            "this test sees nothing"
        );
    }
}
