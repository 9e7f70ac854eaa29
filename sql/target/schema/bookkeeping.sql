-- The bookkeeping of one pipeline, in the target database; its schema is the setting target.schema.
-- Version 6. The same statements create it from scratch, or bring it up from an earlier version (rejections.sql, wait_for.sql,
-- comments.sql and settled.sql are part of it). What it says about lookup rows is written in the transaction that writes these rows.
-- Letters of states, and who needs which privileges: sql/README.md.
--
-- Rows that every batch writes are in tables of their own, without an index. While any session holds a snapshot (a dump, a report),
-- no version of such a row can be removed. An index would have an entry for each version, and each batch would walk them all.
-- The writer finds the row by the ctid that it remembers. REPLICA IDENTITY FULL lets a publication FOR ALL TABLES at the target
-- send such a row; every other table here has a primary key for that.

-- The schema.
CREATE SCHEMA IF NOT EXISTS {{schema}};
-- By this comment cdc knows its schema.
COMMENT ON SCHEMA {{schema}} IS 'cdc bookkeeping: checkpoint, identity maps and history of the lookup tables';
-- Reports read freshness and call wait_for.
GRANT USAGE ON SCHEMA {{schema}} TO PUBLIC;

-- Version of this schema. An older cdc refuses a newer one.
CREATE TABLE IF NOT EXISTS {{schema}}.version (
    version integer PRIMARY KEY
);
-- A new schema has this version.
INSERT INTO {{schema}}.version SELECT 6 WHERE NOT EXISTS (SELECT FROM {{schema}}.version);

-- One row: the checkpoint and the fence. Every applying transaction updates this row first.
CREATE TABLE IF NOT EXISTS {{schema}}.checkpoint (
    epoch bigint NOT NULL,               -- the owner's, as in pipeline; an older epoch cannot commit
    lsn pg_lsn,                          -- every commit before it is applied; NULL before the first copy
    commit_time timestamptz,             -- the lookups are as of this time of the source's clock; NULL: not known
    last_commit_lsn pg_lsn,              -- last applied transaction with a change of a published table
    last_commit_xid bigint,
    last_commit_time timestamptz,
    applied_at timestamptz               -- when it was last stored
);
-- A publication at the target can send it.
ALTER TABLE {{schema}}.checkpoint REPLICA IDENTITY FULL;

-- One row for each read model: what was counted when its lookup was written.
CREATE TABLE IF NOT EXISTS {{schema}}.counted (
    read_model integer NOT NULL,
    rows bigint,                         -- live rows in the lookup
    last_change_at timestamptz
);
-- A publication at the target can send it.
ALTER TABLE {{schema}}.counted REPLICA IDENTITY FULL;

-- One row: the pipeline, its owner and what the owner is doing.
CREATE TABLE IF NOT EXISTS {{schema}}.pipeline (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    slot text NOT NULL,                  -- replication slot at the source; names the pipeline
    publication text NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,     -- raised by each owner
    system_identifier text,              -- IDENTIFY_SYSTEM of the source that lsn belongs to
    timeline integer,
    source_database text,
    publication_oid bigint,              -- another one later means that the publication was created again
    publication_mark text,               -- comment of the publication, if this pipeline created it: names the pipeline
    slot_system_identifier text,         -- source where this pipeline has created the slot, or was about to; there it is its own
    slot_database text,
    read_system_identifier text,         -- source that the owner reads, or was about to
    read_database text,
    healing text,                        -- why everything is being copied (first copy, slot missing, ...); NULL in normal work
    healing_since timestamptz,
    state text NOT NULL DEFAULT 'starting', -- starting, waiting, copying, streaming, retrying, stopped
    state_since timestamptz NOT NULL DEFAULT now(),
    error text,                          -- the last error, while it lasts
    error_hint text,
    backend_pid integer,                 -- the owner's applying session
    backend_start timestamptz,
    owner text,                          -- process of the owner
    heartbeat_at timestamptz,            -- the owner was alive
    waiting_for text,                    -- who keeps a copy from beginning, and since when
    stuck_lsn pg_lsn,                    -- the source cannot send what follows this position; over once lsn has passed it
    stuck_sqlstate text,
    stuck_since timestamptz,
    stuck_times integer,
    stuck_error text,
    healings integer NOT NULL DEFAULT 0, -- copies of everything that began one soon after the other
    healing_began_at timestamptz,        -- the last of them
    healed_at timestamptz,               -- when the last one succeeded
    healing_after timestamptz            -- the next one waits until then; NULL: none waits
);

