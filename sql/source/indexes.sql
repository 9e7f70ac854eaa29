-- The unique indexes of a source table. $1 is its oid. "columns" is NULL where an expression is indexed.
SELECT c.relname::text AS name,
       i.indisprimary AS is_primary,
       i.indimmediate AS is_immediate,
       i.indisreplident AS is_identity,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
       CASE WHEN i.indexprs IS NULL THEN (
           SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.position)
           FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY k (number, position)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
           WHERE k.position <= i.indnkeyatts
       ) END AS columns
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid
ORDER BY i.indisprimary DESC, c.relname
