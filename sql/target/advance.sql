-- The fence and the checkpoint, first in every applying transaction: it locks the pipeline's row, so that whoever
-- raised the epoch meanwhile is seen, and stores what the lookups will be as of.
CREATE OR REPLACE FUNCTION pg_temp.cdc_advance(_epoch bigint, _lsn text, _commit_time timestamptz,
    _last_lsn text, _last_xid bigint, _last_time timestamptz)
RETURNS void LANGUAGE plpgsql AS $cdc$
BEGIN
    UPDATE {{schema}}.pipeline p
    SET lsn = greatest(p.lsn, _lsn::pg_lsn), commit_time = greatest(p.commit_time, _commit_time),
        last_commit_lsn = coalesce(_last_lsn::pg_lsn, p.last_commit_lsn),
        last_commit_xid = coalesce(_last_xid, p.last_commit_xid),
        last_commit_time = coalesce(_last_time, p.last_commit_time),
        applied_at = clock_timestamp(), heartbeat_at = clock_timestamp()
    WHERE p.epoch = _epoch;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another process has taken over this pipeline' USING ERRCODE = 'CDC01';
    END IF;
END
$cdc$
