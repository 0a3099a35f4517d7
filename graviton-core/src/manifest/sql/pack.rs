//! Packs: creating them, marking in them, sealing, releasing and dropping. Their states are listed in
//! `migrations`.

use super::Sql;

statements! {
    /// `$1` name, `$2` writer. A removal of the writer waits, and then finds the pack.
    INSERT_PACK = ["INSERT INTO pack (name, state, writer_id) SELECT $1, 0, id FROM writer WHERE id = $2"
        for_share " ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"];
    /// `$1` pack, `$2` writer: whether it is being written, and by whom.
    IS_HELD = ["SELECT count(*) FROM pack WHERE id = $1 AND writer_id = $2 AND state = 0"];
    /// `$1` pack: nothing was written to it, and its file may not be there.
    GIVE_UP_PACK = ["UPDATE pack SET state = 3 WHERE id = $1 AND state = 0 \
        AND NOT EXISTS (SELECT 1 FROM " block " WHERE block.pack_id = pack.id)"];
    /// `$1` {packs: [pack]}: those that are being written, and their writers. Held until the transaction
    /// ends: nobody finds or seals them meanwhile.
    LOCK_PACKS = ["SELECT id, writer_id, name FROM pack WHERE id IN (SELECT number FROM " (numbers "packs")
        ") AND state = 0 ORDER BY id" for_share];
    /// `$1` pack: its state and its maker. Held until the transaction ends.
    LOCK_TO_SEAL = ["SELECT state, writer_id FROM pack WHERE id = $1" for_update];
    /// `$1` bytes, `$2` for how long it is in doubt, `$3` pack. Asked in a statement behind the lock: what
    /// nobody points at is dead.
    SEAL = ["UPDATE pack SET state = 2, bytes = $1, in_doubt_until = " now " + $2, dead = $1 - 64 \
        - (SELECT CAST(coalesce(sum((stored_size + 71) / 8 * 8), 0) AS BIGINT) FROM " block " WHERE block.pack_id = pack.id) \
        - (SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM hole WHERE hole.pack_id = pack.id) WHERE id = $3"];
    /// `$1` limit: the maker's lease is over, or its row is gone: nobody marks in it any more.
    FIND_PACKS = ["UPDATE pack SET state = 1 WHERE id IN (SELECT id FROM pack WHERE state <> 2 AND state = 0 \
        AND NOT EXISTS (SELECT 1 FROM writer WHERE writer.id = pack.writer_id AND writer.expires_at > " now ") \
        ORDER BY id LIMIT $1" for_update ")"];
    /// Packs in which another database may have punched holes: the next collection verifies them.
    FIND_SEALED_PACKS = ["UPDATE pack SET state = 1 WHERE state = 2"];
    /// `$1` {packs: [[name]]}: those that have a row, and whether records may be in it that no row points at.
    KNOWN_PACKS = ["SELECT pack.name, CAST(pack.state <> 2 OR pack.dead > pack.punched AS INTEGER) FROM " (rows "packs", 0 text "pack_name")
        " CROSS JOIN pack WHERE pack.name = input.pack_name"];
    /// `$1` {packs: [[name, bytes]]}.
    ADOPT_PACKS = ["INSERT INTO pack (name, state, writer_id, bytes, dead) \
        SELECT pack_name, 2, 0, pack_bytes, CASE WHEN pack_bytes > 64 THEN pack_bytes - 64 ELSE 0 END FROM " (rows "packs", 0 text "pack_name", 1 number "pack_bytes")
        " WHERE TRUE ORDER BY pack_name ON CONFLICT DO NOTHING"];
    /// `$1` state, `$2` behind this row, `$3` limit: of one of the states that a pack has not for long.
    PACKS_IN_STATE = ["SELECT id, name FROM pack WHERE state <> 2 AND state = $1 AND id > $2 ORDER BY id LIMIT $3"];
    /// `$1` pack, `$2` behind this offset, `$3` limit: the blocks of a pack, in order.
    PACK_BLOCKS = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, TRUE" place " FROM " block pack
        " WHERE block.pack_id = $1 AND block.pack_offset > $2 ORDER BY block.pack_offset LIMIT $3"];
    /// `$1` block, `$2` pack, `$3` offset: its bytes there are not right.
    CLEAR_PLACED = ["UPDATE " block " SET stored = FALSE WHERE id = $1 AND pack_id = $2 AND pack_offset = $3"];

    /// `$1` behind this row, `$2` limit: candidates in packs, and the bytes that they take. Those whose name
    /// is doomed wait for that, and, where blocks are objects, for a look under the name.
    PACKED_CANDIDATES = ["SELECT id, stored_size FROM " block " WHERE candidate AND pack_id IS NOT NULL \
        AND id > $1 AND coalesce(doomed_until, 0) = 0 ORDER BY id LIMIT $2"];
    /// `$1` {rows: [block]}: those that are still that, but for those that are locked.
    PACKED_CANDIDATES_AGAIN = ["SELECT id, stored_size FROM " block " WHERE id IN (SELECT number FROM "
        (numbers "rows") ") AND candidate AND pack_id IS NOT NULL AND coalesce(doomed_until, 0) = 0 \
        ORDER BY id" skip_locked];
    /// `$1` {rows: [block]}: the mark goes, and a doom of the name that has ended.
    UNMARK_PACKED = ["UPDATE " block " SET candidate = FALSE, doomed_by = NULL, doomed_until = NULL WHERE id IN (SELECT number FROM " (numbers "rows") ")"];
    /// `$1` {rows: [block]}: as many bytes as the records take, with a header of 64, aligned to 8.
    INSERT_HOLES = ["INSERT INTO hole (pack_id, pack_offset, bytes) \
        SELECT pack_id, pack_offset, (stored_size + 71) / 8 * 8 FROM " block " WHERE id IN (SELECT number FROM "
        (numbers "rows") ") ON CONFLICT DO NOTHING"];
    /// `$1` {rows: [block]}.
    RELEASE = ["DELETE FROM " block " WHERE id IN (SELECT number FROM " (numbers "rows") ")"];
    /// `$1` limit: those of packs that nobody appends to.
    HOLES = ["SELECT pack.id, pack.name, hole.pack_offset, hole.bytes FROM hole JOIN pack ON pack.id = hole.pack_id \
        WHERE pack.state = 2 ORDER BY hole.pack_id, hole.pack_offset LIMIT $1"];
    /// `$1` {rows: [pack]}.
    LOCK_SEALED = ["SELECT id FROM pack WHERE id IN (SELECT number FROM " (numbers "rows") ") AND state = 2 \
        ORDER BY id" for_update];
    /// `$1` {holes: [[pack, offset]]}.
    FORGET_HOLES = ["DELETE FROM hole WHERE (pack_id, pack_offset) IN (SELECT pack_id, pack_offset FROM "
        (rows "holes", 0 number "pack_id", 1 number "pack_offset") ") RETURNING pack_id, bytes"];
    /// `$1` dead, `$2` punched, `$3` pack.
    ADD_DEAD = ["UPDATE pack SET dead = dead + $1, punched = punched + $2 WHERE id = $3 AND state = 2"];

    /// Sealed packs that a row points at: bytes, dead ones, and punched ones of those.
    SEALED_PACKS = ["SELECT id, name, bytes, dead, punched FROM pack WHERE state = 2 AND empty_at IS NULL \
        AND EXISTS (SELECT 1 FROM " block " WHERE block.pack_id = pack.id) ORDER BY id"];
    /// All packs: name, state, dead bytes, punched ones of those, whether it goes, bytes that rows point at,
    /// and released ones.
    PACK_SUMS = ["SELECT name, state, dead, punched, CAST(state = 3 OR empty_at IS NOT NULL AS INTEGER), \
        (SELECT CAST(coalesce(sum((stored_size + 71) / 8 * 8), 0) AS BIGINT) FROM " block " WHERE block.pack_id = pack.id), \
        (SELECT CAST(coalesce(sum(hole.bytes), 0) AS BIGINT) FROM hole WHERE hole.pack_id = pack.id) FROM pack ORDER BY id"];
    /// `$1` {marks: [[block, pack, offset, stored size, codec, pack, offset]]}: blocks that still have the
    /// last two for a place get the new one. A doom of the name has ended where the block is under it.
    MOVE = ["UPDATE " block " SET pack_id = input.pack_id, pack_offset = input.pack_offset, \
        stored_size = input.stored_size, codec = input.codec" doom_of_input " FROM " (rows "marks", 0 number "block_id", 1 number "pack_id",
        2 number "pack_offset", 3 number "stored_size", 4 number "codec", 5 number "found_id", 6 number "found_offset")
        " WHERE block.id = input.block_id AND block.pack_id = input.found_id AND block.pack_offset = input.found_offset \
        RETURNING id"];

    /// `$1` limit: sealed packs that no row points at any more; none will.
    NOTE_EMPTY_PACKS = ["UPDATE pack SET empty_at = " now " WHERE id IN (SELECT id FROM pack \
        WHERE state = 2 AND empty_at IS NULL AND NOT EXISTS (SELECT 1 FROM " block " WHERE block.pack_id = pack.id) \
        ORDER BY id LIMIT $1" for_update ")"];
    /// Packs that were noted in a time that has not come yet: the clock was ahead.
    FUTURE_EMPTY_PACKS = ["UPDATE pack SET empty_at = " now " WHERE empty_at > " now];
    /// `$1` grace, `$2` for how long a pack is in doubt, `$3` limit. A doubt that ends later than that was
    /// noted by a clock that was ahead.
    EMPTY_PACKS = ["SELECT id FROM pack WHERE state = 2 AND empty_at <= " now " - $1 \
        AND coalesce(in_doubt_until, 0) - " now " NOT BETWEEN 1 AND $2 ORDER BY id LIMIT $3" for_update];
    /// `$1` {rows: [pack]}: those that a row points at. Asked while they are locked.
    POINTED_AT = ["SELECT input.number FROM " (numbers "rows")
        " WHERE EXISTS (SELECT 1 FROM " block " WHERE block.pack_id = input.number)"];
    /// `$1` {rows: [pack]}.
    DROP_HOLES = ["DELETE FROM hole WHERE pack_id IN (SELECT number FROM " (numbers "rows") ")"];
    /// `$1` {rows: [pack]}.
    DROP_PACKS = ["UPDATE pack SET state = 3 WHERE id IN (SELECT number FROM " (numbers "rows") ") AND state = 2"];
    /// `$1` {rows: [pack]}: their files are gone.
    FORGET_PACKS = ["DELETE FROM pack WHERE id IN (SELECT number FROM " (numbers "rows") ") AND state = 3"];
}
