DROP TABLE IF EXISTS "pg_temp".shadow_1_1; CREATE TEMPORARY TABLE "pg_temp".shadow_1_1 (o1 uuid, i1 uuid, state "char" NOT NULL, p1 character varying(10), p2 character varying(50), p3 character varying(50), u1 boolean NOT NULL DEFAULT false, u2 boolean NOT NULL DEFAULT false, u3 boolean NOT NULL DEFAULT false, e1 text, e2 text, e3 text);
-- One look of a plain comparison: where the lookup differs from the rows that were read from the source, with both rows as they are.
-- i1.. identity and p1.. values of the source's row, v1.. values of the lookup's. Keys of rows that a type of the lookup rejects are
-- left out. Without an index on its key the lookup may have one key twice: the first row is compared, the others are extra.
-- Columns and states: the legend in sql/README.md.
CREATE TEMPORARY TABLE "pg_temp".differing_1_1 AS
WITH wanted AS (
    SELECT DISTINCT ON (s.p1) s.i1, s.p1, s.p2, s.p3, 1::bigint AS turn FROM "pg_temp".shadow_1_1 s WHERE s.state = 'l' ORDER BY s.p1, s.i1
), rejected_keys AS (
    SELECT s.p1 AS k1 FROM "pg_temp".shadow_1_1 s WHERE s.state = 'x'
)
SELECT CASE WHEN l.tableoid IS NULL THEN 'missing' WHEN s.p1 IS NULL THEN 'extra' ELSE 'different' END AS kind,
       CASE WHEN l.tableoid IS NULL THEN pg_catalog.concat_ws(', ', s.p1) ELSE pg_catalog.concat_ws(', ', l."code") END AS key,
       s.i1, s.p1, s.p2, s.p3, l."code" AS v1, l."label" AS v2, l."display_name" AS v3
FROM "public"."labels_lookup" l FULL JOIN wanted s ON l."code" OPERATOR(pg_catalog.=) s.p1
WHERE (l.tableoid IS NULL OR s.p1 IS NULL OR ROW(l."code", l."label", l."display_name")::record OPERATOR(pg_catalog.*<>) ROW(s.p1, s.p2, s.p3)::record)
  AND NOT EXISTS (SELECT FROM rejected_keys r WHERE l."code" OPERATOR(pg_catalog.=) r.k1)
  AND NOT EXISTS (SELECT FROM rejected_keys r WHERE s.p1 OPERATOR(pg_catalog.=) r.k1)
;
-- The counts of one look of a plain comparison: rows of the lookup, live rows of the source, and differences.
-- Columns and states: the legend in sql/README.md.
WITH rejected_keys AS (
    SELECT s.p1 AS k1 FROM "pg_temp".shadow_1_1 s WHERE s.state = 'x'
)
SELECT (SELECT count(*) FROM "public"."labels_lookup" l WHERE NOT EXISTS (SELECT FROM rejected_keys r WHERE l."code" OPERATOR(pg_catalog.=) r.k1)) AS shown,
       (SELECT count(*) FROM "pg_temp".shadow_1_1 s
        WHERE s.state = 'l' AND NOT EXISTS (SELECT FROM rejected_keys r WHERE s.p1 OPERATOR(pg_catalog.=) r.k1)) AS live,
       count(*) FILTER (WHERE d.kind = 'missing') AS missing,
       count(*) FILTER (WHERE d.kind = 'extra') AS extra,
       count(*) FILTER (WHERE d.kind = 'different') AS different
FROM "pg_temp".differing_1_1 d
;
-- The rows that differ at both looks of a plain comparison, and have not changed between the looks, neither at the source nor in the
-- lookup: no change under way explains such a difference.
-- Columns and states: the legend in sql/README.md.
CREATE TEMPORARY TABLE "pg_temp".judged_1 AS
SELECT pg_catalog.row_number() OVER () AS n, d.*, NULL::text AS e1, NULL::text AS e2, NULL::text AS e3
FROM "pg_temp".differing_1_2 d
WHERE EXISTS (
    SELECT FROM "pg_temp".differing_1_1 f
    WHERE f.kind = d.kind AND f.key = d.key
      AND ROW(f.p1, f.p2, f.p3, f.v1, f.v2, f.v3)::record OPERATOR(pg_catalog.*=) ROW(d.p1, d.p2, d.p3, d.v1, d.v2, d.v3)::record
);
CREATE UNIQUE INDEX ON "pg_temp".judged_1 (n);
ANALYZE "pg_temp".judged_1
;
CREATE TEMPORARY TABLE "pg_temp".tried_1 (LIKE "public"."labels_lookup" INCLUDING CONSTRAINTS); ALTER TABLE "pg_temp".tried_1 DROP COLUMN "updated_at";
TRUNCATE "pg_temp".tried_1; INSERT INTO "pg_temp".tried_1 ("code", "label", "display_name") SELECT d.p1, d.p2, d.p3 FROM "pg_temp".judged_1 d WHERE d.n BETWEEN 1 AND 10 AND d.kind <> 'extra';
UPDATE "pg_temp".judged_1 SET e1 = $2, e2 = $3, e3 = $4 WHERE n = $1;
-- The result of a plain comparison, in the form of compare.sql, with the first 20 keys of each kind.
-- Columns and states: the legend in sql/README.md.
WITH rejections AS (
    SELECT d.key, pg_catalog.concat_ws(', ', d.i1) AS identity, d.e1, d.e2, d.e3 FROM "pg_temp".judged_1 d WHERE d.e1 IS NOT NULL
    UNION ALL
    SELECT CASE WHEN s.p1 IS NOT NULL THEN pg_catalog.concat_ws(', ', s.p1) END, CASE WHEN s.i1 IS NOT NULL THEN pg_catalog.concat_ws(', ', s.i1) END, s.e1, s.e2, s.e3 FROM "pg_temp".shadow_1_2 s WHERE s.state = 'x'
)
SELECT c.kind, c.rows,
       ARRAY(SELECT d.key FROM "pg_temp".judged_1 d WHERE d.kind = c.kind AND d.e1 IS NULL ORDER BY d.key COLLATE "C" LIMIT 20) AS keys,
       NULL AS rejections
FROM (SELECT d.kind, count(*) AS rows FROM "pg_temp".judged_1 d WHERE d.e1 IS NULL GROUP BY d.kind) c
UNION ALL
SELECT 'rejected', (SELECT count(*) FROM rejections), NULL,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'key', x.key, 'identity', x.identity, 'sqlstate', x.e1, 'constraint', x.e2, 'column', x.e3))
        FROM (SELECT r.* FROM rejections r ORDER BY r.key COLLATE "C", r.identity COLLATE "C" LIMIT 20) x)::text
