-- The watch at the target: oid, persistence, columns and unique indexes of each lookup as text. $1 are the quoted names.
SELECT coalesce(pg_catalog.concat_ws(' ', c.oid, c.relpersistence,
           (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull), ' '
                                         ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', i.indkey, i.indpred IS NULL, i.indimmediate), ' ' ORDER BY i.indexrelid)
            FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid)), '')
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY w (name, n)
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)
ORDER BY w.n
