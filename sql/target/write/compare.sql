-- Dry run: what a resync would change in the lookup, with the first {{limit}} keys of each kind, and what the lookup does not take.
-- Nothing is written. Keys of rejected rows are left out of the differences, also of rows that a type of the lookup rejects.
-- The differences are materialized once, on disk if there are many; usually there are none.
-- Columns and states: the legend in sql/README.md.
WITH wanted AS (
    SELECT DISTINCT ON ({{?s_key}}) {{?s_p}} FROM {{shadow}} s WHERE s.state = 'l' ORDER BY {{?s_key}}, {{?s_i}}
), rejected_keys AS (
    SELECT {{?r_k}} FROM {{rejected}} r
    UNION ALL
    SELECT {{?s_key_as_k}} FROM {{shadow}} s WHERE s.state = 'x'
), differing AS MATERIALIZED (
    SELECT CASE WHEN {{?no_lookup}} THEN 'missing' WHEN {{?no_wanted}} THEN 'extra' ELSE 'different' END AS kind,
           CASE WHEN {{?no_lookup}} THEN {{?stage_key_text}} ELSE {{?key_text}} END AS key
    FROM {{lookup}} l FULL JOIN wanted s ON {{?lookup_is_stage}}
    WHERE ({{?no_lookup}} OR {{?no_wanted}} OR {{?lookup_differs}})
      AND NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?lookup_is_rejected}})
      AND NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?stage_is_rejected_key}})
), counts AS (
    SELECT d.kind, count(*) AS rows FROM differing d GROUP BY d.kind
), sums AS (
    SELECT (SELECT count(*) FROM {{lookup}} l WHERE NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?lookup_is_rejected}})) AS shown,
           (SELECT count(*) FROM {{shadow}} s
            WHERE s.state = 'l' AND NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?stage_is_rejected_key}})) AS live,
           (SELECT coalesce(sum(c.rows) FILTER (WHERE c.kind = 'missing'), 0)::bigint FROM counts c) AS missing,
           (SELECT coalesce(sum(c.rows) FILTER (WHERE c.kind = 'extra'), 0)::bigint FROM counts c) AS extra,
           (SELECT coalesce(sum(c.rows) FILTER (WHERE c.kind = 'different'), 0)::bigint FROM counts c) AS different
), rejections AS (
    SELECT {{?rejected_key_text}} AS key, {{?rejected_identity_text}} AS identity, r.e1, r.e2, r.e3 FROM {{rejected}} r
    UNION ALL
    SELECT {{?stage_key_text_or_null}}, {{?stage_identity_text}}, s.e1, s.e2, s.e3 FROM {{shadow}} s
    WHERE s.state = 'x' AND NOT EXISTS (SELECT FROM {{rejected}} r WHERE {{?stage_is_rejected}})
)
SELECT c.kind, c.rows,
       ARRAY(SELECT d.key FROM differing d WHERE d.kind = c.kind ORDER BY d.key COLLATE "C" LIMIT {{limit}}) AS keys,
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
        FROM (SELECT r.* FROM rejections r ORDER BY r.key COLLATE "C", r.identity COLLATE "C" LIMIT {{limit}}) x)::text
