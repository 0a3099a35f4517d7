//! The statements, once for both dialects.
//!
//! A batch is sent as one JSON text in `$1`, never as one round trip for each block. Parameters appear in the
//! order of their numbers, which is how SQLite numbers them. `CROSS JOIN` with the batch on the left fixes
//! the order of the loops in SQLite: the batch is iterated, and its rows are looked up by index. Blocks are
//! always touched before blobs, in key order: with row locks that order avoids deadlocks. Times are
//! milliseconds since 1970 by the database's clock.
//!
//! JSON is used for PostgreSQL too, where arrays of bytes would work: one text serves both. To look up 256
//! keys takes 0.8 ms with it and 0.55 ms with arrays (`tests/bench/batches.sql`), which is negligible
//! compared with the bytes of 256 blocks.

/// The tables of a database. An older one stays as it is until it is upgraded, for older programs may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) enum Tables {
    /// Without packs: each block is under its own name.
    Files,
    /// With packs.
    Packs,
}

/// One statement in both dialects, for each kind of [`Tables`].
#[derive(Debug, Clone, Copy)]
pub(in crate::manifest) struct Sql {
    sqlite: [&'static str; 2],
    postgres: [&'static str; 2],
}

impl Sql {
    /// A statement for all tables.
    pub(super) const fn new(sqlite: &'static str, postgres: &'static str) -> Sql {
        Sql { sqlite: [sqlite; 2], postgres: [postgres; 2] }
    }

    pub(in crate::manifest) fn sqlite(self, tables: Tables) -> &'static str {
        self.sqlite[tables as usize]
    }

    #[cfg(feature = "postgres")]
    pub(in crate::manifest) fn postgres(self, tables: Tables) -> &'static str {
        self.postgres[tables as usize]
    }
}

/// A statement from pieces: texts that both understand, and those below.
macro_rules! sql {
    ($($piece:tt)+) => {
        Sql {
            sqlite: [concat!($(sqlite!(files $piece)),+), concat!($(sqlite!(packs $piece)),+)],
            postgres: [concat!($(postgres!(files $piece)),+), concat!($(postgres!(packs $piece)),+)],
        }
    };
}

/// The pieces that depend on the tables. Where there are packs, the table of blocks has another name, so that
/// each statement of an older program fails which would not know where a block is.
macro_rules! tables {
    (files block) => { "block" };
    (packs block) => { "data_block AS block" };
    // The pack of a block, in a statement that reads blocks.
    (files pack) => { "" };
    (packs pack) => { " LEFT JOIN pack ON pack.id = block.pack_id" };
    // The place of a block: columns behind others.
    (files place) => { tables!(packs no_place) };
    (packs place) => {
        ", block.pack_id, pack.name, block.pack_offset, block.stored_size, block.codec, \
         CAST(pack.state = 2 AS INTEGER)"
    };
    ($tables:ident no_place) => {
        ", CAST(NULL AS BIGINT), CAST(NULL AS TEXT), CAST(NULL AS BIGINT), CAST(NULL AS BIGINT), \
         CAST(NULL AS BIGINT), CAST(NULL AS BIGINT)"
    };
    // Whether a put that is under way refers to the block.
    (files pinned) => { tables!(packs pinned) };
    (packs pinned) => {
        "EXISTS (SELECT 1 FROM blob CROSS JOIN blob_block WHERE blob.state = 0 \
         AND blob_block.blob_id = blob.id AND blob_block.block_id = block.id)"
    };
    // That somebody may rely on the file of a block without a doom.
    (files named) => { "" };
    (packs named) => {
        concat!(" AND (NOT block.stored OR block.pack_id IS NULL OR ", tables!(packs pinned), ")")
    };
    // That a put may take the doom away, which has ended. Of a block in a pack it is kept, where blocks are
    // objects: it says that there may be one under the name.
    (files clearable) => { "" };
    (packs clearable) => { " AND (block.pack_id IS NULL OR block.doomed_until = 0)" };
    // The doom of a row that gets the place of the input: it is over where the block is under its name.
    (files doom_of_input) => { "" };
    (packs doom_of_input) => {
        ", doomed_by = CASE WHEN input.pack_id IS NULL THEN NULL ELSE doomed_by END, \
         doomed_until = CASE WHEN input.pack_id IS NULL THEN NULL ELSE doomed_until END"
    };
    // The bytes that a block takes.
    (files stored_size) => { "block.size" };
    (packs stored_size) => { "coalesce(block.stored_size, block.size)" };
    // A text where there are packs, and one where there are none.
    (files ($with:literal else $without:literal)) => { $without };
    (packs ($with:literal else $without:literal)) => { $with };
}

