-- Creates the primary key of the map, unless it has one. A map is created without a key. If it is filled from a small shadow, it gets the
-- key before that. If it is filled from a large one, it gets the key afterwards, which takes less than half of the time. No index is ever
-- dropped: a dump whose snapshot is older than the drop would fail.
--
-- If another session has locked the map, as a dump does for hours, the map gets the index alone, and the constraint with a later copy.
-- Columns and states: the legend in sql/README.md.
DO $cdc$
DECLARE
    _primary boolean := (SELECT bool_or(x.indisprimary) FROM pg_catalog.pg_index x
                         WHERE x.indrelid = '"cdc".map_1'::pg_catalog.regclass AND x.indisunique);
BEGIN
    IF _primary OR NOT pg_catalog.pg_relation_size('"cdc".shadow_1_1') < 1048576 THEN
        RETURN;
    END IF;
    IF _primary IS NULL THEN
        CREATE UNIQUE INDEX map_1_pkey ON "cdc".map_1 (i1);
    END IF;
    BEGIN
        LOCK TABLE "cdc".map_1 IN ACCESS EXCLUSIVE MODE NOWAIT;
        ALTER TABLE "cdc".map_1 ADD CONSTRAINT map_1_pkey PRIMARY KEY USING INDEX map_1_pkey;
        ALTER TABLE "cdc".map_1 REPLICA IDENTITY DEFAULT;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;
END
$cdc$
