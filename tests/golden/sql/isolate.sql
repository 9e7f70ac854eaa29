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
CREATE OR REPLACE FUNCTION pg_temp.isolate_1(_clear boolean, _resolve boolean, _keys integer, _isolate boolean, _again boolean, _lsn text,
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[], OUT _rejected bigint)
LANGUAGE plpgsql SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off AS $cdc$
DECLARE
    _most CONSTANT integer := 1000;
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
    LOCK TABLE ONLY "public"."labels_lookup" IN ROW EXCLUSIVE MODE;
    _inserted := 0;
    _updated := 0;
    _deleted := 0;
    -- Deferrable constraints are checked after each piece.
    SET CONSTRAINTS ALL DEFERRED;
    IF _again THEN
        UPDATE "cdc".map_1 m SET state = 's', v1 = NULL, v2 = NULL, v3 = NULL FROM pg_temp.stage_1 s WHERE s.state = 'r' AND m.ctid = (SELECT CASE m.state WHEN 'r' THEN m.ctid END FROM "cdc".map_1 m WHERE s.i1 = m.i1);
        UPDATE pg_temp.stage_1 s SET state = 'l' WHERE s.state = 'r';
        UPDATE pg_temp.touched_1 t SET open = true;
    ELSE
        -- Values that the stream left out are in the lookup row that the map names, or in the map.
        IF _resolve THEN
            UPDATE pg_temp.stage_1 s SET p1 = CASE WHEN s.u1 THEN CASE WHEN m.state = 's' THEN l."code" ELSE m.v1 END ELSE s.p1 END, u1 = s.u1 AND (CASE m.state WHEN 's' THEN l."code" IS NULL WHEN 'x' THEN m.v1 IS NULL ELSE false END), p2 = CASE WHEN s.u2 THEN CASE WHEN m.state = 's' THEN l."label" ELSE m.v2 END ELSE s.p2 END, u2 = s.u2 AND (CASE m.state WHEN 's' THEN l."code" IS NULL WHEN 'x' THEN m.v2 IS NULL ELSE false END), p3 = CASE WHEN s.u3 THEN CASE WHEN m.state = 's' THEN l."display_name" ELSE m.v3 END ELSE s.p3 END, u3 = s.u3 AND (CASE m.state WHEN 's' THEN l."code" IS NULL WHEN 'x' THEN m.v3 IS NULL ELSE false END)
            FROM "cdc".map_1 m LEFT JOIN "public"."labels_lookup" l ON m.state = 's' AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) m.k1)
            WHERE m.ctid = (SELECT m.ctid FROM "cdc".map_1 m WHERE s.o1 = m.i1) AND (s.u1 OR s.u2 OR s.u3);
            -- A dead row whose values are stored nowhere is forgotten: the values are needed only if it is restored without them.
            UPDATE pg_temp.stage_1 s SET state = 'g', i1 = NULL WHERE s.state = 'd' AND (s.u1 OR s.u2 OR s.u3);
            IF EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.state = 'l' AND (s.u1 OR s.u2 OR s.u3)) THEN
                RAISE EXCEPTION 'an update left out a value that neither the lookup nor the map holds' USING ERRCODE = 'CDC02';
            END IF;
        END IF;
        -- The first step of merge.sql and isolate.sql: finds the rows that may change the map, and what the map says of them now. An identity
        -- that a row no longer has gets an entry of its own, with state 'g'; it is deleted unless another row has taken it.
        IF NOT _clear THEN
            INSERT INTO pg_temp.moving_1 (i1, state, c1, stage_row, renamed, was, k1, map_row)
            SELECT s.i1, s.state, s.p1, s.place, s.o1 IS NOT NULL AND s.i1 IS NOT NULL AND (s.o1 IS DISTINCT FROM s.i1), m.state, m.k1, m.ctid
            FROM (SELECT s.*, s.ctid AS place FROM pg_temp.stage_1 s ORDER BY coalesce(s.i1, s.o1)) s LEFT JOIN LATERAL (SELECT m.*, m.ctid FROM "cdc".map_1 m WHERE coalesce(s.i1, s.o1) = m.i1 LIMIT 1) m ON true
            WHERE true;
            _moves := FOUND;
            IF _moves THEN
                INSERT INTO pg_temp.moving_1 (state, renamed, was, k1, map_row)
                SELECT 'g', false, m.state, m.k1, m.ctid
                FROM pg_temp.stage_1 s JOIN LATERAL (SELECT m.*, m.ctid FROM "cdc".map_1 m WHERE s.o1 = m.i1 LIMIT 1) m ON true
                WHERE s.i1 IS NOT NULL AND (s.o1 IS DISTINCT FROM s.i1) AND EXISTS (SELECT FROM pg_temp.moving_1 x WHERE x.renamed);
            END IF;
        END IF;
        -- The second step of merge.sql and isolate.sql: records the keys that may change hands, and writes the final states into the map.
        IF _clear THEN
            INSERT INTO pg_temp.touched_1 (k1, claimed, open)
            SELECT x.k1, bool_or(x.claimed), true FROM (
                SELECT m.k1, false AS claimed FROM "cdc".map_1 m WHERE m.state IN ('s', 'w', 'r', 'x')
                UNION ALL
                SELECT l."code" AS k1, false FROM "public"."labels_lookup" l
                UNION ALL
                SELECT s.p1 AS k1, true FROM pg_temp.stage_1 s WHERE s.state = 'l'
            ) x GROUP BY x.k1;
            DELETE FROM "cdc".map_1 m
            WHERE NOT EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.i1 = m.i1 AND s.state IN ('l', 'd', 'x'));
            UPDATE "cdc".map_1 m SET i1 = s.i1, k1 = s.p1, state = CASE s.state WHEN 'l' THEN 's' ELSE s.state END, v1 = CASE WHEN s.state <> 'l' THEN s.p1 END, v2 = CASE WHEN s.state <> 'l' THEN s.p2 END, v3 = CASE WHEN s.state <> 'l' THEN s.p3 END
            FROM pg_temp.stage_1 s
            WHERE s.i1 = m.i1 AND s.state IN ('l', 'd', 'x') AND (m.state <> CASE s.state WHEN 'l' THEN 's' ELSE s.state END OR ROW(m.i1, m.k1)::record OPERATOR(pg_catalog.*<>) ROW(s.i1, s.p1)::record OR (s.state <> 'l' AND ROW(m.v1, m.v2, m.v3)::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record));
            INSERT INTO "cdc".map_1 (i1, k1, state, v1, v2, v3)
            SELECT s.i1, s.p1, CASE s.state WHEN 'l' THEN 's' ELSE s.state END, CASE WHEN s.state <> 'l' THEN s.p1 END, CASE WHEN s.state <> 'l' THEN s.p2 END, CASE WHEN s.state <> 'l' THEN s.p3 END
            FROM pg_temp.stage_1 s
            WHERE s.state IN ('l', 'd', 'x') AND NOT EXISTS (SELECT FROM "cdc".map_1 m WHERE s.i1 = m.i1);
        ELSE
            INSERT INTO pg_temp.touched_1 (k1, claimed, open)
            SELECT x.k1, bool_or(x.claimed), true FROM (
                SELECT x.k1, false AS claimed FROM pg_temp.moving_1 x WHERE x.was IN ('s', 'w', 'r', 'x')
                UNION ALL
                SELECT x.c1 AS k1, true FROM pg_temp.moving_1 x WHERE x.state = 'l'
            ) x GROUP BY x.k1;
            -- An identity that a row of the stage has taken keeps its entry, also if the row does not move: in a large transaction a chunk may
            -- bring back a row that an earlier chunk deleted. Entries are found by ctid: no other session writes here.
            IF EXISTS (SELECT FROM pg_temp.moving_1 x WHERE x.map_row IS NOT NULL AND x.state NOT IN ('l', 'd', 'x')) THEN
                -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
                PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                        pg_catalog.set_config('enable_seqscan', 'on', true),
                        pg_catalog.set_config('enable_indexscan', 'off', true);
                DELETE FROM "cdc".map_1 m
                WHERE m.ctid = ANY (ARRAY(SELECT x.map_row FROM pg_temp.moving_1 x WHERE x.map_row IS NOT NULL AND x.state NOT IN ('l', 'd', 'x')))
                  AND NOT EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.i1 = m.i1 AND s.state IN ('l', 'd', 'x'));
                -- From here on each row is looked up in an index.
                PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                        pg_catalog.set_config('enable_seqscan', 'off', true),
                        pg_catalog.set_config('enable_indexscan', 'on', true);
            END IF;
            UPDATE "cdc".map_1 m SET i1 = s.i1, k1 = s.p1, state = CASE s.state WHEN 'l' THEN 's' ELSE s.state END, v1 = CASE WHEN s.state <> 'l' THEN s.p1 END, v2 = CASE WHEN s.state <> 'l' THEN s.p2 END, v3 = CASE WHEN s.state <> 'l' THEN s.p3 END
            FROM pg_temp.moving_1 x JOIN pg_temp.stage_1 s ON s.ctid = x.stage_row
            WHERE m.ctid = x.map_row AND x.state IN ('l', 'd', 'x') AND (m.state <> CASE s.state WHEN 'l' THEN 's' ELSE s.state END OR ROW(m.i1, m.k1)::record OPERATOR(pg_catalog.*<>) ROW(s.i1, s.p1)::record OR (s.state <> 'l' AND ROW(m.v1, m.v2, m.v3)::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record));
            INSERT INTO "cdc".map_1 (i1, k1, state, v1, v2, v3)
            SELECT s.i1, s.p1, CASE s.state WHEN 'l' THEN 's' ELSE s.state END, CASE WHEN s.state <> 'l' THEN s.p1 END, CASE WHEN s.state <> 'l' THEN s.p2 END, CASE WHEN s.state <> 'l' THEN s.p3 END
            FROM pg_temp.moving_1 x JOIN pg_temp.stage_1 s ON s.ctid = x.stage_row
            WHERE x.map_row IS NULL AND x.state IN ('l', 'd', 'x');
        END IF;
        -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
        PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                pg_catalog.set_config('enable_seqscan', 'on', true),
                pg_catalog.set_config('enable_indexscan', 'off', true);
        -- A rejected row claims its key though it is not shown.
        -- The map's index by key. Look for it first: CREATE INDEX IF NOT EXISTS locks the map against autovacuum even if the index exists. The
        -- index leaves out dead rows: no query needs their keys, and these may be too large for an index.
        IF pg_catalog.to_regclass('"cdc".map_1_key') IS NULL THEN
            CREATE INDEX map_1_key ON "cdc".map_1 (k1) WHERE state <> 'd';
        END IF;
        DELETE FROM "cdc".rejected_1 r USING pg_temp.stage_1 s
        WHERE s.state = 'x' AND s.i1 = r.i1 AND NOT (r.state = 'x' AND (ROW(r.k1)::record OPERATOR(pg_catalog.*=) ROW(s.p1)::record AND (r.e1, r.e2, r.e3) IS NOT DISTINCT FROM (s.e1, s.e2, s.e3)));
        INSERT INTO "cdc".rejected_1 (i1, k1, state, e1, e2, e3, lsn)
        SELECT s.i1, s.p1, 'x', s.e1, s.e2, s.e3, _lsn::pg_catalog.pg_lsn FROM pg_temp.stage_1 s
        WHERE s.state = 'x' AND NOT EXISTS (SELECT FROM "cdc".rejected_1 r WHERE s.i1 = r.i1);
        DELETE FROM pg_temp.earlier_1;
    END IF;
    -- From here on each row is looked up in an index.
    PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
            pg_catalog.set_config('enable_seqscan', 'off', true),
            pg_catalog.set_config('enable_indexscan', 'on', true);
    WITH gone AS (
        DELETE FROM "cdc".rejected_1 r
        WHERE r.state <> 'a' AND (SELECT m.state IN ('r', 'x') FROM "cdc".map_1 m WHERE r.i1 = m.i1) IS NOT TRUE
        RETURNING r.*)
    INSERT INTO pg_temp.earlier_1 SELECT * FROM gone;

    LOOP
        -- The entries of rows that have or want the touched keys. An index that has just been created may not be usable yet. Then the
        -- map is read once, instead of once for each key.
        IF EXISTS (
            SELECT FROM pg_catalog.pg_index x
            WHERE x.indexrelid = pg_catalog.to_regclass('"cdc".map_1_key') AND x.indisvalid
              AND (NOT x.indcheckxmin OR pg_catalog.age(x.xmin) > (
                   SELECT pg_catalog.age(a.backend_xmin) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a))) THEN
            _claims := ARRAY(SELECT pg_catalog.unnest(ARRAY(
                                 SELECT m.ctid FROM "cdc".map_1 m WHERE t.k1 OPERATOR(pg_catalog.=) m.k1 AND m.state IN ('s', 'w', 'r', 'x')))
                             FROM pg_temp.touched_1 t WHERE t.open);
        ELSE
            -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
            PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                    pg_catalog.set_config('enable_seqscan', 'on', true),
                    pg_catalog.set_config('enable_indexscan', 'off', true);
            _claims := ARRAY(SELECT m.ctid FROM pg_temp.touched_1 t JOIN "cdc".map_1 m ON t.k1 OPERATOR(pg_catalog.=) m.k1
                             WHERE m.state IN ('s', 'w', 'r', 'x') AND t.open);
            -- From here on each row is looked up in an index.
            PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                    pg_catalog.set_config('enable_seqscan', 'off', true),
                    pg_catalog.set_config('enable_indexscan', 'on', true);
        END IF;
        -- The lookup's rows under the open keys.
        _shown := ARRAY(SELECT (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) t.k1) FROM pg_temp.touched_1 t WHERE t.open);
        -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
        PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                pg_catalog.set_config('enable_seqscan', 'on', true),
                pg_catalog.set_config('enable_indexscan', 'off', true);
        -- A step of merge.sql and isolate.sql. Among the rows that claim an open key, the one with the smallest identity is shown;
        -- the others wait with their values.
        UPDATE pg_temp.touched_1 t SET h1 = NULL WHERE t.open AND t.h1 IS NOT NULL;
        UPDATE pg_temp.touched_1 t SET h1 = x.i1
        FROM (SELECT DISTINCT ON (t.ctid) t.ctid AS place, m.i1
              FROM pg_temp.touched_1 t JOIN "cdc".map_1 m ON t.k1 OPERATOR(pg_catalog.=) m.k1
              WHERE t.open AND m.state IN ('s', 'w') AND m.ctid = ANY (_claims)
              ORDER BY t.ctid, m.i1) x
        WHERE t.ctid = x.place;
        UPDATE "cdc".map_1 m SET state = 'w', v1 = l."code", v2 = l."label", v3 = l."display_name"
        FROM pg_temp.touched_1 t LEFT JOIN "public"."labels_lookup" l ON l."code" OPERATOR(pg_catalog.=) t.k1 AND l.ctid = ANY (_shown)
        WHERE t.open AND t.k1 OPERATOR(pg_catalog.=) m.k1 AND m.state = 's' AND NOT (m.i1 = t.h1)
          AND NOT EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.i1 = m.i1) AND m.ctid = ANY (_claims);
        UPDATE "cdc".map_1 m SET state = 'w', v1 = s.p1, v2 = s.p2, v3 = s.p3
        FROM pg_temp.touched_1 t, pg_temp.stage_1 s
        WHERE t.open AND t.k1 OPERATOR(pg_catalog.=) m.k1 AND s.i1 = m.i1 AND s.state = 'l' AND NOT (m.i1 = t.h1) AND m.ctid = ANY (_claims);
        UPDATE pg_temp.stage_1 s SET state = 'w'
        FROM pg_temp.touched_1 t WHERE t.open AND s.state = 'l' AND s.p1 OPERATOR(pg_catalog.=) t.k1 AND NOT (s.i1 = t.h1);
        UPDATE pg_temp.stage_1 s SET state = 'l'
        FROM pg_temp.touched_1 t WHERE t.open AND s.state = 'w' AND s.i1 = t.h1;
        INSERT INTO pg_temp.stage_1 (i1, state, p1, p2, p3)
        SELECT m.i1, 'l', m.v1, m.v2, m.v3 FROM pg_temp.touched_1 t JOIN "cdc".map_1 m ON m.i1 = t.h1
        WHERE t.open AND m.state = 'w' AND NOT EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.i1 = m.i1 AND s.state = 'l') AND m.ctid = ANY (_claims);
        UPDATE "cdc".map_1 m SET state = 's', v1 = NULL, v2 = NULL, v3 = NULL
        FROM pg_temp.touched_1 t WHERE t.open AND m.i1 = t.h1 AND m.state = 'w' AND m.ctid = ANY (_claims);
        -- A row waits without its values if its lookup row was missing when it began to wait. Only a copy can bring the values.
        IF EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.state = 'l' AND (s.p1 IS NULL)) THEN
            RAISE EXCEPTION 'a row that takes a key over has no values' USING ERRCODE = 'CDC02';
        END IF;
        -- Deletes first: they free keys and values that other rows may need.
        DELETE FROM pg_temp.tries_1;
        INSERT INTO pg_temp.tries_1 (n, op, k1, h1, p1, p2, p3)
        SELECT row_number() OVER (ORDER BY x.op), x.op, x.k1, x.h1, x.p1, x.p2, x.p3 FROM (
            SELECT 'a'::"char" AS op, t.k1, t.h1, NULL::character varying(10) AS p1, NULL::character varying(50) AS p2, NULL::character varying(50) AS p3
            FROM pg_temp.touched_1 t JOIN "public"."labels_lookup" l ON l."code" OPERATOR(pg_catalog.=) t.k1 AND l.ctid = ANY (_shown)
            WHERE t.open AND t.h1 IS NULL
              AND NOT EXISTS (SELECT FROM "cdc".map_1 m WHERE t.k1 OPERATOR(pg_catalog.=) m.k1 AND m.state IN ('s', 'w', 'r', 'x') AND m.ctid = ANY (_claims))
            UNION ALL
            SELECT CASE WHEN l."code" IS NULL THEN 'n' ELSE 'm' END::"char", t.k1, t.h1, s.p1, s.p2, s.p3
            FROM pg_temp.touched_1 t JOIN pg_temp.stage_1 s ON s.i1 = t.h1 LEFT JOIN "public"."labels_lookup" l ON l."code" OPERATOR(pg_catalog.=) s.p1 AND l.ctid = ANY (_shown)
            WHERE t.open AND s.state = 'l' AND (l."code" IS NULL OR ROW(l."code", l."label", l."display_name")::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record)
        ) x;
        SELECT count(*) INTO _count FROM pg_temp.tries_1;
        -- From here on each row is looked up in an index.
        PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                pg_catalog.set_config('enable_seqscan', 'off', true),
                pg_catalog.set_config('enable_indexscan', 'on', true);

        _failed := 0;
        _progress := false;
        _from := ARRAY[1];
        _to := ARRAY[_count];
        WHILE _count > 0 LOOP
            IF cardinality(_from) = 0 THEN
                -- A row may have blocked another one: failed rows are tried again as long as that helps.
                EXIT WHEN _failed = 0 OR NOT _progress OR _attempts > 20 * _most;
                SELECT array_agg(t.n ORDER BY t.n DESC) INTO _from FROM pg_temp.tries_1 t WHERE t.e1 IS NOT NULL;
                _to := _from;
                _progress := false;
            END IF;
            _low := _from[cardinality(_from)];
            _high := _to[cardinality(_to)];
            _from := _from[1:cardinality(_from) - 1];
            _to := _to[1:cardinality(_to) - 1];
            _attempts := _attempts + 1;
            BEGIN
                _done := pg_temp.write_1(_low, _high);
                _deleted := _deleted + _done[1];
                _updated := _updated + _done[2];
                _inserted := _inserted + _done[3];
                _progress := true;
                IF _low = _high THEN
                    UPDATE pg_temp.tries_1 t SET e1 = NULL, e2 = NULL, e3 = NULL WHERE t.n = _low AND t.e1 IS NOT NULL;
                    IF FOUND THEN
                        _failed := _failed - 1;
                    END IF;
                END IF;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR with_check_option_violation OR raise_exception OR cardinality_violation OR program_limit_exceeded THEN
                IF NOT _isolate THEN
                    RAISE;
                END IF;
                IF _low < _high THEN
                    _n := (_low + _high) / 2;
                    _from := _from || (_n + 1) || _low;
                    _to := _to || _high || _n;
                ELSE
                    GET STACKED DIAGNOSTICS _sqlstate = RETURNED_SQLSTATE, _constraint = CONSTRAINT_NAME, _column = COLUMN_NAME;
                    IF EXISTS (SELECT FROM pg_temp.tries_1 t WHERE t.n = _low AND t.e1 IS NULL) THEN
                        _failed := _failed + 1;
                    END IF;
                    UPDATE pg_temp.tries_1 t SET e1 = _sqlstate, e2 = nullif(_constraint, ''), e3 = nullif(_column, ''),
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
        WHILE EXISTS (SELECT FROM pg_temp.tries_1 t WHERE t.swap AND t.op = 'm')
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint f
                              WHERE f.contype = 'f' AND f.confrelid = pg_catalog.to_regclass('"public"."labels_lookup"')) LOOP
            _n := NULL;
            BEGIN
                DELETE FROM "public"."labels_lookup" l USING pg_temp.tries_1 t WHERE t.swap AND t.op = 'm' AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) t.k1);
                FOR _n IN SELECT t.n FROM pg_temp.tries_1 t WHERE t.swap ORDER BY t.n LOOP
                    INSERT INTO "public"."labels_lookup" AS l ("code", "label", "display_name", "updated_at") SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.tries_1 s WHERE s.n = _n;
                END LOOP;
                _n := NULL;
                SET CONSTRAINTS ALL IMMEDIATE;
                SET CONSTRAINTS ALL DEFERRED;
                SELECT _updated + count(*) FILTER (WHERE t.op = 'm'), _inserted + count(*) FILTER (WHERE t.op = 'n')
                INTO _updated, _inserted FROM pg_temp.tries_1 t WHERE t.swap;
                UPDATE pg_temp.tries_1 t SET e1 = NULL, e2 = NULL, e3 = NULL, swap = false WHERE t.swap;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR with_check_option_violation OR raise_exception OR cardinality_violation OR program_limit_exceeded THEN
                -- Try again without the row that fails; if it is not known which one, give up.
                UPDATE pg_temp.tries_1 t SET swap = false WHERE t.n = coalesce(_n, t.n);
            END;
        END LOOP;

        IF _keys > 0 THEN
            SELECT (_deleted_keys || array_agg(x.key) FILTER (WHERE x.op = 'a'))[1:_keys],
                   (_updated_keys || array_agg(x.key) FILTER (WHERE x.op = 'm'))[1:_keys],
                   (_inserted_keys || array_agg(x.key) FILTER (WHERE x.op = 'n'))[1:_keys]
            INTO _deleted_keys, _updated_keys, _inserted_keys
            FROM (SELECT t.op, pg_catalog.concat_ws(', ', t.k1) AS key, row_number() OVER (PARTITION BY t.op) AS n
                  FROM pg_temp.tries_1 t WHERE t.e1 IS NULL) x
            WHERE x.n <= _keys;
        END IF;
        UPDATE "cdc".map_1 m SET state = 'r', v1 = t.p1, v2 = t.p2, v3 = t.p3
        FROM pg_temp.tries_1 t WHERE t.e1 IS NOT NULL AND t.op <> 'a' AND m.ctid = (SELECT m.ctid FROM "cdc".map_1 m WHERE m.i1 = t.h1);
        -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
        PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                pg_catalog.set_config('enable_seqscan', 'on', true),
                pg_catalog.set_config('enable_indexscan', 'off', true);
        UPDATE pg_temp.stage_1 s SET state = 'r'
        FROM pg_temp.tries_1 t WHERE t.e1 IS NOT NULL AND t.op <> 'a' AND s.state = 'l' AND s.i1 = t.h1;
        DELETE FROM "cdc".rejected_1 r USING pg_temp.tries_1 t
        WHERE t.e1 IS NOT NULL AND t.op = 'a' AND r.state = 'a' AND r.k1 OPERATOR(pg_catalog.=) t.k1 AND NOT (ROW(r.k1)::record OPERATOR(pg_catalog.*=) ROW(t.k1)::record AND (r.e1, r.e2, r.e3) IS NOT DISTINCT FROM (t.e1, t.e2, t.e3));
        WITH back AS (
            DELETE FROM pg_temp.earlier_1 r USING pg_temp.tries_1 t
            WHERE t.e1 IS NOT NULL AND t.op <> 'a' AND r.state = 'r' AND r.i1 = t.h1 AND (ROW(r.k1)::record OPERATOR(pg_catalog.*=) ROW(t.k1)::record AND (r.e1, r.e2, r.e3) IS NOT DISTINCT FROM (t.e1, t.e2, t.e3))
            RETURNING r.*)
        INSERT INTO "cdc".rejected_1 OVERRIDING SYSTEM VALUE SELECT * FROM back;
        INSERT INTO "cdc".rejected_1 (i1, k1, state, e1, e2, e3, lsn)
        SELECT t.h1, t.k1, CASE t.op WHEN 'a' THEN 'a' ELSE 'r' END, t.e1, t.e2, t.e3, _lsn::pg_catalog.pg_lsn
        FROM pg_temp.tries_1 t
        WHERE t.e1 IS NOT NULL AND CASE t.op
            WHEN 'a' THEN NOT EXISTS (SELECT FROM "cdc".rejected_1 r WHERE r.state = 'a' AND r.k1 OPERATOR(pg_catalog.=) t.k1)
            ELSE NOT EXISTS (SELECT FROM "cdc".rejected_1 r WHERE r.state = 'r' AND r.i1 = t.h1) END;
        -- Next, try the next row that claims such a key.
        UPDATE pg_temp.touched_1 t SET open = false WHERE t.open;
        UPDATE pg_temp.touched_1 t SET open = true FROM pg_temp.tries_1 x WHERE x.e1 IS NOT NULL AND x.op <> 'a' AND x.h1 = t.h1;
        _progress := FOUND;
        -- From here on each row is looked up in an index.
        PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                pg_catalog.set_config('enable_seqscan', 'off', true),
                pg_catalog.set_config('enable_indexscan', 'on', true);
        EXIT WHEN NOT _progress OR (SELECT count(*) FROM "cdc".rejected_1) > _most;
    END LOOP;

    -- A live row has no NULL in its key: delete such rows of the lookup. One that cannot be deleted blocks no other row.
    IF _clear THEN
        BEGIN
            DELETE FROM "public"."labels_lookup" l WHERE l."code" IS NULL;
            SET CONSTRAINTS ALL IMMEDIATE;
            SET CONSTRAINTS ALL DEFERRED;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR with_check_option_violation OR raise_exception OR cardinality_violation OR program_limit_exceeded THEN
            IF NOT _isolate THEN
                RAISE;
            END IF;
        END;
    END IF;

    -- The lookup's rows under the keys of rejected rows, and the entries of rows that have or want these keys, as in find_claims.sql.
    IF EXISTS (
        SELECT FROM pg_catalog.pg_index x
        WHERE x.indexrelid = pg_catalog.to_regclass('"cdc".map_1_key') AND x.indisvalid
          AND (NOT x.indcheckxmin OR pg_catalog.age(x.xmin) > (
               SELECT pg_catalog.age(a.backend_xmin) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a))) THEN
        _claims := ARRAY(SELECT pg_catalog.unnest(ARRAY(
                             SELECT m.ctid FROM "cdc".map_1 m WHERE r.k1 OPERATOR(pg_catalog.=) m.k1 AND m.state IN ('s', 'w', 'r', 'x')))
                         FROM (SELECT DISTINCT r.k1 FROM "cdc".rejected_1 r) r);
    ELSE
        -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
        PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                pg_catalog.set_config('enable_seqscan', 'on', true),
                pg_catalog.set_config('enable_indexscan', 'off', true);
        _claims := ARRAY(SELECT m.ctid FROM (SELECT DISTINCT r.k1 FROM "cdc".rejected_1 r) r JOIN "cdc".map_1 m ON r.k1 OPERATOR(pg_catalog.=) m.k1
                         WHERE m.state IN ('s', 'w', 'r', 'x'));
        -- From here on each row is looked up in an index.
        PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                pg_catalog.set_config('enable_seqscan', 'off', true),
                pg_catalog.set_config('enable_indexscan', 'on', true);
    END IF;
    _shown := ARRAY(SELECT (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) r.k1) FROM "cdc".rejected_1 r);
    -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
    PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
            pg_catalog.set_config('enable_seqscan', 'on', true),
            pg_catalog.set_config('enable_indexscan', 'off', true);
    DELETE FROM "cdc".rejected_1 r USING (SELECT r.n, bool_or(NOT (l."code" IS NULL)) AS in_lookup, bool_or(m.shown IS NOT NULL) AS claimed,
           coalesce(bool_or(m.shown), false) AS shown
    FROM "cdc".rejected_1 r
    LEFT JOIN "public"."labels_lookup" l ON l."code" OPERATOR(pg_catalog.=) r.k1 AND l.ctid = ANY (_shown)
    LEFT JOIN (SELECT m.k1, bool_or(m.state = 's') AS shown FROM "cdc".map_1 m
               WHERE m.state IN ('s', 'w', 'r', 'x') AND m.ctid = ANY (_claims) GROUP BY m.k1) m ON r.k1 OPERATOR(pg_catalog.=) m.k1
    GROUP BY r.n) x
    WHERE x.n = r.n AND r.state = 'a' AND (x.claimed OR NOT x.in_lookup);
    SELECT count(*), count(*) FILTER (WHERE r.state <> 'a') INTO _count, _failed FROM "cdc".rejected_1 r;
    IF _count > _most OR (_failed > 1 AND NOT EXISTS (SELECT FROM "cdc".map_1 m WHERE m.state = 's')) THEN
        SELECT r.e1, coalesce(r.e2, r.e3, 'no name') INTO _sqlstate, _constraint FROM "cdc".rejected_1 r ORDER BY r.n DESC LIMIT 1;
        RAISE EXCEPTION '% rows are rejected, one of them with SQLSTATE % (%)',
            CASE WHEN _count > _most THEN 'more than ' || _most ELSE 'all ' || _failed END, _sqlstate, _constraint
            USING ERRCODE = 'CDC03';
    END IF;

    -- The entries for the view rejected.
    DELETE FROM "cdc".rejection x
    WHERE x.read_model = 1 AND NOT EXISTS (SELECT FROM "cdc".rejected_1 r WHERE r.n = x.n);
    INSERT INTO "cdc".rejection AS e (read_model, n, identity, key, shown, sqlstate, constraint_name, column_name, lsn, rejected_at)
    SELECT 1, r.n, CASE WHEN r.i1 IS NOT NULL THEN pg_catalog.concat_ws(', ', r.i1) END, CASE WHEN r.k1 IS NOT NULL THEN pg_catalog.concat_ws(', ', r.k1) END,
        CASE WHEN r.state <> 'a' AND x.shown THEN 'other row' WHEN x.in_lookup THEN 'old row' ELSE 'nothing' END,
        r.e1, r.e2, r.e3, r.lsn, r.at
    FROM "cdc".rejected_1 r JOIN (SELECT r.n, bool_or(NOT (l."code" IS NULL)) AS in_lookup, bool_or(m.shown IS NOT NULL) AS claimed,
           coalesce(bool_or(m.shown), false) AS shown
    FROM "cdc".rejected_1 r
    LEFT JOIN "public"."labels_lookup" l ON l."code" OPERATOR(pg_catalog.=) r.k1 AND l.ctid = ANY (_shown)
    LEFT JOIN (SELECT m.k1, bool_or(m.state = 's') AS shown FROM "cdc".map_1 m
               WHERE m.state IN ('s', 'w', 'r', 'x') AND m.ctid = ANY (_claims) GROUP BY m.k1) m ON r.k1 OPERATOR(pg_catalog.=) m.k1
    GROUP BY r.n) x ON x.n = r.n
    ON CONFLICT (read_model, n) DO UPDATE SET shown = excluded.shown WHERE e.shown <> excluded.shown;

    SELECT count(*) FILTER (WHERE s.state = 'l'), count(*) FILTER (WHERE s.state = 'r') INTO _total, _rejected FROM pg_temp.stage_1 s;
    SELECT _rejected + count(*) INTO _rejected FROM pg_temp.touched_1 t
    WHERE EXISTS (SELECT FROM "cdc".rejected_1 r WHERE r.state = 'a' AND r.k1 OPERATOR(pg_catalog.=) t.k1);
    -- From here on each row is looked up in an index.
    PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
            pg_catalog.set_config('enable_seqscan', 'off', true),
            pg_catalog.set_config('enable_indexscan', 'on', true);
    IF _clear THEN
        PERFORM pg_temp.cdc_count(1, (SELECT count(*) FROM "public"."labels_lookup"), true, _inserted + _updated + _deleted > 0);
        UPDATE "cdc".read_model r SET waiting = (SELECT count(*) FROM "cdc".map_1 m WHERE m.state = 'w') WHERE r.id = 1;
    ELSIF _inserted + _updated + _deleted > 0 THEN
        PERFORM pg_temp.cdc_count(1, _inserted - _deleted, false, true);
    END IF;
