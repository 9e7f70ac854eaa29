EXISTS (
    SELECT FROM pg_catalog.pg_index x
    WHERE x.indexrelid = pg_catalog.to_regclass({{map_key_name}}) AND x.indisvalid
      AND (NOT x.indcheckxmin OR pg_catalog.age(x.xmin) > (
           SELECT pg_catalog.age(a.backend_xmin) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a)))
