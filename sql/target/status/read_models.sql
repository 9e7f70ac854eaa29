-- The read models for `cdc status`. Columns that an earlier version of the bookkeeping lacks are read from the row as JSON.
SELECT m.name,
       m.source,
       m.state,
       pg_catalog.to_char(m.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS since,
       m.reason,
       m.hint,
       n.rows,
       m.copy_rows,
       m.copy_estimate,
       (j.row ->> 'copy_bytes')::bigint AS copy_bytes,
       (j.row ->> 'copy_seconds')::float8 AS copy_seconds,
       pg_catalog.to_char(n.last_change_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_change_at,
       pg_catalog.to_char(m.last_resync_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_resync_at,
       m.last_resync_repaired,
       (j.row ->> 'waiting')::bigint AS waiting,
       pg_catalog.to_char((j.row ->> 'compared_at')::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           AS compared_at,
       (j.row ->> 'differing')::bigint AS differing
FROM {{schema}}.read_model m
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(m) AS row) j
LEFT JOIN {{counted}} n ON n.read_model = m.id
ORDER BY m.id
