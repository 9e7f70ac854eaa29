-- Waits until the lookups show everything that was committed at the source before a position; false if they do not in time.
-- Call it as a statement of its own: the next statement then sees the rows.
--
-- While it waits it holds an advisory lock. The running cdc sees by the lock that a session waits, and stores the position of an
-- idle source at once. The lock ends with the subtransaction around it, in whatever way that ends. A session that only locked could
-- leave the lock behind, and NOTIFY does not work from a transaction that is still open.
CREATE OR REPLACE FUNCTION {{schema}}.wait_for(lsn pg_lsn, timeout interval DEFAULT '10 seconds',
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
       AND NOT EXISTS (SELECT FROM {{schema}}.read_model m WHERE m.name = wait_for.read_model) THEN
        RAISE EXCEPTION 'there is no read model "%"', wait_for.read_model
            USING ERRCODE = 'undefined_object', HINT = 'Column read_model of the view freshness has the names.';
    END IF;
    BEGIN
        PERFORM pg_try_advisory_xact_lock_shared(hashtext('cdc wait_for'), hashtext({{schema_name}}));
        LOOP
            -- While everything is being copied, the stored position may belong to another history.
            SELECT c.lsn >= wait_for.lsn AND p.healing IS NULL
                   AND NOT EXISTS (SELECT FROM {{schema}}.read_model m
                                   WHERE m.state <> 'in_step' AND m.name = coalesce(wait_for.read_model, m.name))
            INTO _reached FROM {{schema}}.checkpoint c CROSS JOIN {{schema}}.pipeline p;
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
GRANT EXECUTE ON FUNCTION {{schema}}.wait_for(pg_lsn, interval, text) TO PUBLIC;
