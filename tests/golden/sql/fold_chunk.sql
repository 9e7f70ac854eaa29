-- A large transaction arrives in chunks, each folded by itself. Adds the next chunk, which is in pg_temp.chunk_1, to the final states in
-- pg_temp.stage_1. The state of a row at the start of the chunk is its state at the end of the chunks before.
--
-- While the stage is small beside the chunk, it is read once and hashed. When that would take longer than an index lookup for each row
-- of the chunk, the stage gets an index for the rest of the transaction. Without it, the cost would grow with the square of the rows.
--
-- _clear: the chunk has a TRUNCATE, which removes every row before it. _cleared: an earlier chunk had one, so a row that is not in the
-- stage did not exist.
--
-- Columns and states: the legend in sql/README.md.
CREATE OR REPLACE FUNCTION pg_temp.fold_chunk_1(_clear boolean, _cleared boolean, _resolve boolean) RETURNS void
LANGUAGE plpgsql SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off AS $cdc$
DECLARE
    _before tid[];
BEGIN
    IF _clear THEN
        TRUNCATE pg_temp.stage_1;
        INSERT INTO pg_temp.stage_1 SELECT s.* FROM pg_temp.chunk_1 s;
    ELSE
        IF pg_catalog.to_regclass('pg_temp.stage_1_i') IS NULL
           AND pg_catalog.pg_relation_size('pg_temp.stage_1') > 16 * pg_catalog.pg_relation_size('pg_temp.chunk_1') THEN
            CREATE INDEX stage_1_i ON pg_temp.stage_1 (i1);
        END IF;
        IF pg_catalog.to_regclass('pg_temp.stage_1_i') IS NULL THEN
            -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
            PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                    pg_catalog.set_config('enable_seqscan', 'on', true),
                    pg_catalog.set_config('enable_indexscan', 'off', true);
            _before := ARRAY(SELECT b.ctid FROM pg_temp.stage_1 b JOIN pg_temp.chunk_1 s ON b.i1 = s.o1);
        ELSE
            _before := ARRAY(SELECT (SELECT b.ctid FROM pg_temp.stage_1 b WHERE b.i1 = s.o1) FROM pg_temp.chunk_1 s);
            -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
            PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                    pg_catalog.set_config('enable_seqscan', 'on', true),
                    pg_catalog.set_config('enable_indexscan', 'off', true);
        END IF;
        -- A type has rejected the row, live or dead, so the value that is left out now is not known. While the row is dead, the value
        -- is not needed.
        IF _resolve AND EXISTS (SELECT FROM pg_temp.stage_1 b JOIN pg_temp.chunk_1 s ON b.i1 = s.o1
                                WHERE b.state IN ('x', 'y') AND s.state <> 'd' AND (s.u1 OR s.u2 OR s.u3)
                                  AND b.ctid = ANY (_before)) THEN
            RAISE EXCEPTION 'an update left out a value of a row that was rejected in the same transaction'
                USING ERRCODE = 'CDC02';
        END IF;
        WITH b AS (
            DELETE FROM pg_temp.stage_1 b WHERE b.ctid = ANY (_before) RETURNING b.*
        )
        INSERT INTO pg_temp.stage_1 (o1, i1, state, p1, p2, p3, u1, u2, u3, e1, e2, e3)
        SELECT CASE WHEN b.state IS NOT NULL THEN b.o1 WHEN NOT _cleared THEN s.o1 END, s.i1, CASE WHEN s.state = 'd' AND b.state IN ('x', 'y') AND (s.u1 OR s.u2 OR s.u3) THEN 'y' ELSE s.state END,
            CASE WHEN s.u1 AND b.state IS NOT NULL THEN b.p1 ELSE s.p1 END, CASE WHEN s.u2 AND b.state IS NOT NULL THEN b.p2 ELSE s.p2 END, CASE WHEN s.u3 AND b.state IS NOT NULL THEN b.p3 ELSE s.p3 END, s.u1 AND (b.state IS NULL OR b.u1), s.u2 AND (b.state IS NULL OR b.u2), s.u3 AND (b.state IS NULL OR b.u3), s.e1, s.e2, s.e3
        FROM pg_temp.chunk_1 s LEFT JOIN b ON b.i1 = s.o1
        -- A row that was inserted and deleted within the transaction leaves no final state.
        WHERE s.state <> 'g' OR CASE WHEN b.state IS NULL THEN NOT _cleared ELSE b.o1 IS NOT NULL END;
    END IF;
    TRUNCATE pg_temp.chunk_1;
END
$cdc$
