-- The first half of the writers merge.sql and isolate.sql: keys that may change hands are noted, and the map takes the
-- final states in.
    INSERT INTO {{touched}} ({{k}}, claimed)
    SELECT {{x_k}}, bool_or(x.claimed) FROM (
        SELECT {{m_k}}, false AS claimed FROM {{map}} m WHERE _clear AND m.state IN ('s', 'w', 'r', 'x')
        UNION ALL
        SELECT {{l_key_as_k}}, false FROM {{lookup}} l WHERE _clear
        UNION ALL
        SELECT {{m_k}}, false FROM (
            SELECT {{s_o_as_i}} FROM {{stage}} s WHERE NOT _clear AND s.o1 IS NOT NULL AND {{moved}}
            UNION ALL
            SELECT {{s_i}} FROM {{stage}} s WHERE NOT _clear AND s.i1 IS NOT NULL
        ) s JOIN {{map}} m ON {{identity_is_map}} WHERE m.state IN ('s', 'w', 'r', 'x')
        UNION ALL
        SELECT {{s_key_as_k}}, true FROM {{stage}} s WHERE s.state = 'l'
    ) x GROUP BY {{x_k}};

    DELETE FROM {{map}} m
    WHERE _clear AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{identity_is_map}} AND s.state IN ('l', 'd', 'x'));
    -- A row that is still there under its identity keeps its entry.
    DELETE FROM {{map}} m USING {{stage}} o
    WHERE NOT _clear AND (o.state NOT IN ('l', 'd', 'x') OR {{other_moved}}) AND {{other_start_is_map}}
      AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{identity_is_map}} AND s.state IN ('l', 'd', 'x'));
    UPDATE {{map}} m SET {{map_assign}}
    FROM {{stage}} s
    WHERE _clear IS NOT NULL AND {{identity_is_map}} AND s.state IN ('l', 'd', 'x') AND {{map_differs}};
    INSERT INTO {{map}} ({{i}}, {{k}}, state, {{v}})
    SELECT {{s_i}}, {{s_key}}, CASE s.state WHEN 'l' THEN 's' ELSE s.state END, {{kept_values}}
    FROM {{stage}} s
    WHERE _clear IS NOT NULL AND s.state IN ('l', 'd', 'x')
      AND NOT EXISTS (SELECT FROM {{map}} m WHERE {{identity_is_map}});
