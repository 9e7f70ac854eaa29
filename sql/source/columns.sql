-- The columns of a source table, in order. $1 is its oid.
SELECT a.attname::text AS name,
       a.attnum AS number,
       a.atttypid AS type_oid,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
       pg_catalog.format_type(a.atttypid, -1) AS bare_type_name,
       -- From PostgreSQL 18 on a NOT NULL constraint may exist without being valid for old rows.
       (a.attnotnull AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_constraint k
           WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated
       )) OR t.typnotnull AS not_null,
       -- The storage of the column does not matter: a value that was stored out of line before stays there. A table whose rows
       -- are always short has no TOAST table, and a table that has one keeps it.
       a.attlen = -1 AND EXISTS (
           SELECT FROM pg_catalog.pg_class c
           WHERE (c.oid = a.attrelid OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(a.attrelid) p))
             AND c.reltoastrelid <> 0
       ) AS toastable,
       a.attgenerated <> '' AS generated,
       t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AS builtin,
       t.typcollation <> 0 AS collatable,
       -- Domains may lie over domains.
       EXISTS (
           WITH RECURSIVE base (oid, typtype, typbasetype) AS (
               SELECT t.oid, t.typtype, t.typbasetype
               UNION ALL
               SELECT u.oid, u.typtype, u.typbasetype
               FROM base b JOIN pg_catalog.pg_type u ON b.typtype = 'd' AND u.oid = b.typbasetype
           ) SELECT FROM base WHERE base.oid = 'pg_catalog.bool'::pg_catalog.regtype
       ) AS boolean
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
