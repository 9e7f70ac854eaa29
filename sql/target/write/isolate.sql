-- The writer for batches with rows that the target rejects, and for read models that have such rows. It ends in the same state as
-- merge.sql, except for the keys of rejected rows: it finds these rows one by one and records them.
-- Columns and states: the legend in sql/README.md.
--
--   map      a rejected row claims its key and is not shown
--   touched  open whether the key is not settled yet
--   tries    writes of the lookup: n number, op, key, holder, the values of the row to be shown, why it was rejected,
--            swap whether deleting and inserting may help
--   rejected rows that the lookup does not take, and why
--   earlier  entries of rejected whose rows are tried again. A row that is rejected again for the same reason, under the same key,
--            gets its entry back, which says since when.
--
-- Among the accepted rows that claim a key, the one with the smallest identity is shown. If there is none, the lookup's row under the
-- key of a rejected row stays.
--
-- Rows are tried in halves, so few bad rows among many cost little. _isolate false: the first rejection is raised.
-- _again: the rows of this batch that were rejected are tried once more, since another lookup has changed.
-- _rejected: rows of this batch that are rejected, also those that were before.
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _resolve boolean, _keys integer, _isolate boolean, _again boolean, _lsn text,
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[], OUT _rejected bigint)
LANGUAGE plpgsql {{?settings}} AS $cdc$
DECLARE
    _most CONSTANT integer := {{most_rejected}};
    _from integer[];
    _to integer[];
    _low integer;
    _high integer;
    _n integer;
    _count integer;
    _done bigint[];
    _failed integer;
    _attempts integer := 0;
    _progress boolean;
    _sqlstate text;
    _constraint text;
    _column text;
    _moves boolean;
    _claims tid[];
    _shown tid[];
