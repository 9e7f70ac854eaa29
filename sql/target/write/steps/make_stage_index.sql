CREATE INDEX stage_{{id}}_i ON {{stage}} ({{?i}});
