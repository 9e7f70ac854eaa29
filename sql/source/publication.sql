-- A publication. $1 is its name.
SELECT p.oid,
       p.pubname::text AS name,
       p.puballtables AS all_tables,
       p.pubinsert AS publishes_insert,
       p.pubupdate AS publishes_update,
       p.pubdelete AS publishes_delete,
       p.pubtruncate AS publishes_truncate,
       p.pubviaroot AS via_root,
       pg_catalog.obj_description(p.oid, 'pg_publication') AS comment,
       pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS owned
FROM pg_catalog.pg_publication p
WHERE p.pubname = $1::text
