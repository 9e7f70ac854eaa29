-- The fence and the checkpoint, first in every applying transaction. It locks the checkpoint's row, so that it sees an epoch that
-- another session has raised in the meantime, and stores the position and time that the lookups will be as of.
--
-- The session remembers the row's ctid, and searches for the row only if it is no longer there: while any session holds an old snapshot,
-- the table keeps every version of the row that was written since. After a wait for the row's lock the ctid alone proves nothing (minor
-- releases before 2025 do not compare it again), but the epoch does.
CREATE OR REPLACE FUNCTION pg_temp.cdc_advance(_epoch bigint, _lsn text, _commit_time timestamptz,
    _last_lsn text, _last_xid bigint, _last_time timestamptz)
RETURNS void LANGUAGE plpgsql AS $cdc$
DECLARE
    _at tid := nullif(pg_catalog.current_setting('cdc.checkpoint_at', true), '')::tid;
BEGIN
    FOR _try IN 1..2 LOOP
        IF _try = 2 THEN
            SELECT c.ctid INTO _at FROM {{schema}}.checkpoint c WHERE c.epoch = _epoch FOR UPDATE;
        END IF;
        UPDATE {{schema}}.checkpoint c
        SET lsn = greatest(c.lsn, _lsn::pg_lsn), commit_time = greatest(c.commit_time, _commit_time),
            last_commit_lsn = coalesce(_last_lsn::pg_lsn, c.last_commit_lsn),
            last_commit_xid = coalesce(_last_xid, c.last_commit_xid),
            last_commit_time = coalesce(_last_time, c.last_commit_time),
            applied_at = clock_timestamp()
        WHERE c.ctid = _at AND c.epoch = _epoch
        RETURNING c.ctid INTO _at;
        IF FOUND THEN
            PERFORM pg_catalog.set_config('cdc.checkpoint_at', _at::text, false);
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'another process has taken over this pipeline' USING ERRCODE = 'CDC01';
END
$cdc$;
-- Stores the count of a read model's live rows: _rows more, or _rows in all. The row is found as the checkpoint's is. Only the session
-- that has locked the checkpoint writes it.
CREATE OR REPLACE FUNCTION pg_temp.cdc_count(_read_model integer, _rows bigint, _in_all boolean, _changed boolean)
RETURNS void LANGUAGE plpgsql AS $cdc$
DECLARE
    _place text := 'cdc.counted_' || _read_model;
    _at tid := nullif(pg_catalog.current_setting(_place, true), '')::tid;
BEGIN
    FOR _try IN 1..2 LOOP
        IF _try = 2 THEN
            SELECT c.ctid INTO _at FROM {{schema}}.counted c WHERE c.read_model = _read_model;
            IF NOT FOUND THEN
                INSERT INTO {{schema}}.counted AS c (read_model, rows) VALUES (_read_model, 0) RETURNING c.ctid INTO _at;
            END IF;
        END IF;
        UPDATE {{schema}}.counted c
        SET rows = CASE WHEN _in_all THEN _rows ELSE coalesce(c.rows, 0) + _rows END,
            last_change_at = CASE WHEN _changed THEN now() ELSE c.last_change_at END
        WHERE c.ctid = _at AND c.read_model = _read_model
        RETURNING c.ctid INTO _at;
        IF FOUND THEN
            PERFORM pg_catalog.set_config(_place, _at::text, false);
            RETURN;
        END IF;
    END LOOP;
END
$cdc$
