-- The tables are read once here. Are the rows that move so few that they are better looked up?
_few := NOT _clear AND (SELECT count(*) FROM {{moving}} x) * {{bytes_a_row}} < {{?bytes_to_read}};
