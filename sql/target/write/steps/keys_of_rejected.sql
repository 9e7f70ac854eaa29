SELECT r.n, bool_or(NOT ({{?no_lookup}})) AS in_lookup, bool_or(m.shown IS NOT NULL) AS claimed,
       coalesce(bool_or(m.shown), false) AS shown
FROM {{rejected}} r
LEFT JOIN {{lookup}} l ON {{?lookup_is_rejected}} AND l.ctid = ANY (_shown)
LEFT JOIN (SELECT {{?m_k}}, bool_or(m.state = 's') AS shown FROM {{map}} m
           WHERE m.state IN ('s', 'w', 'r', 'x') AND m.ctid = ANY (_claims) GROUP BY {{?m_k}}) m ON {{?rejected_key_is_map}}
GROUP BY r.n
