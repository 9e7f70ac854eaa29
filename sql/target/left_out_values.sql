    -- Values that the stream left out are in the lookup row that the map names, or in the map.
    IF _resolve THEN
        UPDATE {{stage}} s SET {{resolve}}
        FROM {{map}} m LEFT JOIN {{lookup}} l ON m.state = 's' AND {{lookup_is_map}}
        WHERE {{start_is_map}} AND ({{left_out}});
        IF EXISTS (SELECT FROM {{stage}} s WHERE s.state IN ('l', 'd') AND ({{left_out}})) THEN
            RAISE EXCEPTION 'an update left out a value that neither the lookup nor the map holds'
                USING ERRCODE = 'CDC02';
        END IF;
    END IF;
