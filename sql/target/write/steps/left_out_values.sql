-- Values that the stream left out are in the lookup row that the map names, or in the map.
IF _resolve THEN
    UPDATE {{stage}} s SET {{?resolve}}
    FROM {{map}} m LEFT JOIN {{lookup}} l ON m.state = 's' AND {{?lookup_of_map}}
    WHERE {{?map_of_start}} AND ({{?left_out}});
    {{> fail_if_left_out.sql missing = neither the lookup nor the map holds}}
END IF;
