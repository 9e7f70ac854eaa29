-- If few rows move, they are looked up, although the tables are read once. Both branches do the same.
IF _few THEN
    {{> look_up.sql joins = looked_up}}
    {{> {{part}} joins = looked_up}}
    {{> read.sql}}
ELSE
    {{> {{part}}}}
END IF;
