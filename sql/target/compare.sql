-- Dry run: what a resync would change in the lookup, and the first {{limit}} keys of each kind. Nothing is written.
-- Keys of rows that are set apart, and of rows that the lookup's types refuse, are left out.
-- Differences are kept aside, on disk if there are many; where everything is right there are none.
WITH wanted AS (
    SELECT DISTINCT ON ({{s_key}}) {{s_p}} FROM {{shadow}} s WHERE s.state = 'l' ORDER BY {{s_key}}, {{s_i}}
), refused AS (
    SELECT {{r_k}} FROM {{rejected}} r
    UNION ALL
    SELECT {{s_key_as_k}} FROM {{shadow}} s WHERE s.state = 'x'
), differing AS MATERIALIZED (
    SELECT CASE WHEN {{no_lookup}} THEN 'missing' WHEN {{no_wanted}} THEN 'extra' ELSE 'different' END AS kind,
           CASE WHEN {{no_lookup}} THEN {{wanted_key_text}} ELSE {{key_text}} END AS key
    FROM {{lookup}} l FULL JOIN wanted s ON {{lookup_is_stage}}
    WHERE ({{no_lookup}} OR {{no_wanted}} OR {{lookup_differs}})
      AND NOT EXISTS (SELECT FROM refused r WHERE {{lookup_is_rejected}})
      AND NOT EXISTS (SELECT FROM refused r WHERE {{stage_is_rejected_key}})
), counts AS (
    SELECT d.kind, count(*) AS rows FROM differing d GROUP BY d.kind
)
SELECT c.kind, c.rows,
       ARRAY(SELECT d.key FROM differing d WHERE d.kind = c.kind ORDER BY d.key COLLATE "C" LIMIT {{limit}}) AS keys
FROM counts c
UNION ALL
SELECT 'same',
       (SELECT count(*) FROM {{lookup}} l WHERE NOT EXISTS (SELECT FROM refused r WHERE {{lookup_is_rejected}}))
           - (SELECT coalesce(sum(c.rows), 0)::bigint FROM counts c WHERE c.kind <> 'missing'),
       NULL
