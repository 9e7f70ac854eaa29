-- The second step of merge.sql and isolate.sql: records the keys that may change hands, and writes the final states into the map.
IF _clear THEN
    INSERT INTO {{touched}} ({{?k}}, claimed, open)
    SELECT {{?x_k}}, bool_or(x.claimed), {{?open}} FROM (
        SELECT {{?m_k}}, false AS claimed FROM {{map}} m WHERE m.state IN ('s', 'w', 'r', 'x')
        UNION ALL
        SELECT {{?l_key_as_k}}, false FROM {{lookup}} l
        UNION ALL
        SELECT {{?s_key_as_k}}, true FROM {{stage}} s WHERE s.state = 'l'
    ) x GROUP BY {{?x_k}};
    DELETE FROM {{map}} m
    WHERE NOT EXISTS (SELECT FROM {{stage}} s WHERE {{?identity_is_map}} AND s.state IN ('l', 'd', 'x'));
    UPDATE {{map}} m SET {{?map_assign}}
    FROM {{stage}} s
    WHERE {{?identity_is_map}} AND s.state IN ('l', 'd', 'x') AND {{?map_differs}};
    INSERT INTO {{map}} ({{?i}}, {{?k}}, state, {{?v}})
    SELECT {{?s_i}}, {{?s_key}}, CASE s.state WHEN 'l' THEN 's' ELSE s.state END, {{?kept_values}}
    FROM {{stage}} s
    WHERE s.state IN ('l', 'd', 'x') AND NOT EXISTS (SELECT FROM {{map}} m WHERE {{?identity_is_map}});
ELSE
    INSERT INTO {{touched}} ({{?k}}, claimed, open)
    SELECT {{?x_k}}, bool_or(x.claimed), {{?open}} FROM (
        SELECT {{?x_k}}, false AS claimed FROM {{moving}} x WHERE x.was IN ('s', 'w', 'r', 'x')
        UNION ALL
        SELECT {{?x_c_as_k}}, true FROM {{moving}} x WHERE x.state = 'l'
    ) x GROUP BY {{?x_k}};
    -- An identity that a row of the stage has taken keeps its entry, also if the row does not move: in a large transaction a chunk may
    -- bring back a row that an earlier chunk deleted. Entries are found by ctid: no other session writes here.
    IF EXISTS (SELECT FROM {{moving}} x WHERE x.map_row IS NOT NULL AND x.state NOT IN ('l', 'd', 'x')) THEN
        {{> hash.sql}}
        DELETE FROM {{map}} m
        {{?entries_that_go}}
          AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{?identity_is_map}} AND s.state IN ('l', 'd', 'x'));
        {{> look_up.sql}}
    END IF;
    UPDATE {{map}} m SET {{?map_assign}}
    FROM {{moving}} x JOIN {{stage}} s ON s.ctid = x.stage_row
    WHERE m.ctid = x.map_row AND x.state IN ('l', 'd', 'x') AND {{?map_differs}};
    INSERT INTO {{map}} ({{?i}}, {{?k}}, state, {{?v}})
    SELECT {{?s_i}}, {{?s_key}}, CASE s.state WHEN 'l' THEN 's' ELSE s.state END, {{?kept_values}}
    FROM {{moving}} x JOIN {{stage}} s ON s.ctid = x.stage_row
    WHERE x.map_row IS NULL AND x.state IN ('l', 'd', 'x');
END IF;
