                DELETE FROM {{lookup}} l USING {{touched}} t
                WHERE _clear IS NOT NULL AND NOT t.claimed AND t.w1 IS NULL AND {{lookup_is_touched}}