//! The statements of the put protocol and of reading, once for both dialects.
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
pub(super) struct Sql {
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
        $($(#[$doc])* pub(super) const $name: Sql = sql!($($piece)+);)+

        #[cfg(test)]
        const ALL: &[(&str, Sql)] = &[$((stringify!($name), $name)),+];
    };
}

/// Names of tables.
pub(super) const TABLES: Sql = Sql {
    sqlite: "SELECT name FROM sqlite_schema WHERE type = 'table'",
    postgres: "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables WHERE schemaname = 'graviton'",
};

statements! {
    SET_SCHEMA_VERSION = ["UPDATE store SET schema_version = $1"];
    STORE = ["SELECT id, block_location, durability, schema_version FROM store"];
    INSERT_STORE = ["INSERT INTO store (id, block_location, durability, schema_version) VALUES ($1, '', 'full', $2)"];
    SET_BLOCK_LOCATION = ["UPDATE store SET block_location = $1"];
    SET_DURABILITY = ["UPDATE store SET durability = $1 WHERE durability <> $1"];

    REGISTER_WRITER = ["INSERT INTO writer (expires_at) VALUES (" now " + $1) RETURNING id"];
    /// `$1` lease, `$2` writer.
    RENEW_WRITER = ["UPDATE writer SET expires_at = " now " + $1 WHERE id = $2"];
    REMOVE_WRITER = ["DELETE FROM writer WHERE id = $1 \
        AND NOT EXISTS (SELECT 1 FROM blob WHERE writer_id = $1 AND state = 0)"];

    /// `$1` chunker, `$2` writer. Whoever wants to remove the writer waits, and then finds the blob.
    BEGIN = ["INSERT INTO blob (state, writer_id, chunker, created_at) SELECT 0, id, $1, " now
        " FROM writer WHERE id = $2" for_share " RETURNING id"];
    ABORT = ["UPDATE blob SET state = 2, deleted_at = " now " WHERE id = $1 AND state = 0"];
    /// Held until the transaction ends: nobody expires the blob meanwhile.
    BLOB_STATE = ["SELECT state FROM blob WHERE id = $1" for_share];

    /// `$1` {keys: [[algo, hex, size, offset]]}. Inserts or locks. A doom that ran out is taken off: its collector
    /// finds the block its own no longer.
    PIN_BLOCKS = ["INSERT INTO block (algo, digest, size) \
        SELECT DISTINCT algo, digest, size FROM " (keys "keys") " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET doomed_by = NULL, doomed_until = NULL \
        WHERE block.doomed_until <= " now];
    /// `$1` as before: a row for each key, in their order, with for how long it is still doomed.
    PIN_ANSWER = ["SELECT block.id, block.stored, block.doomed_until - " now " FROM " (keys "keys")
        " CROSS JOIN block WHERE " (same "block") " ORDER BY input.place"];
    /// `$1` as before, `$2` blob.
    PIN_REFERENCES = ["INSERT INTO blob_block (blob_id, block_offset, block_id) \
        SELECT blob.id, input.block_offset, block.id FROM " (keys "keys", 3 number "block_offset")
        " CROSS JOIN block CROSS JOIN blob WHERE " (same "block") " AND blob.id = $2 ON CONFLICT DO NOTHING"];

    /// `$1` {rows: [block]}: only where rows have to be locked.
    LOCK_BLOCKS = ["SELECT id FROM block WHERE id IN (SELECT number FROM " (numbers "rows") ") \
        ORDER BY algo, digest, size" for_update];
    /// `$1` {rows: [block]}.
    MARK_STORED = ["UPDATE block SET stored = TRUE \
        WHERE id IN (SELECT number FROM " (numbers "rows") ") AND NOT stored"];

    /// `$1` {blocks: [block], keys: [[algo, hex, size]]}: only where rows have to be locked.
    COMMIT_LOCK_BLOCKS = ["SELECT id FROM block WHERE id IN (SELECT number FROM " (numbers "blocks")
        " UNION SELECT block.id FROM " (keys "keys") " CROSS JOIN block WHERE " (same "block") ") \
        ORDER BY algo, digest, size" for_update];
    /// `$1` as before: inserts rows for those that have none, and locks those that somebody inserted meanwhile.
    /// Gives the inserted ones. Only where rows have to be locked.
    COMMIT_CLAIM = ["INSERT INTO block (algo, digest, size) \
        SELECT DISTINCT algo, digest, size FROM " (keys "keys") " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET stored = block.stored WHERE FALSE RETURNING id"];
    /// `$1` {rows: [block]}: those that were claimed for a blob that dropped out.
    COMMIT_DISCLAIM = ["DELETE FROM block WHERE id IN (SELECT number FROM " (numbers "rows") ") AND NOT stored"];
    /// `$1` {rows: [pending blob]}: only where rows have to be locked.
    COMMIT_LOCK_BLOBS = ["SELECT id FROM blob WHERE id IN (SELECT number FROM " (numbers "rows") ") \
        ORDER BY id" for_update];
    /// `$1` {rows: [pending blob], ids: [[algo, hex, size]], keys: [[algo, hex, size]]}: one row (what, place, a, b)
    /// for each thing found: 0 the state of a pending blob, 1 a live blob of that id, 2 a block, whether it is
    /// stored and whether it is doomed, 3 whether the store holds blocks that are not durable.
    CHECK = ["SELECT 0 AS what, input.place AS place, blob.state AS a, 0 AS b FROM " (numbers "rows")
        " CROSS JOIN blob WHERE blob.id = input.number \
        UNION ALL SELECT 1, input.place, 0, 0 FROM " (keys "ids") " CROSS JOIN blob \
        WHERE " (same "blob") " AND blob.state = 1 \
        UNION ALL SELECT 2, input.place, CAST(block.stored AS INTEGER), \
        CAST(coalesce(block.doomed_until > " now ", FALSE) AS INTEGER) FROM " (keys "keys")
        " CROSS JOIN block WHERE " (same "block") " \
        UNION ALL SELECT 3, 0, CAST(durability = 'relaxed' AS INTEGER), 0 FROM store"];

    /// `$1` {stored: [block]}.
    COMMIT_STORED = ["UPDATE block SET stored = TRUE \
        WHERE id IN (SELECT number FROM " (numbers "stored") ") AND NOT stored"];
    /// `$1` {live: [[algo, hex, size, blob, block count]]}.
    COMMIT_PINNED = ["UPDATE blob SET state = 1, algo = input.algo, digest = input.digest, size = input.size, \
        block_count = input.block_count, created_at = " now
        " FROM " (keys "live", 3 number "blob_id", 4 number "block_count") " WHERE blob.id = input.blob_id"];
    /// `$1` {again: [blob]}: the content is live under another row.
    COMMIT_AGAIN = ["UPDATE blob SET state = 2, deleted_at = " now
        " WHERE id IN (SELECT number FROM " (numbers "again") ")"];
    /// `$1` {keys: [[algo, hex, size]]}: blocks that are in place.
    COMMIT_BLOCKS = ["INSERT INTO block (algo, digest, size, stored) \
        SELECT DISTINCT algo, digest, size, TRUE FROM " (keys "keys") " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET stored = TRUE, doomed_by = NULL, doomed_until = NULL \
        WHERE NOT block.stored OR block.doomed_by IS NOT NULL"];
    /// `$1` {ids: [[algo, hex, size, block count, chunker]]}.
    COMMIT_BLOBS = ["INSERT INTO blob (state, algo, digest, size, block_count, chunker, created_at) \
        SELECT 1, algo, digest, size, block_count, chunker, " now
        " FROM " (keys "ids", 3 number "block_count", 4 text "chunker")];
    /// `$1` {references: [[algo, hex, size of the blob, offset, algo, hex, size of the block]]}.
    COMMIT_REFERENCES = ["INSERT INTO blob_block (blob_id, block_offset, block_id) \
        SELECT blob.id, input.block_offset, block.id FROM "
        (keys "references", 3 number "block_offset", 4 number "block_algo", 5 hex "block_digest", 6 number "block_size")
        " CROSS JOIN blob CROSS JOIN block WHERE " (same "blob") " AND blob.state = 1 \
        AND block.algo = input.block_algo AND block.digest = input.block_digest AND block.size = input.block_size"];

    /// `$1`, `$2`, `$3` id, `$4` limit: one row for each entry, one with nulls for the empty blob.
    FIND = ["SELECT blob.id, blob.block_count, blob.chunker, blob.created_at, \
        blob_block.block_offset, block.algo, block.digest, block.size FROM blob \
        LEFT JOIN blob_block ON blob_block.blob_id = blob.id LEFT JOIN block ON block.id = blob_block.block_id \
        WHERE blob.algo = $1 AND blob.digest = $2 AND blob.size = $3 AND blob.state = 1 \
        ORDER BY blob_block.block_offset LIMIT $4"];
    /// `$1` blob, `$2` from, `$3` limit.
    ENTRIES = ["SELECT block_offset, algo, digest, size \
        FROM blob_block JOIN block ON block.id = block_id WHERE blob_id = $1 AND block_offset >= coalesce( \
        (SELECT max(block_offset) FROM blob_block WHERE blob_id = $1 AND block_offset <= $2), 0) \
        ORDER BY block_offset LIMIT $3"];
    /// `$1`, `$2`, `$3` id, `$4` limit.
    LIST = ["SELECT id, algo, digest, size, block_count, chunker, created_at FROM blob \
        WHERE state = 1 AND (algo, digest, size) > ($1, $2, $3) ORDER BY algo, digest, size LIMIT $4"];
    TOTALS = ["SELECT (SELECT count(*) FROM blob WHERE state = 1), \
        (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob WHERE state = 1), \
        (SELECT count(*) FROM block WHERE stored), \
        (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM block WHERE stored)"];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite numbers named places by their first appearance, Postgres by their name.
    #[test]
    fn places_appear_in_the_order_of_their_numbers() {
        for (name, sql) in ALL {
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
}
