-- The lookup's rows under the keys of rejected rows, and the entries of rows that have or want these keys, as in find_claims.sql.
IF {{> key_index_is_usable.sql}} THEN
    _claims := ARRAY(SELECT pg_catalog.unnest(ARRAY(
                         SELECT m.ctid FROM {{map}} m WHERE {{?rejected_key_is_map}} AND m.state IN ('s', 'w', 'r', 'x')))
                     FROM (SELECT DISTINCT {{?r_k}} FROM {{rejected}} r) r);
ELSE
    {{> hash.sql}}
    _claims := ARRAY(SELECT m.ctid FROM (SELECT DISTINCT {{?r_k}} FROM {{rejected}} r) r JOIN {{map}} m ON {{?rejected_key_is_map}}
                     WHERE m.state IN ('s', 'w', 'r', 'x'));
    {{> look_up.sql}}
END IF;
_shown := ARRAY(SELECT (SELECT l.ctid FROM {{lookup}} l WHERE {{?lookup_is_rejected}}) FROM {{rejected}} r);
