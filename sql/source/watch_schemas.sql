-- The watch, for publications of whole schemas, which exist from 15 on. $1 is the publication, $2 are the tables (quoted names).
--
-- entry    oid of the publication's entry for the table's schema: another one means that it was removed and added again
-- version  version of the table's catalog row: another one may mean that it was in another schema in between
SELECT w.name,
       e.oid::text AS entry,
       c.xmin::text AS version
FROM pg_catalog.unnest($2::text[]) w (name)
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)
JOIN pg_catalog.pg_publication_namespace e ON e.pnnspid = c.relnamespace
JOIN pg_catalog.pg_publication p ON p.oid = e.pnpubid
WHERE p.pubname = $1::text
