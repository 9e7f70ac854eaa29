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
CREATE SCHEMA IF NOT EXISTS "cdc";
-- By this comment cdc knows its schema.
COMMENT ON SCHEMA "cdc" IS 'cdc bookkeeping: checkpoint, identity maps and history of the lookup tables';
-- Reports read freshness and call wait_for.
GRANT USAGE ON SCHEMA "cdc" TO PUBLIC;

-- Version of this schema. An older cdc refuses a newer one.
CREATE TABLE IF NOT EXISTS "cdc".version (
    version integer PRIMARY KEY
);
-- A new schema has this version.
INSERT INTO "cdc".version SELECT 6 WHERE NOT EXISTS (SELECT FROM "cdc".version);

-- One row: the checkpoint and the fence. Every applying transaction updates this row first.
CREATE TABLE IF NOT EXISTS "cdc".checkpoint (
    epoch bigint NOT NULL,               -- the owner's, as in pipeline; an older epoch cannot commit
    lsn pg_lsn,                          -- every commit before it is applied; NULL before the first copy
    commit_time timestamptz,             -- the lookups are as of this time of the source's clock; NULL: not known
    last_commit_lsn pg_lsn,              -- last applied transaction with a change of a published table
    last_commit_xid bigint,
    last_commit_time timestamptz,
    applied_at timestamptz               -- when it was last stored
);
-- A publication at the target can send it.
ALTER TABLE "cdc".checkpoint REPLICA IDENTITY FULL;

-- One row for each read model: what was counted when its lookup was written.
CREATE TABLE IF NOT EXISTS "cdc".counted (
    read_model integer NOT NULL,
    rows bigint,                         -- live rows in the lookup
    last_change_at timestamptz
);
-- A publication at the target can send it.
ALTER TABLE "cdc".counted REPLICA IDENTITY FULL;

