-- A dead row whose values nobody holds is forgotten: they are missed only if it comes back without them.
UPDATE {{stage}} s SET state = 'g', {{?i_null}} WHERE s.state = 'd' AND ({{?left_out}});
IF EXISTS (SELECT FROM {{stage}} s WHERE s.state = 'l' AND ({{?left_out}})) THEN
    RAISE EXCEPTION 'an update left out a value that {{missing}}' USING ERRCODE = 'CDC02';
END IF;
