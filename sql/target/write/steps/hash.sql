-- From here on tables are hashed; of map and lookup only the rows that were looked up before.
PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
        pg_catalog.set_config('enable_seqscan', 'on', true),
        pg_catalog.set_config('enable_indexscan', 'off', true);
