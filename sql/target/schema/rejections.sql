-- Rows that the target rejects, and the views of the bookkeeping. Created with bookkeeping.sql. Letters of states: sql/README.md.

-- A rejected row, without its values. isolate.sql writes it.
CREATE TABLE IF NOT EXISTS {{schema}}.rejection (
    read_model integer NOT NULL REFERENCES {{schema}}.read_model ON DELETE CASCADE,
    n bigint NOT NULL,                   -- number in rejected_<id>, which has identity and key as they are
    identity text,                       -- NULL: the source has no such row, and the lookup does not let cdc delete it
    key text,                            -- NULL: the lookup's key does not take it
    shown text NOT NULL,                 -- under this key: nothing, old row, other row
    sqlstate text NOT NULL,
    constraint_name text,
    column_name text,
    lsn pg_lsn,                          -- end of the batch in which it was rejected
    rejected_at timestamptz NOT NULL,
    PRIMARY KEY (read_model, n)
);

-- Until version 5 the time had another name.
DO $cdc$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = pg_catalog.to_regclass({{rejection_name}}) AND a.attname = 'refused_at') THEN
        ALTER TABLE {{schema}}.rejection RENAME COLUMN refused_at TO rejected_at;
        ALTER VIEW {{schema}}.rejected RENAME COLUMN refused_at TO rejected_at;
    END IF;
END
$cdc$;

-- Which rows the lookups lack, or show as they were before, and why.
CREATE OR REPLACE VIEW {{schema}}.rejected AS
SELECT m.name AS read_model,
       r.identity,
       r.key,
       r.shown,
       r.sqlstate,
       r.constraint_name,
       r.column_name,
       r.lsn,
       r.rejected_at
FROM {{schema}}.rejection r JOIN {{schema}}.read_model m ON m.id = r.read_model;

-- For reports and alerts: how fresh each lookup is.
CREATE OR REPLACE VIEW {{schema}}.freshness AS
SELECT m.name AS read_model,
       CASE WHEN m.state = 'in_step' THEN p.state ELSE m.state END AS state,
       -- A read model that takes no part in the stream stays as it was when it left.
       CASE WHEN m.state = 'in_step' THEN c.commit_time ELSE m.as_of END AS as_of,
       CASE WHEN m.state = 'in_step' THEN c.lsn ELSE m.as_of_lsn END AS as_of_lsn,
       c.applied_at,
       n.rows,
       n.last_change_at,
       m.last_resync_at,
       m.last_resync_repaired,
       coalesce(m.reason, p.healing, p.error) AS reason,
       (SELECT count(*) FROM {{schema}}.rejection r WHERE r.read_model = m.id) AS rejected
FROM {{schema}}.read_model m CROSS JOIN {{schema}}.pipeline p CROSS JOIN {{schema}}.checkpoint c
LEFT JOIN {{schema}}.counted n ON n.read_model = m.id;
-- Every role may ask how fresh the lookups are.
GRANT SELECT ON {{schema}}.freshness TO PUBLIC;
