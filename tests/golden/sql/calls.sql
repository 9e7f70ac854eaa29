SELECT * FROM pg_temp.apply_1($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);
SELECT * FROM pg_temp.merge_1($1, $2, $3);
SELECT * FROM pg_temp.merge_read_once_1($1, $2, $3);
SELECT * FROM pg_temp.merge_shadow_1($1, $2, $3);
SELECT * FROM pg_temp.isolate_1($1, $2, $3, $4, $5, $6);
SELECT * FROM pg_temp.isolate_read_once_1($1, $2, $3, $4, $5, $6);
SELECT * FROM pg_temp.isolate_shadow_1($1, $2, $3, $4, $5, $6);
SELECT pg_temp.fold_chunk_1($1, $2, $3);
SELECT pg_temp.catch_up_1($1, $2);
INSERT INTO pg_temp.stage_1 (o1, i1, state, p1, p2, p3, u1, u2, u3) SELECT a.o1::uuid, a.i1::uuid, (('{"' || replace(replace(a.state, E'\\', E'\\\\'), '"', E'\\"') || '"}')::"char"[])[1], a.p1::character varying, a.p2::character varying, a.p3::character varying, a.u1::boolean, a.u2::boolean, a.u3::boolean FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) AS a(o1, i1, state, p1, p2, p3, u1, u2, u3) WHERE pg_catalog.current_setting('cdc.in_batch', true) = 'yes';
COPY "cdc".map_1 (i1, k1, state, v1, v2, v3) FROM STDIN;
COPY "public"."labels_lookup" ("code", "label", "display_name", "updated_at") FROM STDIN;
SELECT pg_temp.cdc_count(1, 1, false, true);
SELECT (pg_catalog.pg_relation_size('"cdc".map_1') + coalesce((SELECT sum(pg_catalog.pg_relation_size(t.relid)) FROM pg_catalog.pg_partition_tree('"public"."labels_lookup"') t), pg_catalog.pg_relation_size('"public"."labels_lookup"'))) < 1300;
DELETE FROM pg_temp.stage_1 WHERE state = 'y' AND o1 IS NULL; UPDATE pg_temp.stage_1 SET state = 'g', i1 = NULL WHERE state = 'y';
SELECT count(*), min(e1) FROM pg_temp.stage_1 WHERE state = 'x';
DROP INDEX IF EXISTS pg_temp.stage_1_i;
DELETE FROM pg_temp.stage_1; DELETE FROM pg_temp.moving_1; DELETE FROM pg_temp.touched_1; DELETE FROM pg_temp.tries_1; DELETE FROM pg_temp.earlier_1;
TRUNCATE pg_temp.stage_1, pg_temp.moving_1, pg_temp.touched_1, pg_temp.tries_1, pg_temp.earlier_1
