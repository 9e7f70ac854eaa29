-- The counts of one look of a plain comparison: rows of the lookup, live rows of the source, and differences.
-- Columns and states: the legend in sql/README.md.
WITH rejected_keys AS (
    SELECT {{?s_key_as_k}} FROM {{shadow}} s WHERE s.state = 'x'
)
SELECT (SELECT count(*) FROM {{lookup}} l WHERE NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?lookup_is_rejected}})) AS shown,
       (SELECT count(*) FROM {{shadow}} s
        WHERE s.state = 'l' AND NOT EXISTS (SELECT FROM rejected_keys r WHERE {{?stage_is_rejected_key}})) AS live,
       count(*) FILTER (WHERE d.kind = 'missing') AS missing,
       count(*) FILTER (WHERE d.kind = 'extra') AS extra,
       count(*) FILTER (WHERE d.kind = 'different') AS different
FROM {{differing}} d