BEGIN
    -- Lock the lookup before reading it. Then a session that alters it waits for the end of the batch, or the batch waits for that
    -- session, but never both.
    LOCK TABLE ONLY {{lookup}} IN ROW EXCLUSIVE MODE;
    _inserted := 0;
    _updated := 0;
    _deleted := 0;
    -- Deferrable constraints are checked after each piece.
    SET CONSTRAINTS ALL DEFERRED;
    IF _again THEN
        UPDATE {{map}} m SET state = 's', {{?v_null}} FROM {{stage}} s WHERE s.state = 'r' AND {{?map_of_rejected}};
        UPDATE {{stage}} s SET state = 'l' WHERE s.state = 'r';
        UPDATE {{touched}} t SET open = true;
    ELSE
        {{> left_out_values.sql}}
        {{> find_moving.sql}}
        {{> take_in.sql}}
        {{> hash.sql}}
        -- A rejected row claims its key though it is not shown.
        {{> make_key_index.sql}}
        DELETE FROM {{rejected}} r USING {{stage}} s
        WHERE s.state = 'x' AND {{?stage_is_rejected}} AND NOT (r.state = 'x' AND {{?rejected_as_stage}});
        INSERT INTO {{rejected}} ({{?i}}, {{?k}}, state, e1, e2, e3, lsn)
        SELECT {{?s_i}}, {{?s_key}}, 'x', s.e1, s.e2, s.e3, _lsn::pg_catalog.pg_lsn FROM {{stage}} s
        WHERE s.state = 'x' AND NOT EXISTS (SELECT FROM {{rejected}} r WHERE {{?stage_is_rejected}});
        DELETE FROM {{earlier}};
    END IF;
    {{> look_up.sql}}
    WITH gone AS (
        DELETE FROM {{rejected}} r
        WHERE r.state <> 'a' AND {{?rejected_is_over}}
        RETURNING r.*)
    INSERT INTO {{earlier}} SELECT * FROM gone;

    LOOP
        {{> find_claims.sql}}
        {{> find_shown.sql}}
        {{> hash.sql}}
        {{> share_out_keys.sql}}
        -- Deletes first: they free keys and values that other rows may need.
        DELETE FROM {{tries}};
        INSERT INTO {{tries}} (n, op, {{?k}}, {{?h}}, {{?p}})
        SELECT row_number() OVER (ORDER BY x.op), x.op, {{?x_k}}, {{?x_h}}, {{?x_p}} FROM (
            SELECT 'a'::"char" AS op, {{?t_k}}, {{?t_h}}, {{?null_p}}
            FROM {{touched}} t JOIN {{lookup}} l ON {{?lookup_is_touched}}{{?lookup_of_shown}}
            WHERE t.open AND t.h1 IS NULL
              AND NOT EXISTS (SELECT FROM {{map}} m WHERE {{?touched_is_map}} AND m.state IN ('s', 'w', 'r', 'x'){{?map_of_claims}})
            UNION ALL
            SELECT CASE WHEN {{?no_lookup}} THEN 'n' ELSE 'm' END::"char", {{?t_k}}, {{?t_h}}, {{?s_p}}
            FROM {{touched}} t JOIN {{stage}} s ON {{?stage_is_holder}} LEFT JOIN {{lookup}} l ON {{?lookup_is_stage}}{{?lookup_of_shown}}
            WHERE t.open AND s.state = 'l' AND ({{?no_lookup}} OR {{?lookup_differs}})
        ) x;
        SELECT count(*) INTO _count FROM {{tries}};
        {{> look_up.sql}}

        _failed := 0;
        _progress := false;
        _from := ARRAY[1];
        _to := ARRAY[_count];
        WHILE _count > 0 LOOP
            IF cardinality(_from) = 0 THEN
                -- A row may have blocked another one: failed rows are tried again as long as that helps.
                EXIT WHEN _failed = 0 OR NOT _progress OR _attempts > 20 * _most;
                SELECT array_agg(t.n ORDER BY t.n DESC) INTO _from FROM {{tries}} t WHERE t.e1 IS NOT NULL;
                _to := _from;
                _progress := false;
            END IF;
            _low := _from[cardinality(_from)];
            _high := _to[cardinality(_to)];
            _from := _from[1:cardinality(_from) - 1];
            _to := _to[1:cardinality(_to) - 1];
            _attempts := _attempts + 1;
            BEGIN
                _done := pg_temp.write_{{id}}(_low, _high);
                _deleted := _deleted + _done[1];
                _updated := _updated + _done[2];
                _inserted := _inserted + _done[3];
                _progress := true;
                IF _low = _high THEN
                    UPDATE {{tries}} t SET e1 = NULL, e2 = NULL, e3 = NULL WHERE t.n = _low AND t.e1 IS NOT NULL;
                    IF FOUND THEN
                        _failed := _failed - 1;
                    END IF;
                END IF;
            EXCEPTION WHEN {{?rejections}} THEN
                IF NOT _isolate THEN
                    RAISE;
                END IF;
                IF _low < _high THEN
                    _n := (_low + _high) / 2;
                    _from := _from || (_n + 1) || _low;
                    _to := _to || _high || _n;
                ELSE
                    GET STACKED DIAGNOSTICS _sqlstate = RETURNED_SQLSTATE, _constraint = CONSTRAINT_NAME, _column = COLUMN_NAME;
                    IF EXISTS (SELECT FROM {{tries}} t WHERE t.n = _low AND t.e1 IS NULL) THEN
                        _failed := _failed + 1;
                    END IF;
                    UPDATE {{tries}} t SET e1 = _sqlstate, e2 = nullif(_constraint, ''), e3 = nullif(_column, ''),
                        swap = _sqlstate IN ('23505', '23P01') AND t.op <> 'a'
                    WHERE t.n = _low;
                    IF _failed > _most THEN
                        RAISE EXCEPTION 'more than % rows are rejected, one of them with SQLSTATE % (%)',
                            _most, _sqlstate, coalesce(nullif(_constraint, ''), nullif(_column, ''), 'no name') USING ERRCODE = 'CDC03';
                    END IF;
                END IF;
            END;
        END LOOP;

        -- Rows that swap values under a second unique index: updated in place, one would block the other.
        WHILE EXISTS (SELECT FROM {{tries}} t WHERE t.swap AND t.op = 'm')
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint f
                              WHERE f.contype = 'f' AND f.confrelid = pg_catalog.to_regclass({{lookup_name}})) LOOP
            _n := NULL;
            BEGIN
                DELETE FROM {{lookup}} l USING {{tries}} t WHERE t.swap AND t.op = 'm' AND {{?row_of_touched}};
                FOR _n IN SELECT t.n FROM {{tries}} t WHERE t.swap ORDER BY t.n LOOP
                    INSERT INTO {{lookup}} AS l ({{?lookup_columns}}) SELECT {{?stage_values}} FROM {{tries}} s WHERE s.n = _n;
                END LOOP;
                _n := NULL;
                SET CONSTRAINTS ALL IMMEDIATE;
                SET CONSTRAINTS ALL DEFERRED;
                SELECT _updated + count(*) FILTER (WHERE t.op = 'm'), _inserted + count(*) FILTER (WHERE t.op = 'n')
                INTO _updated, _inserted FROM {{tries}} t WHERE t.swap;
                UPDATE {{tries}} t SET e1 = NULL, e2 = NULL, e3 = NULL, swap = false WHERE t.swap;
            EXCEPTION WHEN {{?rejections}} THEN
                -- Try again without the row that fails; if it is not known which one, give up.
                UPDATE {{tries}} t SET swap = false WHERE t.n = coalesce(_n, t.n);
            END;
        END LOOP;

        IF _keys > 0 THEN
            SELECT (_deleted_keys || array_agg(x.key) FILTER (WHERE x.op = 'a'))[1:_keys],
                   (_updated_keys || array_agg(x.key) FILTER (WHERE x.op = 'm'))[1:_keys],
                   (_inserted_keys || array_agg(x.key) FILTER (WHERE x.op = 'n'))[1:_keys]
            INTO _deleted_keys, _updated_keys, _inserted_keys
            FROM (SELECT t.op, {{?tries_key}} AS key, row_number() OVER (PARTITION BY t.op) AS n
                  FROM {{tries}} t WHERE t.e1 IS NULL) x
            WHERE x.n <= _keys;
        END IF;
        UPDATE {{map}} m SET state = 'r', {{?v_from_tries}}
        FROM {{tries}} t WHERE t.e1 IS NOT NULL AND t.op <> 'a' AND {{?map_of_holder}};
        {{> hash.sql}}
        UPDATE {{stage}} s SET state = 'r'
        FROM {{tries}} t WHERE t.e1 IS NOT NULL AND t.op <> 'a' AND s.state = 'l' AND {{?stage_is_holder}};
        DELETE FROM {{rejected}} r USING {{tries}} t
        WHERE t.e1 IS NOT NULL AND t.op = 'a' AND r.state = 'a' AND {{?rejected_is_touched}} AND NOT {{?rejected_as_tried}};
        WITH back AS (
            DELETE FROM {{earlier}} r USING {{tries}} t
            WHERE t.e1 IS NOT NULL AND t.op <> 'a' AND r.state = 'r' AND {{?rejected_is_holder}} AND {{?rejected_as_tried}}
            RETURNING r.*)
        INSERT INTO {{rejected}} OVERRIDING SYSTEM VALUE SELECT * FROM back;
        INSERT INTO {{rejected}} ({{?i}}, {{?k}}, state, e1, e2, e3, lsn)
        SELECT {{?t_h}}, {{?t_k}}, CASE t.op WHEN 'a' THEN 'a' ELSE 'r' END, t.e1, t.e2, t.e3, _lsn::pg_catalog.pg_lsn
        FROM {{tries}} t
        WHERE t.e1 IS NOT NULL AND CASE t.op
            WHEN 'a' THEN NOT EXISTS (SELECT FROM {{rejected}} r WHERE r.state = 'a' AND {{?rejected_is_touched}})
            ELSE NOT EXISTS (SELECT FROM {{rejected}} r WHERE r.state = 'r' AND {{?rejected_is_holder}}) END;
        -- Next, try the next row that claims such a key.
        UPDATE {{touched}} t SET open = false WHERE t.open;
        UPDATE {{touched}} t SET open = true FROM {{tries}} x WHERE x.e1 IS NOT NULL AND x.op <> 'a' AND {{?tried_is_holder}};
        _progress := FOUND;
        {{> look_up.sql}}
        EXIT WHEN NOT _progress OR (SELECT count(*) FROM {{rejected}}) > _most;
    END LOOP;

    -- A live row has no NULL in its key: delete such rows of the lookup. One that cannot be deleted blocks no other row.
    IF _clear THEN
        BEGIN
            DELETE FROM {{lookup}} l WHERE {{?no_lookup_key}};
            SET CONSTRAINTS ALL IMMEDIATE;
            SET CONSTRAINTS ALL DEFERRED;
        EXCEPTION WHEN {{?rejections}} THEN
            IF NOT _isolate THEN
                RAISE;
            END IF;
        END;
    END IF;

    {{> find_holders.sql}}
    {{> hash.sql}}
    DELETE FROM {{rejected}} r USING ({{> keys_of_rejected.sql}}) x
    WHERE x.n = r.n AND r.state = 'a' AND (x.claimed OR NOT x.in_lookup);
    SELECT count(*), count(*) FILTER (WHERE r.state <> 'a') INTO _count, _failed FROM {{rejected}} r;
    IF _count > _most OR (_failed > 1 AND NOT EXISTS (SELECT FROM {{map}} m WHERE m.state = 's')) THEN
        SELECT r.e1, coalesce(r.e2, r.e3, 'no name') INTO _sqlstate, _constraint FROM {{rejected}} r ORDER BY r.n DESC LIMIT 1;
        RAISE EXCEPTION '% rows are rejected, one of them with SQLSTATE % (%)',
            CASE WHEN _count > _most THEN 'more than ' || _most ELSE 'all ' || _failed END, _sqlstate, _constraint
            USING ERRCODE = 'CDC03';
    END IF;

    -- The entries for the view rejected.
    DELETE FROM {{schema}}.rejection x
    WHERE x.read_model = {{id}} AND NOT EXISTS (SELECT FROM {{rejected}} r WHERE r.n = x.n);
    INSERT INTO {{schema}}.rejection AS e (read_model, n, identity, key, shown, sqlstate, constraint_name, column_name, lsn, rejected_at)
    SELECT {{id}}, r.n, {{?rejected_identity_text}}, {{?rejected_key_text}},
        CASE WHEN r.state <> 'a' AND x.shown THEN 'other row' WHEN x.in_lookup THEN 'old row' ELSE 'nothing' END,
        r.e1, r.e2, r.e3, r.lsn, r.at
    FROM {{rejected}} r JOIN ({{> keys_of_rejected.sql}}) x ON x.n = r.n
    ON CONFLICT (read_model, n) DO UPDATE SET shown = excluded.shown WHERE e.shown <> excluded.shown;

    SELECT count(*) FILTER (WHERE s.state = 'l'), count(*) FILTER (WHERE s.state = 'r') INTO _total, _rejected FROM {{stage}} s;
    SELECT _rejected + count(*) INTO _rejected FROM {{touched}} t
    WHERE EXISTS (SELECT FROM {{rejected}} r WHERE r.state = 'a' AND {{?rejected_is_touched}});
    {{> look_up.sql}}
    IF _clear THEN
        PERFORM pg_temp.cdc_count({{id}}, (SELECT count(*) FROM {{lookup}}), true, _inserted + _updated + _deleted > 0);
        UPDATE {{schema}}.read_model r SET waiting = (SELECT count(*) FROM {{map}} m WHERE m.state = 'w') WHERE r.id = {{id}};
    ELSIF _inserted + _updated + _deleted > 0 THEN
        PERFORM pg_temp.cdc_count({{id}}, _inserted - _deleted, false, true);
    END IF;
