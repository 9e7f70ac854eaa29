-- The unique indexes that can carry the keys of lookups: immediate, valid, not partial, on plain columns. One row for
-- each column, with the operator that the index itself calls equality (strategy 3 of a btree). $1 are the tables' oids.
SELECT i.indrelid::bigint AS table_oid,
       c.relname::text AS index_name,
       i.indisprimary AS is_primary,
       a.attname::text AS column_name,
       opn.nspname::text AS operator_schema,
       op.oprname::text AS operator_name
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
CROSS JOIN pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY k (number, position)
JOIN pg_catalog.unnest(i.indclass::oid[]) WITH ORDINALITY o (opclass, position) ON o.position = k.position
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
JOIN pg_catalog.pg_opclass oc ON oc.oid = o.opclass
JOIN pg_catalog.pg_amop am ON am.amopfamily = oc.opcfamily AND am.amoplefttype = oc.opcintype
                          AND am.amoprighttype = oc.opcintype AND am.amopstrategy = 3 AND am.amoppurpose = 's'
JOIN pg_catalog.pg_operator op ON op.oid = am.amopopr
JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
WHERE i.indrelid = ANY ($1::bigint[]::oid[]) AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.position <= i.indnkeyatts
ORDER BY i.indrelid, i.indisprimary DESC, c.relname, k.position
