-- The writer: brings one lookup and its map to the final states of a batch, which are in the stage.
-- Each session creates its own; the columns are those of the read model. Columns and states: the legend in sql/README.md.
--
--   stage    final states of the batch
--   map      state and key of each source row. If a read model has rejected rows, isolate.sql writes, not this function
--   moving   rows that are not yet shown under their key: identity and state as in the stage, key now, stage_row the place of the row in
--            the stage, renamed whether it had another identity; was, k1.. and map_row: what the map says of the identity, or of the
--            identity at the start of the batch if the row is gone
--   touched  keys that may change hands in this batch: claimed whether a final state has it, holder, open whether several rows claim
--            it, so that it must be shared out
--
-- _keys is the number of keys of each kind that are named (0: none).
-- _clear treats every row of map and lookup without a final state as gone (TRUNCATE, exact copies).
-- _resolve looks for values that the stream left out.
--
-- The joins do not depend on the server's statistics (src/target/model/joins.rs): rows of map and lookup are looked up one by
-- one in an index, or both tables are read once and hashed.
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _resolve boolean, _keys integer,
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[], OUT _moves boolean)
LANGUAGE plpgsql {{?settings}} AS $cdc$
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
    -- Lock the lookup before reading it. Then a session that alters it waits for the end of the batch, or the batch waits for that
    -- session, but never both.
    LOCK TABLE ONLY {{lookup}} IN ROW EXCLUSIVE MODE;
    {{> left_out_values.sql}}
    _inserted := 0;
    _updated := 0;
    _deleted := 0;
    _moves := false;
    <<steps>>
    BEGIN
        -- If all rows are new (the tables are empty, or the batch has only inserts), insert them as they are. If a row or a key turns out
        -- to exist, continue with the general way.
        IF _clear THEN
            _new := NOT EXISTS (SELECT FROM {{map}}) AND NOT EXISTS (SELECT FROM {{lookup}});
        ELSE
            _new := NOT EXISTS (SELECT FROM {{stage}} s WHERE s.o1 IS NOT NULL OR s.state NOT IN ('l', 'd'));
        END IF;
        IF _new THEN
            BEGIN
                INSERT INTO {{map}} ({{?i}}, {{?k}}, state, {{?v}})
                SELECT {{?s_i}}, {{?s_key}}, CASE s.state WHEN 'l' THEN 's' ELSE 'd' END, {{?kept_values}}
                FROM {{stage}} s WHERE s.state IN ('l', 'd');
                INSERT INTO {{lookup}} ({{?lookup_columns}})
                SELECT {{?stage_values}} FROM {{stage}} s WHERE s.state = 'l';
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
                FROM (SELECT {{?stage_key_text}} AS key FROM {{stage}} s WHERE s.state = 'l' LIMIT _keys) x;
            END IF;
            EXIT steps;
        END IF;

        -- Rows that stay shown under their keys do not change the map, and touch no other row's key.
        {{> find_moving.sql}}
        IF _moves OR _clear THEN
            {{> judge_number_of_moving.sql}}
            {{> by_number_of_moving.sql part = settle_moving.sql}}
            -- A live row has no NULL in its key: delete such rows of the lookup.
            IF _clear THEN
                DELETE FROM {{lookup}} l WHERE {{?no_lookup_key}};
            END IF;
        END IF;

        {{> count_rows.sql kind = updated, statement = update_shown.sql}}

        -- A missing row is one that is shown from this batch on, unless another session has deleted it from the lookup.
        SELECT count(*) INTO _total FROM {{stage}} s WHERE s.state = 'l';
        IF _updated < _total AND _moves AND NOT _shared THEN
            {{> by_number_of_moving.sql part = insert_moving.sql}}
        END IF;
        IF _updated + _inserted < _total{{?and_some_are_missing}} THEN
            {{> count_rows.sql kind = inserted, statement = insert_missing.sql}}
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
