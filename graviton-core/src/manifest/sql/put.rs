//! The put protocol.

use super::Sql;

statements! {
    REGISTER_WRITER = ["INSERT INTO writer (expires_at) VALUES (" now " + $1) RETURNING id"];
    LIVE_WRITERS = ["SELECT count(*) FROM writer WHERE expires_at > " now];
    /// `$1` lease, `$2` writer.
    RENEW_WRITER = ["UPDATE writer SET expires_at = " now " + $1 WHERE id = $2"];
    REMOVE_WRITER = ["DELETE FROM writer WHERE id = $1 \
        AND NOT EXISTS (SELECT 1 FROM blob WHERE writer_id = $1 AND state = 0)"
        (" AND NOT EXISTS (SELECT 1 FROM pack WHERE writer_id = $1 AND state = 0)" else "")];

    /// `$1` chunker, `$2` writer. A transaction that removes the writer waits for this one, and then finds
    /// the blob.
    BEGIN = ["INSERT INTO blob (state, writer_id, chunker, created_at) SELECT 0, id, $1, " now
        " FROM writer WHERE id = $2" for_share " RETURNING id"];
    ABORT = ["UPDATE blob SET state = 2, deleted_at = " now " WHERE id = $1 AND state = 0"];
    /// The lock is held until the transaction ends, so that nobody expires the blob meanwhile.
    BLOB_STATE = ["SELECT state FROM blob WHERE id = $1" for_share];

    /// `$1` {keys: [[algo, hex, size, offset]]}. Inserts or locks the blocks. A doom that ran out is removed:
    /// its collector then finds that the block is no longer its own.
    PIN_BLOCKS = ["INSERT INTO " block " (algo, digest, size) \
        SELECT DISTINCT algo, digest, size FROM " (keys "keys") " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET doomed_by = NULL, doomed_until = NULL \
        WHERE block.doomed_until <= " now clearable];
    /// The same for a put that writes into packs. It writes no name that was doomed, so a doom that did delay
    /// others stays: there may be an object.
    PIN_BLOCKS_INTO_PACKS = ["INSERT INTO " block " (algo, digest, size) \
        SELECT DISTINCT algo, digest, size FROM " (keys "keys") " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET doomed_by = NULL, doomed_until = NULL \
        WHERE block.doomed_until = 0"];
    /// `$1` as before: a row for each key, in the same order, with the remaining time of its doom.
    PIN_ANSWER = ["SELECT block.id, block.stored, block.doomed_until - " now place " FROM " (keys "keys")
        " CROSS JOIN " block pack " WHERE " (same "block") " ORDER BY input.place"];
    /// `$1` as before, `$2` blob.
    PIN_REFERENCES = ["INSERT INTO blob_block (blob_id, block_offset, block_id) \
        SELECT blob.id, input.block_offset, block.id FROM " (keys "keys", 3 number "block_offset")
        " CROSS JOIN " block " CROSS JOIN blob WHERE " (same "block") " AND blob.id = $2 ON CONFLICT DO NOTHING"];

    /// `$1` {rows: [block]}. Used only where rows have to be locked.
    LOCK_BLOCKS = ["SELECT id FROM " block " WHERE id IN (SELECT number FROM " (numbers "rows") ") \
        ORDER BY algo, digest, size" for_update];
    /// `$1` {marks: [[block, pack, offset, stored size, codec, pack, offset]]}: the first place is where the
    /// bytes are now; the last two columns are the place that the put found damaged, or null. A row that has
    /// another place by now keeps it. A doom of the name is over if the block is now under its name.
    MARK_STORED = ["UPDATE " block " SET stored = TRUE" (", pack_id = input.pack_id, \
        pack_offset = input.pack_offset, stored_size = input.stored_size, codec = input.codec" else "") doom_of_input
        " FROM " (rows "marks", 0 number "block_id", 1 number "pack_id", 2 number "pack_offset", 3 number "stored_size",
        4 number "codec", 5 number "found_id", 6 number "found_offset")
        " WHERE block.id = input.block_id AND (NOT block.stored" (" OR (block.pack_id = input.found_id \
        AND block.pack_offset = input.found_offset)" else "") ")"];

    /// `$1` {blocks: [block], keys: [[algo, hex, size]]}. Used only where rows have to be locked.
    COMMIT_LOCK_BLOCKS = ["SELECT id FROM " block " WHERE id IN (SELECT number FROM " (numbers "blocks")
        " UNION SELECT block.id FROM " (keys "keys") " CROSS JOIN " block " WHERE " (same "block") ") \
        ORDER BY algo, digest, size" for_update];
    /// `$1` as before. Inserts the missing rows, and locks those that another transaction inserted meanwhile.
    /// Returns the inserted ones. Used only where rows have to be locked.
    COMMIT_CLAIM = ["INSERT INTO " block " (algo, digest, size) \
        SELECT DISTINCT algo, digest, size FROM " (keys "keys") " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET stored = block.stored WHERE FALSE RETURNING id, algo, digest, size"];
    /// `$1` {rows: [block]}: the rows that were claimed for a blob that dropped out.
    COMMIT_DISCLAIM = ["DELETE FROM " block " WHERE id IN (SELECT number FROM " (numbers "rows") ") AND NOT stored"];
    /// `$1` {rows: [pending blob]}. Used only where rows have to be locked.
    COMMIT_LOCK_BLOBS = ["SELECT id FROM blob WHERE id IN (SELECT number FROM " (numbers "rows") ") \
        ORDER BY id" for_update];
    /// `$1` {rows: [pending blob], ids: [[algo, hex, size]], keys: [[algo, hex, size]]}. Returns one row
    /// (what, place, a, b) for each fact: 0 the state of a pending blob and how many references it has; 1 a
    /// live blob of that id; 2 a block, whether it is stored and whether its name is doomed, and its place; 3
    /// whether the store holds blocks that are not durable.
    CHECK = ["SELECT 0 AS what, input.place AS place, blob.state AS a, \
        (SELECT count(*) FROM blob_block WHERE blob_id = blob.id) AS b" no_place " FROM " (numbers "rows")
        " CROSS JOIN blob WHERE blob.id = input.number \
        UNION ALL SELECT 1, input.place, 0, 0" no_place " FROM " (keys "ids") " CROSS JOIN blob \
        WHERE " (same "blob") " AND blob.state = 1 \
        UNION ALL SELECT 2, input.place, CAST(block.stored AS INTEGER), \
        CAST(coalesce(block.doomed_until > " now (" AND block.pack_id IS NULL" else "") ", FALSE) AS INTEGER)" place
        " FROM " (keys "keys") " CROSS JOIN " block pack " WHERE " (same "block") " \
        UNION ALL SELECT 3, 0, CAST(durability = 'relaxed' AS INTEGER), 0" no_place " FROM store"];

    /// `$1` {live: [[algo, hex, size, blob, block count]]}.
    COMMIT_PINNED = ["UPDATE blob SET state = 1, algo = input.algo, digest = input.digest, size = input.size, \
        block_count = input.block_count, created_at = " now
        " FROM " (keys "live", 3 number "blob_id", 4 number "block_count") " WHERE blob.id = input.blob_id"];
    /// `$1` {again: [blob]}: the same blob is live under another row.
    COMMIT_AGAIN = ["UPDATE blob SET state = 2, deleted_at = " now
        " WHERE id IN (SELECT number FROM " (numbers "again") ")"];
    /// `$1` {keys: [[algo, hex, size, pack, offset, stored size, codec]]}: blocks that are in place.
    COMMIT_BLOCKS = ["INSERT INTO " block " (algo, digest, size, stored"
        (", pack_id, pack_offset, stored_size, codec" else "") ") \
        SELECT algo, digest, size, TRUE" (", pack_id, pack_offset, stored_size, codec" else "") " FROM "
        (keys "keys", 3 number "pack_id", 4 number "pack_offset", 5 number "stored_size", 6 number "codec")
        " WHERE TRUE ORDER BY algo, digest, size \
        ON CONFLICT (algo, digest, size) DO UPDATE SET stored = TRUE"
        (", pack_id = excluded.pack_id, pack_offset = excluded.pack_offset, \
        stored_size = excluded.stored_size, codec = excluded.codec, \
        doomed_by = CASE WHEN excluded.pack_id IS NOT NULL AND block.doomed_until > 0 THEN block.doomed_by END, \
        doomed_until = CASE WHEN excluded.pack_id IS NOT NULL AND block.doomed_until > 0 THEN block.doomed_until END \
        WHERE NOT block.stored"
        else ", doomed_by = NULL, doomed_until = NULL WHERE NOT block.stored OR block.doomed_by IS NOT NULL")];
    /// `$1` {healed: [[algo, hex, size, pack, offset, stored size, codec, pack, offset]]}: blocks whose row
    /// has the last two columns as its place, where the block was found damaged. A doom of the name ends if
    /// the block is now under its name.
    COMMIT_HEALED = ["UPDATE " block " SET stored = TRUE" (", pack_id = input.pack_id, \
        pack_offset = input.pack_offset, stored_size = input.stored_size, codec = input.codec" else "") doom_of_input " FROM "
        (keys "healed", 3 number "pack_id", 4 number "pack_offset", 5 number "stored_size", 6 number "codec",
        7 number "found_id", 8 number "found_offset") " WHERE " (same "block")
        (" AND block.pack_id = input.found_id AND block.pack_offset = input.found_offset" else " AND FALSE")];
    /// `$1` {ids: [[algo, hex, size, block count, chunker]]}.
    COMMIT_BLOBS = ["INSERT INTO blob (state, algo, digest, size, block_count, chunker, created_at) \
        SELECT 1, algo, digest, size, block_count, chunker, " now
        " FROM " (keys "ids", 3 number "block_count", 4 text "chunker")];
    /// `$1` {references: [[algo, hex, size of the blob, offset, algo, hex, size of the block]]}.
    COMMIT_REFERENCES = ["INSERT INTO blob_block (blob_id, block_offset, block_id) \
        SELECT blob.id, input.block_offset, block.id FROM "
        (keys "references", 3 number "block_offset", 4 number "block_algo", 5 hex "block_digest", 6 number "block_size")
        " CROSS JOIN blob CROSS JOIN " block " WHERE " (same "blob") " AND blob.state = 1 \
        AND block.algo = input.block_algo AND block.digest = input.block_digest AND block.size = input.block_size"];
}
