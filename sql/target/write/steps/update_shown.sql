UPDATE {{lookup}} l SET {{?lookup_assign}}
FROM {{stage}} s
WHERE s.state = 'l' AND {{?lookup_of_stage}} AND {{?lookup_differs}}
