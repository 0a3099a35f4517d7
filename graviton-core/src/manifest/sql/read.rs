//! The row of the store, and reading.

use super::Sql;

/// Names of tables.
pub(in crate::manifest) const TABLES: Sql = Sql::new(
    "SELECT name FROM sqlite_schema WHERE type = 'table'",
    "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables \
        WHERE schemaname = current_setting('search_path')",
);

/// The cluster and the database in it, and the timeline: a standby that was promoted begins a new one.
#[cfg(feature = "postgres")]
pub(in crate::manifest) const WHEREABOUTS: Sql = Sql::new(
    "",
    "SELECT concat_ws('/', system_identifier, \
         (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()), \
         left(pg_walfile_name(pg_current_wal_lsn()), 8)) FROM pg_control_system()",
);

statements! {
    SET_SCHEMA_VERSION = ["UPDATE store SET schema_version = $1"];
    STORE = ["SELECT id, block_location, durability, schema_version FROM store"];
    INSERT_STORE = ["INSERT INTO store (id, block_location, durability, schema_version) VALUES ($1, '', 'full', $2)"];
    OWNERSHIP = ["SELECT id, block_location, durability, generation, " now " - raised_at, place, file, \
        CAST(is_backup AS INTEGER), CAST(raised_at > 0 AS INTEGER) FROM store"];
    LOCK_STORE = ["SELECT id FROM store" for_update];
    /// `$1` block location, `$2` generation, `$3` place, `$4` file, `$5` whether the generation counts as
    /// raised now.
    OWN = ["UPDATE store SET block_location = $1, generation = $2, place = $3, file = $4, is_backup = FALSE, \
        raised_at = CASE WHEN $5 = 1 THEN " now " ELSE raised_at END"];
    FORGET_STORED = ["UPDATE " block " SET stored = FALSE WHERE stored"];
    CHANGE_NOTHING = ["UPDATE store SET durability = durability WHERE 1 = 0"];
    SET_DURABILITY = ["UPDATE store SET durability = $1 WHERE durability <> $1"];

    /// `$1`, `$2`, `$3` id, `$4` limit: one row for each entry, one with nulls for the empty blob.
    FIND = ["SELECT blob.id, blob.block_count, blob.chunker, blob.created_at, \
        blob_block.block_offset, block.algo, block.digest, block.size" place " FROM blob \
        LEFT JOIN blob_block ON blob_block.blob_id = blob.id LEFT JOIN " block " ON block.id = blob_block.block_id"
        pack " WHERE blob.algo = $1 AND blob.digest = $2 AND blob.size = $3 AND blob.state = 1 \
        ORDER BY blob_block.block_offset LIMIT $4"];
    /// `$1`, `$2`, `$3` id, `$4` limit: whether the store holds what is not durable, and one row for each
    /// block: its key, and whether it is stored; one with nulls for the empty blob.
    FIND_BLOCKS = ["SELECT (SELECT CAST(durability = 'relaxed' AS INTEGER) FROM store), \
        block.algo, block.digest, block.size, CAST(block.stored AS INTEGER)" place " FROM blob \
        LEFT JOIN blob_block ON blob_block.blob_id = blob.id LEFT JOIN " block " ON block.id = blob_block.block_id"
        pack " WHERE blob.algo = $1 AND blob.digest = $2 AND blob.size = $3 AND blob.state = 1 LIMIT $4"];
    /// `$1` blob.
    REFERENCES = ["SELECT count(*) FROM blob_block WHERE blob_id = $1"];
    /// `$1` blob, `$2` from, `$3` limit.
    ENTRIES = ["SELECT blob_block.block_offset, block.algo, block.digest, block.size" place " \
        FROM blob_block JOIN " block " ON block.id = block_id" pack " WHERE blob_id = $1 AND block_offset >= coalesce( \
        (SELECT max(block_offset) FROM blob_block WHERE blob_id = $1 AND block_offset <= $2), 0) \
        ORDER BY block_offset LIMIT $3"];
    /// `$1`, `$2`, `$3` id, `$4` limit.
    LIST = ["SELECT id, algo, digest, size, block_count, chunker, created_at FROM blob \
        WHERE state = 1 AND (algo, digest, size) > ($1, $2, $3) ORDER BY algo, digest, size LIMIT $4"];
    /// Live blobs and their bytes, stored blocks and theirs, deleted blobs that can still be restored and
    /// theirs, and the bytes of blocks that neither a live nor a pending blob refers to, and the blocks of
    /// all manifests.
    TOTALS = ["SELECT (SELECT count(*) FROM blob WHERE state = 1), \
        (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob WHERE state = 1), \
        (SELECT count(*) FROM " block " WHERE stored), \
        (SELECT CAST(coalesce(sum(" stored_size "), 0) AS BIGINT) FROM " block " WHERE stored), \
        (SELECT count(*) FROM blob WHERE state = 2 AND digest IS NOT NULL), \
        (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob WHERE state = 2), \
        (SELECT CAST(coalesce(sum(" stored_size "), 0) AS BIGINT) FROM " block " WHERE (stored OR candidate) \
        AND NOT EXISTS (SELECT 1 FROM blob_block JOIN blob ON blob.id = blob_block.blob_id \
        WHERE blob_block.block_id = block.id AND blob.state <> 2)), \
        (SELECT CAST(coalesce(sum(block_count), 0) AS BIGINT) FROM blob)"];
}
