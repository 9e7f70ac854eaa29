-- The leaves of a partitioned table, each with its own replica identity. $1 is the oid of the root.
SELECT n.nspname::text AS schema_name,
       c.relname::text AS table_name,
       c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       c.relreplident::text AS replica_identity,
       EXISTS (
           SELECT FROM pg_catalog.pg_index i
           WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid
       ) AS has_primary_key,
       coalesce((
           SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.position)
           FROM pg_catalog.pg_index i
           CROSS JOIN pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY k (number, position)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
           WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.position <= i.indnkeyatts
             AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
       ), '{}') AS identity_columns
FROM pg_catalog.pg_partition_tree($1::oid) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.isleaf
ORDER BY 1, 2
