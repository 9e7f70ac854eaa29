-- The result of a plain comparison, in the form of compare.sql, with the first {{limit}} keys of each kind.
-- Columns and states: the legend in sql/README.md.
WITH rejections AS (
    SELECT d.key, {{?judged_identity_text}} AS identity, d.e1, d.e2, d.e3 FROM {{judged}} d WHERE d.e1 IS NOT NULL
    UNION ALL
    SELECT {{?stage_key_text_or_null}}, {{?stage_identity_text}}, s.e1, s.e2, s.e3 FROM {{shadow}} s WHERE s.state = 'x'
)
SELECT c.kind, c.rows,
       ARRAY(SELECT d.key FROM {{judged}} d WHERE d.kind = c.kind AND d.e1 IS NULL ORDER BY d.key COLLATE "C" LIMIT {{limit}}) AS keys,
       NULL AS rejections
FROM (SELECT d.kind, count(*) AS rows FROM {{judged}} d WHERE d.e1 IS NULL GROUP BY d.kind) c
UNION ALL
SELECT 'rejected', (SELECT count(*) FROM rejections), NULL,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'key', x.key, 'identity', x.identity, 'sqlstate', x.e1, 'constraint', x.e2, 'column', x.e3))
        FROM (SELECT r.* FROM rejections r ORDER BY r.key COLLATE "C", r.identity COLLATE "C" LIMIT {{limit}}) x)::text
