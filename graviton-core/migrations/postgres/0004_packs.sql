-- Packs: docs/FORMAT.md, "Packs". The table of blocks gets another name, so that programs which do not know
-- packs, and have the database open, fail instead of looking for blocks where they are not.
-- States of a pack: 0 writing, 1 found, 2 sealed, 3 dropped.

CREATE TABLE pack (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (length(name) = 32),
    state SMALLINT NOT NULL CHECK (state IN (0, 1, 2, 3)),
    writer_id BIGINT NOT NULL,
    -- Bytes up to the end of the last record; 0 until it is sealed.
    bytes BIGINT NOT NULL DEFAULT 0,
    -- Of a sealed pack: bytes of records that no row points at, but for holes; and those of them that were
    -- punched.
    dead BIGINT NOT NULL DEFAULT 0,
    punched BIGINT NOT NULL DEFAULT 0,
    -- When no row was found to point at it.
    empty_at BIGINT,
    -- Until then an attempt to send the pack that got no answer may be carried out.
    in_doubt_until BIGINT
);

CREATE INDEX pack_unsealed ON pack (state) WHERE state <> 2;

ALTER TABLE block RENAME TO data_block;
ALTER TABLE data_block
    ADD COLUMN pack_id BIGINT REFERENCES pack (id),
    ADD COLUMN pack_offset BIGINT,
    ADD COLUMN stored_size BIGINT,
    ADD COLUMN codec SMALLINT;
CREATE UNIQUE INDEX data_block_pack ON data_block (pack_id, pack_offset) WHERE pack_id IS NOT NULL;

-- Bytes of packs that were released and not yet given back to the filesystem.
CREATE TABLE hole (
    pack_id BIGINT NOT NULL REFERENCES pack (id),
    pack_offset BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (pack_id, pack_offset)
);
