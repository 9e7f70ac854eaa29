-- The end of bookkeeping.sql, when its views read the new places.
ALTER TABLE {{schema}}.pipeline DROP COLUMN IF EXISTS lsn, DROP COLUMN IF EXISTS commit_time, DROP COLUMN IF EXISTS last_commit_lsn,
    DROP COLUMN IF EXISTS last_commit_xid, DROP COLUMN IF EXISTS last_commit_time, DROP COLUMN IF EXISTS applied_at;
-- The same for the read models.
ALTER TABLE {{schema}}.read_model DROP COLUMN IF EXISTS rows, DROP COLUMN IF EXISTS last_change_at;

-- The owner of the database may dump it: everything that exists now, and everything that is created later.
DO $cdc$
DECLARE
    _owner text := {{?database_owner}};
    _name text;
BEGIN
    FOR _name IN
        SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = {{schema_name}} AND c.relkind IN ('r', 'v', 'S')
          AND c.relowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
    LOOP
        EXECUTE pg_catalog.format('GRANT SELECT ON %I.%I TO %I', {{schema_name}}, _name, _owner);
    END LOOP;
    EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', {{schema_name}}, _owner);
    EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON SEQUENCES TO %I', {{schema_name}}, _owner);
END
$cdc$;
-- The schema is up to date.
UPDATE {{schema}}.version SET version = 6 WHERE version < 6;
