-- The newest resyncs for `cdc status`, newest first.
SELECT r.id,
       coalesce(r.read_models, '{}') AS read_models,
       r.dry_run,
       r.origin,
       r.state,
       pg_catalog.to_char(r.requested_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS requested_at,
       pg_catalog.to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS started_at,
       pg_catalog.to_char(r.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS finished_at,
       r.waiting_for,
       r.lsn::text AS lsn,
       r.result::text AS result,
       r.error
FROM {{schema}}.resync r
ORDER BY r.id DESC
LIMIT 10
