-- Before an empty map is filled from a large shadow: its primary key is made once it is full, which takes less than half of
-- the time, and the index by key only if it is needed. Not if somebody has the map locked, as a dump has for hours: all read models
-- would wait for that.
DO $cdc$
BEGIN
    IF EXISTS (SELECT FROM {{map}}) OR pg_catalog.pg_relation_size({{shadow_name}}) < {{least_bytes}} THEN
        RETURN;
    END IF;
    LOCK TABLE {{map}} IN ACCESS EXCLUSIVE MODE NOWAIT;
    ALTER TABLE {{map}} DROP CONSTRAINT {{map_table}}_pkey;
    DROP INDEX IF EXISTS {{schema}}.{{map_table}}_key;
EXCEPTION WHEN lock_not_available OR undefined_object OR insufficient_privilege THEN
    NULL;
END
$cdc$
