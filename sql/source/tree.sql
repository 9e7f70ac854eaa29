-- A table and its partitions of every level, as the statement's snapshot shows them. $1 is its quoted name.
WITH RECURSIVE tree AS (
    SELECT pg_catalog.to_regclass($1::text)::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
)
SELECT pg_catalog.array_agg(t.oid ORDER BY t.oid) AS oids FROM tree t
