-- Dry run: what a resync would change in the lookup, by key. Nothing is written. Keys of rows that are set apart, and of rows
-- that the lookup's types refuse, are left out.
WITH wanted AS (
    SELECT DISTINCT ON ({{s_key}}) {{s_p}} FROM {{shadow}} s WHERE s.state = 'l' ORDER BY {{s_key}}, {{s_i}}
), refused AS (
    SELECT {{r_k}} FROM {{rejected}} r
    UNION ALL
    SELECT {{s_key_as_k}} FROM {{shadow}} s WHERE s.state = 'x'
)
SELECT CASE WHEN {{no_lookup}} THEN 'missing' WHEN {{no_wanted}} THEN 'extra' WHEN {{lookup_differs}} THEN 'different' ELSE 'same' END AS kind,
       count(*) AS rows,
       (array_agg(CASE WHEN {{no_lookup}} THEN {{wanted_key_text}} ELSE {{key_text}} END) FILTER (WHERE {{no_lookup}} OR {{no_wanted}} OR {{lookup_differs}}))[1:{{limit}}] AS keys
FROM {{lookup}} l FULL JOIN wanted s ON {{lookup_is_stage}}
WHERE NOT EXISTS (SELECT FROM refused r WHERE {{lookup_is_rejected}})
  AND NOT EXISTS (SELECT FROM refused r WHERE {{stage_is_rejected_key}})
GROUP BY 1
