-- The target's clock, and when the last scheduled or requested resync of everything began; the first copy counts. Both in
-- microseconds since 1970.
SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS now,
       (extract(epoch FROM max(r.started_at)) * 1000000)::bigint AS last_full_resync
FROM {{schema}}.resync r
WHERE r.lsn IS NOT NULL AND r.read_models IS NULL AND NOT r.dry_run AND r.origin <> 'watch'
