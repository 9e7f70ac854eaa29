-- The partitioned tables that a table is a partition of, the nearest first. $1 is its oid.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS table_name
FROM pg_catalog.pg_partition_ancestors($1::oid) WITH ORDINALITY a (relid, distance)
JOIN pg_catalog.pg_class c ON c.oid = a.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid <> $1::oid
ORDER BY a.distance
