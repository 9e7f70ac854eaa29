-- The writer: brings one lookup and its map to the final states of a batch, which stand in {{stage}}.
-- A session makes it for itself; the columns are those of the read model.
--
--   stage    o1.. identity at the start of the batch, i1.. identity now, p1.. projected values, u1.. "value was left out",
--            state l live, d dead (kept for its values), g gone, w waits for its key, x see isolate.sql
--   map      i1.. identity, k1.. key, v1.. values of a row that is not shown, state s shown, w waits, d dead,
--            r and x see isolate.sql: where there are such rows, that function writes, not this one
--   moving   rows that are not shown under their key already: i1.. identity now, state as in the stage, c1.. key now,
--            stage_row where the row stands, renamed whether it had another identity; was, k1.. and map_row: what the
--            map says of the identity, or of the one at the start of the batch if it is gone
--   touched  k1.. keys that may change hands in this batch, claimed whether a final state has it,
--            w1.. identity of the row that is shown under it, open whether it is shared out: where several claim it
--
-- _keys is the number of keys of each kind that are told (0: none).
-- _clear takes every row of map and lookup that has no final state for gone (TRUNCATE, exact copies).
--
-- How it joins is not left to the server's statistics (src/target/model/joins.rs): rows of map and lookup are looked up one by
-- one in an index, or both are read once and hashed.
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _resolve boolean, _keys integer,
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[], OUT _moves boolean)
LANGUAGE plpgsql {{settings}} AS $cdc$
DECLARE
    _new boolean;
    _straight boolean := false;
    _few boolean := false;
    _ask_map boolean;
    _claims tid[];
    _shown tid[];
    _n bigint;
    _shared boolean := false;
BEGIN
    -- Before it is read: whoever alters the lookup waits for the end of the batch, or the batch for them, never both.
    LOCK TABLE ONLY {{lookup}} IN ROW EXCLUSIVE MODE;
{{left_out_values}}
    _inserted := 0;
    _updated := 0;
    _deleted := 0;
    _moves := false;
    <<steps>>
    BEGIN
        -- Rows that are all new, into empty tables or from a batch of inserts, go in as they are, unless one of them or its
        -- key is known after all.
        IF _clear THEN
            _new := NOT EXISTS (SELECT FROM {{map}}) AND NOT EXISTS (SELECT FROM {{lookup}});
        ELSE
            _new := NOT EXISTS (SELECT FROM {{stage}} s WHERE s.o1 IS NOT NULL OR s.state NOT IN ('l', 'd'));
        END IF;
        IF _new THEN
            BEGIN
                INSERT INTO {{map}} ({{i}}, {{k}}, state, {{v}})
                SELECT {{s_i}}, {{s_key}}, CASE s.state WHEN 'l' THEN 's' ELSE 'd' END, {{kept_values}}
                FROM {{stage}} s WHERE s.state IN ('l', 'd');
                INSERT INTO {{lookup}} ({{lookup_columns}})
                SELECT {{stage_values}} FROM {{stage}} s WHERE s.state = 'l';
                GET DIAGNOSTICS _inserted = ROW_COUNT;
                _straight := true;
            EXCEPTION WHEN unique_violation OR exclusion_violation THEN
                NULL;
            END;
        END IF;
        IF _straight THEN
            SELECT count(*) INTO _total FROM {{stage}} s WHERE s.state = 'l';
            IF _keys > 0 THEN
                SELECT array_agg(x.key) INTO _inserted_keys
                FROM (SELECT {{stage_key_text}} AS key FROM {{stage}} s WHERE s.state = 'l' LIMIT _keys) x;
            END IF;
            EXIT steps;
        END IF;

        -- Rows that stay shown under their keys leave the map as it is, and touch nobody else's key.
{{find_moving}}
        IF _moves OR _clear THEN
            {{judge_number_of_moving}}
{{settle_moving}}
            -- Rows that nobody at the source can have: a key is never null there.
            IF _clear THEN
                DELETE FROM {{lookup}} l WHERE {{no_lookup_key}};
            END IF;
        END IF;

{{update_shown}}

        -- Rows that are missing are among those that came to be shown just now, unless somebody took one out of the lookup.
        SELECT count(*) INTO _total FROM {{stage}} s WHERE s.state = 'l';
        IF _updated < _total AND _moves AND NOT _shared THEN
{{insert_moving}}
        END IF;
        IF _updated + _inserted < _total{{and_some_are_missing}} THEN
{{insert_missing}}
        END IF;
    END steps;

    IF _clear THEN
        PERFORM pg_temp.cdc_count({{id}}, _total, true, _inserted + _updated + _deleted > 0);
        UPDATE {{schema}}.read_model r
        SET waiting = CASE WHEN _shared THEN (SELECT count(*) FROM {{map}} m WHERE m.state = 'w') ELSE 0 END
        WHERE r.id = {{id}};
    ELSIF _inserted + _updated + _deleted > 0 THEN
        PERFORM pg_temp.cdc_count({{id}}, _inserted - _deleted, false, true);
    END IF;
END
$cdc$
