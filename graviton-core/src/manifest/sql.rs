//! The statements of the put protocol and of reading, once for every dialect that takes them.
//!
//! A batch goes over as one JSON text, never as one round trip a block. `CROSS JOIN` with the batch on the
//! left is the order of the loops: the batch is walked, and its rows are looked up by index. Blocks are
//! always touched before blobs, in key order: with row locks that order is what avoids deadlocks.
//! Times are milliseconds since 1970 by the database's clock.

/// The database's clock.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

/// The rows of a JSON array `[[algo, hex, size, ...], ...]` at `$path` of the batch.
macro_rules! batch {
    ($path:literal $(, $index:literal $name:ident)*) => {
        concat!(
            "SELECT key AS place, value->>0 AS algo, unhex(value->>1) AS digest, value->>2 AS size",
            $(", value->>", $index, " AS ", stringify!($name),)*
            " FROM json_each(?1, '$.", $path, "')"
        )
    };
}

macro_rules! same_key {
    ($left:literal, $right:literal) => {
        concat!(
            $left,
            ".algo = ",
            $right,
            ".algo AND ",
            $left,
            ".digest = ",
            $right,
            ".digest AND ",
            $left,
            ".size = ",
            $right,
            ".size"
        )
    };
}

pub(super) const STORE: &str = "SELECT id, block_location, durability, schema_version FROM store";
pub(super) const INSERT_STORE: &str =
    "INSERT INTO store (id, block_location, durability, schema_version) VALUES (?1, '', 'full', ?2)";
pub(super) const SET_BLOCK_LOCATION: &str = "UPDATE store SET block_location = ?1";
pub(super) const SET_DURABILITY: &str = "UPDATE store SET durability = ?1 WHERE durability <> ?1";

pub(super) const REGISTER_WRITER: &str =
    concat!("INSERT INTO writer (expires_at) VALUES (", now!(), " + ?1) RETURNING id");
pub(super) const RENEW_WRITER: &str =
    concat!("UPDATE writer SET expires_at = ", now!(), " + ?2 WHERE id = ?1");
pub(super) const REMOVE_WRITER: &str = "DELETE FROM writer WHERE id = ?1 \
     AND NOT EXISTS (SELECT 1 FROM blob WHERE writer_id = ?1 AND state = 0)";

pub(super) const BEGIN: &str = concat!(
    "INSERT INTO blob (state, writer_id, chunker, created_at) SELECT 0, id, ?2, ",
    now!(),
    " FROM writer WHERE id = ?1 RETURNING id"
);
pub(super) const ABORT: &str =
    concat!("UPDATE blob SET state = 2, deleted_at = ", now!(), " WHERE id = ?1 AND state = 0");

/// `?1` {keys: [[algo, hex, size, offset]]}, `?2` blob: the blob's state, and for how long a block is doomed.
pub(super) const PIN_CHECK: &str = concat!(
    "WITH input AS (",
    batch!("keys"),
    ") ",
    "SELECT (SELECT state FROM blob WHERE id = ?2) AS state, ",
    "(SELECT max(block.doomed_until) - ",
    now!(),
    " FROM input CROSS JOIN block ",
    "WHERE ",
    same_key!("block", "input"),
    " AND block.doomed_until > ",
    now!(),
    ") AS doomed"
);

/// `?1` as before. A doom that ran out is taken off: its collector finds the block its own no longer.
pub(super) const PIN_BLOCKS: &str = concat!(
    "WITH input AS (",
    batch!("keys"),
    ") ",
    "INSERT INTO block (algo, digest, size) ",
    "SELECT DISTINCT algo, digest, size FROM input WHERE TRUE ORDER BY algo, digest, size ",
    "ON CONFLICT (algo, digest, size) DO UPDATE SET doomed_by = NULL, doomed_until = NULL ",
    "WHERE block.doomed_by IS NOT NULL",
);
/// `?1`, `?2` as before.
pub(super) const PIN_REFERENCES: &str = concat!(
    "WITH input AS (",
    batch!("keys", 3 block_offset),
    ") ",
    "INSERT INTO blob_block (blob_id, block_offset, block_id) ",
    "SELECT ?2, input.block_offset, block.id FROM input CROSS JOIN block ",
    "WHERE ",
    same_key!("block", "input"),
    " ON CONFLICT DO NOTHING",
);
/// `?1` as before: a row for each key, in their order.
pub(super) const PIN_ANSWER: &str = concat!(
    "WITH input AS (",
    batch!("keys"),
    ") ",
    "SELECT block.id, block.stored FROM input CROSS JOIN block ",
    "WHERE ",
    same_key!("block", "input"),
    " ORDER BY input.place",
);

/// `?1` {rows: [block, ...]}, `?2` blob.
pub(super) const MARK_STORED: &str = "UPDATE block SET stored = TRUE \
     WHERE id IN (SELECT value FROM json_each(?1, '$.rows')) AND NOT stored \
     AND EXISTS (SELECT 1 FROM blob WHERE id = ?2 AND state = 0)";
pub(super) const IS_PENDING: &str = "SELECT count(*) FROM blob WHERE id = ?1 AND state = 0";

