-- Dry run: what a resync would change in the lookup, with the first 20 keys of each kind, and what the lookup does not take.
-- Nothing is written. Keys of rejected rows are left out of the differences, also of rows that a type of the lookup rejects.
-- The differences are materialized once, on disk if there are many; usually there are none.
-- Columns and states: the legend in sql/README.md.
WITH wanted AS (
    SELECT DISTINCT ON (s.p1) s.p1, s.p2, s.p3 FROM "cdc".shadow_1_1 s WHERE s.state = 'l' ORDER BY s.p1, s.i1
), rejected_keys AS (
    SELECT r.k1 FROM "cdc".rejected_1 r
    UNION ALL
    SELECT s.p1 AS k1 FROM "cdc".shadow_1_1 s WHERE s.state = 'x'
), differing AS MATERIALIZED (
    SELECT CASE WHEN l.tableoid IS NULL THEN 'missing' WHEN s.p1 IS NULL THEN 'extra' ELSE 'different' END AS kind,
           CASE WHEN l.tableoid IS NULL THEN pg_catalog.concat_ws(', ', s.p1) ELSE pg_catalog.concat_ws(', ', l."code") END AS key
    FROM "public"."labels_lookup" l FULL JOIN wanted s ON l."code" OPERATOR(pg_catalog.=) s.p1
    WHERE (l.tableoid IS NULL OR s.p1 IS NULL OR ROW(l."code", l."label", l."display_name")::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record)
      AND NOT EXISTS (SELECT FROM rejected_keys r WHERE l."code" OPERATOR(pg_catalog.=) r.k1)
      AND NOT EXISTS (SELECT FROM rejected_keys r WHERE s.p1 OPERATOR(pg_catalog.=) r.k1)
), counts AS (
    SELECT d.kind, count(*) AS rows FROM differing d GROUP BY d.kind
), sums AS (
    SELECT (SELECT count(*) FROM "public"."labels_lookup" l WHERE NOT EXISTS (SELECT FROM rejected_keys r WHERE l."code" OPERATOR(pg_catalog.=) r.k1)) AS shown,
           (SELECT count(*) FROM "cdc".shadow_1_1 s
            WHERE s.state = 'l' AND NOT EXISTS (SELECT FROM rejected_keys r WHERE s.p1 OPERATOR(pg_catalog.=) r.k1)) AS live,
           (SELECT coalesce(sum(c.rows) FILTER (WHERE c.kind = 'missing'), 0)::bigint FROM counts c) AS missing,
           (SELECT coalesce(sum(c.rows) FILTER (WHERE c.kind = 'extra'), 0)::bigint FROM counts c) AS extra,
           (SELECT coalesce(sum(c.rows) FILTER (WHERE c.kind = 'different'), 0)::bigint FROM counts c) AS different
), rejections AS (
    SELECT CASE WHEN r.k1 IS NOT NULL THEN pg_catalog.concat_ws(', ', r.k1) END AS key, CASE WHEN r.i1 IS NOT NULL THEN pg_catalog.concat_ws(', ', r.i1) END AS identity, r.e1, r.e2, r.e3 FROM "cdc".rejected_1 r
    UNION ALL
    SELECT CASE WHEN s.p1 IS NOT NULL THEN pg_catalog.concat_ws(', ', s.p1) END, CASE WHEN s.i1 IS NOT NULL THEN pg_catalog.concat_ws(', ', s.i1) END, s.e1, s.e2, s.e3 FROM "cdc".shadow_1_1 s
    WHERE s.state = 'x' AND NOT EXISTS (SELECT FROM "cdc".rejected_1 r WHERE s.i1 = r.i1)
)
SELECT c.kind, c.rows,
       ARRAY(SELECT d.key FROM differing d WHERE d.kind = c.kind ORDER BY d.key COLLATE "C" LIMIT 20) AS keys,
       NULL AS rejections
FROM counts c
UNION ALL
SELECT 'same', x.shown - x.extra - x.different, NULL, NULL FROM sums x
UNION ALL
-- Every key of the source is shown or missing. Any further live row has the key of another row.
SELECT 'waiting', x.live - (x.shown - x.extra + x.missing), NULL, NULL FROM sums x
UNION ALL
SELECT 'rejected', (SELECT count(*) FROM rejections), NULL,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'key', x.key, 'identity', x.identity, 'sqlstate', x.e1, 'constraint', x.e2, 'column', x.e3))
        FROM (SELECT r.* FROM rejections r ORDER BY r.key COLLATE "C", r.identity COLLATE "C" LIMIT 20) x)::text
