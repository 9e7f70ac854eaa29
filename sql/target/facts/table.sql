-- Lookup tables as a whole. $1 schemas, $2 names; no row for a table that does not exist.
SELECT w.place,
       c.oid::bigint AS oid,
       c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       c.relhassubclass AS has_parts,
       -- Triggers that fire on INSERT (4) or UPDATE (16) and rules: they may change what is written.
       ARRAY(
           SELECT 'trigger ' || pg_catalog.quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
           WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & 20 <> 0
           UNION ALL
           SELECT 'rule ' || pg_catalog.quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
           WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled IN ('O', 'A')
           ORDER BY 1
       ) AS triggers,
       ARRAY(
           SELECT fn.nspname::text FROM pg_catalog.pg_constraint f
           JOIN pg_catalog.pg_class fc ON fc.oid = f.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
           WHERE f.contype = 'f' AND f.confrelid = c.oid AND f.conparentid = 0 ORDER BY f.oid
       ) AS referencing_schemas,
       ARRAY(
           SELECT fc.relname::text FROM pg_catalog.pg_constraint f
           JOIN pg_catalog.pg_class fc ON fc.oid = f.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
           WHERE f.contype = 'f' AND f.confrelid = c.oid AND f.conparentid = 0 ORDER BY f.oid
       ) AS referencing_tables,
       pg_catalog.row_security_active(c.oid) AS row_security_applies,
       ARRAY(
           SELECT p FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY u (p, position)
           WHERE NOT pg_catalog.has_table_privilege(c.oid, p) ORDER BY u.position
       ) || CASE WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN '{}'::text[]
                 ELSE ARRAY['USAGE'] END AS missing_privileges
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w (schema, name, place)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
