-- One look of a plain comparison: where the lookup differs from the rows that were read from the source, with both rows as they are.
-- i1.. identity and p1.. values of the source's row, v1.. values of the lookup's. Keys of rows that a type of the lookup rejects are
-- left out. Without an index on its key the lookup may have one key twice: the first row is compared, the others are extra.
-- Columns and states: the legend in sql/README.md.
CREATE TEMPORARY TABLE {{differing}} AS
WITH wanted AS (
    SELECT DISTINCT ON ({{?s_key}}) {{?s_i}}, {{?s_p}}, 1::bigint AS turn FROM {{shadow}} s WHERE s.state = 'l' ORDER BY {{?s_key}}, {{?s_i}}
), rejected_keys AS (
    SELECT {{?s_key_as_k}} FROM {{shadow}} s WHERE s.state = 'x'
)
SELECT CASE WHEN {{?no_lookup}} THEN 'missing' WHEN {{?no_wanted}} THEN 'extra' ELSE 'different' END AS kind,
       CASE WHEN {{?no_lookup}} THEN {{?stage_key_text}} ELSE {{?key_text}} END AS key,
       {{?s_i}}, {{?s_p}}, {{?lookup_as_v}}
FROM {{?lookup_rows}} FULL JOIN wanted s ON {{?lookup_is_stage}}{{?and_turn}}
WHERE ({{?no_lookup}} OR {{?no_wanted}} OR {{?lookup_differs}})
  AND NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?lookup_is_rejected}})
  AND NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?stage_is_rejected_key}})
