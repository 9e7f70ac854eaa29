-- A dead row whose values are stored nowhere is forgotten: the values are needed only if it is restored without them.
UPDATE {{stage}} s SET state = 'g', {{?i_null}} WHERE s.state = 'd' AND ({{?left_out}});
IF EXISTS (SELECT FROM {{stage}} s WHERE s.state = 'l' AND ({{?left_out}})) THEN
    RAISE EXCEPTION 'an update left out a value that {{missing}}' USING ERRCODE = 'CDC02';
END IF;
