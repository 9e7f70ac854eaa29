CREATE UNLOGGED TABLE "cdc".shadow_1_1 (o1 uuid, i1 uuid, state "char" NOT NULL, p1 character varying(10), p2 character varying(50), p3 character varying(50), u1 boolean NOT NULL DEFAULT false, u2 boolean NOT NULL DEFAULT false, u3 boolean NOT NULL DEFAULT false, e1 text, e2 text, e3 text);
CREATE UNIQUE INDEX IF NOT EXISTS shadow_1_1_i ON "cdc".shadow_1_1 (i1);
ANALYZE "cdc".shadow_1_1