END
$cdc$;
-- One piece of the writes: all or nothing. A piece has any size, down to one row, so each row is looked up.
CREATE OR REPLACE FUNCTION pg_temp.write_{{id}}(_low integer, _high integer) RETURNS bigint[]
LANGUAGE plpgsql {{?settings_of_write}} AS $cdc$
DECLARE
    _deleted bigint;
    _updated bigint;
    _inserted bigint;
BEGIN
    DELETE FROM {{lookup}} l USING {{tries}} t
    WHERE t.n BETWEEN _low AND _high AND t.op = 'a' AND {{?row_of_touched}};
    GET DIAGNOSTICS _deleted = ROW_COUNT;
    UPDATE {{lookup}} l SET {{?lookup_assign}}
    FROM {{tries}} s WHERE s.n BETWEEN _low AND _high AND s.op = 'm' AND {{?row_of_stage}};
    GET DIAGNOSTICS _updated = ROW_COUNT;
    INSERT INTO {{lookup}} AS l ({{?lookup_columns}})
    SELECT {{?stage_values}} FROM {{tries}} s WHERE s.n BETWEEN _low AND _high AND s.op = 'n';
    GET DIAGNOSTICS _inserted = ROW_COUNT;
    SET CONSTRAINTS ALL IMMEDIATE;
    SET CONSTRAINTS ALL DEFERRED;
    RETURN ARRAY[_deleted, _updated, _inserted];
END
$cdc$
