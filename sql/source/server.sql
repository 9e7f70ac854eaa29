-- What `cdc check` asks about the source server and its own role. One row.
SELECT pg_catalog.current_setting('server_version_num')::bigint AS version,
       pg_catalog.current_setting('server_version') AS version_text,
       pg_catalog.current_setting('wal_level') AS wal_level,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       current_user::text AS user_name,
       pg_catalog.current_database()::text AS database_name,
       -- RDS has a role in place of the attribute.
       r.rolsuper OR r.rolreplication OR EXISTS (
           SELECT FROM pg_catalog.pg_roles g
           WHERE g.rolname = 'rds_replication' AND pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER')
       ) AS may_replicate,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots) AS slots,
       pg_catalog.current_setting('max_replication_slots')::bigint AS max_slots,
       -- Every role may count the rows of this view; only its details need privileges.
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication) AS wal_senders,
       pg_catalog.current_setting('max_wal_senders')::bigint AS max_wal_senders,
       (SELECT s.setting::bigint FROM pg_catalog.pg_settings s WHERE s.name = 'max_slot_wal_keep_size')
           AS max_slot_wal_keep_size_mb,
       -- PostgreSQL 18; in seconds, 0 is off.
       (SELECT s.setting::bigint FROM pg_catalog.pg_settings s WHERE s.name = 'idle_replication_slot_timeout')
           AS idle_slot_timeout_seconds,
       -- Slot creation waits for every transaction of the cluster that has written.
       (SELECT pg_catalog.floor(extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(a.xact_start)))::bigint
        FROM pg_catalog.pg_stat_activity a
        WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()) AS oldest_write_seconds,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts) AS prepared_transactions,
       pg_catalog.current_setting('synchronous_standby_names') AS synchronous_standby_names,
       ARRAY(SELECT s.slot_name::text FROM pg_catalog.pg_replication_slots s
             WHERE s.slot_type = 'physical' AND NOT s.temporary ORDER BY s.slot_name) AS standby_slots,
       ARRAY(SELECT s.active FROM pg_catalog.pg_replication_slots s
             WHERE s.slot_type = 'physical' AND NOT s.temporary ORDER BY s.slot_name) AS standby_slots_used,
       -- PostgreSQL 17.
       (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'synchronized_standby_slots') AS synchronized_standby_slots,
       pg_catalog.current_setting('server_encoding') AS encoding
FROM pg_catalog.pg_roles r
WHERE r.rolname = current_user
