            WITH new AS (
                INSERT INTO {{lookup}} AS l ({{lookup_columns}})
                SELECT {{stage_values}} FROM {{stage}} s{{of_these}}
                WHERE _clear IS NOT NULL AND s.state = 'l'
                  AND NOT EXISTS (SELECT FROM {{lookup}} l WHERE {{lookup_is_stage}})
                RETURNING {{key_text}} AS key)
            SELECT _inserted + count(*), _inserted_keys || array_agg(key) FILTER (WHERE n <= _keys)
            INTO _inserted, _inserted_keys
            FROM (SELECT key, row_number() OVER () AS n FROM new) x;