/// `?1` {rows: [pending blob], ids: [[algo, hex, size]], keys: [[algo, hex, size]]}: one row (what, place, a, b)
/// for each thing found: 0 the state of a pending blob, 1 a live blob of that id, 2 a block, whether it is
/// stored and whether it is doomed, 3 whether the store holds blocks that are not durable.
pub(super) const CHECK: &str = concat!(
    "SELECT 0 AS what, input.key AS place, blob.state AS a, 0 AS b ",
    "FROM json_each(?1, '$.rows') AS input CROSS JOIN blob WHERE blob.id = input.value ",
    "UNION ALL SELECT 1, input.place, 0, 0 FROM (",
    batch!("ids"),
    ") AS input CROSS JOIN blob ",
    "WHERE ",
    same_key!("blob", "input"),
    " AND blob.state = 1 ",
    "UNION ALL SELECT 2, input.place, block.stored, coalesce(block.doomed_until > ",
    now!(),
    ", FALSE) ",
    "FROM (",
    batch!("keys"),
    ") AS input CROSS JOIN block WHERE ",
    same_key!("block", "input"),
    " ",
    "UNION ALL SELECT 3, 0, durability = 'relaxed', 0 FROM store"
);

/// `?1` {stored: [block]}.
pub(super) const COMMIT_STORED: &str =
    "UPDATE block SET stored = TRUE WHERE id IN (SELECT value FROM json_each(?1, '$.stored')) AND NOT stored";
/// `?1` {live: [[algo, hex, size, blob, block count]]}.
pub(super) const COMMIT_PINNED: &str = concat!(
    "UPDATE blob SET state = 1, algo = input.algo, digest = input.digest, size = input.size, ",
    "block_count = input.block_count, created_at = ",
    now!(),
    " ",
    "FROM (",
    batch!("live", 3 blob_id, 4 block_count),
    ") AS input WHERE blob.id = input.blob_id"
);
/// `?1` {again: [blob]}: the content is live under another row.
pub(super) const COMMIT_AGAIN: &str = concat!(
    "UPDATE blob SET state = 2, deleted_at = ",
    now!(),
    " WHERE id IN (SELECT value FROM json_each(?1, '$.again'))"
);
/// `?1` {keys: [[algo, hex, size]]}: blocks that are in place.
pub(super) const COMMIT_BLOCKS: &str = concat!(
    "WITH input AS (",
    batch!("keys"),
    ") ",
    "INSERT INTO block (algo, digest, size, stored) ",
    "SELECT DISTINCT algo, digest, size, TRUE FROM input WHERE TRUE ORDER BY algo, digest, size ",
    "ON CONFLICT (algo, digest, size) DO UPDATE SET stored = TRUE, doomed_by = NULL, doomed_until = NULL ",
    "WHERE NOT block.stored OR block.doomed_by IS NOT NULL"
);
/// `?1` {ids: [[algo, hex, size, block count, chunker]]}.
pub(super) const COMMIT_BLOBS: &str = concat!(
    "WITH input AS (",
    batch!("ids", 3 block_count, 4 chunker),
    ") ",
    "INSERT INTO blob (state, algo, digest, size, block_count, chunker, created_at) ",
    "SELECT 1, algo, digest, size, block_count, chunker, ",
    now!(),
    " FROM input"
);
/// `?1` {references: [[algo, hex, size of the blob, offset, algo, hex, size of the block]]}.
pub(super) const COMMIT_REFERENCES: &str = concat!(
    "WITH input AS (",
    batch!("references", 3 block_offset, 4 block_algo, 5 block_digest, 6 block_size),
    ") INSERT INTO blob_block (blob_id, block_offset, block_id) ",
    "SELECT blob.id, input.block_offset, block.id FROM input CROSS JOIN blob CROSS JOIN block ",
    "WHERE ",
    same_key!("blob", "input"),
    " AND blob.state = 1 ",
    "AND block.algo = input.block_algo AND block.digest = unhex(input.block_digest) AND block.size = input.block_size"
);

/// `?1`, `?2`, `?3` id, `?4` limit: one row for each entry, one with nulls for the empty blob.
pub(super) const FIND: &str = "SELECT blob.id, blob.block_count, blob.chunker, blob.created_at, \
     blob_block.block_offset, block.algo, block.digest, block.size FROM blob \
     LEFT JOIN blob_block ON blob_block.blob_id = blob.id LEFT JOIN block ON block.id = blob_block.block_id \
     WHERE blob.algo = ?1 AND blob.digest = ?2 AND blob.size = ?3 AND blob.state = 1 \
     ORDER BY blob_block.block_offset LIMIT ?4";
/// `?1` blob, `?2` from, `?3` limit.
pub(super) const ENTRIES: &str = "SELECT block_offset, algo, digest, size \
     FROM blob_block JOIN block ON block.id = block_id WHERE blob_id = ?1 AND block_offset >= coalesce( \
     (SELECT max(block_offset) FROM blob_block WHERE blob_id = ?1 AND block_offset <= ?2), 0) \
     ORDER BY block_offset LIMIT ?3";
/// `?1`, `?2`, `?3` id, `?4` limit.
pub(super) const LIST: &str = "SELECT id, algo, digest, size, block_count, chunker, created_at FROM blob \
     WHERE state = 1 AND (algo, digest, size) > (?1, ?2, ?3) ORDER BY algo, digest, size LIMIT ?4";
pub(super) const TOTALS: &str = "SELECT \
     (SELECT count(*) FROM blob WHERE state = 1), (SELECT coalesce(sum(size), 0) FROM blob WHERE state = 1), \
     (SELECT count(*) FROM block WHERE stored), (SELECT coalesce(sum(size), 0) FROM block WHERE stored)";
