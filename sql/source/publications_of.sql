-- The names of all publications that publish a table, its leaves or its root: any of them can break its writes.
-- $1 is its oid.
SELECT DISTINCT p.pubname::text AS name
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_tables t ON t.pubname = p.pubname
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE c.oid = $1
   OR c.oid IN (SELECT l.relid::oid FROM pg_catalog.pg_partition_tree($1::oid) l)
ORDER BY 1
