-- Whether a session waits in wait_for of the bookkeeping schema $1: by the advisory lock that it holds meanwhile.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.classid::bigint = (pg_catalog.hashtext('cdc wait_for')::bigint & 4294967295)
      AND l.objid::bigint = (pg_catalog.hashtext($1::text)::bigint & 4294967295)
)
