-- Rows that are shown from this batch on.
{{> count_rows.sql kind = inserted, statement = insert_missing_moving.sql}}
