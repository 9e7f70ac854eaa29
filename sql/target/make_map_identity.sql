-- Makes the primary key of the map, unless it has one.
DO $cdc$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_index x
                   WHERE x.indrelid = {{map_name}}::pg_catalog.regclass AND x.indisprimary) THEN
        ALTER TABLE {{map}} ADD CONSTRAINT {{map_table}}_pkey PRIMARY KEY ({{i}});
    END IF;
END
$cdc$
