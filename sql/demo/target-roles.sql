-- What cdc needs at the target, and nothing more. Run as the owner of the tables, or as a superuser.

-- Roles belong to the whole server: another database may have created this one already, or just now.
DO $$
BEGIN
    CREATE ROLE cdc LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT USAGE ON SCHEMA public TO cdc;
GRANT SELECT, INSERT, UPDATE, DELETE ON labels_lookup TO cdc;

-- CREATE: cdc creates the schema of its bookkeeping. TEMPORARY: it stages the rows that it writes.
DO $$
BEGIN
    EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO cdc', current_database());
END
$$;
