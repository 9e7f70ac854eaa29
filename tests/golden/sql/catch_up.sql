-- Brings a shadow (the source's rows by identity) to the final states of a batch, which are in pg_temp.stage_1. Each state is
-- looked up in the shadow's index (src/target/model/joins.rs). Columns and states: the legend in sql/README.md.
CREATE OR REPLACE FUNCTION pg_temp.catch_up_1(_clear boolean, _resolve boolean) RETURNS void
LANGUAGE plpgsql SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off AS $cdc$
BEGIN
    IF _resolve THEN
        UPDATE pg_temp.stage_1 s SET p1 = CASE WHEN s.u1 THEN m.p1 ELSE s.p1 END, u1 = s.u1 AND (m.state = 'x' AND m.p1 IS NULL), p2 = CASE WHEN s.u2 THEN m.p2 ELSE s.p2 END, u2 = s.u2 AND (m.state = 'x' AND m.p2 IS NULL), p3 = CASE WHEN s.u3 THEN m.p3 ELSE s.p3 END, u3 = s.u3 AND (m.state = 'x' AND m.p3 IS NULL) FROM "cdc".shadow_1_1 m
        WHERE m.ctid = (SELECT m.ctid FROM "cdc".shadow_1_1 m WHERE s.o1 = m.i1) AND (s.u1 OR s.u2 OR s.u3);
        -- A dead row whose values are stored nowhere is forgotten: the values are needed only if it is restored without them.
        UPDATE pg_temp.stage_1 s SET state = 'g', i1 = NULL WHERE s.state = 'd' AND (s.u1 OR s.u2 OR s.u3);
        IF EXISTS (SELECT FROM pg_temp.stage_1 s WHERE s.state = 'l' AND (s.u1 OR s.u2 OR s.u3)) THEN
            RAISE EXCEPTION 'an update left out a value that the copy does not hold' USING ERRCODE = 'CDC02';
        END IF;
    END IF;
    IF _clear THEN
        DELETE FROM "cdc".shadow_1_1;
    ELSE
        DELETE FROM "cdc".shadow_1_1 m USING pg_temp.stage_1 s WHERE m.ctid = (SELECT m.ctid FROM "cdc".shadow_1_1 m WHERE s.o1 = m.i1);
        DELETE FROM "cdc".shadow_1_1 m USING pg_temp.stage_1 s WHERE m.ctid = (SELECT m.ctid FROM "cdc".shadow_1_1 m WHERE s.i1 = m.i1);
    END IF;
    INSERT INTO "cdc".shadow_1_1 (i1, state, p1, p2, p3, e1, e2, e3)
    SELECT s.i1, s.state, s.p1, s.p2, s.p3, s.e1, s.e2, s.e3 FROM pg_temp.stage_1 s WHERE s.state IN ('l', 'd', 'x');
    TRUNCATE pg_temp.stage_1;
END
$cdc$
