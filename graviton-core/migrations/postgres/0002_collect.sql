-- What the collector and an undeletion look for, by index: blobs that lost their name, and deleted blobs by name.

CREATE INDEX blob_nameless ON blob (id) WHERE state = 2 AND digest IS NULL;
CREATE INDEX blob_deleted_name ON blob (algo, digest, size) WHERE state = 2;
