-- From here on tables are hashed; of map and lookup only rows that were looked up before take part.
PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
        pg_catalog.set_config('enable_seqscan', 'on', true),
        pg_catalog.set_config('enable_indexscan', 'off', true);
