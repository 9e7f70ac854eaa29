-- Brings a shadow (the source's rows by identity) to the final states of a batch, which are in {{stage}}. Each state is
-- looked up in the shadow's index (src/target/model/joins.rs). Columns and states: the legend in sql/README.md.
CREATE OR REPLACE FUNCTION {{function}}(_clear boolean, _resolve boolean) RETURNS void
LANGUAGE plpgsql {{?settings}} AS $cdc$
BEGIN
    IF _resolve THEN
        UPDATE {{stage}} s SET {{?resolve}} FROM {{shadow}} m
        WHERE m.ctid = (SELECT m.ctid FROM {{shadow}} m WHERE {{?start_is_map}}) AND ({{?left_out}});
        {{> fail_if_left_out.sql missing = the copy does not hold}}
    END IF;
    IF _clear THEN
        DELETE FROM {{shadow}};
    ELSE
        DELETE FROM {{shadow}} m USING {{stage}} s WHERE m.ctid = (SELECT m.ctid FROM {{shadow}} m WHERE {{?start_is_map}});
        DELETE FROM {{shadow}} m USING {{stage}} s WHERE m.ctid = (SELECT m.ctid FROM {{shadow}} m WHERE {{?identity_is_map}});
    END IF;
    INSERT INTO {{shadow}} ({{?i}}, state, {{?p}}, e1, e2, e3)
    SELECT {{?s_i}}, s.state, {{?s_p}}, s.e1, s.e2, s.e3 FROM {{stage}} s WHERE s.state IN ('l', 'd', 'x');
    TRUNCATE {{stage}};
END
$cdc$
