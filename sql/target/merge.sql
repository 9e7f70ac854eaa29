-- The writer: brings one lookup and its map to the final states of a batch, which stand in {{stage}}.
-- Made anew in each session; the columns are those of the read model.
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
-- Conditions on parameters that are always true let the server plan a large batch for its own size.
-- _clear takes every row of map and lookup that has no final state for gone (TRUNCATE, exact copies).
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _resolve boolean, _keys integer,
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[])
LANGUAGE plpgsql AS $cdc$
DECLARE
    _new boolean;
    _straight boolean := false;
    _ask_map boolean;
    _hashed boolean := false;
    _few boolean := false;
    _n bigint;
    _shared boolean := false;
BEGIN
{{left_out_values}}
    _inserted := 0;
    _updated := 0;
    _deleted := 0;
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
        IF NOT _clear THEN
            _straight := NOT EXISTS (SELECT FROM {{moving}});
        END IF;
        IF NOT _straight THEN
            -- Where a large batch has each table read once and hashed, the rows that move, few as a rule, are better looked up.
            IF NOT _clear AND pg_catalog.current_setting('enable_nestloop') = 'off' THEN
                _hashed := true;
                _few := (SELECT count(*) FROM {{moving}} x WHERE x.state = 'l') * {{hashed_bytes}}
                        < pg_catalog.pg_relation_size({{map_name}}) + pg_catalog.pg_relation_size({{lookup_name}});
            END IF;
            -- The map has an index by key only from when two live rows have had one key: it would cost a third of what new rows cost
            -- at a source whose keys are unique. Until then a key is held by the row that is shown under it, so the lookup tells
            -- whether a key that the batch claims is held by a row outside of it. Only if so the map is asked.
            _ask_map := pg_catalog.to_regclass({{map_key_name}}) IS NOT NULL;
            IF NOT (_ask_map OR _clear) THEN
                IF _few THEN
                    {{look_up}}
                END IF;
                _ask_map := (SELECT count(*) FROM (SELECT FROM {{moving}} x WHERE _clear IS NOT NULL AND x.state = 'l'
                                                  GROUP BY {{x_c}} HAVING count(*) > 1) d) > 0;
                IF NOT _ask_map THEN
                    -- EXCEPT is no join: the server can't compare each with each.
                    _ask_map := (SELECT count(*) FROM (
                                    SELECT {{x_c}} FROM {{moving}} x WHERE _clear IS NOT NULL AND x.state = 'l'
                                    EXCEPT
                                    SELECT {{x_k}} FROM {{moving}} x WHERE x.was = 's') x
                                JOIN {{lookup}} l ON {{lookup_is_claimed}}) > 0;
                END IF;
            END IF;
            -- Entries of the map are found where they stand.
            IF _hashed THEN
                {{look_up}}
            END IF;
{{take_in}}
            IF _hashed THEN
                {{hash}}
            END IF;
            -- Two live rows with one key, or one that waited for a key that is free now.
            IF _ask_map OR _clear THEN
                UPDATE {{touched}} t SET open = true
                WHERE t.ctid = ANY (ARRAY(
                    SELECT t.ctid FROM {{touched}} t JOIN {{map}} m ON {{touched_is_map}}
                    WHERE _clear IS NOT NULL AND m.state IN ('s', 'w')
                    GROUP BY t.ctid, t.claimed
                    HAVING count(*) > t.claimed::integer OR bool_or(m.state = 'w')));
                _shared := FOUND;
            END IF;
            IF _shared THEN
                {{key_index}}
{{share_out_keys}}
            END IF;

            -- Rows that nobody at the source can have: a key is never null there.
            IF _clear THEN
                DELETE FROM {{lookup}} l WHERE {{no_lookup_key}};
            END IF;

            -- A key that changes hands is updated in place: only keys that nobody claims any more are deleted.
{{delete_unclaimed}}
        END IF;

{{update_shown}}

        -- Rows that are missing are among those that came to be shown just now, unless somebody took one out of the lookup.
        SELECT count(*) INTO _total FROM {{stage}} s WHERE s.state = 'l';
        IF _updated < _total AND NOT (_straight OR _clear OR _shared) THEN
            IF _few THEN
                {{look_up}}
            END IF;
{{insert_moving}}
            IF _few THEN
                {{hash}}
            END IF;
        END IF;
        IF _updated + _inserted < _total THEN
            -- Those that are there and did not differ are found faster than none is not found.
            IF (SELECT count(*) FROM {{lookup}} l JOIN {{stage}} s ON {{lookup_is_stage}}
                WHERE _clear IS NOT NULL AND s.state = 'l') < _total THEN
{{insert_missing}}
            END IF;
        END IF;
    END steps;

    UPDATE {{schema}}.read_model r
    SET rows = CASE WHEN _clear THEN _total ELSE coalesce(r.rows, 0) + _inserted - _deleted END,
        waiting = CASE WHEN NOT _clear THEN r.waiting WHEN _shared THEN (SELECT count(*) FROM {{map}} m WHERE m.state = 'w') ELSE 0 END,
        last_change_at = CASE WHEN _inserted + _updated + _deleted > 0 THEN now() ELSE r.last_change_at END
    WHERE r.id = {{id}} AND (_clear OR _inserted + _updated + _deleted > 0);
END
$cdc$
