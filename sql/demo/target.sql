-- The reporting data of the demo: database app_core_db.

CREATE TABLE resources (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    reference_number varchar(20) NOT NULL UNIQUE,
    label_code varchar(10),
    first_name varchar(100) NOT NULL,
    last_name varchar(100) NOT NULL,
    birth_date date,
    national_id varchar(20)
);

INSERT INTO resources (reference_number, label_code, first_name, last_name, birth_date, national_id) VALUES
    ('REF001', 'MR', 'John', 'Smith', '1980-05-17', 'N-1001'),
    ('REF002', 'DR', 'Jane', 'Doe',   '1975-11-02', 'N-1002');

-- The read-only copy of labels: filled by cdc, read by the reports.
CREATE TABLE labels_lookup (
    code varchar(10) PRIMARY KEY,
    label varchar(50) NOT NULL,
    display_name varchar(50) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT labels_lookup_code_not_empty CHECK (length(code) > 0)
);
CREATE INDEX labels_lookup_updated_at ON labels_lookup (updated_at);
COMMENT ON TABLE labels_lookup IS 'Read-only copy of app_master_db.labels (live rows), kept by cdc';
COMMENT ON COLUMN labels_lookup.updated_at IS 'When cdc last inserted or changed this row';

-- Roles belong to the whole server: another database may have created this one already, or just now.
DO $$
BEGIN
    CREATE ROLE reports LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT USAGE ON SCHEMA public TO reports;
GRANT SELECT ON resources, labels_lookup TO reports;
