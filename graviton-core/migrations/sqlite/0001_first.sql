-- The schema of docs/FORMAT.md in SQLite's dialect. Times are milliseconds since 1970 by the clock of this
-- database. Algorithms: 1 blake3, 2 sha256. States of a blob: 0 pending, 1 live, 2 deleted.

CREATE TABLE store (
    id TEXT PRIMARY KEY,
    block_location TEXT NOT NULL,
    durability TEXT NOT NULL CHECK (durability IN ('full', 'relaxed')),
    schema_version INTEGER NOT NULL
) STRICT;

CREATE TABLE writer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE block (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    algo INTEGER NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    size INTEGER NOT NULL CHECK (size BETWEEN 1 AND 16777216),
    stored INTEGER NOT NULL DEFAULT FALSE,
    candidate INTEGER NOT NULL DEFAULT FALSE,
    doomed_by INTEGER,
    doomed_until INTEGER,
    UNIQUE (algo, digest, size)
) STRICT;

-- The cost of a collection is proportional to what was deleted, not to what is stored.
CREATE INDEX block_candidate ON block (id) WHERE candidate;

CREATE TABLE blob (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    writer_id INTEGER,
    algo INTEGER,
    digest BLOB CHECK (length(digest) = 32),
    size INTEGER CHECK (size >= 0),
    block_count INTEGER,
    chunker TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER,
    CHECK (state <> 1 OR (algo IS NOT NULL AND digest IS NOT NULL AND size IS NOT NULL AND block_count IS NOT NULL)),
    CHECK ((state = 2) = (deleted_at IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX blob_live ON blob (algo, digest, size) WHERE state = 1;
CREATE INDEX blob_pending ON blob (writer_id) WHERE state = 0;
CREATE INDEX blob_deleted ON blob (deleted_at) WHERE state = 2;

CREATE TABLE blob_block (
    blob_id INTEGER NOT NULL REFERENCES blob (id),
    block_offset INTEGER NOT NULL CHECK (block_offset >= 0),
    block_id INTEGER NOT NULL REFERENCES block (id),
    PRIMARY KEY (blob_id, block_offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX blob_block_block ON blob_block (block_id);
