-- The fence and the checkpoint, first in every applying transaction: it locks the checkpoint's row, so that whoever
-- raised the epoch meanwhile is seen, and stores what the lookups will be as of.
--
-- The session remembers where it left the row. Only where it is not there any more is it searched for: behind a snapshot that
-- somebody holds stands every version of it that was written since. A ctid alone proves nothing after a wait for the row's lock
-- (minor releases before 2025 do not compare it again), the epoch does.
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
-- Counts what was written of a read model: _rows more, or so many in all. The row is found as the checkpoint's is; only who has
-- the checkpoint locked writes it.
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
