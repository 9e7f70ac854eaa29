-- The columns of a lookup table, in order. $1 is its oid. Type names come qualified where the type is not built
-- in, provided that the session's search_path is empty.
SELECT a.attname::text AS name,
       a.atttypid::bigint AS type_oid,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
       pg_catalog.format_type(a.atttypid, -1) AS bare_type_name,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> 'pg_catalog."default"'::pg_catalog.regcollation
            THEN cn.nspname::text END AS collation_schema,
       co.collname::text AS collation_name,
       t.typcollation <> 0 AS collatable,
       a.attnotnull OR t.typnotnull AS not_null,
       a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
       a.attgenerated <> '' OR a.attidentity = 'a' AS generated
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