END
$cdc$;
-- One piece of the writes: all or nothing. A piece has any size, down to one row, so each row is looked up.
CREATE OR REPLACE FUNCTION pg_temp.write_1(_low integer, _high integer) RETURNS bigint[]
LANGUAGE plpgsql SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off AS $cdc$
DECLARE
    _deleted bigint;
    _updated bigint;
    _inserted bigint;
BEGIN
    DELETE FROM "public"."labels_lookup" l USING pg_temp.tries_1 t
    WHERE t.n BETWEEN _low AND _high AND t.op = 'a' AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) t.k1);
    GET DIAGNOSTICS _deleted = ROW_COUNT;
    UPDATE "public"."labels_lookup" l SET "code" = s.p1, "label" = s.p2, "display_name" = s.p3, "updated_at" = now()
    FROM pg_temp.tries_1 s WHERE s.n BETWEEN _low AND _high AND s.op = 'm' AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1);
    GET DIAGNOSTICS _updated = ROW_COUNT;
    INSERT INTO "public"."labels_lookup" AS l ("code", "label", "display_name", "updated_at")
    SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.tries_1 s WHERE s.n BETWEEN _low AND _high AND s.op = 'n';
    GET DIAGNOSTICS _inserted = ROW_COUNT;
    SET CONSTRAINTS ALL IMMEDIATE;
    SET CONSTRAINTS ALL DEFERRED;
    RETURN ARRAY[_deleted, _updated, _inserted];
END
$cdc$
