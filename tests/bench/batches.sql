-- The reason why batches go to PostgreSQL as JSON and not as arrays: the time of the same look-up of 256 keys
-- with each, in milliseconds. Run by hand: psql -f tests/bench/batches.sql URL
\set QUIET on
SET search_path = pg_temp;
CREATE TEMPORARY TABLE block (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, algo SMALLINT NOT NULL, digest BYTEA NOT NULL, size BIGINT NOT NULL,
    UNIQUE (algo, digest, size)
);
INSERT INTO block (algo, digest, size) SELECT 1, sha256(number::text::bytea), number FROM generate_series(1, 200000) AS number;
ANALYZE block;
DO $$
DECLARE
    keys TEXT;
    digests BYTEA[];
    sizes BIGINT[];
    started TIMESTAMPTZ;
    found BIGINT;
BEGIN
    SELECT '{"keys":[' || string_agg(format('[1,"%s",%s]', encode(digest, 'hex'), size), ',') || ']}',
        array_agg(digest), array_agg(size)
    INTO keys, digests, sizes FROM (SELECT * FROM block ORDER BY digest LIMIT 256) AS chosen;
    FOR again IN 1..2 LOOP
        started := clock_timestamp();
        FOR run IN 1..200 LOOP
            SELECT count(block.id) INTO found FROM (
                SELECT CAST(value->>0 AS SMALLINT) AS algo, decode(value->>1, 'hex') AS digest, CAST(value->>2 AS BIGINT) AS size
                FROM jsonb_array_elements(keys::jsonb->'keys') WITH ORDINALITY
            ) AS input CROSS JOIN block
            WHERE block.algo = input.algo AND block.digest = input.digest AND block.size = input.size;
        END LOOP;
        RAISE NOTICE 'json:   % found, % ms', found, round(extract(epoch FROM clock_timestamp() - started) * 1000 / 200, 3);
        started := clock_timestamp();
        FOR run IN 1..200 LOOP
            SELECT count(block.id) INTO found FROM
                (SELECT CAST(1 AS SMALLINT) AS algo, digest, size FROM unnest(digests, sizes) AS arrays (digest, size)) AS input
                CROSS JOIN block
            WHERE block.algo = input.algo AND block.digest = input.digest AND block.size = input.size;
        END LOOP;
        RAISE NOTICE 'arrays: % found, % ms', found, round(extract(epoch FROM clock_timestamp() - started) * 1000 / 200, 3);
    END LOOP;
END $$;
