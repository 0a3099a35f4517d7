-- Packs: docs/FORMAT.md, "Packs". The table of blocks gets another name, so that programs which do not know
-- packs, and have the database open, fail instead of looking for blocks where they are not.
-- States of a pack: 0 writing, 1 found, 2 sealed, 3 dropped.

CREATE TABLE pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE CHECK (length(name) = 32),
    state INTEGER NOT NULL CHECK (state IN (0, 1, 2, 3)),
    writer_id INTEGER NOT NULL,
    -- Bytes up to the end of the last record; 0 until it is sealed.
    bytes INTEGER NOT NULL DEFAULT 0,
    -- Of a sealed pack: bytes of records that no row points at, but for holes; and those of them that were
    -- punched.
    dead INTEGER NOT NULL DEFAULT 0,
    punched INTEGER NOT NULL DEFAULT 0,
    -- When no row was found to point at it.
    empty_at INTEGER,
    -- Until then an attempt to send the pack that got no answer may be carried out.
    in_doubt_until INTEGER
) STRICT;

CREATE INDEX pack_unsealed ON pack (state) WHERE state <> 2;

ALTER TABLE block RENAME TO data_block;
ALTER TABLE data_block ADD COLUMN pack_id INTEGER REFERENCES pack (id);
ALTER TABLE data_block ADD COLUMN pack_offset INTEGER;
ALTER TABLE data_block ADD COLUMN stored_size INTEGER;
ALTER TABLE data_block ADD COLUMN codec INTEGER;
CREATE UNIQUE INDEX data_block_pack ON data_block (pack_id, pack_offset) WHERE pack_id IS NOT NULL;

-- Bytes of packs that were released and not yet given back to the filesystem.
CREATE TABLE hole (
    pack_id INTEGER NOT NULL REFERENCES pack (id),
    pack_offset INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (pack_id, pack_offset)
) STRICT, WITHOUT ROWID;
