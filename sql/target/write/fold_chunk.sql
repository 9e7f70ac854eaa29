-- A large transaction arrives in chunks, each folded by itself. Adds the next chunk, which is in {{chunk}}, to the final states in
-- {{stage}}. The state of a row at the start of the chunk is its state at the end of the chunks before.
--
-- While the stage is small beside the chunk, it is read once and hashed. When that would take longer than an index lookup for each row
-- of the chunk, the stage gets an index for the rest of the transaction. Without it, the cost would grow with the square of the rows.
--
-- _clear: the chunk has a TRUNCATE, which removes every row before it. _cleared: an earlier chunk had one, so a row that is not in the
-- stage did not exist.
--
-- Columns and states: the legend in sql/README.md.
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _cleared boolean, _resolve boolean) RETURNS void
LANGUAGE plpgsql {{?settings}} AS $cdc$
DECLARE
    _before tid[];
BEGIN
    IF _clear THEN
        TRUNCATE {{stage}};
        INSERT INTO {{stage}} SELECT s.* FROM {{chunk}} s;
    ELSE
        IF pg_catalog.to_regclass('{{stage_index}}') IS NULL
           AND pg_catalog.pg_relation_size('{{stage}}') > {{small_chunks}} * pg_catalog.pg_relation_size('{{chunk}}') THEN
            {{> make_stage_index.sql}}
        END IF;
        IF pg_catalog.to_regclass('{{stage_index}}') IS NULL THEN
            {{> hash.sql}}
            _before := ARRAY(SELECT b.ctid FROM {{stage}} b JOIN {{chunk}} s ON {{?before_is_start}});
        ELSE
            _before := ARRAY(SELECT (SELECT b.ctid FROM {{stage}} b WHERE {{?before_is_start}}) FROM {{chunk}} s);
            {{> hash.sql}}
        END IF;
        -- A type has rejected the row, live or dead, so the value that is left out now is not known. While the row is dead, the value
        -- is not needed.
        IF _resolve AND EXISTS (SELECT FROM {{stage}} b JOIN {{chunk}} s ON {{?before_is_start}}
                                WHERE b.state IN ('x', 'y') AND s.state <> 'd' AND ({{?left_out}})
                                  AND b.ctid = ANY (_before)) THEN
            RAISE EXCEPTION 'an update left out a value of a row that was rejected in the same transaction'
                USING ERRCODE = 'CDC02';
        END IF;
        WITH b AS (
            DELETE FROM {{stage}} b WHERE b.ctid = ANY (_before) RETURNING b.*
        )
        INSERT INTO {{stage}} ({{?o}}, {{?i}}, state, {{?p_and_u}}, e1, e2, e3)
        SELECT {{?start}}, {{?s_i}}, CASE WHEN s.state = 'd' AND b.state IN ('x', 'y') AND ({{?left_out}}) THEN 'y' ELSE s.state END,
            {{?carried}}, s.e1, s.e2, s.e3
        FROM {{chunk}} s LEFT JOIN b ON {{?before_is_start}}
        -- A row that was inserted and deleted within the transaction leaves no final state.
        WHERE s.state <> 'g' OR CASE WHEN b.state IS NULL THEN NOT _cleared ELSE b.o1 IS NOT NULL END;
    END IF;
    TRUNCATE {{chunk}};
END
$cdc$
