-- Rows that came to be shown just now.
{{> count_rows.sql kind = inserted, statement = insert_missing_moving.sql}}