-- One row: the pipeline, its owner and what the owner is doing.
CREATE TABLE IF NOT EXISTS "cdc".pipeline (
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
CREATE TABLE IF NOT EXISTS "cdc".read_model (
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
CREATE TABLE IF NOT EXISTS "cdc".resync (
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
CREATE TABLE IF NOT EXISTS "cdc".shadow (
    name text PRIMARY KEY,
    definition text NOT NULL,            -- its columns
    copy uuid,                           -- the copy whose rows it holds, or may hold; NULL: it is empty
    since timestamptz NOT NULL DEFAULT now()
);

-- Tables of the bookkeeping that are no longer needed: dropped once no other session has them locked.
CREATE TABLE IF NOT EXISTS "cdc".discarded (
    name text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);

-- What version 2 has added: the keys that a dry run names.
ALTER TABLE "cdc".resync ADD COLUMN IF NOT EXISTS most_keys integer NOT NULL DEFAULT 20;
-- Version 2: progress of a copy.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS copy_bytes bigint, ADD COLUMN IF NOT EXISTS copy_seconds float8;
-- Version 2: who keeps a copy from beginning.
ALTER TABLE "cdc".pipeline ADD COLUMN IF NOT EXISTS waiting_for text;
-- What version 3 has added: rows whose key another row has.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS waiting bigint;
-- What version 4 has added: a position that the stream cannot pass.
ALTER TABLE "cdc".pipeline ADD COLUMN IF NOT EXISTS stuck_lsn pg_lsn, ADD COLUMN IF NOT EXISTS stuck_sqlstate text,
    ADD COLUMN IF NOT EXISTS stuck_since timestamptz, ADD COLUMN IF NOT EXISTS stuck_times integer,
    ADD COLUMN IF NOT EXISTS stuck_error text;
-- Version 4: what this pipeline has created at the source.
ALTER TABLE "cdc".pipeline ADD COLUMN IF NOT EXISTS publication_mark text, ADD COLUMN IF NOT EXISTS slot_system_identifier text,
    ADD COLUMN IF NOT EXISTS slot_database text;
-- Version 4: a value of the source that cannot be read.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS unreadable boolean NOT NULL DEFAULT false;
-- Version 4: the watch sees labels of enums and the like.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS texts text[];
-- Version 4: what the lookup of a suspended read model shows.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS as_of timestamptz, ADD COLUMN IF NOT EXISTS as_of_lsn pg_lsn;
-- Version 4: the result of the last comparison.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS compared_at timestamptz, ADD COLUMN IF NOT EXISTS differing bigint;
-- Version 4: who carries a resync out.
ALTER TABLE "cdc".resync ADD COLUMN IF NOT EXISTS epoch bigint;
-- Version 4: how often everything is copied.
ALTER TABLE "cdc".pipeline ADD COLUMN IF NOT EXISTS healings integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS healing_began_at timestamptz, ADD COLUMN IF NOT EXISTS healed_at timestamptz,
    ADD COLUMN IF NOT EXISTS healing_after timestamptz;

-- What version 5 has added: the source that the owner reads.
ALTER TABLE "cdc".pipeline ADD COLUMN IF NOT EXISTS read_system_identifier text, ADD COLUMN IF NOT EXISTS read_database text;
-- Version 5: each definition has a map of its own.
ALTER TABLE "cdc".read_model ADD COLUMN IF NOT EXISTS generation integer NOT NULL DEFAULT 0;
-- Version 5: what an earlier version has stored elsewhere, or by another letter.
DO $cdc$
DECLARE
    _table name;
BEGIN
    -- An entry of a row that the lookup does not let cdc delete had the letter of dead rows.
    FOR _table IN
        SELECT c.relname FROM pg_catalog.pg_class c
        WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'cdc')
          AND c.relkind = 'r' AND c.relname ~ '^rejected_[0-9]+(_[0-9]+)?$'
    LOOP
        EXECUTE pg_catalog.format('UPDATE %I.%I SET state = %L WHERE state = %L', 'cdc', _table, 'a', 'd');
    END LOOP;
    -- The row that every batch writes was the pipeline's.
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = pg_catalog.to_regclass('"cdc".pipeline') AND a.attname = 'lsn' AND NOT a.attisdropped) THEN
        INSERT INTO "cdc".checkpoint
        SELECT p.epoch, p.lsn,
               -- Until version 4 the time could be later than what the lookups showed: from the target's clock, or from a walsender
               -- that was behind.
               CASE WHEN v.version < 4 THEN p.last_commit_time ELSE p.commit_time END,
               p.last_commit_lsn, p.last_commit_xid, p.last_commit_time, p.applied_at
        FROM "cdc".pipeline p CROSS JOIN (SELECT max(version) AS version FROM "cdc".version) v
        WHERE NOT EXISTS (SELECT FROM "cdc".checkpoint);
        INSERT INTO "cdc".counted SELECT m.id, m.rows, m.last_change_at FROM "cdc".read_model m
        WHERE NOT EXISTS (SELECT FROM "cdc".counted);
        INSERT INTO "cdc".discarded
        SELECT c.relname FROM pg_catalog.pg_class c
        WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'cdc')
          AND c.relkind = 'r' AND c.relname ~ '^shadow_[0-9]+_[0-9]+$'
        ON CONFLICT DO NOTHING;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                   WHERE i.indrelid = pg_catalog.to_regclass('"cdc".version') AND i.indisprimary) THEN
        ALTER TABLE "cdc".version ADD PRIMARY KEY (version);
    END IF;
END
$cdc$;
-- The one row of a new schema.
INSERT INTO "cdc".checkpoint SELECT 0 WHERE NOT EXISTS (SELECT FROM "cdc".checkpoint);

-- Rows that the target rejects, and the views of the bookkeeping. Created with bookkeeping.sql. Letters of states: sql/README.md.

