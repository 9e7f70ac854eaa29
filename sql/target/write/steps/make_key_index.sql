-- The map's index by key. It is looked for first: to make it locks the map against autovacuum, also where it is there. Nobody asks
-- for the keys of dead rows, which may be too large for an index.
IF pg_catalog.to_regclass({{map_key_name}}) IS NULL THEN
    CREATE INDEX {{map_table}}_key ON {{map}} ({{?k}}) WHERE state <> 'd';
END IF;
