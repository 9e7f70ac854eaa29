-- Rejected rows, for `cdc status`: how many of each read model, and the first ones. The columns are read by
-- position, since an earlier version of the bookkeeping has another name for the last one.
SELECT x.name, x.rows, x.identity, x.key, x.shown, x.sqlstate, x.constraint_name, x.column_name, x.lsn, x.rejected_at
FROM (
    SELECT m.name,
           count(*) OVER (PARTITION BY r.read_model) AS rows,
           row_number() OVER (PARTITION BY r.read_model ORDER BY r.n) AS n,
           r.identity,
           r.key,
           r.shown,
           r.sqlstate,
           r.constraint_name,
           r.column_name,
           r.lsn::text AS lsn,
           pg_catalog.to_char(r.rejected_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS rejected_at
    FROM {{schema}}.rejection r (read_model, n, identity, key, shown, sqlstate, constraint_name, column_name, lsn, rejected_at)
    JOIN {{schema}}.read_model m ON m.id = r.read_model
) x
WHERE x.n <= 10
ORDER BY x.name, x.n
