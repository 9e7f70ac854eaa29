-- The watch: what the stream does not bring. $1 is the publication, $2 are the tables (quoted names).
--
-- publication  oid, options and the version of its row: another oid means that it was created again, another version that it was
--              altered, possibly back again
-- membership   oids of the publication's entries for the table and for the tables that it is a partition of: other oids mean that the
--              table was removed and added again, or that its changes come under another name
-- columns      their names; definitions: their numbers, types, storage and NOT NULL, another number under one name being another column
-- versions     those of the columns' catalog rows: another one means at least that the column was altered
-- identity     by which columns the table and its leaves may name an old row, whether their changes are logged, and whether a value may
--              be stored out of line
-- roots        oids of the tables that it is a partition of: if one is published, the changes come under its name
-- leaves       before 15: oids of the table and its leaves. A walsender decides about a table when it sends its first change, and
--              does not look again after an ATTACH or DETACH
-- storage      file of the table or of each leaf: another one means TRUNCATE, a rewrite, ATTACH or DETACH; and for a leaf the version
--              of its row in pg_inherits: another one means DETACH and ATTACH, with changes in between that no stream has
-- parts        oids of the leaves and of the partitioned tables between
-- alone        whether the table has no partitions, so that its TRUNCATE is always in the stream
-- wal_end      end of the flushed WAL: all that is seen was committed before it, except by commits that wait for no flush
-- typed        whether a column has a type that is not built in: watch_types.sql looks at those
-- schemas      whether the server knows publications of whole schemas: watch_schemas.sql looks at those
WITH RECURSIVE tables AS (
    SELECT w.name, c.oid AS root, c.oid, NULL::text AS attached
    FROM pg_catalog.unnest($2::text[]) w (name)
    LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)
    -- pg_inherits locks nothing; pg_partition_tree would wait for a leaf that is being rewritten.
    UNION ALL
    SELECT t.name, t.root, i.inhrelid, i.xmin::text FROM tables t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
), above AS (
    SELECT t.root, i.inhparent AS oid
    FROM tables t JOIN pg_catalog.pg_inherits i ON i.inhrelid = t.oid
    WHERE t.oid = t.root
    UNION
    SELECT a.root, i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.oid
), roots AS (
    SELECT a.root, pg_catalog.array_agg(a.oid ORDER BY a.oid) AS oids FROM above a GROUP BY a.root
)
SELECT t.name,
       t.root AS oid,
       (SELECT p.oid FROM pg_catalog.pg_publication p WHERE p.pubname = $1::text) AS publication_oid,
       (SELECT pg_catalog.concat_ws(' ', p.xmin, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot)
        FROM pg_catalog.pg_publication p WHERE p.pubname = $1::text) AS publication_options,
       (SELECT pg_catalog.string_agg(r.oid::text, ' ' ORDER BY r.oid)
        FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
        WHERE p.pubname = $1::text
          AND (r.prrelid = ANY (pg_catalog.array_agg(t.oid)) OR r.prrelid = ANY (u.oids))) AS membership,
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.root AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT pg_catalog.array_agg(pg_catalog.concat_ws(':', a.attnum, a.atttypid, a.attstorage, a.attnotnull) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.root AND a.attnum > 0 AND NOT a.attisdropped) AS definitions,
       (SELECT pg_catalog.array_agg(a.xmin::text ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.root AND a.attnum > 0 AND NOT a.attisdropped) AS versions,
       (SELECT pg_catalog.bool_or(a.atttypid >= 16384)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.root AND a.attnum > 0 AND NOT a.attisdropped) AS typed,
       pg_catalog.concat_ws(' ', pg_catalog.bool_or(k.reltoastrelid <> 0),
           pg_catalog.string_agg(DISTINCT pg_catalog.concat_ws(' ', k.relkind, k.relpersistence, k.relreplident, x.indexes), '; '))
           AS identity,
       pg_catalog.array_to_string(u.oids, ' ') AS roots,
       CASE WHEN pg_catalog.current_setting('server_version_num')::integer < 150000
            THEN pg_catalog.string_agg(t.oid::text, ' ' ORDER BY t.oid) END AS leaves,
       pg_catalog.string_agg(pg_catalog.concat(t.oid, ':', pg_catalog.pg_relation_filenode(t.oid), ':' || t.attached), ' '
           ORDER BY t.oid) AS storage,
       pg_catalog.array_agg(t.oid) FILTER (WHERE t.oid <> t.root) AS parts,
       pg_catalog.bool_and(t.oid = t.root) AS alone,
       (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
             ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text AS wal_end,
       pg_catalog.to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL AS schemas
FROM tables t
LEFT JOIN pg_catalog.pg_class k ON k.oid = t.oid
LEFT JOIN roots u ON u.root = t.root
LEFT JOIN LATERAL (
    -- Column numbers, not names, which would have to be looked up for each of thousands of leaves.
    SELECT pg_catalog.string_agg(i.of, ' ' ORDER BY i.of) AS indexes
    FROM (SELECT pg_catalog.concat_ws(' ', x.indimmediate, x.indnkeyatts, x.indkey, pg_catalog.md5(x.indpred::text)) AS of
          FROM pg_catalog.pg_index x
          WHERE x.indrelid = t.oid AND x.indisvalid
            AND CASE k.relreplident WHEN 'i' THEN x.indisreplident WHEN 'f' THEN x.indisunique ELSE x.indisprimary END) i
) x ON true
GROUP BY t.name, t.root, u.oids
