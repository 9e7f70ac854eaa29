-- Resync: how many rows of lookup and map are not as the shadow has them, rejected rows and a wrong count of the rows included; how
-- many rows are shown, and how many wait. Nothing is written.
-- The shadow's rows get the states that the map must have: of the live rows with one key the first one is shown.
-- Columns and states: the legend in sql/README.md.
WITH expected AS MATERIALIZED (
    SELECT s.i1, s.p1, s.p2, s.p3,
           CASE WHEN s.state <> 'l' THEN s.state
                WHEN row_number() OVER (PARTITION BY s.state, s.p1 ORDER BY s.i1) = 1 THEN 's'
                ELSE 'w' END AS state
    FROM "cdc".shadow_1_1 s
)
SELECT (SELECT count(*) FROM "cdc".rejected_1 r)
       + CASE WHEN (SELECT max(c.rows) FROM "cdc".counted c WHERE c.read_model = 1)
                   IS DISTINCT FROM (SELECT count(*) FROM expected s WHERE s.state = 's') THEN 1 ELSE 0 END
       + (SELECT count(*) FROM expected s WHERE s.state = 'x')
       + (SELECT count(*) FROM "public"."labels_lookup" l FULL JOIN (SELECT s.* FROM expected s WHERE s.state = 's') s ON l."code" OPERATOR(pg_catalog.=) s.p1
          WHERE l.tableoid IS NULL OR s.p1 IS NULL OR ROW(l."code", l."label", l."display_name")::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record)
       + (SELECT count(*) FROM "cdc".map_1 m FULL JOIN expected s ON s.i1 = m.i1
          WHERE m.state IS NULL OR s.state IS NULL OR (m.state <> s.state OR ROW(m.i1, m.k1)::record OPERATOR(pg_catalog.*<>) ROW(s.i1, s.p1)::record OR (s.state <> 's' AND ROW(m.v1, m.v2, m.v3)::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record))),
       (SELECT count(*) FROM expected s WHERE s.state = 's'),
       (SELECT count(*) FROM expected s WHERE s.state = 'w')
