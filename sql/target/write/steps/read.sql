-- From here on tables are read once.
PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
        pg_catalog.set_config('enable_seqscan', 'on', true),
        pg_catalog.set_config('enable_indexscan', 'on', true);
