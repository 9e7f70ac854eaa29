-- The pipeline's row for `cdc status`: one row, or none before the first run. Times are RFC 3339 in UTC.
-- Columns that an earlier version of the bookkeeping lacks are read from the row as JSON.
-- While the source cannot send what follows the checkpoint, each session streams for a moment only: that is `retrying`.
SELECT CASE WHEN s.stuck AND p.state = 'streaming' THEN 'retrying' ELSE p.state END AS state,
       pg_catalog.to_char(p.state_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS state_since,
       p.owner,
       extract(epoch FROM pg_catalog.clock_timestamp() - greatest(p.heartbeat_at, c.applied_at))::float8 AS heartbeat_age_seconds,
       EXISTS (
           SELECT FROM pg_catalog.pg_stat_activity a
           WHERE a.pid = p.backend_pid AND a.backend_start = p.backend_start
       ) AS session_present,
       p.healing,
       pg_catalog.to_char(p.healing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS healing_since,
       pg_catalog.to_char(s.healing_after AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS healing_after,
       s.healings,
       CASE WHEN s.stuck THEN s.stuck_error ELSE p.error END AS error,
       p.error_hint,
       s.waiting_for,
       p.slot,
       c.lsn::text AS lsn,
       pg_catalog.to_char(c.commit_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS commit_time,
       pg_catalog.to_char(c.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS applied_at,
       extract(epoch FROM pg_catalog.clock_timestamp() - c.applied_at)::float8 AS applied_age_seconds,
       c.last_commit_lsn::text AS last_commit_lsn,
       pg_catalog.to_char(c.last_commit_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_commit_time
FROM {{schema}}.pipeline p
CROSS JOIN {{checkpoint}} c
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(p) AS row) j
CROSS JOIN LATERAL (
    SELECT (j.row ->> 'stuck_lsn')::pg_lsn >= c.lsn AS stuck,
           j.row ->> 'stuck_error' AS stuck_error,
           j.row ->> 'waiting_for' AS waiting_for,
           coalesce((j.row ->> 'healings')::integer, 0) AS healings,
           -- Only while it waits.
           CASE WHEN (j.row ->> 'healing_after')::timestamptz > pg_catalog.clock_timestamp()
                THEN (j.row ->> 'healing_after')::timestamptz END AS healing_after
) s
