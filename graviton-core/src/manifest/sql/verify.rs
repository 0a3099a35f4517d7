//! The database's side of a verification.

use super::Sql;

macro_rules! check_references {
    ($tables:ident) => {
        concat!(
            "SELECT 'a reference of blob row ' || blob_id || ' at ' || block_offset || ' leads nowhere' \
             FROM blob_block WHERE NOT EXISTS (SELECT 1 FROM blob WHERE id = blob_id) \
             OR NOT EXISTS (SELECT 1 FROM ",
            tables!($tables block),
            " WHERE id = block_id) LIMIT 100"
        )
    };
}

statements! {
    /// `$1` behind this row, `$2` limit: row, key, whether it is stored, and whether a live blob refers to
    /// it.
    BLOCK_PAGE = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, \
        EXISTS (SELECT 1 FROM blob_block \
        JOIN blob ON blob.id = blob_block.blob_id WHERE block_id = block.id AND blob.state = 1)" place " \
        FROM " block pack " WHERE block.id > $1 ORDER BY block.id LIMIT $2"];
    /// `$1` {keys: [[algo, hex, size]]}: the same of these, in no order.
    BLOCKS_BY_KEY = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, \
        EXISTS (SELECT 1 FROM blob_block JOIN blob ON blob.id = blob_block.blob_id \
        WHERE block_id = block.id AND blob.state = 1)" place " FROM " (keys "keys") " CROSS JOIN " block pack " WHERE " (same "block")];
    /// `$1` {keys: [[algo, hex, size]]}: the same of those that a blob refers to which is live, or can be
    /// restored.
    WANTED_BLOCKS = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, \
        EXISTS (SELECT 1 FROM blob_block JOIN blob ON blob.id = blob_block.blob_id \
        WHERE block_id = block.id AND blob.state = 1)" place " FROM " (keys "keys") " CROSS JOIN " block pack
        " WHERE " (same "block") " AND EXISTS (SELECT 1 FROM blob_block JOIN blob ON blob.id = blob_block.blob_id \
        WHERE block_id = block.id AND (blob.state = 1 OR blob.state = 2 AND blob.digest IS NOT NULL))"];
    /// `$1` block, `$2` limit: live blobs that refer to it.
    BLOBS_OF = ["SELECT DISTINCT blob.algo, blob.digest, blob.size FROM blob_block \
        JOIN blob ON blob.id = blob_block.blob_id WHERE blob_block.block_id = $1 AND blob.state = 1 \
        ORDER BY blob.algo, blob.digest, blob.size LIMIT $2"];
    /// `$1` block: its key, whether it is stored, and its place, if nobody is about to delete it. The doom of
    /// a block in a pack is about its name alone. Held until the transaction ends.
    RECHECK = ["SELECT block.algo, block.digest, block.size, block.stored" place " FROM " block pack
        " WHERE block.id = $1 AND (block.doomed_by IS NULL" (" OR block.pack_id IS NOT NULL" else "") ")" for_update_block];
    CLEAR_STORED = ["UPDATE " block " SET stored = FALSE WHERE id = $1"];
    /// `$1` {keys: [[algo, hex, size]]}: rows for blocks that have none, for the collector to look at.
    ADOPT = ["INSERT INTO " block " (algo, digest, size, candidate) SELECT DISTINCT algo, digest, size, TRUE FROM "
        (keys "keys") " WHERE TRUE ORDER BY algo, digest, size ON CONFLICT DO NOTHING"];
    /// Blocks that nothing refers to and that no collector would look at: of a database that was tampered
    /// with.
    FORGOTTEN = ["UPDATE " block " SET candidate = TRUE WHERE NOT candidate \
        AND NOT EXISTS (SELECT 1 FROM blob_block WHERE block_id = block.id)"];
}

/// References to rows that are not there, which the constraints of an intact database rule out.
pub(in crate::manifest) const CHECK_REFERENCES: Sql = Sql {
    sqlite: ["SELECT 'a row of ' || \"table\" || ' refers to a row of ' || parent || ' that is not there' \
        FROM pragma_foreign_key_check LIMIT 100"; 2],
    postgres: [check_references!(files), check_references!(packs)],
};
