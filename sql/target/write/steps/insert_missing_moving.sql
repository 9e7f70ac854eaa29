INSERT INTO {{lookup}} AS l ({{?lookup_columns}})
SELECT {{?stage_values}} FROM {{stage}} s JOIN {{moving}} x ON x.stage_row = s.ctid AND x.state = 'l'
WHERE s.state = 'l' AND {{?staged_is_missing}}
