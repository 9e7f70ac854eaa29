-- The first step of merge.sql and isolate.sql: finds the rows that may change the map, and what the map says of them now. An identity
-- that a row no longer has gets an entry of its own, with state 'g'; it is deleted unless another row has taken it.
IF NOT _clear THEN
    INSERT INTO {{moving}} ({{?i}}, state, {{?c}}, stage_row, renamed, was, {{?k}}, map_row)
    SELECT {{?s_i}}, s.state, {{?s_key}}, s.place, s.o1 IS NOT NULL AND s.i1 IS NOT NULL AND {{?moved}}, m.state, {{?m_k}}, m.ctid
    FROM (SELECT s.*, s.ctid AS place FROM {{stage}} s{{?in_map_order}}) s LEFT JOIN {{?entry_known}}
    WHERE {{?may_move}};
    _moves := FOUND;
    IF _moves THEN
        INSERT INTO {{moving}} (state, renamed, was, {{?k}}, map_row)
        SELECT 'g', false, m.state, {{?m_k}}, m.ctid
        FROM {{stage}} s JOIN {{?entry_at_start}}
        WHERE s.i1 IS NOT NULL AND {{?moved}} AND EXISTS (SELECT FROM {{moving}} x WHERE x.renamed);
    END IF;
END IF;
