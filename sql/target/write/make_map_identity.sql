-- Creates the primary key of the map, unless it has one. A map is created without a key. If it is filled from a small shadow, it gets the
-- key before that. If it is filled from a large one, it gets the key afterwards, which takes less than half of the time. No index is ever
-- dropped: a dump whose snapshot is older than the drop would fail.
--
-- If another session has locked the map, as a dump does for hours, the map gets the index alone, and the constraint with a later copy.
-- Columns and states: the legend in sql/README.md.
DO $cdc$
DECLARE
    _primary boolean := (SELECT bool_or(x.indisprimary) FROM pg_catalog.pg_index x
                         WHERE x.indrelid = {{map_name}}::pg_catalog.regclass AND x.indisunique);
BEGIN
    IF _primary OR NOT {{?now}} THEN
        RETURN;
    END IF;
    IF _primary IS NULL THEN
        CREATE UNIQUE INDEX {{map_table}}_pkey ON {{map}} ({{?i}});
    END IF;
    BEGIN
        LOCK TABLE {{map}} IN ACCESS EXCLUSIVE MODE NOWAIT;
        ALTER TABLE {{map}} ADD CONSTRAINT {{map_table}}_pkey PRIMARY KEY USING INDEX {{map_table}}_pkey;
        ALTER TABLE {{map}} REPLICA IDENTITY DEFAULT;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;
END
$cdc$
