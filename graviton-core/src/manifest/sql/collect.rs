//! Deletion, and the steps of the collector.
//!
//! A blob that is reaped loses its name first, in one update. An undeletion looks for the name, so from then
//! on nobody can restore the blob while its references are removed, and a later collector knows where to
//! continue.

use super::Sql;

statements! {
    /// `$1`, `$2`, `$3` id.
    DELETE_FIND = ["SELECT id FROM blob WHERE algo = $1 AND digest = $2 AND size = $3 AND state = 1" for_update];
    DELETE_BLOB = ["UPDATE blob SET state = 2, deleted_at = " now " WHERE id = $1 AND state = 1"];
    /// `$1`, `$2`, `$3` id: the row that was deleted last.
    RESTORE_FIND = ["SELECT id FROM blob WHERE algo = $1 AND digest = $2 AND size = $3 AND state = 2 \
        ORDER BY deleted_at DESC, id DESC LIMIT 1" for_update];
    RESTORE = ["UPDATE blob SET state = 1, deleted_at = NULL WHERE id = $1"];

    /// Deletions of a time that has not come yet: the clock was ahead.
    FUTURE_DELETIONS = ["UPDATE blob SET deleted_at = " now " WHERE state = 2 AND deleted_at > " now];
    /// `$1` the longest lease.
    FUTURE_LEASES = ["UPDATE writer SET expires_at = " now " + $1 WHERE expires_at > " now " + $1"];
    /// `$1` the longest doom.
    FUTURE_DOOMS = ["UPDATE " block " SET doomed_until = " now " + $1 WHERE candidate AND doomed_until > " now " + $1"];

    /// `$1` limit: pending blobs of writers whose lease is over. One that is being pinned or committed is
    /// locked, and counts as alive.
    EXPIRE_BLOBS = ["UPDATE blob SET state = 2, deleted_at = " now " WHERE state = 0 AND id IN (\
        SELECT blob.id FROM blob LEFT JOIN writer ON writer.id = blob.writer_id \
        WHERE blob.state = 0 AND coalesce(writer.expires_at, 0) <= " now " LIMIT $1"
        skip_locked_blobs ")"];
    EXPIRE_WRITERS = ["DELETE FROM writer WHERE id IN (SELECT id FROM writer WHERE expires_at <= " now
        " AND NOT EXISTS (SELECT 1 FROM blob WHERE writer_id = writer.id AND state = 0)"
        (" AND NOT EXISTS (SELECT 1 FROM pack WHERE writer_id = writer.id AND state = 0)" else "") skip_locked ")"];

    /// `$1` grace, `$2` limit.
    DISCARD = ["UPDATE blob SET algo = NULL, digest = NULL, size = NULL WHERE id IN (\
        SELECT id FROM blob WHERE state = 2 AND digest IS NOT NULL AND deleted_at <= " now " - $1 \
        ORDER BY deleted_at LIMIT $2" skip_locked ")"];
    /// `$1` behind this row, `$2` limit: blobs whose references are to go.
    DISCARDED_BLOBS = ["SELECT id FROM blob WHERE state = 2 AND digest IS NULL AND id > $1 ORDER BY id LIMIT $2"];
    /// `$1` blob, `$2` limit.
    REAP_REFERENCES = ["SELECT block_offset, block_id FROM blob_block WHERE blob_id = $1 \
        ORDER BY block_offset LIMIT $2"];
    /// `$1` {rows: [block]}.
    MARK_CANDIDATES = ["UPDATE " block " SET candidate = TRUE \
        WHERE id IN (SELECT number FROM " (numbers "rows") ") AND NOT candidate"];
    /// `$1` blob, `$2` up to this offset.
    DROP_SOME_REFERENCES = ["DELETE FROM blob_block WHERE blob_id = $1 AND block_offset <= $2"];
    /// `$1` {rows: [blob]}.
    DROP_REFERENCES = ["DELETE FROM blob_block WHERE blob_id IN (SELECT number FROM " (numbers "rows") ")"];
    /// `$1` {rows: [blob]}.
    DROP_BLOBS = ["DELETE FROM blob WHERE id IN (SELECT number FROM " (numbers "rows") ") \
        AND state = 2 AND digest IS NULL AND NOT EXISTS (SELECT 1 FROM blob_block WHERE blob_id = blob.id)"];

    /// `$1` behind this row, `$2` limit: candidates that no collector dooms.
    CANDIDATES = ["SELECT id, algo, digest, size FROM " block " WHERE candidate AND id > $1 AND coalesce(doomed_until, 0) <= " now
        (" AND pack_id IS NULL" else "") " ORDER BY id LIMIT $2"];
    /// `$1` {rows: [block]}, `$2` collection: those that are still that, but for those that are locked. Also
    /// those that this collection dooms: of a doom whose answer was lost it does not know.
    CANDIDATES_AGAIN = ["SELECT id, algo, digest, size FROM " block " WHERE id IN (SELECT number FROM " (numbers "rows")
        ") AND candidate AND (doomed_by = $2 OR coalesce(doomed_until, 0) <= " now ")" (" AND pack_id IS NULL" else "")
        " ORDER BY id" skip_locked];
    /// `$1` collection: how many blocks others doom.
    DOOMED_BY_OTHERS = ["SELECT count(*) FROM " block " WHERE candidate AND doomed_by <> $1 AND doomed_until > " now];
    /// `$1` {rows: [block]}: those that something refers to. Asked while they are locked.
    REFERENCED = ["SELECT input.number FROM " (numbers "rows")
        " WHERE EXISTS (SELECT 1 FROM blob_block WHERE block_id = input.number)"];
    /// `$1` {rows: [block]}.
    UNMARK = ["UPDATE " block " SET candidate = FALSE, doomed_by = NULL, doomed_until = NULL \
        WHERE id IN (SELECT number FROM " (numbers "rows") ")"];
    /// `$1` {rows: [block]}, `$2` collection, `$3` for how long.
    DOOM = ["WITH chosen AS (SELECT number FROM " (numbers "rows") ") \
        UPDATE " block " SET doomed_by = $2, doomed_until = " until ", stored = FALSE \
        WHERE id IN (SELECT number FROM chosen)"];
    /// `$1` {blocks: [], keys: [[algo, hex, size]]}, `$2` collection: deletes the rows that are still its
    /// own, and gives their keys. A put that refers to one has taken the doom away, or writes into a pack.
    SETTLE = ["DELETE FROM " block " WHERE id IN (SELECT block.id FROM " (keys "keys")
        " CROSS JOIN " block " WHERE " (same "block") ") AND doomed_by = $2 " (" AND pack_id IS NULL" else "")
        " AND NOT EXISTS (SELECT 1 FROM blob_block WHERE block_id = block.id) RETURNING algo, digest, size"];
    /// `$1` as before: the places of those that have a row and no doom. Somebody may rely on them. If the row
    /// says that the block is in a pack, only a put under way can be about to say otherwise.
    UNDOOMED = ["SELECT input.place FROM " (keys "keys") " CROSS JOIN " block " WHERE " (same "block")
        " AND block.doomed_by IS NULL" named];
    /// `$1` {rows: [block]}, `$2` collection.
    LIFT = ["UPDATE " block " SET doomed_by = NULL, doomed_until = NULL \
        WHERE id IN (SELECT number FROM " (numbers "rows") ") AND doomed_by = $2"];
    /// `$1` grace, `$2` limit: live no more, and what a collection would reap. It counts a time that has not
    /// come yet as now.
    PLAN_BLOBS = ["SELECT algo, digest, size FROM blob WHERE state = 2 AND digest IS NOT NULL \
        AND (deleted_at <= " now " - $1 OR ($1 = 0 AND deleted_at > " now ")) ORDER BY algo, digest, size LIMIT $2"];
    /// `$1` grace: how many blobs would be reaped, how many blocks would then be deleted, and their bytes.
    PLAN_TOTALS = ["WITH garbage AS (SELECT id FROM blob WHERE state = 2 AND digest IS NULL \
        UNION ALL SELECT id FROM blob WHERE state = 2 AND digest IS NOT NULL \
        AND (deleted_at <= " now " - $1 OR ($1 = 0 AND deleted_at > " now ")) \
        UNION ALL SELECT blob.id FROM blob LEFT JOIN writer ON writer.id = blob.writer_id \
        WHERE blob.state = 0 AND coalesce(writer.expires_at, 0) <= " now "), \
        loose AS (SELECT id, " stored_size " AS bytes FROM " block " WHERE id IN (SELECT id FROM " block " WHERE candidate \
        UNION SELECT block_id FROM blob_block WHERE blob_id IN (SELECT id FROM garbage)) \
        AND NOT EXISTS (SELECT 1 FROM blob_block WHERE block_id = block.id \
        AND NOT EXISTS (SELECT 1 FROM garbage WHERE garbage.id = blob_block.blob_id))) \
        SELECT (SELECT count(*) FROM garbage), count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM loose"];
}

/// Pages that nothing needs, all pages, and how the first can be given back: 2 is step by step. PostgreSQL
/// does it by itself.
pub(in crate::manifest) const FREE_PAGES: Sql = Sql::new(
    "SELECT freelist_count, page_count, auto_vacuum \
        FROM pragma_freelist_count, pragma_page_count, pragma_auto_vacuum",
    "SELECT 0, 0, 0",
);
/// Gives so many back. A row for each.
pub(in crate::manifest) const GIVE_PAGES_BACK: Sql = Sql::new("PRAGMA incremental_vacuum(1000)", "SELECT 0");
