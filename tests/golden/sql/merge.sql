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
CREATE OR REPLACE FUNCTION pg_temp.merge_1(_clear boolean, _resolve boolean, _keys integer,
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[], OUT _moves boolean)
LANGUAGE plpgsql SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off AS $cdc$
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
    LOCK TABLE ONLY "public"."labels_lookup" IN ROW EXCLUSIVE MODE;
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
    _inserted := 0;
    _updated := 0;
    _deleted := 0;
    _moves := false;
    <<steps>>
    BEGIN
        -- If all rows are new (the tables are empty, or the batch has only inserts), insert them as they are. If a row or a key turns out
        -- to exist, continue with the general way.
        IF _clear THEN
            _new := NOT EXISTS (SELECT FROM "cdc".map_1) AND NOT EXISTS (SELECT FROM "public"."labels_lookup");
        ELSE
            _new := NOT EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.o1 IS NOT NULL OR s.state NOT IN ('l', 'd'));
        END IF;
        IF _new THEN
            BEGIN
                INSERT INTO "cdc".map_1 (i1, k1, state, v1, v2, v3)
                SELECT s.i1, s.p1, CASE s.state WHEN 'l' THEN 's' ELSE 'd' END, CASE WHEN s.state <> 'l' THEN s.p1 END, CASE WHEN s.state <> 'l' THEN s.p2 END, CASE WHEN s.state <> 'l' THEN s.p3 END
                FROM pg_temp.stage_1 s WHERE s.state IN ('l', 'd');
                INSERT INTO "public"."labels_lookup" ("code", "label", "display_name", "updated_at")
                SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.stage_1 s WHERE s.state = 'l';
                GET DIAGNOSTICS _inserted = ROW_COUNT;
                _straight := true;
            EXCEPTION WHEN unique_violation OR exclusion_violation THEN
                NULL;
            END;
        END IF;
        IF _straight THEN
            SELECT count(*) INTO _total FROM pg_temp.stage_1 s WHERE s.state = 'l';
            IF _keys > 0 THEN
                SELECT array_agg(x.key) INTO _inserted_keys
                FROM (SELECT pg_catalog.concat_ws(', ', s.p1) AS key FROM pg_temp.stage_1 s WHERE s.state = 'l' LIMIT _keys) x;
            END IF;
            EXIT steps;
        END IF;

        -- Rows that stay shown under their keys do not change the map, and touch no other row's key.
        -- The first step of merge.sql and isolate.sql: finds the rows that may change the map, and what the map says of them now. An identity
        -- that a row no longer has gets an entry of its own, with state 'g'; it is deleted unless another row has taken it.
        IF NOT _clear THEN
            INSERT INTO pg_temp.moving_1 (i1, state, c1, stage_row, renamed, was, k1, map_row)
            SELECT s.i1, s.state, s.p1, s.place, s.o1 IS NOT NULL AND s.i1 IS NOT NULL AND (s.o1 IS DISTINCT FROM s.i1), m.state, m.k1, m.ctid
            FROM (SELECT s.*, s.ctid AS place FROM pg_temp.stage_1 s ORDER BY coalesce(s.i1, s.o1)) s LEFT JOIN LATERAL (SELECT m.*, m.ctid FROM "cdc".map_1 m WHERE coalesce(s.i1, s.o1) = m.i1 LIMIT 1) m ON true
            WHERE (s.state = 'l' AND NOT (s.o1 IS DISTINCT FROM s.i1) AND m.state = 's' AND ROW(m.k1)::record OPERATOR(pg_catalog.*=) ROW(s.p1)::record) IS NOT TRUE;
            _moves := FOUND;
            IF _moves THEN
                INSERT INTO pg_temp.moving_1 (state, renamed, was, k1, map_row)
                SELECT 'g', false, m.state, m.k1, m.ctid
                FROM pg_temp.stage_1 s JOIN LATERAL (SELECT m.*, m.ctid FROM "cdc".map_1 m WHERE s.o1 = m.i1 LIMIT 1) m ON true
                WHERE s.i1 IS NOT NULL AND (s.o1 IS DISTINCT FROM s.i1) AND EXISTS (SELECT FROM pg_temp.moving_1 x WHERE x.renamed);
            END IF;
        END IF;
        IF _moves OR _clear THEN
            -- A step of merge.sql: rows that may change the map, and the keys that change hands with them.
            --
            -- The map gets an index by key when two live rows first have the same key: at a source whose keys are unique, the index would
            -- cost a third of the cost of new rows. Without the index, the holder of a key is the row that is shown under it. So the lookup
            -- says whether a row outside of the batch holds a key that the batch claims. Only then is the map read.
            _ask_map := pg_catalog.to_regclass('"cdc".map_1_key') IS NOT NULL;
            IF NOT (_ask_map OR _clear) THEN
                _ask_map := EXISTS (SELECT FROM pg_temp.moving_1 x WHERE x.state = 'l' GROUP BY x.c1 HAVING count(*) > 1);
                IF NOT _ask_map THEN
                    _ask_map := EXISTS (SELECT FROM (
                                    SELECT x.c1 FROM pg_temp.moving_1 x WHERE x.state = 'l'
                                    EXCEPT
                                    SELECT x.k1 FROM pg_temp.moving_1 x WHERE x.was = 's') x
                                WHERE (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) x.c1) IS NOT NULL);
                END IF;
            END IF;
            -- The second step of merge.sql and isolate.sql: records the keys that may change hands, and writes the final states into the map.
            IF _clear THEN
                INSERT INTO pg_temp.touched_1 (k1, claimed, open)
                SELECT x.k1, bool_or(x.claimed), false FROM (
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
                SELECT x.k1, bool_or(x.claimed), false FROM (
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
            -- Two live rows have the same key, or a row has waited for a key that is free now.
            IF _ask_map OR _clear THEN
                -- The entries of rows that have or want the touched keys. An index that has just been created may not be usable yet. Then the
                -- map is read once, instead of once for each key.
                IF EXISTS (
                    SELECT FROM pg_catalog.pg_index x
                    WHERE x.indexrelid = pg_catalog.to_regclass('"cdc".map_1_key') AND x.indisvalid
                      AND (NOT x.indcheckxmin OR pg_catalog.age(x.xmin) > (
                           SELECT pg_catalog.age(a.backend_xmin) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a))) THEN
                    _claims := ARRAY(SELECT pg_catalog.unnest(ARRAY(
                                         SELECT m.ctid FROM "cdc".map_1 m WHERE t.k1 OPERATOR(pg_catalog.=) m.k1 AND m.state IN ('s', 'w', 'r', 'x')))
                                     FROM pg_temp.touched_1 t);
                ELSE
                    -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
                    PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                            pg_catalog.set_config('enable_seqscan', 'on', true),
                            pg_catalog.set_config('enable_indexscan', 'off', true);
                    _claims := ARRAY(SELECT m.ctid FROM pg_temp.touched_1 t JOIN "cdc".map_1 m ON t.k1 OPERATOR(pg_catalog.=) m.k1
                                     WHERE m.state IN ('s', 'w', 'r', 'x'));
                    -- From here on each row is looked up in an index.
                    PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                            pg_catalog.set_config('enable_seqscan', 'off', true),
                            pg_catalog.set_config('enable_indexscan', 'on', true);
                END IF;
                -- From here on tables are hashed; of map and lookup only the rows that were looked up before.
                PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
                        pg_catalog.set_config('enable_seqscan', 'on', true),
                        pg_catalog.set_config('enable_indexscan', 'off', true);
                UPDATE pg_temp.touched_1 t SET open = true
                FROM (SELECT t.ctid AS place
                      FROM pg_temp.touched_1 t JOIN "cdc".map_1 m ON t.k1 OPERATOR(pg_catalog.=) m.k1
                      WHERE m.state IN ('s', 'w') AND m.ctid = ANY (_claims)
                      GROUP BY t.ctid, t.claimed
                      HAVING count(*) > t.claimed::integer OR bool_or(m.state = 'w')) x
                WHERE t.ctid = x.place;
                _shared := FOUND;
                IF _shared THEN
                    -- The map's index by key. Look for it first: CREATE INDEX IF NOT EXISTS locks the map against autovacuum even if the index exists. The
                    -- index leaves out dead rows: no query needs their keys, and these may be too large for an index.
                    IF pg_catalog.to_regclass('"cdc".map_1_key') IS NULL THEN
                        CREATE INDEX map_1_key ON "cdc".map_1 (k1) WHERE state <> 'd';
                    END IF;
                    -- From here on each row is looked up in an index.
                    PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                            pg_catalog.set_config('enable_seqscan', 'off', true),
                            pg_catalog.set_config('enable_indexscan', 'on', true);
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
                END IF;
                -- From here on each row is looked up in an index.
                PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
                        pg_catalog.set_config('enable_seqscan', 'off', true),
                        pg_catalog.set_config('enable_indexscan', 'on', true);
            END IF;
            -- A key that changes hands is updated in place: only keys that no row claims any more are deleted.
            -- Counts the rows of one statement, and keeps some of their keys if any are wanted.
            IF _keys > 0 THEN
                WITH written AS (
                    DELETE FROM "public"."labels_lookup" l USING pg_temp.touched_1 t
                    WHERE NOT t.claimed AND t.h1 IS NULL AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) t.k1)
                    RETURNING pg_catalog.concat_ws(', ', l."code") AS key)
                SELECT _deleted + count(*), _deleted_keys || array_agg(key) FILTER (WHERE n <= _keys) INTO _deleted, _deleted_keys
                FROM (SELECT key, row_number() OVER () AS n FROM written) x;
            ELSE
                DELETE FROM "public"."labels_lookup" l USING pg_temp.touched_1 t
                WHERE NOT t.claimed AND t.h1 IS NULL AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) t.k1);
                GET DIAGNOSTICS _n = ROW_COUNT;
                _deleted := _deleted + _n;
            END IF;
            -- A live row has no NULL in its key: delete such rows of the lookup.
            IF _clear THEN
                DELETE FROM "public"."labels_lookup" l WHERE l."code" IS NULL;
            END IF;
        END IF;

        -- Counts the rows of one statement, and keeps some of their keys if any are wanted.
        IF _keys > 0 THEN
            WITH written AS (
                UPDATE "public"."labels_lookup" l SET "code" = s.p1, "label" = s.p2, "display_name" = s.p3, "updated_at" = now()
                FROM pg_temp.stage_1 s
                WHERE s.state = 'l' AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1) AND ROW(l."code", l."label", l."display_name")::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record
                RETURNING pg_catalog.concat_ws(', ', l."code") AS key)
            SELECT _updated + count(*), _updated_keys || array_agg(key) FILTER (WHERE n <= _keys) INTO _updated, _updated_keys
            FROM (SELECT key, row_number() OVER () AS n FROM written) x;
        ELSE
            UPDATE "public"."labels_lookup" l SET "code" = s.p1, "label" = s.p2, "display_name" = s.p3, "updated_at" = now()
            FROM pg_temp.stage_1 s
            WHERE s.state = 'l' AND l.ctid = (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1) AND ROW(l."code", l."label", l."display_name")::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record;
            GET DIAGNOSTICS _n = ROW_COUNT;
            _updated := _updated + _n;
        END IF;

        -- A missing row is one that is shown from this batch on, unless another session has deleted it from the lookup.
        SELECT count(*) INTO _total FROM pg_temp.stage_1 s WHERE s.state = 'l';
        IF _updated < _total AND _moves AND NOT _shared THEN
            -- Rows that are shown from this batch on.
            -- Counts the rows of one statement, and keeps some of their keys if any are wanted.
            IF _keys > 0 THEN
                WITH written AS (
                    INSERT INTO "public"."labels_lookup" AS l ("code", "label", "display_name", "updated_at")
                    SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.stage_1 s JOIN pg_temp.moving_1 x ON x.stage_row = s.ctid AND x.state = 'l'
                    WHERE s.state = 'l' AND (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1) IS NULL
                    RETURNING pg_catalog.concat_ws(', ', l."code") AS key)
                SELECT _inserted + count(*), _inserted_keys || array_agg(key) FILTER (WHERE n <= _keys) INTO _inserted, _inserted_keys
                FROM (SELECT key, row_number() OVER () AS n FROM written) x;
            ELSE
                INSERT INTO "public"."labels_lookup" AS l ("code", "label", "display_name", "updated_at")
                SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.stage_1 s JOIN pg_temp.moving_1 x ON x.stage_row = s.ctid AND x.state = 'l'
                WHERE s.state = 'l' AND (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1) IS NULL;
                GET DIAGNOSTICS _n = ROW_COUNT;
                _inserted := _inserted + _n;
            END IF;
        END IF;
        IF _updated + _inserted < _total THEN
            -- Counts the rows of one statement, and keeps some of their keys if any are wanted.
            IF _keys > 0 THEN
                WITH written AS (
                    INSERT INTO "public"."labels_lookup" AS l ("code", "label", "display_name", "updated_at")
                    SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.stage_1 s
                    WHERE s.state = 'l' AND (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1) IS NULL
                    RETURNING pg_catalog.concat_ws(', ', l."code") AS key)
                SELECT _inserted + count(*), _inserted_keys || array_agg(key) FILTER (WHERE n <= _keys) INTO _inserted, _inserted_keys
                FROM (SELECT key, row_number() OVER () AS n FROM written) x;
            ELSE
                INSERT INTO "public"."labels_lookup" AS l ("code", "label", "display_name", "updated_at")
                SELECT s.p1, s.p2, s.p3, now() FROM pg_temp.stage_1 s
                WHERE s.state = 'l' AND (SELECT l.ctid FROM "public"."labels_lookup" l WHERE l."code" OPERATOR(pg_catalog.=) s.p1) IS NULL;
                GET DIAGNOSTICS _n = ROW_COUNT;
                _inserted := _inserted + _n;
            END IF;
        END IF;
    END steps;

    IF _clear THEN
        PERFORM pg_temp.cdc_count(1, _total, true, _inserted + _updated + _deleted > 0);
        UPDATE "cdc".read_model r
        SET waiting = CASE WHEN _shared THEN (SELECT count(*) FROM "cdc".map_1 m WHERE m.state = 'w') ELSE 0 END
        WHERE r.id = 1;
    ELSIF _inserted + _updated + _deleted > 0 THEN
        PERFORM pg_temp.cdc_count(1, _inserted - _deleted, false, true);
    END IF;
END
$cdc$
