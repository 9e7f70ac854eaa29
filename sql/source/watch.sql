-- The watch: what the stream does not tell. $1 is the publication, $2 are the tables (quoted names).
--
-- publication  oid, options and the version of its row: another oid means that it was made again, another version that it was
--              altered, though perhaps back again
-- membership   oids of the publication's entries for the table: others mean that it was taken out and put back
-- storage      file of the table or of each leaf: another one means TRUNCATE, a rewrite, ATTACH or DETACH
SELECT w.name,
       c.oid,
       (SELECT p.oid FROM pg_catalog.pg_publication p WHERE p.pubname = $1::text) AS publication_oid,
       (SELECT pg_catalog.concat_ws(' ', p.xmin, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot)
        FROM pg_catalog.pg_publication p WHERE p.pubname = $1::text) AS publication_options,
       (SELECT pg_catalog.string_agg(r.oid::text, ' ' ORDER BY r.oid)
        FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
        WHERE p.pubname = $1::text AND (r.prrelid = c.oid OR r.prrelid IN (
            SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(c.oid) t (relid)))) AS membership,
       (SELECT pg_catalog.string_agg(pg_catalog.concat(l.relid, ':', pg_catalog.pg_relation_filenode(l.relid)), ' ' ORDER BY l.relid)
        FROM (SELECT c.oid AS relid UNION
              SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(c.oid) t (relid)) l) AS storage
FROM pg_catalog.unnest($2::text[]) w (name)
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)
