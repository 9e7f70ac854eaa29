-- What the tables, columns, views and functions of the bookkeeping are, for a reader of \d+ or of a tool.
-- The last part of the schema: comments are written when the schema is created or brought up to date, never at a start.
-- Maps, rejected rows and shadows are described when they are created (src/target/model/comments.rs). Letters of states: sql/README.md.

-- Table version.
COMMENT ON TABLE {{schema}}.version IS 'Version of this schema, one row. An older cdc refuses a newer one';
COMMENT ON COLUMN {{schema}}.version.version IS 'number of the version';

-- Table checkpoint.
COMMENT ON TABLE {{schema}}.checkpoint IS 'The checkpoint and the fence, one row. Each transaction that writes lookups updates it first';
COMMENT ON COLUMN {{schema}}.checkpoint.epoch IS 'the owner, as in pipeline; an older epoch cannot commit';
COMMENT ON COLUMN {{schema}}.checkpoint.lsn IS 'every commit of the source before this position is applied; NULL before the first copy';
COMMENT ON COLUMN {{schema}}.checkpoint.commit_time IS 'the lookups are as of this time of the source''s clock; NULL: not known';
COMMENT ON COLUMN {{schema}}.checkpoint.last_commit_lsn IS 'last applied transaction with a change of a published table: its commit';
COMMENT ON COLUMN {{schema}}.checkpoint.last_commit_xid IS 'the same: its number';
COMMENT ON COLUMN {{schema}}.checkpoint.last_commit_time IS 'the same: its time, of the source''s clock';
COMMENT ON COLUMN {{schema}}.checkpoint.applied_at IS 'when the checkpoint was last stored, of the target''s clock';

-- Table counted.
COMMENT ON TABLE {{schema}}.counted IS 'What was counted when the lookups were written, one row for each read model';
COMMENT ON COLUMN {{schema}}.counted.read_model IS 'number of the read model';
COMMENT ON COLUMN {{schema}}.counted.rows IS 'live rows in the lookup';
COMMENT ON COLUMN {{schema}}.counted.last_change_at IS 'when the lookup was last changed';

-- Table pipeline.
COMMENT ON TABLE {{schema}}.pipeline IS 'The pipeline, its owner and what the owner is doing, one row';
COMMENT ON COLUMN {{schema}}.pipeline.singleton IS 'always true: there is one row';
COMMENT ON COLUMN {{schema}}.pipeline.slot IS 'replication slot at the source; names the pipeline';
COMMENT ON COLUMN {{schema}}.pipeline.publication IS 'publication at the source';
COMMENT ON COLUMN {{schema}}.pipeline.epoch IS 'number of the owner; each owner raises it';
COMMENT ON COLUMN {{schema}}.pipeline.system_identifier IS 'source to which the checkpoint belongs, by IDENTIFY_SYSTEM';
COMMENT ON COLUMN {{schema}}.pipeline.timeline IS 'the same: its timeline';
COMMENT ON COLUMN {{schema}}.pipeline.source_database IS 'the same: its database';
COMMENT ON COLUMN {{schema}}.pipeline.publication_oid IS 'publication for which the slot was created; another one later means that the publication was created again';
COMMENT ON COLUMN {{schema}}.pipeline.publication_mark IS 'comment of the publication, if this pipeline created it';
COMMENT ON COLUMN {{schema}}.pipeline.slot_system_identifier IS 'source where this pipeline created the slot, or was about to; there the slot is its own';
COMMENT ON COLUMN {{schema}}.pipeline.slot_database IS 'the same: its database';
COMMENT ON COLUMN {{schema}}.pipeline.read_system_identifier IS 'source that the owner reads, or was about to';
COMMENT ON COLUMN {{schema}}.pipeline.read_database IS 'the same: its database';
COMMENT ON COLUMN {{schema}}.pipeline.healing IS 'why everything is copied now; NULL in normal work';
COMMENT ON COLUMN {{schema}}.pipeline.healing_since IS 'since when';
COMMENT ON COLUMN {{schema}}.pipeline.state IS 'starting, waiting, copying, streaming, retrying or stopped';
COMMENT ON COLUMN {{schema}}.pipeline.state_since IS 'since when';
COMMENT ON COLUMN {{schema}}.pipeline.error IS 'the last error, while it lasts';
COMMENT ON COLUMN {{schema}}.pipeline.error_hint IS 'what to do about it';
COMMENT ON COLUMN {{schema}}.pipeline.backend_pid IS 'the owner''s session that writes the lookups: its process at this server';
COMMENT ON COLUMN {{schema}}.pipeline.backend_start IS 'the same: when it began';
COMMENT ON COLUMN {{schema}}.pipeline.owner IS 'process of the owner';
COMMENT ON COLUMN {{schema}}.pipeline.heartbeat_at IS 'when the owner was last seen';
COMMENT ON COLUMN {{schema}}.pipeline.waiting_for IS 'who keeps a copy from beginning, and since when';
COMMENT ON COLUMN {{schema}}.pipeline.stuck_lsn IS 'the source cannot send what follows this position; over once the checkpoint has passed it';
COMMENT ON COLUMN {{schema}}.pipeline.stuck_sqlstate IS 'the source''s error there: its SQLSTATE';
COMMENT ON COLUMN {{schema}}.pipeline.stuck_since IS 'since when';
COMMENT ON COLUMN {{schema}}.pipeline.stuck_times IS 'how often it was tried';
COMMENT ON COLUMN {{schema}}.pipeline.stuck_error IS 'the source''s error there';
COMMENT ON COLUMN {{schema}}.pipeline.healings IS 'copies of everything that began one soon after the other';
COMMENT ON COLUMN {{schema}}.pipeline.healing_began_at IS 'when the last of them began';
COMMENT ON COLUMN {{schema}}.pipeline.healed_at IS 'when the last one succeeded';
COMMENT ON COLUMN {{schema}}.pipeline.healing_after IS 'the next one waits until then; NULL: none waits';

