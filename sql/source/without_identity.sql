-- The tables that a publication publishes, followed or not, whose UPDATE and DELETE fail because of that; for a partitioned table its
-- leaves. $1 is the name of the publication. "unique_index" is an index that can become the replica identity.
SELECT DISTINCT n.nspname::text AS schema_name,
       c.relname::text AS table_name,
       c.relreplident::text AS replica_identity,
       EXISTS (
           SELECT FROM pg_catalog.pg_index i
           WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate
       ) AS has_primary_key,
       EXISTS (
           SELECT FROM pg_catalog.pg_index i
           WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate
       ) AS deferrable_primary_key,
       (SELECT x.relname::text
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
          AND i.indpred IS NULL AND i.indexprs IS NULL
          AND NOT EXISTS (
              SELECT FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY k (number, position)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
              WHERE k.position <= i.indnkeyatts AND NOT a.attnotnull)
        ORDER BY x.relname LIMIT 1) AS unique_index
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_namespace pn ON pn.nspname = t.schemaname
JOIN pg_catalog.pg_class p ON p.relnamespace = pn.oid AND p.relname = t.tablename
CROSS JOIN LATERAL (
    SELECT p.oid WHERE p.relkind <> 'p'
    UNION ALL
    SELECT l.relid::oid FROM pg_catalog.pg_partition_tree(p.oid) l WHERE p.relkind = 'p' AND l.isleaf
) m (oid)
JOIN pg_catalog.pg_class c ON c.oid = m.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.pubname = $1::text
  AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_index i
      WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
ORDER BY 1, 2
