-- A large transaction comes in chunks, each folded by itself: adds the next one, which stands in {{chunk}}, to the final states
-- in {{stage}}. What a row was at the start of the chunk is what it was at the end of the ones before.
--
-- _clear: the chunk holds a TRUNCATE, and what was before it is gone. _cleared: one before held it, so a row that the
-- stage does not have was not there.
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _cleared boolean, _resolve boolean) RETURNS void LANGUAGE plpgsql AS $cdc$
BEGIN
    IF _clear THEN
        TRUNCATE {{stage}};
        INSERT INTO {{stage}} SELECT s.* FROM {{chunk}} s;
    ELSE
        -- A type has refused the row, live or dead, so the value that is left out now is not known. That is no matter while the
        -- row is dead.
        IF _resolve AND EXISTS (SELECT FROM {{stage}} b JOIN {{chunk}} s ON {{before_is_start}}
                                WHERE b.state IN ('x', 'y') AND s.state <> 'd' AND ({{left_out}})) THEN
            RAISE EXCEPTION 'an update left out a value of a row that was refused in the same transaction'
                USING ERRCODE = 'CDC02';
        END IF;
        WITH b AS (
            DELETE FROM {{stage}} b USING {{chunk}} s WHERE {{before_is_start}} RETURNING b.*
        )
        INSERT INTO {{stage}} ({{o}}, {{i}}, state, {{p_and_u}}, e1, e2, e3)
        SELECT {{start}}, {{s_i}}, CASE WHEN s.state = 'd' AND b.state IN ('x', 'y') AND ({{left_out}}) THEN 'y' ELSE s.state END,
            {{carried}}, s.e1, s.e2, s.e3
        FROM {{chunk}} s LEFT JOIN b ON {{before_is_start}}
        -- A row that came and went within the transaction is nothing.
        WHERE s.state <> 'g' OR CASE WHEN b.state IS NULL THEN NOT _cleared ELSE b.o1 IS NOT NULL END;
    END IF;
    TRUNCATE {{chunk}};
END
$cdc$
