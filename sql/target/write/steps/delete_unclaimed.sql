DELETE FROM {{lookup}} l USING {{touched}} t
WHERE NOT t.claimed AND t.h1 IS NULL AND {{?lookup_of_touched}}
