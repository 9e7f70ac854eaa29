-- What `cdc check` asks about the target server and its own role. $1 is the schema of the bookkeeping. One row.
SELECT pg_catalog.current_setting('server_version_num')::bigint AS version,
       pg_catalog.current_setting('server_version') AS version_text,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       current_user::text AS user_name,
       pg_catalog.current_database()::text AS database_name,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY') AS may_use_temporary,
       pg_catalog.current_setting('server_encoding') AS encoding,
       n.oid IS NOT NULL AS bookkeeping_exists,
       coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                AND pg_catalog.has_schema_privilege(n.oid, 'CREATE'), true) AS bookkeeping_usable
FROM (SELECT) one
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1::text
