CREATE TABLE IF NOT EXISTS "cdc".map_1 (i1 uuid NOT NULL, k1 character varying(10), v1 character varying(10), v2 character varying(50), v3 character varying(50), state "char" NOT NULL);
ALTER TABLE "cdc".map_1 REPLICA IDENTITY FULL;
CREATE TABLE IF NOT EXISTS "cdc".rejected_1 (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, i1 uuid, k1 character varying(10), state "char" NOT NULL, e1 text, e2 text, e3 text, lsn pg_lsn, at timestamptz NOT NULL DEFAULT now());
