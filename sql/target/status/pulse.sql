-- What other sessions have left at the target for the running process $1 (its epoch): read once a second.
SELECT EXISTS (
           -- A session waits in wait_for: it holds this advisory lock while it waits.
           SELECT FROM pg_catalog.pg_locks l
           JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
           WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
             AND l.classid::bigint = (pg_catalog.hashtext('cdc wait_for')::bigint & 4294967295)
             AND l.objid::bigint = (pg_catalog.hashtext({{schema_name}})::bigint & 4294967295)
       ) AS waits,
       EXISTS (
           SELECT FROM {{schema}}.resync r
           WHERE r.state = 'queued' OR r.state = 'running' AND r.epoch IS DISTINCT FROM $1
       ) AS asked,
       EXISTS (SELECT FROM {{schema}}.read_model m WHERE m.state <> 'in_step') AS not_in_step
