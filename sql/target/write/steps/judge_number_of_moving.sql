-- The tables are read once here. Do so few rows move that an index lookup for each is cheaper?
_few := NOT _clear AND (SELECT count(*) FROM {{moving}} x) * {{bytes_a_row}} < {{?bytes_to_read}};
