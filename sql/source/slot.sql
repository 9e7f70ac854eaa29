-- A replication slot. $1 is its name. Columns that only newer versions have are read by name from the row.
SELECT s.slot_name::text AS name,
       s.plugin::text AS plugin,
       s.database::text AS database_name,
       s.active_pid,
       s.restart_lsn::text AS restart_lsn,
       s.confirmed_flush_lsn::text AS confirmed_flush_lsn,
       s.wal_status,
       s.safe_wal_size AS safe_wal_bytes,
       coalesce(r.row ->> 'invalidation_reason',
                CASE WHEN r.row ->> 'conflicting' = 'true' THEN 'conflict with recovery' END) AS invalidation_reason,
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_flush_lsn() END,
           s.restart_lsn)::bigint AS held_bytes
FROM pg_catalog.pg_replication_slots s
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(s)) r (row)
WHERE s.slot_name = $1::text