-- A rejected row, without its values. isolate.sql writes it.
CREATE TABLE IF NOT EXISTS "cdc".rejection (
    read_model integer NOT NULL REFERENCES "cdc".read_model ON DELETE CASCADE,
    n bigint NOT NULL,                   -- number in rejected_<id>, which has identity and key as they are
    identity text,                       -- NULL: the source has no such row, and the lookup does not let cdc delete it
    key text,                            -- NULL: the lookup's key does not take it
    shown text NOT NULL,                 -- under this key: nothing, old row, other row
    sqlstate text NOT NULL,
    constraint_name text,
    column_name text,
    lsn pg_lsn,                          -- end of the batch in which it was rejected
    rejected_at timestamptz NOT NULL,
    PRIMARY KEY (read_model, n)
);

-- Until version 5 the time had another name.
DO $cdc$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = pg_catalog.to_regclass('"cdc".rejection') AND a.attname = 'refused_at') THEN
        ALTER TABLE "cdc".rejection RENAME COLUMN refused_at TO rejected_at;
        ALTER VIEW "cdc".rejected RENAME COLUMN refused_at TO rejected_at;
    END IF;
END
$cdc$;

-- Which rows the lookups lack, or show as they were before, and why.
CREATE OR REPLACE VIEW "cdc".rejected AS
SELECT m.name AS read_model,
       r.identity,
       r.key,
       r.shown,
       r.sqlstate,
       r.constraint_name,
       r.column_name,
       r.lsn,
       r.rejected_at
FROM "cdc".rejection r JOIN "cdc".read_model m ON m.id = r.read_model;

-- For reports and alerts: how fresh each lookup is.
CREATE OR REPLACE VIEW "cdc".freshness AS
SELECT m.name AS read_model,
       CASE WHEN m.state = 'in_step' THEN p.state ELSE m.state END AS state,
       -- A read model that takes no part in the stream stays as it was when it left.
       CASE WHEN m.state = 'in_step' THEN c.commit_time ELSE m.as_of END AS as_of,
       CASE WHEN m.state = 'in_step' THEN c.lsn ELSE m.as_of_lsn END AS as_of_lsn,
       c.applied_at,
       n.rows,
       n.last_change_at,
       m.last_resync_at,
       m.last_resync_repaired,
       coalesce(m.reason, p.healing, p.error) AS reason,
       (SELECT count(*) FROM "cdc".rejection r WHERE r.read_model = m.id) AS rejected
FROM "cdc".read_model m CROSS JOIN "cdc".pipeline p CROSS JOIN "cdc".checkpoint c
LEFT JOIN "cdc".counted n ON n.read_model = m.id;
-- Every role may ask how fresh the lookups are.
GRANT SELECT ON "cdc".freshness TO PUBLIC;

