    -- Values that the stream left out are in the lookup row that the map names, or in the map.
    IF _resolve THEN
        UPDATE {{stage}} s SET {{resolve}}
        FROM {{map}} m LEFT JOIN {{lookup}} l ON m.state = 's' AND {{lookup_is_map}}
        WHERE {{start_is_map}} AND ({{left_out}});
{{refuse_left_out}}
    END IF;
