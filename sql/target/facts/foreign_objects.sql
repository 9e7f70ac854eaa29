-- What `cdc teardown` must not drop: relations in the bookkeeping's schema that cdc did not create, and views
-- elsewhere that read it. $1 is the schema.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND c.relname NOT IN ('version', 'checkpoint', 'counted', 'pipeline', 'read_model', 'resync', 'shadow', 'discarded', 'freshness',
                        'rejection', 'rejected')
  AND c.relname !~ '^(map|shadow|rejected)_'
UNION
SELECT pg_catalog.format('%I.%I', vn.nspname, v.relname)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND n.nspname = $1::text AND vn.nspname <> $1::text
ORDER BY 1