-- Waits until the lookups show everything that was committed at the source before a position; false if they do not in time.
-- Call it as a statement of its own: the next statement then sees the rows.
--
-- While it waits it holds an advisory lock. The running cdc sees by the lock that a session waits, and stores the position of an
-- idle source at once. The lock ends with the subtransaction around it, in whatever way that ends. A session that only locked could
-- leave the lock behind, and NOTIFY does not work from a transaction that is still open.
CREATE OR REPLACE FUNCTION "cdc".wait_for(lsn pg_lsn, timeout interval DEFAULT '10 seconds',
    read_model text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $cdc$
DECLARE
    _deadline timestamptz := clock_timestamp() + wait_for.timeout;
    _pause float8 := 0.005;
    _reached boolean;
BEGIN
    IF wait_for.lsn IS NULL OR wait_for.timeout IS NULL THEN
        RAISE EXCEPTION 'wait_for needs a position and a time, found NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF wait_for.read_model IS NOT NULL
       AND NOT EXISTS (SELECT FROM "cdc".read_model m WHERE m.name = wait_for.read_model) THEN
        RAISE EXCEPTION 'there is no read model "%"', wait_for.read_model
            USING ERRCODE = 'undefined_object', HINT = 'Column read_model of the view freshness has the names.';
    END IF;
    BEGIN
        PERFORM pg_try_advisory_xact_lock_shared(hashtext('cdc wait_for'), hashtext('cdc'));
        LOOP
            -- While everything is being copied, the stored position may belong to another history.
            SELECT c.lsn >= wait_for.lsn AND p.healing IS NULL
                   AND NOT EXISTS (SELECT FROM "cdc".read_model m
                                   WHERE m.state <> 'in_step' AND m.name = coalesce(wait_for.read_model, m.name))
            INTO _reached FROM "cdc".checkpoint c CROSS JOIN "cdc".pipeline p;
            EXIT WHEN _reached OR clock_timestamp() >= _deadline;
            IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
                RAISE EXCEPTION 'wait_for cannot be used in a transaction with isolation level %',
                    upper(current_setting('transaction_isolation'))
                    USING ERRCODE = 'invalid_transaction_state',
                          HINT = 'The transaction cannot see later commits. Call it before the transaction begins.';
            END IF;
            PERFORM pg_sleep(least(_pause, extract(epoch FROM _deadline - clock_timestamp())::float8));
            _pause := least(_pause * 2, 0.1);
        END LOOP;
        RAISE EXCEPTION 'waited' USING ERRCODE = 'CDC02';
    EXCEPTION WHEN SQLSTATE 'CDC02' THEN
        NULL;
    END;
    RETURN coalesce(_reached, false);
END
$cdc$;
-- Every role may wait.
GRANT EXECUTE ON FUNCTION "cdc".wait_for(pg_lsn, interval, text) TO PUBLIC;

-- What the tables, columns, views and functions of the bookkeeping are, for a reader of \d+ or of a tool.
-- The last part of the schema: comments are written when the schema is created or brought up to date, never at a start.
-- Maps, rejected rows and shadows are described when they are created (src/target/model/comments.rs). Letters of states: sql/README.md.

-- Table version.
COMMENT ON TABLE "cdc".version IS 'Version of this schema, one row. An older cdc refuses a newer one';
COMMENT ON COLUMN "cdc".version.version IS 'number of the version';

-- Table checkpoint.
COMMENT ON TABLE "cdc".checkpoint IS 'The checkpoint and the fence, one row. Each transaction that writes lookups updates it first';
COMMENT ON COLUMN "cdc".checkpoint.epoch IS 'the owner, as in pipeline; an older epoch cannot commit';
COMMENT ON COLUMN "cdc".checkpoint.lsn IS 'every commit of the source before this position is applied; NULL before the first copy';
COMMENT ON COLUMN "cdc".checkpoint.commit_time IS 'the lookups are as of this time of the source''s clock; NULL: not known';
COMMENT ON COLUMN "cdc".checkpoint.last_commit_lsn IS 'last applied transaction with a change of a published table: its commit';
COMMENT ON COLUMN "cdc".checkpoint.last_commit_xid IS 'the same: its number';
COMMENT ON COLUMN "cdc".checkpoint.last_commit_time IS 'the same: its time, of the source''s clock';
COMMENT ON COLUMN "cdc".checkpoint.applied_at IS 'when the checkpoint was last stored, of the target''s clock';

-- Table counted.
COMMENT ON TABLE "cdc".counted IS 'What was counted when the lookups were written, one row for each read model';
COMMENT ON COLUMN "cdc".counted.read_model IS 'number of the read model';
COMMENT ON COLUMN "cdc".counted.rows IS 'live rows in the lookup';
COMMENT ON COLUMN "cdc".counted.last_change_at IS 'when the lookup was last changed';

-- Table pipeline.
COMMENT ON TABLE "cdc".pipeline IS 'The pipeline, its owner and what the owner is doing, one row';
COMMENT ON COLUMN "cdc".pipeline.singleton IS 'always true: there is one row';
COMMENT ON COLUMN "cdc".pipeline.slot IS 'replication slot at the source; names the pipeline';
COMMENT ON COLUMN "cdc".pipeline.publication IS 'publication at the source';
COMMENT ON COLUMN "cdc".pipeline.epoch IS 'number of the owner; each owner raises it';
COMMENT ON COLUMN "cdc".pipeline.system_identifier IS 'source to which the checkpoint belongs, by IDENTIFY_SYSTEM';
COMMENT ON COLUMN "cdc".pipeline.timeline IS 'the same: its timeline';
COMMENT ON COLUMN "cdc".pipeline.source_database IS 'the same: its database';
COMMENT ON COLUMN "cdc".pipeline.publication_oid IS 'publication for which the slot was created; another one later means that the publication was created again';
COMMENT ON COLUMN "cdc".pipeline.publication_mark IS 'comment of the publication, if this pipeline created it';
COMMENT ON COLUMN "cdc".pipeline.slot_system_identifier IS 'source where this pipeline created the slot, or was about to; there the slot is its own';
COMMENT ON COLUMN "cdc".pipeline.slot_database IS 'the same: its database';
COMMENT ON COLUMN "cdc".pipeline.read_system_identifier IS 'source that the owner reads, or was about to';
COMMENT ON COLUMN "cdc".pipeline.read_database IS 'the same: its database';
COMMENT ON COLUMN "cdc".pipeline.healing IS 'why everything is copied now; NULL in normal work';
COMMENT ON COLUMN "cdc".pipeline.healing_since IS 'since when';
COMMENT ON COLUMN "cdc".pipeline.state IS 'starting, waiting, copying, streaming, retrying or stopped';
COMMENT ON COLUMN "cdc".pipeline.state_since IS 'since when';
COMMENT ON COLUMN "cdc".pipeline.error IS 'the last error, while it lasts';
COMMENT ON COLUMN "cdc".pipeline.error_hint IS 'what to do about it';
COMMENT ON COLUMN "cdc".pipeline.backend_pid IS 'the owner''s session that writes the lookups: its process at this server';
COMMENT ON COLUMN "cdc".pipeline.backend_start IS 'the same: when it began';
COMMENT ON COLUMN "cdc".pipeline.owner IS 'process of the owner';
COMMENT ON COLUMN "cdc".pipeline.heartbeat_at IS 'when the owner was last seen';
COMMENT ON COLUMN "cdc".pipeline.waiting_for IS 'who keeps a copy from beginning, and since when';
COMMENT ON COLUMN "cdc".pipeline.stuck_lsn IS 'the source cannot send what follows this position; over once the checkpoint has passed it';
COMMENT ON COLUMN "cdc".pipeline.stuck_sqlstate IS 'the source''s error there: its SQLSTATE';
COMMENT ON COLUMN "cdc".pipeline.stuck_since IS 'since when';
COMMENT ON COLUMN "cdc".pipeline.stuck_times IS 'how often it was tried';
COMMENT ON COLUMN "cdc".pipeline.stuck_error IS 'the source''s error there';
COMMENT ON COLUMN "cdc".pipeline.healings IS 'copies of everything that began one soon after the other';
COMMENT ON COLUMN "cdc".pipeline.healing_began_at IS 'when the last of them began';
COMMENT ON COLUMN "cdc".pipeline.healed_at IS 'when the last one succeeded';
COMMENT ON COLUMN "cdc".pipeline.healing_after IS 'the next one waits until then; NULL: none waits';

-- Table read_model.
COMMENT ON TABLE "cdc".read_model IS 'The read models, one row each: a source table and its lookup';
COMMENT ON COLUMN "cdc".read_model.id IS 'number; names map_<id>, rejected_<id> and shadow_<id>_<n>';
COMMENT ON COLUMN "cdc".read_model.generation IS 'which map it has: from 1 on map_<id>_<generation>';
COMMENT ON COLUMN "cdc".read_model.name IS 'lookup table';
COMMENT ON COLUMN "cdc".read_model.source IS 'source table';
COMMENT ON COLUMN "cdc".read_model.definition IS 'columns, key, soft delete and identity for which the map was created';
COMMENT ON COLUMN "cdc".read_model.state IS 'new (never copied), in_step or suspended';
COMMENT ON COLUMN "cdc".read_model.published IS 'watch: the publication''s options and entries for the table';
COMMENT ON COLUMN "cdc".read_model.storage IS 'watch: files of the table and its leaves';
COMMENT ON COLUMN "cdc".read_model.texts IS 'watch: labels of enums and the like, by column, as hashes';
COMMENT ON COLUMN "cdc".read_model.as_of IS 'what the lookup shows while the read model takes no part in the stream; NULL while it does';
COMMENT ON COLUMN "cdc".read_model.as_of_lsn IS 'the same as a position of the source';
COMMENT ON COLUMN "cdc".read_model.reason IS 'why it is suspended';
COMMENT ON COLUMN "cdc".read_model.unreadable IS 'whether a copy failed because of a value of the source, so that its table is not published';
COMMENT ON COLUMN "cdc".read_model.hint IS 'what to do about it';
COMMENT ON COLUMN "cdc".read_model.since IS 'since when it is in this state';
COMMENT ON COLUMN "cdc".read_model.copy_rows IS 'running copy: rows so far; NULL when none runs';
COMMENT ON COLUMN "cdc".read_model.copy_estimate IS 'running copy: rows that the source''s statistics expect';
COMMENT ON COLUMN "cdc".read_model.copy_bytes IS 'running copy: bytes so far';
COMMENT ON COLUMN "cdc".read_model.copy_seconds IS 'running copy: how long it has taken so far';
COMMENT ON COLUMN "cdc".read_model.last_resync_at IS 'when the last resync ended';
COMMENT ON COLUMN "cdc".read_model.last_resync_repaired IS 'rows of a read model in step that the last resync had to write';
COMMENT ON COLUMN "cdc".read_model.waiting IS 'live rows whose key another row had, when all rows were last written or compared';
COMMENT ON COLUMN "cdc".read_model.compared_at IS 'when all rows were last compared';
COMMENT ON COLUMN "cdc".read_model.differing IS 'rows that differed then and were left as they were: only a dry run leaves any';

-- Table resync.
COMMENT ON TABLE "cdc".resync IS 'Requested, running and finished resyncs, newest last';
COMMENT ON COLUMN "cdc".resync.id IS 'number';
COMMENT ON COLUMN "cdc".resync.read_models IS 'their names; NULL is all';
COMMENT ON COLUMN "cdc".resync.dry_run IS 'whether it only compares';
COMMENT ON COLUMN "cdc".resync.most_keys IS 'keys of each kind of difference that a dry run names';
COMMENT ON COLUMN "cdc".resync.origin IS 'schedule, request, watch, first copy or heal';
COMMENT ON COLUMN "cdc".resync.state IS 'queued, running, done or failed';
COMMENT ON COLUMN "cdc".resync.requested_at IS 'when it was requested';
COMMENT ON COLUMN "cdc".resync.started_at IS 'when it began';
COMMENT ON COLUMN "cdc".resync.finished_at IS 'when it ended';
COMMENT ON COLUMN "cdc".resync.waiting_for IS 'who keeps it from beginning, and since when';
COMMENT ON COLUMN "cdc".resync.lsn IS 'the lookups equalled the source as of this position';
COMMENT ON COLUMN "cdc".resync.result IS 'counts for each read model: inserted, updated, deleted, unchanged, total, keys';
COMMENT ON COLUMN "cdc".resync.error IS 'why it failed';
COMMENT ON COLUMN "cdc".resync.epoch IS 'the owner that carries it out, or did so last';

-- Table shadow.
COMMENT ON TABLE "cdc".shadow IS 'The UNLOGGED tables that copies fill, one row each. They are kept and emptied';
COMMENT ON COLUMN "cdc".shadow.name IS 'table in this schema; the session that fills it holds the advisory lock of its name';
COMMENT ON COLUMN "cdc".shadow.definition IS 'its columns';
COMMENT ON COLUMN "cdc".shadow.copy IS 'the copy whose rows it holds, or may hold; NULL: it is empty';
COMMENT ON COLUMN "cdc".shadow.since IS 'since when';

-- Table discarded.
COMMENT ON TABLE "cdc".discarded IS 'Tables of this schema that are no longer needed: dropped once no other session has them locked';
COMMENT ON COLUMN "cdc".discarded.name IS 'table in this schema';
COMMENT ON COLUMN "cdc".discarded.since IS 'since when';

-- Table rejection.
COMMENT ON TABLE "cdc".rejection IS 'Rows that the lookups do not take, one row each, without their values. For reports: view rejected';
COMMENT ON COLUMN "cdc".rejection.read_model IS 'number of the read model';
COMMENT ON COLUMN "cdc".rejection.n IS 'number of the entry in rejected_<id>, which has identity and key as they are';
COMMENT ON COLUMN "cdc".rejection.identity IS 'identity of the source row; NULL: the source has no such row, and the lookup does not let cdc delete it';
COMMENT ON COLUMN "cdc".rejection.key IS 'key in the lookup; NULL: a type of the lookup does not take it';
COMMENT ON COLUMN "cdc".rejection.shown IS 'under this key: nothing, old row or other row';
COMMENT ON COLUMN "cdc".rejection.sqlstate IS 'the target''s error: its SQLSTATE';
COMMENT ON COLUMN "cdc".rejection.constraint_name IS 'the same: the constraint';
COMMENT ON COLUMN "cdc".rejection.column_name IS 'the same: the column';
COMMENT ON COLUMN "cdc".rejection.lsn IS 'end of the batch in which the row was rejected';
COMMENT ON COLUMN "cdc".rejection.rejected_at IS 'when the row was first rejected for this reason';

-- View rejected.
COMMENT ON VIEW "cdc".rejected IS 'Which rows the lookups lack, or show as they were before, and why';
COMMENT ON COLUMN "cdc".rejected.read_model IS 'lookup table';
COMMENT ON COLUMN "cdc".rejected.identity IS 'identity of the source row; NULL: the source has no such row, and the lookup does not let cdc delete it';
COMMENT ON COLUMN "cdc".rejected.key IS 'key in the lookup; NULL: a type of the lookup does not take it';
COMMENT ON COLUMN "cdc".rejected.shown IS 'under this key: nothing, old row or other row';
COMMENT ON COLUMN "cdc".rejected.sqlstate IS 'the target''s error: its SQLSTATE';
COMMENT ON COLUMN "cdc".rejected.constraint_name IS 'the same: the constraint';
COMMENT ON COLUMN "cdc".rejected.column_name IS 'the same: the column';
COMMENT ON COLUMN "cdc".rejected.lsn IS 'end of the batch in which the row was rejected';
COMMENT ON COLUMN "cdc".rejected.rejected_at IS 'when the row was first rejected for this reason';

-- View freshness.
COMMENT ON VIEW "cdc".freshness IS 'How fresh each lookup is, for reports and alerts';
COMMENT ON COLUMN "cdc".freshness.read_model IS 'lookup table';
COMMENT ON COLUMN "cdc".freshness.state IS 'new, suspended, or what the pipeline does: starting, waiting, copying, streaming, retrying, stopped';
COMMENT ON COLUMN "cdc".freshness.as_of IS 'the lookup is as of this time of the source''s clock; NULL: not known';
COMMENT ON COLUMN "cdc".freshness.as_of_lsn IS 'the lookup is as of this position of the source';
COMMENT ON COLUMN "cdc".freshness.applied_at IS 'when the checkpoint was last stored';
COMMENT ON COLUMN "cdc".freshness.rows IS 'live rows in the lookup';
COMMENT ON COLUMN "cdc".freshness.last_change_at IS 'when the lookup was last changed';
COMMENT ON COLUMN "cdc".freshness.last_resync_at IS 'when the last resync ended';
COMMENT ON COLUMN "cdc".freshness.last_resync_repaired IS 'rows that the last resync had to write although the read model was in step';
COMMENT ON COLUMN "cdc".freshness.reason IS 'why it is suspended, why everything is copied, or the last error';
COMMENT ON COLUMN "cdc".freshness.rejected IS 'rows that the lookup does not take';

-- Function wait_for.
COMMENT ON FUNCTION "cdc".wait_for(pg_lsn, interval, text)
    IS 'Waits until the lookups show everything that was committed at the source before this position; false if they do not in time';

-- Tables that an earlier version has created, by the prefixes of their columns. A table that another session has locked gets no comments.
DO $cdc$
DECLARE
    _table name;
    _column name;
BEGIN
    FOR _table IN
        SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'cdc' AND c.relkind = 'r' AND c.relname ~ '^(map|rejected|shadow)_[0-9]+(_[0-9]+)?$'
          AND c.relowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
          AND pg_catalog.obj_description(c.oid, 'pg_class') IS NULL
    LOOP
        BEGIN
            EXECUTE pg_catalog.format('LOCK TABLE %I.%I IN SHARE UPDATE EXCLUSIVE MODE NOWAIT', 'cdc', _table);
            EXECUTE pg_catalog.format('COMMENT ON TABLE %I.%I IS %L', 'cdc', _table,
                CASE pg_catalog.split_part(_table, '_', 1)
                    WHEN 'map' THEN 'The map of a read model: each source row that must be remembered, its key, and whether it is shown'
                    WHEN 'rejected' THEN 'Rows that the lookup of a read model does not take. For reports: view rejected'
                    ELSE 'The rows of a copy, by identity; kept and emptied' END);
            FOR _column IN
                SELECT a.attname FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = pg_catalog.format('%I.%I', 'cdc', _table)::pg_catalog.regclass
                  AND a.attnum > 0 AND NOT a.attisdropped
            LOOP
                EXECUTE pg_catalog.format('COMMENT ON COLUMN %I.%I.%I IS %L', 'cdc', _table, _column,
                    CASE pg_catalog.rtrim(_column, '0123456789')
                        WHEN 'i' THEN 'identity of the source row'
                        WHEN 'k' THEN 'key in the lookup'
                        WHEN 'o' THEN 'not used in a shadow'
                        WHEN 'p' THEN 'value'
                        WHEN 'u' THEN 'whether the stream left the value out'
                        WHEN 'v' THEN 'value of a row that is not shown'
                        WHEN 'e' THEN 'why the row was rejected: SQLSTATE, constraint, column'
                        WHEN 'n' THEN 'number of the entry, as in rejection'
                        WHEN 'lsn' THEN 'end of the batch in which the row was rejected'
                        WHEN 'at' THEN 'when the row was rejected first for this reason'
                        ELSE 'state of the row: l live, s shown, w waits, d dead, r or x rejected, a away' END);
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
END
$cdc$;

-- The end of bookkeeping.sql, when its views read the new places.
ALTER TABLE "cdc".pipeline DROP COLUMN IF EXISTS lsn, DROP COLUMN IF EXISTS commit_time, DROP COLUMN IF EXISTS last_commit_lsn,
    DROP COLUMN IF EXISTS last_commit_xid, DROP COLUMN IF EXISTS last_commit_time, DROP COLUMN IF EXISTS applied_at;
-- The same for the read models.
ALTER TABLE "cdc".read_model DROP COLUMN IF EXISTS rows, DROP COLUMN IF EXISTS last_change_at;

-- The owner of the database may dump it: everything that exists now, and everything that is created later.
DO $cdc$
DECLARE
    _owner text := CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 140000 THEN 'pg_database_owner' ELSE (SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) END;
    _name text;
BEGIN
    FOR _name IN
        SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'cdc' AND c.relkind IN ('r', 'v', 'S')
          AND c.relowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
    LOOP
        EXECUTE pg_catalog.format('GRANT SELECT ON %I.%I TO %I', 'cdc', _name, _owner);
    END LOOP;
    EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', 'cdc', _owner);
    EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON SEQUENCES TO %I', 'cdc', _owner);
END
$cdc$;
-- The schema is up to date.
UPDATE "cdc".version SET version = 6 WHERE version < 6;
