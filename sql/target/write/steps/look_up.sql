-- From here on rows are looked up one by one in an index.
PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
        pg_catalog.set_config('enable_seqscan', 'off', true),
        pg_catalog.set_config('enable_indexscan', 'on', true);
