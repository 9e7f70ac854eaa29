-- A step of merge.sql and isolate.sql. Among the rows that claim an open key, the one with the smallest identity is shown;
-- the others wait with their values.
UPDATE {{touched}} t SET {{?h_null}} WHERE t.open AND t.h1 IS NOT NULL;
UPDATE {{touched}} t SET {{?h_from_first}}
FROM (SELECT DISTINCT ON (t.ctid) t.ctid AS place, {{?m_i}}
      FROM {{touched}} t JOIN {{map}} m ON {{?touched_is_map}}
      WHERE t.open AND m.state IN ('s', 'w'){{?map_of_claims}}
      ORDER BY t.ctid, {{?m_i}}) x
WHERE t.ctid = x.place;
UPDATE {{map}} m SET state = 'w', {{?v_from_lookup}}
FROM {{touched}} t LEFT JOIN {{lookup}} l ON {{?lookup_is_touched}}{{?lookup_of_shown}}
WHERE t.open AND {{?touched_is_map}} AND m.state = 's' AND NOT ({{?map_is_holder}})
  AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{?identity_is_map}}){{?map_of_claims}};
UPDATE {{map}} m SET state = 'w', {{?v_from_stage}}
FROM {{touched}} t, {{stage}} s
WHERE t.open AND {{?touched_is_map}} AND {{?identity_is_map}} AND s.state = 'l' AND NOT ({{?map_is_holder}}){{?map_of_claims}};
UPDATE {{stage}} s SET state = 'w'
FROM {{touched}} t WHERE t.open AND s.state = 'l' AND {{?stage_is_touched}} AND NOT ({{?stage_is_holder}});
UPDATE {{stage}} s SET state = 'l'
FROM {{touched}} t WHERE t.open AND s.state = 'w' AND {{?stage_is_holder}};
INSERT INTO {{stage}} ({{?i}}, state, {{?p}})
SELECT {{?m_i}}, 'l', {{?m_v}} FROM {{touched}} t JOIN {{map}} m ON {{?map_is_holder}}
WHERE t.open AND m.state = 'w' AND NOT EXISTS (SELECT FROM {{stage}} s WHERE {{?identity_is_map}} AND s.state = 'l'){{?map_of_claims}};
UPDATE {{map}} m SET state = 's', {{?v_null}}
FROM {{touched}} t WHERE t.open AND {{?map_is_holder}} AND m.state = 'w'{{?map_of_claims}};
-- A row waits without its values if its lookup row was missing when it began to wait. Only a copy can bring the values.
IF EXISTS (SELECT FROM {{stage}} s WHERE s.state = 'l' AND ({{?no_key}})) THEN
    RAISE EXCEPTION 'a row that takes a key over has no values' USING ERRCODE = 'CDC02';
END IF;
