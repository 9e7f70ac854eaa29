-- What the text of values depends on besides the values. The stream has none of it. $1 are the tables (quoted names).
--
-- One row for each column of a type that is not built in, and for the types that this type consists of: the base of a domain, the elements
-- of an array, the attributes of a composite type, the bounds of a range. "entry" says
--
-- label       a label of an enum, which may be renamed in place, with the version of its row: it may have been renamed and renamed back
-- attributes  numbers and types of a composite type's attributes: one more, or one less, changes the text of every value
-- output      the function that writes the text, and the version of the extension that it belongs to
WITH RECURSIVE parts AS (
    SELECT w.name, a.attname::text AS column_name, a.atttypid AS type
    FROM pg_catalog.unnest($1::text[]) w (name)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = pg_catalog.to_regclass(w.name)
    -- Types that initdb has created have lower numbers (FirstNormalObjectId, transam.h).
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
    UNION
    SELECT p.name, p.column_name, n.type
    FROM parts p
    JOIN pg_catalog.pg_type t ON t.oid = p.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem
        UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        -- Multiranges exist from 14 on.
        SELECT r.rngsubtype FROM pg_catalog.pg_range r
        WHERE t.oid IN (r.rngtypid, (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid)
    ) n (type)
    WHERE n.type >= 16384
)
SELECT p.name, p.column_name, pg_catalog.md5(e.entry) AS entry
FROM parts p
JOIN pg_catalog.pg_type t ON t.oid = p.type
CROSS JOIN LATERAL (
    SELECT pg_catalog.concat_ws(' ', 'label', e.oid, e.xmin, e.enumlabel) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid
    UNION ALL
    SELECT pg_catalog.concat_ws(' ', 'attributes', t.oid,
               pg_catalog.string_agg(pg_catalog.concat(a.attnum, ':', a.atttypid), ' ' ORDER BY a.attnum))
    FROM pg_catalog.pg_attribute a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    HAVING t.typtype = 'c'
    UNION ALL
    SELECT pg_catalog.concat_ws(' ', 'output', t.oid, f.oid, f.prosrc, f.probin, x.extversion)
    FROM pg_catalog.pg_proc f
    LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
    LEFT JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
    WHERE f.oid = t.typoutput AND f.oid >= 16384
) e (entry)
ORDER BY 1, 2, 3
