-- From here on each row is looked up in an index.
PERFORM pg_catalog.set_config('enable_nestloop', 'on', true),
        pg_catalog.set_config('enable_seqscan', 'off', true),
        pg_catalog.set_config('enable_indexscan', 'on', true);
