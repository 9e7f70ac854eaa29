                INSERT INTO {{lookup}} AS l ({{lookup_columns}})
                SELECT {{stage_values}} FROM {{stage}} s{{of_these}}
                WHERE s.state = 'l' AND {{staged_is_missing}}