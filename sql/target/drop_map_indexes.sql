-- Before an empty map is filled from a large shadow: its primary key is made once it is full, which takes less than half of
-- the time, and the index by key only if it is needed. Not if somebody reads the map for longer than a moment: nothing waits for that.
DO $cdc$
DECLARE
    _before text := pg_catalog.current_setting('lock_timeout');
BEGIN
    IF EXISTS (SELECT FROM {{map}}) OR pg_catalog.pg_relation_size({{shadow_name}}) < {{least_bytes}} THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM pg_catalog.set_config('lock_timeout', '500ms', true);
        ALTER TABLE {{map}} DROP CONSTRAINT map_{{id}}_pkey;
        DROP INDEX IF EXISTS {{schema}}.map_{{id}}_key;
    EXCEPTION WHEN lock_not_available OR undefined_object OR insufficient_privilege THEN
        NULL;
    END;
    PERFORM pg_catalog.set_config('lock_timeout', _before, true);
END
$cdc$