-- One row for each read model.
CREATE TABLE IF NOT EXISTS {{schema}}.read_model (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- names map_<id> and shadow_<id>_<n>
    generation integer NOT NULL DEFAULT 0, -- of the map: later ones are map_<id>_<generation>
    name text NOT NULL UNIQUE,           -- the lookup table
    source text NOT NULL,                -- the source table
    definition jsonb NOT NULL,           -- columns, key, soft delete and identity for which the map was created
    state text NOT NULL DEFAULT 'new',   -- new (never copied), in_step, suspended
    published text,                      -- the watch: publication's options and entries for the table
    storage text,                        -- the watch: files of the table and its leaves
    texts text[],                        -- the watch: labels of enums and the like, by column, as hashes
    as_of timestamptz,                   -- what its lookup shows while it takes no part in the stream, NULL while it does
    as_of_lsn pg_lsn,
    reason text,                         -- why it is suspended
    unreadable boolean NOT NULL DEFAULT false, -- a copy failed because of a value of the source, so its table is not published
    hint text,
    since timestamptz NOT NULL DEFAULT now(),
    copy_rows bigint,                    -- progress of a running copy, NULL when none runs
    copy_estimate bigint,
    copy_bytes bigint,
    copy_seconds float8,                 -- how long it has taken so far
    last_resync_at timestamptz,
    last_resync_repaired bigint,         -- drift: rows of a read model in step that a resync had to write
    waiting bigint,                      -- live rows whose key another row had, when all rows were last written or compared
    compared_at timestamptz,             -- when all rows were last compared, by a copy, a resync or a dry run
    differing bigint                     -- rows that differed then and were left as they were: only a dry run leaves any
);

-- Requested, running and finished resyncs, newest last.
CREATE TABLE IF NOT EXISTS {{schema}}.resync (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    read_models text[],                  -- NULL is all
    dry_run boolean NOT NULL DEFAULT false,
    most_keys integer NOT NULL DEFAULT 20, -- of each kind of difference that a dry run names
    origin text NOT NULL,                -- schedule, request, watch, first copy, heal
    state text NOT NULL DEFAULT 'queued', -- queued, running, done, failed
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    waiting_for text,                    -- who keeps it from beginning, and since when
    lsn pg_lsn,                          -- the lookups equalled the source as of this position
    result jsonb,                        -- {"<read model>": {"inserted":, "updated":, "deleted":, "unchanged":, "total":, "keys": [...]}}
    error text,
    epoch bigint                         -- the owner that carries it out, or did so last
);

-- One row for each shadow: the UNLOGGED table of this name, which copies fill. It is kept and emptied, so that no dump loses a table
-- that it is about to read. The session that fills it holds the advisory lock of its name.
CREATE TABLE IF NOT EXISTS {{schema}}.shadow (
    name text PRIMARY KEY,
    definition text NOT NULL,            -- its columns
    copy uuid,                           -- the copy whose rows it holds, or may hold; NULL: it is empty
    since timestamptz NOT NULL DEFAULT now()
);

-- Tables of the bookkeeping that are no longer needed: dropped once no other session has them locked.
CREATE TABLE IF NOT EXISTS {{schema}}.discarded (
    name text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);

-- What version 2 has added: the keys that a dry run names.
ALTER TABLE {{schema}}.resync ADD COLUMN IF NOT EXISTS most_keys integer NOT NULL DEFAULT 20;
-- Version 2: progress of a copy.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS copy_bytes bigint, ADD COLUMN IF NOT EXISTS copy_seconds float8;
-- Version 2: who keeps a copy from beginning.
ALTER TABLE {{schema}}.pipeline ADD COLUMN IF NOT EXISTS waiting_for text;
-- What version 3 has added: rows whose key another row has.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS waiting bigint;
-- What version 4 has added: a position that the stream cannot pass.
ALTER TABLE {{schema}}.pipeline ADD COLUMN IF NOT EXISTS stuck_lsn pg_lsn, ADD COLUMN IF NOT EXISTS stuck_sqlstate text,
    ADD COLUMN IF NOT EXISTS stuck_since timestamptz, ADD COLUMN IF NOT EXISTS stuck_times integer,
    ADD COLUMN IF NOT EXISTS stuck_error text;