-- Table read_model.
COMMENT ON TABLE {{schema}}.read_model IS 'The read models, one row each: a source table and its lookup';
COMMENT ON COLUMN {{schema}}.read_model.id IS 'number; names map_<id>, rejected_<id> and shadow_<id>_<n>';
COMMENT ON COLUMN {{schema}}.read_model.generation IS 'which map it has: from 1 on map_<id>_<generation>';
COMMENT ON COLUMN {{schema}}.read_model.name IS 'lookup table';
COMMENT ON COLUMN {{schema}}.read_model.source IS 'source table';
COMMENT ON COLUMN {{schema}}.read_model.definition IS 'columns, key, soft delete and identity for which the map was created';
COMMENT ON COLUMN {{schema}}.read_model.state IS 'new (never copied), in_step or suspended';
COMMENT ON COLUMN {{schema}}.read_model.published IS 'watch: the publication''s options and entries for the table';
COMMENT ON COLUMN {{schema}}.read_model.storage IS 'watch: files of the table and its leaves';
COMMENT ON COLUMN {{schema}}.read_model.texts IS 'watch: labels of enums and the like, by column, as hashes';
COMMENT ON COLUMN {{schema}}.read_model.as_of IS 'what the lookup shows while the read model takes no part in the stream; NULL while it does';
COMMENT ON COLUMN {{schema}}.read_model.as_of_lsn IS 'the same as a position of the source';
COMMENT ON COLUMN {{schema}}.read_model.reason IS 'why it is suspended';
COMMENT ON COLUMN {{schema}}.read_model.unreadable IS 'whether a copy failed because of a value of the source, so that its table is not published';
COMMENT ON COLUMN {{schema}}.read_model.hint IS 'what to do about it';
COMMENT ON COLUMN {{schema}}.read_model.since IS 'since when it is in this state';
COMMENT ON COLUMN {{schema}}.read_model.copy_rows IS 'running copy: rows so far; NULL when none runs';
COMMENT ON COLUMN {{schema}}.read_model.copy_estimate IS 'running copy: rows that the source''s statistics expect';
COMMENT ON COLUMN {{schema}}.read_model.copy_bytes IS 'running copy: bytes so far';
COMMENT ON COLUMN {{schema}}.read_model.copy_seconds IS 'running copy: how long it has taken so far';
COMMENT ON COLUMN {{schema}}.read_model.last_resync_at IS 'when the last resync ended';
COMMENT ON COLUMN {{schema}}.read_model.last_resync_repaired IS 'rows of a read model in step that the last resync had to write';
COMMENT ON COLUMN {{schema}}.read_model.waiting IS 'live rows whose key another row had, when all rows were last written or compared';
COMMENT ON COLUMN {{schema}}.read_model.compared_at IS 'when all rows were last compared';
COMMENT ON COLUMN {{schema}}.read_model.differing IS 'rows that differed then and were left as they were: only a dry run leaves any';

