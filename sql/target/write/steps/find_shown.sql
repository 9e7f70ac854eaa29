-- The lookup's rows under the open keys.
_shown := ARRAY(SELECT (SELECT l.ctid FROM {{lookup}} l WHERE {{?lookup_is_touched}}) FROM {{touched}} t WHERE t.open);
