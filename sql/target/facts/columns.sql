-- The columns of lookup tables, in order. $1 are their oids. Type names are qualified unless the type is built in,
-- provided that the session's search_path is empty. For a domain, type_name is its base type: a row that waits
-- or is dead may have no value where the domain demands one.
SELECT a.attrelid::bigint AS table_oid,
       a.attname::text AS name,
       a.atttypid::bigint AS type_oid,
       base.type_name,
       base.bare_type_name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS declared_type_name,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> 'pg_catalog."default"'::pg_catalog.regcollation
            THEN cn.nspname::text END AS collation_schema,
       co.collname::text AS collation_name,
       t.typcollation <> 0 AS collatable,
       a.attnotnull OR base.not_null AS not_null,
       a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
       a.attgenerated <> '' OR a.attidentity = 'a' AS generated
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
-- Domains may lie over domains.
CROSS JOIN LATERAL (
    WITH RECURSIVE layer (oid, typmod, typtype, below, below_typmod, not_null) AS (
        SELECT t.oid, a.atttypmod, t.typtype, t.typbasetype, t.typtypmod, t.typnotnull
        UNION ALL
        SELECT u.oid, l.below_typmod, u.typtype, u.typbasetype, u.typtypmod, l.not_null OR u.typnotnull
        FROM layer l JOIN pg_catalog.pg_type u ON l.typtype = 'd' AND u.oid = l.below
    ) SELECT pg_catalog.format_type(l.oid, l.typmod) AS type_name,
             pg_catalog.format_type(l.oid, -1) AS bare_type_name,
             l.not_null
      FROM layer l WHERE l.typtype <> 'd'
) base
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = ANY ($1::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
