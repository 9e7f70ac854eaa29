-- The columns of tables, to prove what a Relation message means. $1 is the publication, $2 are the tables (quoted names).
--
-- streamed  whether a Relation message has to name the column: it is in the publication's column list, if there is one (from 15 on, so
--           it is read by name from the row), and it is not generated, which from 18 on may be published too
-- parts     before 15, of a partitioned table: oids of its partitions, since a walsender does not forget under which name a leaf's
--           changes come, even after the leaf was detached
SELECT w.name,
       c.oid,
       pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) AS names,
       pg_catalog.array_agg(a.attnum ORDER BY a.attnum) AS numbers,
       pg_catalog.array_agg(a.atttypid ORDER BY a.attnum) AS types,
       pg_catalog.array_agg(a.attgenerated = '' AND coalesce(l.list @> pg_catalog.to_jsonb(a.attnum), true) ORDER BY a.attnum)
           AS streamed,
       CASE WHEN c.relkind = 'p' AND pg_catalog.current_setting('server_version_num')::integer < 150000 THEN (
           WITH RECURSIVE below AS (
               SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid
               UNION ALL
               SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON b.oid = i.inhparent
           )
           SELECT coalesce(pg_catalog.array_agg(b.oid), '{}') FROM below b
       ) END AS parts
FROM pg_catalog.unnest($2::text[]) w (name)
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN LATERAL (
    SELECT pg_catalog.to_jsonb(r) -> 'prattrs' AS list
    FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = $1::text AND r.prrelid = c.oid
) l ON pg_catalog.jsonb_typeof(l.list) = 'array'
GROUP BY w.name, c.oid, c.relkind
