//! The database's side of a verification.

use super::Sql;

statements! {
    /// `$1` behind this row, `$2` limit: row, key, whether it is stored, and whether a live blob refers to it.
    BLOCK_PAGE = ["SELECT id, algo, digest, size, stored, EXISTS (SELECT 1 FROM blob_block \
        JOIN blob ON blob.id = blob_block.blob_id WHERE block_id = block.id AND blob.state = 1) \
        FROM block WHERE id > $1 ORDER BY id LIMIT $2"];
    /// `$1` {keys: [[algo, hex, size]]}: the same of these, in no order.
    BLOCKS_BY_KEY = ["SELECT block.id, block.algo, block.digest, block.size, block.stored, \
        EXISTS (SELECT 1 FROM blob_block JOIN blob ON blob.id = blob_block.blob_id \
        WHERE block_id = block.id AND blob.state = 1) FROM " (keys "keys") " CROSS JOIN block WHERE " (same "block")];
    /// `$1` block, `$2` limit: live blobs that refer to it.
    BLOBS_OF = ["SELECT DISTINCT blob.algo, blob.digest, blob.size FROM blob_block \
        JOIN blob ON blob.id = blob_block.blob_id WHERE blob_block.block_id = $1 AND blob.state = 1 \
        ORDER BY blob.algo, blob.digest, blob.size LIMIT $2"];
    /// `$1` block: its key and whether it is stored, if nobody is about to delete it. Held until the transaction ends.
    RECHECK = ["SELECT algo, digest, size, stored FROM block WHERE id = $1 AND doomed_by IS NULL" for_update];
    CLEAR_STORED = ["UPDATE block SET stored = FALSE WHERE id = $1"];
    /// `$1` {keys: [[algo, hex, size]]}: rows for blocks that have none, for the collector to look at.
    ADOPT = ["INSERT INTO block (algo, digest, size, candidate) SELECT DISTINCT algo, digest, size, TRUE FROM "
        (keys "keys") " WHERE TRUE ORDER BY algo, digest, size ON CONFLICT DO NOTHING"];
    /// Blocks that nothing refers to and that no collector would look at: of a database that was tampered with.
    FORGOTTEN = ["UPDATE block SET candidate = TRUE WHERE NOT candidate \
        AND NOT EXISTS (SELECT 1 FROM blob_block WHERE block_id = block.id)"];
}
