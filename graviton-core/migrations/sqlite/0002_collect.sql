-- Indexes for the collector and for undeletion: deleted blobs that still have their name, by age and by name,
-- and deleted blobs that have lost it.

DROP INDEX blob_deleted;
CREATE INDEX blob_deleted ON blob (deleted_at) WHERE state = 2 AND digest IS NOT NULL;
CREATE INDEX blob_nameless ON blob (id) WHERE state = 2 AND digest IS NULL;
CREATE INDEX blob_deleted_name ON blob (algo, digest, size) WHERE state = 2;
