-- A small batch of one read model, without a TRUNCATE: fence, checkpoint, rows and map in one statement and so in one commit.
-- Columns and states: the legend in sql/README.md.
CREATE OR REPLACE FUNCTION pg_temp.apply_1(_epoch bigint, _lsn text, _commit_time timestamptz,
    _last_lsn text, _last_xid bigint, _last_time timestamptz,
    _resolve boolean, _keys integer, _a1 text[], _a2 text[], _a3 text[], _a4 text[], _a5 text[], _a6 text[], _a7 text[], _a8 text[], _a9 text[],
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[])
LANGUAGE plpgsql AS $cdc$
DECLARE
    _moves boolean;
BEGIN
    PERFORM pg_temp.cdc_advance(_epoch, _lsn, _commit_time, _last_lsn, _last_xid, _last_time);
    INSERT INTO pg_temp.stage_1 (o1, i1, state, p1, p2, p3, u1, u2, u3)
    SELECT a.o1::uuid, a.i1::uuid, (('{"' || replace(replace(a.state, E'\\', E'\\\\'), '"', E'\\"') || '"}')::"char"[])[1], a.p1::character varying, a.p2::character varying, a.p3::character varying, a.u1::boolean, a.u2::boolean, a.u3::boolean FROM unnest(_a1, _a2, _a3, _a4, _a5, _a6, _a7, _a8, _a9) AS a(o1, i1, state, p1, p2, p3, u1, u2, u3);
    SELECT m._inserted, m._updated, m._deleted, m._total, m._inserted_keys, m._updated_keys, m._deleted_keys, m._moves
    INTO _inserted, _updated, _deleted, _total, _inserted_keys, _updated_keys, _deleted_keys, _moves
    FROM pg_temp.merge_1(false, _resolve, _keys) m;
    SET CONSTRAINTS ALL IMMEDIATE;
    DELETE FROM pg_temp.stage_1;
    IF _moves THEN
        DELETE FROM pg_temp.moving_1;
        DELETE FROM pg_temp.touched_1;
    END IF;
END
$cdc$
