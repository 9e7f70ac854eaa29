-- The map's index by key. Look for it first: CREATE INDEX IF NOT EXISTS locks the map against autovacuum even if the index exists. The
-- index leaves out dead rows: no query needs their keys, and these may be too large for an index.
IF pg_catalog.to_regclass({{map_key_name}}) IS NULL THEN
    CREATE INDEX {{map_table}}_key ON {{map}} ({{?k}}) WHERE state <> 'd';
END IF;
