-- The entries of rows that have or want the touched keys. An index that has just been created may not be usable yet. Then the
-- map is read once, instead of once for each key.
IF {{> key_index_is_usable.sql}} THEN
    _claims := ARRAY(SELECT pg_catalog.unnest(ARRAY(
                         SELECT m.ctid FROM {{map}} m WHERE {{?touched_is_map}} AND m.state IN ('s', 'w', 'r', 'x')))
                     FROM {{touched}} t{{?where_asked}});
ELSE
    {{> hash.sql}}
    _claims := ARRAY(SELECT m.ctid FROM {{touched}} t JOIN {{map}} m ON {{?touched_is_map}}
                     WHERE m.state IN ('s', 'w', 'r', 'x'){{?and_asked}});
    {{> look_up.sql}}
END IF;
