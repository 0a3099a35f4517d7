-- The schema of docs/FORMAT.md in PostgreSQL's dialect; the tables are in the schema `graviton`, which is the
-- search path. Times are milliseconds since 1970 by the clock of this database. Algorithms: 1 blake3, 2
-- sha256. States of a blob: 0 pending, 1 live, 2 deleted.

CREATE TABLE store (
    id TEXT PRIMARY KEY,
    block_location TEXT NOT NULL,
    durability TEXT NOT NULL CHECK (durability IN ('full', 'relaxed')),
    schema_version BIGINT NOT NULL
);

CREATE TABLE writer (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE TABLE block (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    algo SMALLINT NOT NULL,
    digest BYTEA NOT NULL CHECK (length(digest) = 32),
    size BIGINT NOT NULL CHECK (size BETWEEN 1 AND 16777216),
    stored BOOLEAN NOT NULL DEFAULT FALSE,
    candidate BOOLEAN NOT NULL DEFAULT FALSE,
    doomed_by BIGINT,
    doomed_until BIGINT,
    UNIQUE (algo, digest, size)
);

-- The cost of a collection is proportional to what was deleted, not to what is stored.
CREATE INDEX block_candidate ON block (id) WHERE candidate;

CREATE TABLE blob (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state SMALLINT NOT NULL CHECK (state IN (0, 1, 2)),
    writer_id BIGINT,
    algo SMALLINT,
    digest BYTEA CHECK (length(digest) = 32),
    size BIGINT CHECK (size >= 0),
    block_count BIGINT,
    chunker TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CHECK (state <> 1 OR (algo IS NOT NULL AND digest IS NOT NULL AND size IS NOT NULL AND block_count IS NOT NULL)),
    CHECK ((state = 2) = (deleted_at IS NOT NULL))
);

CREATE UNIQUE INDEX blob_live ON blob (algo, digest, size) WHERE state = 1;
CREATE INDEX blob_pending ON blob (writer_id) WHERE state = 0;
CREATE INDEX blob_deleted ON blob (deleted_at) WHERE state = 2;

CREATE TABLE blob_block (
    blob_id BIGINT NOT NULL REFERENCES blob (id),
    block_offset BIGINT NOT NULL CHECK (block_offset >= 0),
    block_id BIGINT NOT NULL REFERENCES block (id),
    PRIMARY KEY (blob_id, block_offset)
);

CREATE INDEX blob_block_block ON blob_block (block_id);
