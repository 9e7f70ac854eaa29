-- A step of merge.sql: rows that may change the map, and the keys that change hands with them.
--
-- The map gets an index by key when two live rows first have the same key: at a source whose keys are unique, the index would
-- cost a third of the cost of new rows. Without the index, the holder of a key is the row that is shown under it. So the lookup
-- says whether a row outside of the batch holds a key that the batch claims. Only then is the map read.
_ask_map := pg_catalog.to_regclass({{map_key_name}}) IS NOT NULL;
IF NOT (_ask_map OR _clear) THEN
    _ask_map := EXISTS (SELECT FROM {{moving}} x WHERE x.state = 'l' GROUP BY {{?x_c}} HAVING count(*) > 1);
    IF NOT _ask_map THEN
        _ask_map := EXISTS (SELECT FROM (
                        SELECT {{?x_c}} FROM {{moving}} x WHERE x.state = 'l'
                        EXCEPT
                        SELECT {{?x_k}} FROM {{moving}} x WHERE x.was = 's') x
                    WHERE {{?claim_is_shown}});
    END IF;
END IF;
{{> take_in.sql}}
-- Two live rows have the same key, or a row has waited for a key that is free now.
IF _ask_map OR _clear THEN
    {{> find_claims.sql}}
    {{> hash.sql}}
    UPDATE {{touched}} t SET open = true
    FROM (SELECT t.ctid AS place
          FROM {{touched}} t JOIN {{map}} m ON {{?touched_is_map}}
          WHERE m.state IN ('s', 'w'){{?map_of_claims}}
          GROUP BY t.ctid, t.claimed
          HAVING count(*) > t.claimed::integer OR bool_or(m.state = 'w')) x
    WHERE t.ctid = x.place;
    _shared := FOUND;
    IF _shared THEN
        {{> make_key_index.sql}}
        {{> look_up.sql}}
        {{> find_shown.sql}}
        {{> hash.sql}}
        {{> share_out_keys.sql}}
    END IF;
    {{> look_up.sql}}
END IF;
-- A key that changes hands is updated in place: only keys that no row claims any more are deleted.
{{> count_rows.sql kind = deleted, statement = delete_unclaimed.sql}}
