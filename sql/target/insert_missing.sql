                INSERT INTO {{lookup}} AS l ({{lookup_columns}})
                SELECT {{stage_values}} FROM {{stage}} s{{of_these}}
                WHERE _clear IS NOT NULL AND s.state = 'l'
                  AND NOT EXISTS (SELECT FROM {{lookup}} l WHERE {{lookup_is_stage}})