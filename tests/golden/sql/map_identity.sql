-- Makes the primary key of the map, unless it has one. A map is made without: before it is filled from a small shadow it gets the key
-- at once, from a large one when it is full, which takes less than half of the time. No index is ever dropped, since a dump fails
-- whose snapshot is older than that.
--
-- Where somebody has the map locked, as a dump has for hours, it gets the index alone, and the constraint with a later copy.
-- Columns and states: the legend in sql/README.md.
DO $cdc$
DECLARE
    _primary boolean := (SELECT bool_or(x.indisprimary) FROM pg_catalog.pg_index x
                         WHERE x.indrelid = '"cdc".map_1'::pg_catalog.regclass AND x.indisunique);
BEGIN
    IF _primary OR NOT true THEN
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
