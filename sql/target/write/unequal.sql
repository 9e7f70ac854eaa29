-- Resync: how many rows of lookup and map are not as the shadow has them, rejected rows and a wrong count of the rows included; how
-- many rows are shown, and how many wait. Nothing is written.
-- The shadow's rows get the states that the map must have: of the live rows with one key the first one is shown.
-- Columns and states: the legend in sql/README.md.
WITH expected AS MATERIALIZED (
    SELECT {{?s_i}}, {{?s_p}},
           CASE WHEN s.state <> 'l' THEN s.state
                WHEN row_number() OVER (PARTITION BY s.state, {{?s_key}} ORDER BY {{?s_i}}) = 1 THEN 's'
                ELSE 'w' END AS state
    FROM {{shadow}} s
)
SELECT (SELECT count(*) FROM {{rejected}} r)
       + CASE WHEN (SELECT max(c.rows) FROM {{schema}}.counted c WHERE c.read_model = {{id}})
                   IS DISTINCT FROM (SELECT count(*) FROM expected s WHERE s.state = 's') THEN 1 ELSE 0 END
       + (SELECT count(*) FROM expected s WHERE s.state = 'x')
       + (SELECT count(*) FROM {{lookup}} l FULL JOIN (SELECT s.* FROM expected s WHERE s.state = 's') s ON {{?lookup_is_stage}}
          WHERE {{?no_lookup}} OR {{?no_wanted}} OR {{?lookup_differs}})
       + (SELECT count(*) FROM {{map}} m FULL JOIN expected s ON {{?identity_is_map}}
          WHERE m.state IS NULL OR s.state IS NULL OR {{?entry_differs}}),
       (SELECT count(*) FROM expected s WHERE s.state = 's'),
       (SELECT count(*) FROM expected s WHERE s.state = 'w')
