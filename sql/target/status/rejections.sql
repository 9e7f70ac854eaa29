-- Rejected rows, for `cdc status`: how many of each read model, and the first ones.
SELECT x.name, x.rows, x.identity, x.key, x.shown, x.sqlstate, x.constraint_name, x.column_name, x.lsn, x.refused_at
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
           pg_catalog.to_char(r.refused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS refused_at
    FROM {{schema}}.rejection r JOIN {{schema}}.read_model m ON m.id = r.read_model
) x
WHERE x.n <= 10
ORDER BY x.name, x.n