-- Version 4: what this pipeline has created at the source.
ALTER TABLE {{schema}}.pipeline ADD COLUMN IF NOT EXISTS publication_mark text, ADD COLUMN IF NOT EXISTS slot_system_identifier text,
    ADD COLUMN IF NOT EXISTS slot_database text;
-- Version 4: a value of the source that cannot be read.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS unreadable boolean NOT NULL DEFAULT false;
-- Version 4: the watch sees labels of enums and the like.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS texts text[];
-- Version 4: what the lookup of a suspended read model shows.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS as_of timestamptz, ADD COLUMN IF NOT EXISTS as_of_lsn pg_lsn;
-- Version 4: the result of the last comparison.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS compared_at timestamptz, ADD COLUMN IF NOT EXISTS differing bigint;
-- Version 4: who carries a resync out.
ALTER TABLE {{schema}}.resync ADD COLUMN IF NOT EXISTS epoch bigint;
-- Version 4: how often everything is copied.
ALTER TABLE {{schema}}.pipeline ADD COLUMN IF NOT EXISTS healings integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS healing_began_at timestamptz, ADD COLUMN IF NOT EXISTS healed_at timestamptz,
    ADD COLUMN IF NOT EXISTS healing_after timestamptz;

-- What version 5 has added: the source that the owner reads.
ALTER TABLE {{schema}}.pipeline ADD COLUMN IF NOT EXISTS read_system_identifier text, ADD COLUMN IF NOT EXISTS read_database text;
-- Version 5: each definition has a map of its own.
ALTER TABLE {{schema}}.read_model ADD COLUMN IF NOT EXISTS generation integer NOT NULL DEFAULT 0;
-- Version 5: what an earlier version has stored elsewhere, or by another letter.
DO $cdc$
DECLARE
    _table name;
BEGIN
    -- An entry of a row that the lookup does not let cdc delete had the letter of dead rows.
    FOR _table IN
        SELECT c.relname FROM pg_catalog.pg_class c
        WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = {{schema_name}})
          AND c.relkind = 'r' AND c.relname ~ '^rejected_[0-9]+(_[0-9]+)?$'
    LOOP
        EXECUTE pg_catalog.format('UPDATE %I.%I SET state = %L WHERE state = %L', {{schema_name}}, _table, 'a', 'd');
    END LOOP;
    -- The row that every batch writes was the pipeline's.
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = pg_catalog.to_regclass({{pipeline_name}}) AND a.attname = 'lsn' AND NOT a.attisdropped) THEN
        INSERT INTO {{schema}}.checkpoint
        SELECT p.epoch, p.lsn,
               -- Until version 4 the time could be later than what the lookups showed: from the target's clock, or from a walsender
               -- that was behind.
               CASE WHEN v.version < 4 THEN p.last_commit_time ELSE p.commit_time END,
               p.last_commit_lsn, p.last_commit_xid, p.last_commit_time, p.applied_at
        FROM {{schema}}.pipeline p CROSS JOIN (SELECT max(version) AS version FROM {{schema}}.version) v
        WHERE NOT EXISTS (SELECT FROM {{schema}}.checkpoint);
        INSERT INTO {{schema}}.counted SELECT m.id, m.rows, m.last_change_at FROM {{schema}}.read_model m
        WHERE NOT EXISTS (SELECT FROM {{schema}}.counted);
        INSERT INTO {{schema}}.discarded
        SELECT c.relname FROM pg_catalog.pg_class c
        WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = {{schema_name}})
          AND c.relkind = 'r' AND c.relname ~ '^shadow_[0-9]+_[0-9]+$'
        ON CONFLICT DO NOTHING;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                   WHERE i.indrelid = pg_catalog.to_regclass({{version_name}}) AND i.indisprimary) THEN
        ALTER TABLE {{schema}}.version ADD PRIMARY KEY (version);
    END IF;
END
$cdc$;
-- The one row of a new schema.
INSERT INTO {{schema}}.checkpoint SELECT 0 WHERE NOT EXISTS (SELECT FROM {{schema}}.checkpoint);
