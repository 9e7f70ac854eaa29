-- A part of the writers merge.sql and isolate.sql: of the rows that claim an open key the smallest identity is shown, the
-- others wait with their values.
    UPDATE {{touched}} t SET {{w_null}} WHERE t.open AND t.w1 IS NOT NULL;
    UPDATE {{touched}} t SET {{w_from_first}}
    FROM (SELECT DISTINCT ON (t.ctid) t.ctid AS place, {{m_i}}
          FROM {{touched}} t JOIN {{map}} m ON {{touched_is_map}}
          WHERE t.open AND m.state IN ('s', 'w'){{map_of_claims}}
          ORDER BY t.ctid, {{m_i}}) x
    WHERE t.ctid = x.place;
    UPDATE {{map}} m SET state = 'w', {{v_from_lookup}}
    FROM {{touched}} t LEFT JOIN {{lookup}} l ON {{lookup_is_touched}}{{lookup_of_shown}}
    WHERE t.open AND {{touched_is_map}} AND m.state = 's' AND NOT ({{map_is_winner}})
      AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{identity_is_map}}){{map_of_claims}};
    UPDATE {{map}} m SET state = 'w', {{v_from_stage}}
    FROM {{touched}} t, {{stage}} s
    WHERE t.open AND {{touched_is_map}} AND {{identity_is_map}} AND s.state = 'l' AND NOT ({{map_is_winner}}){{map_of_claims}};
    UPDATE {{stage}} s SET state = 'w'
    FROM {{touched}} t WHERE t.open AND s.state = 'l' AND {{stage_is_touched}} AND NOT ({{stage_is_winner}});
    UPDATE {{stage}} s SET state = 'l'
    FROM {{touched}} t WHERE t.open AND s.state = 'w' AND {{stage_is_winner}};
    INSERT INTO {{stage}} ({{i}}, state, {{p}})
    SELECT {{m_i}}, 'l', {{m_v}} FROM {{touched}} t JOIN {{map}} m ON {{map_is_winner}}
    WHERE t.open AND m.state = 'w' AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{identity_is_map}} AND s.state = 'l'){{map_of_claims}};
    UPDATE {{map}} m SET state = 's', {{v_null}}
    FROM {{touched}} t WHERE t.open AND {{map_is_winner}} AND m.state = 'w'{{map_of_claims}};
    -- A row that waits without its values came to wait when its lookup row was not there: only a copy has them.
    IF EXISTS (SELECT FROM {{stage}} s WHERE s.state = 'l' AND ({{no_key}})) THEN
        RAISE EXCEPTION 'a row that takes a key over has no values' USING ERRCODE = 'CDC02';
    END IF;
