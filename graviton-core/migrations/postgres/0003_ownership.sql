-- Which copy of the database owns the blocks: docs/FORMAT.md, "A copy of the database".

ALTER TABLE store
    ADD COLUMN generation BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN raised_at BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN place TEXT NOT NULL DEFAULT '',
    ADD COLUMN file TEXT NOT NULL DEFAULT '',
    ADD COLUMN is_backup BOOLEAN NOT NULL DEFAULT FALSE;
