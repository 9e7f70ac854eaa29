-- A source table as a whole. $1 schema, $2 table; no row if there is none.
SELECT c.oid,
       c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       c.relreplident::text AS replica_identity,
       EXISTS (
           SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid
           WHERE i.inhparent = c.oid AND NOT k.relispartition AND k.relkind <> 'I'
       ) AND c.relkind <> 'p' AS has_inheritance_children,
       c.relispartition AS is_partition,
       pg_catalog.row_security_active(c.oid) AS row_security_applies,
       pg_catalog.has_table_privilege(c.oid, 'SELECT')
           AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_select,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
       CASE WHEN c.relkind = 'p' THEN (
           SELECT CASE WHEN pg_catalog.max(l.reltuples) >= 0
                       THEN pg_catalog.sum(pg_catalog.float8(greatest(l.reltuples, 0::real))) ELSE -1::float8 END
           FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class l ON l.oid = t.relid
           WHERE t.isleaf
       ) ELSE pg_catalog.float8(c.reltuples) END AS estimated_rows
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = $2::text