-- Table resync.
COMMENT ON TABLE {{schema}}.resync IS 'Requested, running and finished resyncs, newest last';
COMMENT ON COLUMN {{schema}}.resync.id IS 'number';
COMMENT ON COLUMN {{schema}}.resync.read_models IS 'their names; NULL is all';
COMMENT ON COLUMN {{schema}}.resync.dry_run IS 'whether it only compares';
COMMENT ON COLUMN {{schema}}.resync.most_keys IS 'keys of each kind of difference that a dry run names';
COMMENT ON COLUMN {{schema}}.resync.origin IS 'schedule, request, watch, first copy or heal';
COMMENT ON COLUMN {{schema}}.resync.state IS 'queued, running, done or failed';
COMMENT ON COLUMN {{schema}}.resync.requested_at IS 'when it was requested';
COMMENT ON COLUMN {{schema}}.resync.started_at IS 'when it began';
COMMENT ON COLUMN {{schema}}.resync.finished_at IS 'when it ended';
COMMENT ON COLUMN {{schema}}.resync.waiting_for IS 'who keeps it from beginning, and since when';
COMMENT ON COLUMN {{schema}}.resync.lsn IS 'the lookups equalled the source as of this position';
COMMENT ON COLUMN {{schema}}.resync.result IS 'counts for each read model: inserted, updated, deleted, unchanged, total, keys';
COMMENT ON COLUMN {{schema}}.resync.error IS 'why it failed';
COMMENT ON COLUMN {{schema}}.resync.epoch IS 'the owner that carries it out, or did so last';

-- Table shadow.
COMMENT ON TABLE {{schema}}.shadow IS 'The UNLOGGED tables that copies fill, one row each. They are kept and emptied';
COMMENT ON COLUMN {{schema}}.shadow.name IS 'table in this schema; the session that fills it holds the advisory lock of its name';
COMMENT ON COLUMN {{schema}}.shadow.definition IS 'its columns';
COMMENT ON COLUMN {{schema}}.shadow.copy IS 'the copy whose rows it holds, or may hold; NULL: it is empty';
COMMENT ON COLUMN {{schema}}.shadow.since IS 'since when';

-- Table discarded.
COMMENT ON TABLE {{schema}}.discarded IS 'Tables of this schema that are no longer needed: dropped once no other session has them locked';
COMMENT ON COLUMN {{schema}}.discarded.name IS 'table in this schema';
COMMENT ON COLUMN {{schema}}.discarded.since IS 'since when';

-- Table rejection.
COMMENT ON TABLE {{schema}}.rejection IS 'Rows that the lookups do not take, one row each, without their values. For reports: view rejected';
COMMENT ON COLUMN {{schema}}.rejection.read_model IS 'number of the read model';
COMMENT ON COLUMN {{schema}}.rejection.n IS 'number of the entry in rejected_<id>, which has identity and key as they are';
COMMENT ON COLUMN {{schema}}.rejection.identity IS 'identity of the source row; NULL: the source has no such row, and the lookup does not let cdc delete it';
COMMENT ON COLUMN {{schema}}.rejection.key IS 'key in the lookup; NULL: a type of the lookup does not take it';
COMMENT ON COLUMN {{schema}}.rejection.shown IS 'under this key: nothing, old row or other row';
COMMENT ON COLUMN {{schema}}.rejection.sqlstate IS 'the target''s error: its SQLSTATE';
COMMENT ON COLUMN {{schema}}.rejection.constraint_name IS 'the same: the constraint';
COMMENT ON COLUMN {{schema}}.rejection.column_name IS 'the same: the column';
COMMENT ON COLUMN {{schema}}.rejection.lsn IS 'end of the batch in which the row was rejected';
COMMENT ON COLUMN {{schema}}.rejection.rejected_at IS 'when the row was first rejected for this reason';

