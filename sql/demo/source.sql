-- The master data of the demo: database app_master_db.

CREATE TABLE labels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    code varchar(10) NOT NULL,
    label varchar(50) NOT NULL,
    display_name varchar(50) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    deleted_at timestamptz
);
COMMENT ON TABLE labels IS 'Forms of address; a row with deleted_at is deleted, but kept';

-- A code is unique among live rows only: it may be given again once its row is soft-deleted.
CREATE UNIQUE INDEX labels_code_live ON labels (code) WHERE deleted_at IS NULL;

INSERT INTO labels (code, label, display_name, deleted_at) VALUES
    ('MR',  'Mr.',  'Mister',   NULL),
    ('MRS', 'Mrs.', 'Missus',   NULL),
    ('DR',  'Dr.',  'Doctor',   NULL),
    ('SIR', 'Sir',  'Knighted', now());
