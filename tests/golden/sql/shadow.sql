-- The rows of a copy.
CREATE UNLOGGED TABLE "cdc".shadow_1_1 (o1 uuid, i1 uuid, state "char" NOT NULL, p1 character varying(10), p2 character varying(50), p3 character varying(50), u1 boolean NOT NULL DEFAULT false, u2 boolean NOT NULL DEFAULT false, u3 boolean NOT NULL DEFAULT false, e1 text, e2 text, e3 text);
-- What its columns are.
COMMENT ON TABLE "cdc".shadow_1_1 IS 'The rows of a copy of source public.labels, by identity. It is kept and emptied; table shadow says whose rows it holds';
COMMENT ON COLUMN "cdc".shadow_1_1.o1 IS 'not used in a shadow: column id of the source';
COMMENT ON COLUMN "cdc".shadow_1_1.i1 IS 'identity: column id of the source';
COMMENT ON COLUMN "cdc".shadow_1_1.state IS 'l live, d dead (soft-deleted, kept for its values), x rejected by a type of the lookup';
COMMENT ON COLUMN "cdc".shadow_1_1.p1 IS 'value: column code of the lookup';
COMMENT ON COLUMN "cdc".shadow_1_1.p2 IS 'value: column label of the lookup';
COMMENT ON COLUMN "cdc".shadow_1_1.p3 IS 'value: column display_name of the lookup';
COMMENT ON COLUMN "cdc".shadow_1_1.u1 IS 'whether the stream left p1 out';
COMMENT ON COLUMN "cdc".shadow_1_1.u2 IS 'whether the stream left p2 out';
COMMENT ON COLUMN "cdc".shadow_1_1.u3 IS 'whether the stream left p3 out';
COMMENT ON COLUMN "cdc".shadow_1_1.e1 IS 'why it was rejected: the target''s SQLSTATE';
COMMENT ON COLUMN "cdc".shadow_1_1.e2 IS 'why it was rejected: the constraint';
COMMENT ON COLUMN "cdc".shadow_1_1.e3 IS 'why it was rejected: the column';
CREATE UNIQUE INDEX IF NOT EXISTS shadow_1_1_i ON "cdc".shadow_1_1 (i1);
ANALYZE "cdc".shadow_1_1
