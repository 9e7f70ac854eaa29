INSERT INTO {{lookup}} AS l ({{?lookup_columns}})
SELECT {{?stage_values}} FROM {{stage}} s
WHERE s.state = 'l' AND {{?staged_is_missing}}
