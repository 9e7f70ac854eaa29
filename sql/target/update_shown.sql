                UPDATE {{lookup}} l SET {{lookup_assign}}
                FROM {{stage}} s
                WHERE _clear IS NOT NULL AND s.state = 'l' AND {{lookup_is_stage}} AND {{lookup_differs}}