-- What cdc needs at the source, and nothing more. Run as the owner of the table, or as a superuser.

-- Roles belong to the whole server: another database may have created this one already, or just now.
-- On Amazon RDS: CREATE ROLE cdc LOGIN; GRANT rds_replication TO cdc;
DO $$
BEGIN
    CREATE ROLE cdc LOGIN REPLICATION;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT USAGE ON SCHEMA public TO cdc;
GRANT SELECT ON labels TO cdc;

-- Created here, so that cdc needs neither the table's ownership nor CREATE on the database. Whole rows and no
-- row filter: either would make the application's own UPDATE and DELETE fail.
CREATE PUBLICATION cdc FOR TABLE labels;
