-- The final states of a batch.
CREATE TEMPORARY TABLE stage_1 (o1 uuid, i1 uuid, state "char" NOT NULL, p1 character varying(10), p2 character varying(50), p3 character varying(50), u1 boolean NOT NULL DEFAULT false, u2 boolean NOT NULL DEFAULT false, u3 boolean NOT NULL DEFAULT false, e1 text, e2 text, e3 text);
-- Rows that may change the map.
CREATE TEMPORARY TABLE moving_1 (i1 uuid, state "char" NOT NULL, c1 character varying(10), stage_row tid, renamed boolean NOT NULL, was "char", k1 character varying(10), map_row tid);
-- Keys that may change hands.
CREATE TEMPORARY TABLE touched_1 (k1 character varying(10), claimed boolean NOT NULL, h1 uuid, open boolean NOT NULL DEFAULT true);;
-- The final states of a chunk of a large transaction.
CREATE TEMPORARY TABLE chunk_1 (o1 uuid, i1 uuid, state "char" NOT NULL, p1 character varying(10), p2 character varying(50), p3 character varying(50), u1 boolean NOT NULL DEFAULT false, u2 boolean NOT NULL DEFAULT false, u3 boolean NOT NULL DEFAULT false, e1 text, e2 text, e3 text);;
-- Writes that are tried in pieces.
CREATE TEMPORARY TABLE tries_1 (n integer PRIMARY KEY, op "char" NOT NULL, k1 character varying(10), h1 uuid, p1 character varying(10), p2 character varying(50), p3 character varying(50), e1 text, e2 text, e3 text, swap boolean NOT NULL DEFAULT false);
-- Entries of rejected rows that are tried again.
CREATE TEMPORARY TABLE earlier_1 (LIKE "cdc".rejected_1);
