-- The map: what is shown of each source row.
CREATE TABLE IF NOT EXISTS "cdc".map_1 (i1 uuid NOT NULL, k1 character varying(10), v1 character varying(10), v2 character varying(50), v3 character varying(50), state "char" NOT NULL);
-- Until it has a primary key: a publication at the target may need it.
ALTER TABLE "cdc".map_1 REPLICA IDENTITY FULL;
-- What its columns are.
COMMENT ON TABLE "cdc".map_1 IS 'The map of lookup public.labels_lookup: each row of source public.labels that must be remembered, its key, and whether it is shown';
COMMENT ON COLUMN "cdc".map_1.i1 IS 'identity: column id of the source';
COMMENT ON COLUMN "cdc".map_1.k1 IS 'key: column code of the lookup';
COMMENT ON COLUMN "cdc".map_1.v1 IS 'value of a row that is not shown: column code of the lookup';
COMMENT ON COLUMN "cdc".map_1.v2 IS 'value of a row that is not shown: column label of the lookup';
COMMENT ON COLUMN "cdc".map_1.v3 IS 'value of a row that is not shown: column display_name of the lookup';
COMMENT ON COLUMN "cdc".map_1.state IS 's shown under its key, w waits for a key that another row has, d dead (soft-deleted, kept for its values), r rejected by the lookup, x rejected by a type of the lookup';
-- What the lookup does not take, unless the table is there.
DO $cdc$
BEGIN
IF pg_catalog.to_regclass('"cdc".rejected_1') IS NULL THEN
CREATE TABLE IF NOT EXISTS "cdc".rejected_1 (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, i1 uuid, k1 character varying(10), state "char" NOT NULL, e1 text, e2 text, e3 text, lsn pg_lsn, at timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE "cdc".rejected_1 IS 'Rows of source public.labels that lookup public.labels_lookup does not take, without their values. For reports: view rejected';
COMMENT ON COLUMN "cdc".rejected_1.n IS 'number of the entry, as in rejection';
COMMENT ON COLUMN "cdc".rejected_1.i1 IS 'identity: column id of the source';
COMMENT ON COLUMN "cdc".rejected_1.k1 IS 'key: column code of the lookup';
COMMENT ON COLUMN "cdc".rejected_1.state IS 'r rejected by the lookup, x rejected by a type of the lookup, a away: gone at the source, and the lookup does not let cdc delete it';
COMMENT ON COLUMN "cdc".rejected_1.e1 IS 'why it was rejected: the target''s SQLSTATE';
COMMENT ON COLUMN "cdc".rejected_1.e2 IS 'why it was rejected: the constraint';
COMMENT ON COLUMN "cdc".rejected_1.e3 IS 'why it was rejected: the column';
COMMENT ON COLUMN "cdc".rejected_1.lsn IS 'end of the batch in which the row was rejected';
COMMENT ON COLUMN "cdc".rejected_1.at IS 'when the row was first rejected for this reason';
END IF;
END
$cdc$;
