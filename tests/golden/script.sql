-- What the golden streams record. Blank lines end a batch; a batch without BEGIN is one transaction.
-- A line "-- step: ..." puts its words into the stream, as a row of the table "step".

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN short AS varchar(10) CHECK (VALUE <> 'never');
CREATE TYPE place AS (street text, number int, tags text[]);
CREATE TABLE step (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, words text);
CREATE TABLE labels (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label text, deleted_at timestamptz,
    UNIQUE (code) DEFERRABLE);
CREATE TABLE large (id int PRIMARY KEY, small text, big text);
ALTER TABLE large ALTER big SET STORAGE EXTERNAL;
CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, big text, note text);
ALTER TABLE by_index ALTER big SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX by_code ON by_index (code);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_code;
CREATE TABLE whole (id int PRIMARY KEY, code text, big text);
ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE parts (id int, region text, name text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_us (region text NOT NULL, dropped int, name text, id int NOT NULL);
ALTER TABLE parts_us DROP COLUMN dropped;
ALTER TABLE parts ATTACH PARTITION parts_us FOR VALUES IN ('us');
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY REFERENCES parent);
CREATE TABLE every_type (id bigint PRIMARY KEY, b boolean, i2 smallint, n numeric, n2 numeric(10,2), f4 real, f8 double precision,
    c char(4), v varchar(8), t text, bytes bytea, d date, ts timestamp(3), tz timestamptz, iv interval, u uuid, j json, jb jsonb,
    bits bit varying, addr inet, pt point, r int4range, m mood, s short, p place, a int[], ma mood[]);
CREATE TABLE only_inserts (id int);
ALTER TABLE only_inserts REPLICA IDENTITY NOTHING;
CREATE TABLE "odd ""name" ("größe" text PRIMARY KEY, "Select" int);

CREATE PUBLICATION golden FOR TABLE step, labels, large, by_index, whole, parts, parent, child, every_type, "odd ""name", only_inserts
    WITH (publish_via_partition_root);

-- step: insert, update, update of nothing, soft delete, restore, delete
INSERT INTO labels VALUES ('00000000-0000-0000-0000-000000000001', 'MR', 'Mister', NULL),
    ('00000000-0000-0000-0000-000000000002', 'DR', 'Doctor', NULL);

UPDATE labels SET label = 'Mr.' WHERE code = 'MR';

UPDATE labels SET label = label WHERE code = 'MR';

UPDATE labels SET deleted_at = '2026-01-02 03:04:05.678901+00' WHERE code = 'DR';

UPDATE labels SET deleted_at = NULL WHERE code = 'DR';

DELETE FROM labels WHERE code = 'DR';

-- step: key changed, identity changed, keys swapped in one transaction
INSERT INTO labels VALUES ('00000000-0000-0000-0000-000000000003', 'A', 'a', NULL), ('00000000-0000-0000-0000-000000000004', 'B', 'b', NULL);

UPDATE labels SET code = 'C' WHERE code = 'MR';

UPDATE labels SET id = '00000000-0000-0000-0000-000000000005' WHERE code = 'C';

BEGIN;
SET CONSTRAINTS ALL DEFERRED;
UPDATE labels SET code = CASE code WHEN 'A' THEN 'B' ELSE 'A' END WHERE code IN ('A', 'B');
COMMIT;

-- step: unchanged out-of-line value, identity DEFAULT
INSERT INTO large VALUES (1, 'a', repeat('x', 3000));

UPDATE large SET small = 'b';

UPDATE large SET id = 2;

UPDATE large SET big = 'short by now';

-- step: unchanged out-of-line value, identity USING INDEX
INSERT INTO by_index VALUES (1, 'a', repeat('y', 3000), NULL);

UPDATE by_index SET note = 'n';

UPDATE by_index SET code = 'b', id = 7;

DELETE FROM by_index;

-- step: identity FULL
INSERT INTO whole VALUES (1, 'a', repeat('z', 3000)), (2, NULL, NULL);

UPDATE whole SET code = 'b';

UPDATE whole SET id = id + 10;

DELETE FROM whole;

-- step: TRUNCATE of one, of several, CASCADE, RESTART IDENTITY
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);

TRUNCATE labels;

TRUNCATE large, by_index RESTART IDENTITY;

TRUNCATE parent CASCADE;

TRUNCATE parts;

-- step: partitions under their root, one with another order of columns; a row that moves
INSERT INTO parts VALUES (1, 'eu', 'one'), (2, 'us', 'two');

UPDATE parts SET name = 'TWO' WHERE id = 2;

UPDATE parts SET region = 'us' WHERE id = 1;

DELETE FROM parts;

-- step: every type, NULL, empty text
INSERT INTO every_type VALUES (1, true, -32768, 'NaN', 1.5, '-Infinity', 0.1::float8 + 0.2, 'ab', 'ä€𝄞', '', '\x00ff', '4713-01-01 BC',
    'infinity', '2026-06-01 12:00:00+02', '1 year -2 days 03:04:05.6', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" : 1, "a": 2}', '{"b": 1, "a": [null]}',
    B'101', '10.0.0.1/8', '(1,2)', '[1,5)', 'happy', 'dom', ROW('a "b"', 2, ARRAY['x', NULL]), '[0:1]={1,NULL}', '{sad,NULL}');

INSERT INTO every_type (id) VALUES (2);

-- step: empty, rolled back and released savepoints; an aborted transaction
BEGIN;
SAVEPOINT a; RELEASE a;
SAVEPOINT b; INSERT INTO labels VALUES ('00000000-0000-0000-0000-000000000006', 'NEVER', NULL, NULL); ROLLBACK TO b;
SAVEPOINT c; INSERT INTO labels VALUES ('00000000-0000-0000-0000-000000000007', 'KEPT', NULL, NULL); RELEASE c;
COMMIT;

BEGIN;
INSERT INTO labels VALUES ('00000000-0000-0000-0000-000000000008', 'NEVER', NULL, NULL);
ROLLBACK;

BEGIN; CREATE TABLE unpublished (id int); INSERT INTO unpublished VALUES (1); COMMIT;

-- step: DDL between changes, and within a transaction
ALTER TABLE labels ADD COLUMN note text DEFAULT 'new';

UPDATE labels SET label = 'after ADD COLUMN';

BEGIN;
UPDATE labels SET label = 'before RENAME';
ALTER TABLE labels RENAME COLUMN note TO remark;
UPDATE labels SET label = 'after RENAME';
ALTER TABLE labels DROP COLUMN remark;
UPDATE labels SET label = 'after DROP';
COMMIT;

ALTER TABLE labels RENAME TO marks; ALTER TABLE marks REPLICA IDENTITY FULL;

UPDATE marks SET label = 'renamed, FULL';

-- step: names that need quotes, a table without identity
INSERT INTO "odd ""name" VALUES ('ß', 1);

INSERT INTO only_inserts VALUES (1);

-- step: prepared, and from another origin
BEGIN; INSERT INTO "odd ""name" VALUES ('prepared', 2); PREPARE TRANSACTION 'golden';

COMMIT PREPARED 'golden';

SELECT pg_replication_origin_create('elsewhere');

SELECT pg_replication_origin_session_setup('elsewhere');

BEGIN;
SELECT pg_replication_origin_xact_setup('0/1234', '2020-01-01 00:00:00+00');
INSERT INTO "odd ""name" VALUES ('elsewhere', 3);
COMMIT;

SELECT pg_replication_origin_session_reset();

-- step: end
