    -- Values that the stream left out are in the lookup row that the map names, or in the map. A dead row whose values nobody holds
    -- is forgotten: they are missed only if it comes back without them.
    IF _resolve THEN
        UPDATE {{stage}} s SET {{resolve}}
        FROM {{map}} m LEFT JOIN {{lookup}} l ON m.state = 's' AND {{lookup_is_map}}
        WHERE {{start_is_map}} AND ({{left_out}});
        UPDATE {{stage}} s SET state = 'g', {{i_null}} WHERE s.state = 'd' AND ({{left_out}});
        IF EXISTS (SELECT FROM {{stage}} s WHERE s.state = 'l' AND ({{left_out}})) THEN
            RAISE EXCEPTION 'an update left out a value that neither the lookup nor the map holds'
                USING ERRCODE = 'CDC02';
        END IF;
    END IF;