-- View rejected.
COMMENT ON VIEW {{schema}}.rejected IS 'Which rows the lookups lack, or show as they were before, and why';
COMMENT ON COLUMN {{schema}}.rejected.read_model IS 'lookup table';
COMMENT ON COLUMN {{schema}}.rejected.identity IS 'identity of the source row; NULL: the source has no such row, and the lookup does not let cdc delete it';
COMMENT ON COLUMN {{schema}}.rejected.key IS 'key in the lookup; NULL: a type of the lookup does not take it';
COMMENT ON COLUMN {{schema}}.rejected.shown IS 'under this key: nothing, old row or other row';
COMMENT ON COLUMN {{schema}}.rejected.sqlstate IS 'the target''s error: its SQLSTATE';
COMMENT ON COLUMN {{schema}}.rejected.constraint_name IS 'the same: the constraint';
COMMENT ON COLUMN {{schema}}.rejected.column_name IS 'the same: the column';
COMMENT ON COLUMN {{schema}}.rejected.lsn IS 'end of the batch in which the row was rejected';
COMMENT ON COLUMN {{schema}}.rejected.rejected_at IS 'when the row was first rejected for this reason';

-- View freshness.
COMMENT ON VIEW {{schema}}.freshness IS 'How fresh each lookup is, for reports and alerts';
COMMENT ON COLUMN {{schema}}.freshness.read_model IS 'lookup table';
COMMENT ON COLUMN {{schema}}.freshness.state IS 'new, suspended, or what the pipeline does: starting, waiting, copying, streaming, retrying, stopped';
COMMENT ON COLUMN {{schema}}.freshness.as_of IS 'the lookup is as of this time of the source''s clock; NULL: not known';
COMMENT ON COLUMN {{schema}}.freshness.as_of_lsn IS 'the lookup is as of this position of the source';
COMMENT ON COLUMN {{schema}}.freshness.applied_at IS 'when the checkpoint was last stored';
COMMENT ON COLUMN {{schema}}.freshness.rows IS 'live rows in the lookup';
COMMENT ON COLUMN {{schema}}.freshness.last_change_at IS 'when the lookup was last changed';
COMMENT ON COLUMN {{schema}}.freshness.last_resync_at IS 'when the last resync ended';
COMMENT ON COLUMN {{schema}}.freshness.last_resync_repaired IS 'rows that the last resync had to write although the read model was in step';
COMMENT ON COLUMN {{schema}}.freshness.reason IS 'why it is suspended, why everything is copied, or the last error';
COMMENT ON COLUMN {{schema}}.freshness.rejected IS 'rows that the lookup does not take';

-- Function wait_for.
COMMENT ON FUNCTION {{schema}}.wait_for(pg_lsn, interval, text)
    IS 'Waits until the lookups show everything that was committed at the source before this position; false if they do not in time';

-- Tables that an earlier version has created, by the prefixes of their columns. A table that another session has locked gets no comments.
DO $cdc$
DECLARE
    _table name;
    _column name;
BEGIN
    FOR _table IN
        SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = {{schema_name}} AND c.relkind = 'r' AND c.relname ~ '^(map|rejected|shadow)_[0-9]+(_[0-9]+)?$'
          AND c.relowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
          AND pg_catalog.obj_description(c.oid, 'pg_class') IS NULL
    LOOP
        BEGIN
            EXECUTE pg_catalog.format('LOCK TABLE %I.%I IN SHARE UPDATE EXCLUSIVE MODE NOWAIT', {{schema_name}}, _table);
            EXECUTE pg_catalog.format('COMMENT ON TABLE %I.%I IS %L', {{schema_name}}, _table,
                CASE pg_catalog.split_part(_table, '_', 1)
                    WHEN 'map' THEN 'The map of a read model: each source row that must be remembered, its key, and whether it is shown'
                    WHEN 'rejected' THEN 'Rows that the lookup of a read model does not take. For reports: view rejected'
                    ELSE 'The rows of a copy, by identity; kept and emptied' END);
            FOR _column IN
                SELECT a.attname FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = pg_catalog.format('%I.%I', {{schema_name}}, _table)::pg_catalog.regclass
                  AND a.attnum > 0 AND NOT a.attisdropped
            LOOP
                EXECUTE pg_catalog.format('COMMENT ON COLUMN %I.%I.%I IS %L', {{schema_name}}, _table, _column,
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
