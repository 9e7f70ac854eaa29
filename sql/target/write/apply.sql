-- A small batch of one read model, without a TRUNCATE: fence, checkpoint, rows and map in one statement and so in one commit.
-- Columns and states: the legend in sql/README.md.
CREATE OR REPLACE FUNCTION {{function}}(_epoch bigint, _lsn text, _commit_time timestamptz,
    _last_lsn text, _last_xid bigint, _last_time timestamptz,
    _resolve boolean, _keys integer, {{?parameters}},
    OUT _inserted bigint, OUT _updated bigint, OUT _deleted bigint, OUT _total bigint,
    OUT _inserted_keys text[], OUT _updated_keys text[], OUT _deleted_keys text[])
LANGUAGE plpgsql AS $cdc$
DECLARE
    _moves boolean;
BEGIN
    PERFORM pg_temp.cdc_advance(_epoch, _lsn, _commit_time, _last_lsn, _last_xid, _last_time);
    INSERT INTO {{stage}} ({{?stage_columns}})
    SELECT {{?casts}} FROM unnest({{?arrays}}) AS a({{?stage_columns}});
    SELECT m._inserted, m._updated, m._deleted, m._total, m._inserted_keys, m._updated_keys, m._deleted_keys, m._moves
    INTO _inserted, _updated, _deleted, _total, _inserted_keys, _updated_keys, _deleted_keys, _moves
    FROM {{merge}}(false, _resolve, _keys) m;
    SET CONSTRAINTS ALL IMMEDIATE;
    DELETE FROM {{stage}};
    IF _moves THEN
        DELETE FROM {{moving}};
        DELETE FROM {{touched}};
    END IF;
END
$cdc$