/// The pieces in SQLite's words.
macro_rules! sqlite {
    ($tables:ident $text:literal) => { $text };
    // The database's clock.
    ($tables:ident now) => { "CAST(unixepoch('subsec') * 1000 AS INTEGER)" };
    // The end of a doom of `$3`. One that holds nobody up ends at 0, which is over also if the clock is set
    // back.
    ($tables:ident until) => {
        concat!("CASE WHEN $3 = 0 THEN 0 ELSE ", sqlite!($tables now), " + $3 END")
    };
    // Row locks: its transactions have the whole database.
    ($tables:ident for_update) => { "" };
    ($tables:ident for_update_block) => { "" };
    ($tables:ident for_share) => { "" };
    ($tables:ident skip_locked) => { "" };
    ($tables:ident skip_locked_blobs) => { "" };
    // The rows of a JSON array `[[algo, hex, size, ...], ...]` in the batch; more columns by name.
    ($tables:ident (keys $path:literal $(, $index:literal $type:ident $name:literal)*)) => {
        concat!(
            "(SELECT key AS place, value->>0 AS algo, unhex(value->>1) AS digest, value->>2 AS size",
            $(", ", sqlite!(column $type $index), " AS ", $name,)*
            " FROM json_each($1, '$.", $path, "')) AS input"
        )
    };
    // The rows of a JSON array of arrays in the batch, by name.
    ($tables:ident (rows $path:literal $(, $index:literal $type:ident $name:literal)+)) => {
        concat!(
            "(SELECT key AS place",
            $(", ", sqlite!(column $type $index), " AS ", $name,)+
            " FROM json_each($1, '$.", $path, "')) AS input"
        )
    };
    (column hex $index:literal) => { concat!("unhex(value->>", $index, ")") };
    (column $type:ident $index:literal) => { concat!("value->>", $index) };
    // The elements of a JSON array of numbers in the batch.
    ($tables:ident (numbers $path:literal)) => {
        concat!("(SELECT key AS place, value AS number FROM json_each($1, '$.", $path, "')) AS input")
    };
    ($tables:ident (same $left:literal)) => { same_key!($left) };
    ($tables:ident $piece:tt) => { tables!($tables $piece) };
}

/// The pieces in Postgres' words.
macro_rules! postgres {
    ($tables:ident $text:literal) => { $text };
    ($tables:ident now) => { "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)" };
    ($tables:ident until) => {
        concat!("CASE WHEN $3 = 0 THEN 0 ELSE ", postgres!($tables now), " + $3 END")
    };
    ($tables:ident for_update) => { " FOR UPDATE" };
    ($tables:ident for_update_block) => { " FOR UPDATE OF block" };
    ($tables:ident for_share) => { " FOR SHARE" };
    ($tables:ident skip_locked) => { " FOR UPDATE SKIP LOCKED" };
    ($tables:ident skip_locked_blobs) => { " FOR UPDATE OF blob SKIP LOCKED" };
    ($tables:ident (keys $path:literal $(, $index:literal $type:ident $name:literal)*)) => {
        concat!(
            "(SELECT ordinality - 1 AS place, CAST(value->>0 AS SMALLINT) AS algo, ",
            "decode(value->>1, 'hex') AS digest, CAST(value->>2 AS BIGINT) AS size",
            $(", ", postgres!(column $type $index), " AS ", $name,)*
            " FROM jsonb_array_elements($1::jsonb->'", $path, "') WITH ORDINALITY) AS input"
        )
    };
    ($tables:ident (rows $path:literal $(, $index:literal $type:ident $name:literal)+)) => {
        concat!(
            "(SELECT ordinality - 1 AS place",
            $(", ", postgres!(column $type $index), " AS ", $name,)+
            " FROM jsonb_array_elements($1::jsonb->'", $path, "') WITH ORDINALITY) AS input"
        )
    };
    (column hex $index:literal) => { concat!("decode(value->>", $index, ", 'hex')") };
    (column text $index:literal) => { concat!("value->>", $index) };
    (column number $index:literal) => { concat!("CAST(value->>", $index, " AS BIGINT)") };
    ($tables:ident (numbers $path:literal)) => {
        concat!(
            "(SELECT ordinality - 1 AS place, CAST(value AS BIGINT) AS number ",
            "FROM jsonb_array_elements_text($1::jsonb->'", $path, "') WITH ORDINALITY) AS input"
        )
    };
    ($tables:ident (same $left:literal)) => { same_key!($left) };
    ($tables:ident $piece:tt) => { tables!($tables $piece) };
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
mod pack;
mod put;
mod read;
mod repack;
mod verify;

pub(super) use collect::*;
pub(super) use pack::*;
pub(super) use put::*;
pub(super) use read::*;
pub(super) use repack::*;
pub(super) use verify::*;

#[cfg(test)]
mod tests {
    /// SQLite numbers named places by their first appearance, Postgres by their name.
    #[test]
    fn places_appear_in_the_order_of_their_numbers() {
        use crate::manifest::sql::{collect, pack, put, read, repack, verify};
        let all = [
            collect::STATEMENTS,
            pack::STATEMENTS,
            put::STATEMENTS,
            read::STATEMENTS,
            repack::STATEMENTS,
            verify::STATEMENTS,
        ];
        for (name, sql) in all.concat() {
            for text in [sql.sqlite, sql.postgres].concat() {
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

    /// A collection takes time in proportion to what was deleted, not to what is stored: no statement of it
    /// walks over a whole table. The indexes that it walks over are partial: they hold only what is pending,
    /// deleted or a candidate.
    #[test]
    fn no_statement_of_the_collector_looks_at_everything() {
        use crate::manifest::schema::MIGRATIONS;
        use crate::manifest::sql::{Tables, collect, pack};
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for migration in MIGRATIONS {
            connection.execute_batch(migration.sqlite(Tables::Packs)).unwrap();
        }
        let walks = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let none: Vec<Option<i64>> = vec![None; statement.parameter_count()];
            let lines = statement.query_map(rusqlite::params_from_iter(none), |row| row.get::<_, String>(3));
            let lines: Vec<String> = lines.unwrap().map(Result::unwrap).collect();
            let walk = |line: &String| line.starts_with("SCAN blob") || line.starts_with("SCAN block");
            lines.into_iter().filter(walk).collect()
        };
        for (name, sql) in collect::STATEMENTS.iter().chain(pack::STATEMENTS) {
            for walk in walks(sql.sqlite(Tables::Packs)) {
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
