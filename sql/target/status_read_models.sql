-- The read models for `cdc status`.
SELECT m.name,
       m.source,
       m.state,
       pg_catalog.to_char(m.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS since,
       m.reason,
       m.hint,
       m.rows,
       m.copy_rows,
       m.copy_estimate,
       m.copy_bytes,
       m.copy_seconds,
       pg_catalog.to_char(m.last_change_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_change_at,
       pg_catalog.to_char(m.last_resync_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_resync_at,
       m.last_resync_repaired,
       m.waiting,
       -- An earlier version of the bookkeeping has no such columns.
       pg_catalog.to_char((pg_catalog.to_jsonb(m) ->> 'compared_at')::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           AS compared_at,
       (pg_catalog.to_jsonb(m) ->> 'differing')::bigint AS differing
FROM {{schema}}.read_model m
ORDER BY m.id
