-- The tables that a publication publishes. $1 is its name. Column lists and row filters exist from 15 on. They are
-- read by name from the rows, so that one statement works on all versions. Without a list "columns" is NULL, although
-- pg_publication_tables then names all columns: only the list of the table or of a partitioned ancestor counts.
SELECT t.schemaname::text AS schema_name,
       t.tablename::text AS table_name,
       CASE WHEN EXISTS (
           SELECT FROM pg_catalog.pg_publication_rel r
           CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(r)) j (row)
           WHERE r.prpubid = p.oid AND j.row ->> 'prattrs' IS NOT NULL
             AND (r.prrelid = c.oid OR r.prrelid IN (
                 SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) a (relid)))
       ) THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text(v.row -> 'attnames')) END AS columns,
       v.row ->> 'rowfilter' AS row_filter
FROM pg_catalog.pg_publication_tables t
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(t)) v (row)
JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = $1::text
ORDER BY 1, 2
