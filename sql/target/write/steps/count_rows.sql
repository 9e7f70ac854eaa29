-- Counts the rows of one statement, and keeps some of their keys if any are wanted.
IF _keys > 0 THEN
    WITH written AS (
        {{> {{statement}}}}
        RETURNING {{?key_text}} AS key)
    SELECT _{{kind}} + count(*), _{{kind}}_keys || array_agg(key) FILTER (WHERE n <= _keys) INTO _{{kind}}, _{{kind}}_keys
    FROM (SELECT key, row_number() OVER () AS n FROM written) x;
ELSE
    {{> {{statement}}}};
    GET DIAGNOSTICS _n = ROW_COUNT;
    _{{kind}} := _{{kind}} + _n;
END IF;
