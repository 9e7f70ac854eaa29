-- The rows that differ at both looks of a plain comparison, and have not changed between the looks, neither at the source nor in the
-- lookup: no change under way explains such a difference.
-- Columns and states: the legend in sql/README.md.
CREATE TEMPORARY TABLE {{judged}} AS
SELECT pg_catalog.row_number() OVER () AS n, d.*, NULL::text AS e1, NULL::text AS e2, NULL::text AS e3
FROM {{differing}} d
WHERE EXISTS (
    SELECT FROM {{differing_before}} f
    WHERE f.kind = d.kind AND f.key = d.key
      AND ROW({{?f_p}}, {{?f_v}})::record OPERATOR(pg_catalog.*=) ROW({{?d_p}}, {{?d_v}})::record
);
CREATE UNIQUE INDEX ON {{judged}} (n);
ANALYZE {{judged}}
