//! Repack: blocks that move between the two layouts.

use super::Sql;

statements! {
    /// How many stored blocks are under their own names, and how many are in packs.
    LAYOUTS = ["SELECT CAST(coalesce(sum(CASE WHEN pack_id IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT), \
        CAST(coalesce(sum(CASE WHEN pack_id IS NULL THEN 0 ELSE 1 END), 0) AS BIGINT) FROM " block " WHERE stored"];
    /// `$1` behind this row, `$2` limit: stored blocks under their own names.
    NAMED_BLOCKS = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, TRUE" place " FROM " block pack
        " WHERE block.id > $1 AND block.stored AND block.pack_id IS NULL ORDER BY block.id LIMIT $2"];
    /// `$1` behind this row, `$2` limit: stored blocks in packs.
    PACKED_BLOCKS = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, TRUE" place " FROM " block pack
        " WHERE block.id > $1 AND block.stored AND block.pack_id IS NOT NULL ORDER BY block.id LIMIT $2"];
    /// `$1` {marks: [[block, pack, offset, stored size, codec, pack, offset]]}, `$2` collection, `$3` for how
    /// long: stored blocks without a place, a doom or a put under way get the place, and their names are
    /// doomed. So do those that have this very place, of an earlier try whose answer was lost. As candidates
    /// they are found by a collection, if the process dies. Asked while they are locked.
    MOVE_TO_PACKS = ["WITH given AS (SELECT * FROM " (rows "marks", 0 number "block_id", 1 number "pack_id",
        2 number "pack_offset", 3 number "stored_size", 4 number "codec") ") \
        UPDATE " block " SET pack_id = input.pack_id, pack_offset = input.pack_offset, \
        stored_size = input.stored_size, codec = input.codec, doomed_by = $2, doomed_until = " until ", candidate = TRUE \
        FROM given AS input WHERE block.id = input.block_id AND block.stored \
        AND (block.pack_id IS NULL AND block.doomed_by IS NULL OR block.pack_id = input.pack_id \
        AND block.pack_offset = input.pack_offset AND block.doomed_by = $2) AND NOT " pinned " RETURNING id"];
    /// `$1` {rows: [block]}, `$2` collection, `$3` for how long: dooms the names of stored blocks in packs
    /// that no running put references, and that have no doom that holds others up. Asked while they are
    /// locked.
    DOOM_NAMES = ["WITH chosen AS (SELECT number FROM " (numbers "rows") ") \
        UPDATE " block " SET doomed_by = $2, doomed_until = " until ", candidate = TRUE \
        WHERE id IN (SELECT number FROM chosen) AND stored AND pack_id IS NOT NULL \
        AND coalesce(doomed_until, 0) <= " now " AND NOT " pinned " RETURNING algo, digest, size"];
    /// `$1` behind this row, `$2` limit: stored candidates in packs. A move that did not end leaves such.
    CANDIDATES_IN_PACKS = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, TRUE" place " FROM " block pack
        " WHERE block.candidate AND block.pack_id IS NOT NULL AND block.stored AND block.id > $1 ORDER BY block.id LIMIT $2"];
    /// `$1` behind this row, `$2` limit: candidates in packs whose doom has ended, and was not lifted: there
    /// may be an object under the name. A doom of a file ends at 0, and does not count.
    LEFT_NAMES = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, TRUE" place " FROM " block pack
        " WHERE block.candidate AND block.pack_id IS NOT NULL AND block.id > $1 \
        AND block.doomed_until BETWEEN 1 AND " now " ORDER BY block.id LIMIT $2"];
    /// `$1` {rows: [block]}: lifts dooms that have ended, of blocks that no running put references. Nothing
    /// is under the names. Asked while they are locked.
    LIFT_ENDED = ["WITH chosen AS (SELECT number FROM " (numbers "rows") ") \
        UPDATE " block " SET doomed_by = NULL, doomed_until = NULL WHERE id IN (SELECT number FROM chosen) \
        AND pack_id IS NOT NULL AND doomed_until <= " now " AND NOT " pinned];
    /// `$1` {rows: [block]}, `$2` collection: blocks in packs get a doom of the name that has ended, if they
    /// have none: an object is about to be there.
    MARK_NAMES = ["WITH chosen AS (SELECT number FROM " (numbers "rows") ") \
        UPDATE " block " SET doomed_by = $2, doomed_until = 1, candidate = TRUE \
        WHERE id IN (SELECT number FROM chosen) AND pack_id IS NOT NULL \
        AND coalesce(doomed_until, 0) <= " now];
    /// `$1` {blocks: [], keys: [[algo, hex, size]]}, `$2` collection: ends its dooms of names, and leaves
    /// them to be found.
    END_NAMES = ["UPDATE " block " SET doomed_until = 1 \
        WHERE id IN (SELECT block.id FROM " (keys "keys") " CROSS JOIN " block " WHERE " (same "block") ") \
        AND doomed_by = $2 AND doomed_until > 1"];
    /// `$1` {blocks: [], keys: [[algo, hex, size]]}, `$2` collection: lifts its dooms of names. A block that
    /// lost its last reference meanwhile stays a candidate.
    LIFT_NAMES = ["UPDATE " block " SET doomed_by = NULL, doomed_until = NULL, \
        candidate = NOT EXISTS (SELECT 1 FROM blob_block WHERE blob_block.block_id = block.id) \
        WHERE id IN (SELECT block.id FROM " (keys "keys") " CROSS JOIN " block " WHERE " (same "block") ") \
        AND doomed_by = $2"];
}
