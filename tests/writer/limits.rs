//! Types, widths, sizes, refusals and fencing.

use cdc::batch::Batch;
use cdc::error::Class;
use cdc::settings::OnRowError;

use crate::cases::{TABLES, assert_consistent, labels, other};
use crate::rig::{FIRST, Rig, SECOND, Shape, shape};
use crate::support::{self, rows, server_version, value, wait_until};

#[tokio::test]
async fn equal_means_equal_bytes_of_what_was_assigned() {
    let mut rig = Rig::new(
        "CREATE EXTENSION citext;
         CREATE TABLE lookup (k citext PRIMARY KEY, n numeric, m numeric(10,2), i interval, j json, c char(5), f float8,
             d date, a int[], t time, ts timestamptz, b bytea, u uuid, r int4range, x text);",
    )
    .await;
    let names = [
        "k", "n", "m", "i", "j", "c", "f", "d", "a", "t", "ts", "b", "u", "r", "x",
    ];
    let columns: Vec<(&str, &str)> = [("id", "bigint")]
        .into_iter()
        .chain(names.iter().map(|name| (*name, "text")))
        .collect();
    let projected: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).collect();
    rig.add(&shape("lookup", &columns, &["id"], &projected, 1, false))
        .await;
    let first = [
        "mr",
        "1.0",
        "1.5",
        "1 day",
        "{\"a\": 1}",
        "abc",
        "1.5",
        "0044-03-15 BC",
        "{1,NULL,3}",
        "24:00:00",
        "infinity",
        "\\x00ff",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "[1,10)",
        "a\tb\\N\nc",
    ];
    // The same value of each type in other bytes; for the types whose text is canonical, another
    // value.
    let second = [
        "MR",
        "1.00",
        "1.51",
        "24:00:00",
        "{\"a\":1}",
        "abd",
        "NaN",
        "infinity",
        "{1,NULL,4}",
        "00:00:00",
        "2026-01-01 00:00:00+00",
        "\\x00",
        "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "empty",
        "",
    ];
    let tuple = |values: &[&str]| format!("1|{}", values.join("|"));
    let insert = [format!("+{}", tuple(&first))];
    assert_eq!(rig.write(FIRST, &insert).await.unwrap().inserted, 1);
    for way in ["statement", "copy"] {
        let again = [format!("={}", tuple(&first))];
        let written = rig.write(FIRST, &again).await.unwrap();
        assert_eq!(
            (written.changed(), written.total),
            (0, 1),
            "{way}: the same again is not written"
        );
    }
    let mut now = first;
    for at in 0..names.len() {
        now[at] = second[at];
        let update = [format!("={}", tuple(&now))];
        let written = rig.write(FIRST, &update).await.unwrap();
        assert_eq!(
            (written.updated, written.changed()),
            (1, 1),
            "column {}",
            names[at]
        );
        assert_eq!(
            rig.write(FIRST, &update).await.unwrap().changed(),
            0,
            "column {}",
            names[at]
        );
    }
    let text = "SELECT k, n, m, i, j, c, f, d, a, t, ts = '2026-01-01 UTC', b, u, r, x FROM lookup";
    assert_eq!(
        rows(&rig.db, text).await,
        [
            "MR|1.00|1.51|24:00:00|{\"a\":1}|abd  |NaN|infinity|{1,NULL,4}|00:00:00|t|\\x00|b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|empty|"
        ]
    );
}

#[tokio::test]
async fn composite_keys_and_renamed_columns() {
    let mut rig = Rig::new(
        "CREATE SCHEMA \"Re ports\";
         CREATE TABLE lookup (\"Text \"\"x\" text, \"Language\" text, \"Code\" text, UNIQUE (\"Language\", \"Code\"))",
    )
    .await;
    let columns = [
        ("a", "integer"),
        ("b", "text"),
        ("code", "text"),
        ("lang", "text"),
        ("word", "text"),
    ];
    let projected = [("Code", "code"), ("Language", "lang"), ("Text \"x", "word")];
    rig.add(&shape("lookup", &columns, &["b", "a"], &projected, 2, true))
        .await;
    let start = [
        "+1|x|MR|en|Mister",
        "+1|y|MR|de|Herr",
        "+2|x|DR|en|Doctor",
        "+3|x|-|en|nobody",
    ];
    rig.write(FIRST, &start).await.unwrap();
    let batch = [
        // Languages swapped, one value left out, another row takes a key that was never complete.
        "=1|x|MR|de|Mister",
        "=1|y|MR|en|u",
        "=3|x|NN|en|u",
        "=2|x > 9|x|DR|en|u",
    ];
    rig.write(FIRST, &batch).await.unwrap();
    let found = rows(
        &rig.db,
        "SELECT \"Code\", \"Language\", \"Text \"\"x\" FROM lookup ORDER BY 1, 2",
    )
    .await;
    assert_eq!(
        found,
        ["DR|en|Doctor", "MR|de|Mister", "MR|en|Herr", "NN|en|nobody"]
    );
}

#[tokio::test]
async fn wide_tables_go_by_copy() {
    let names: Vec<String> = (0..120).map(|n| format!("c{n}")).collect();
    let definitions: Vec<String> = names.iter().map(|name| format!("{name} text")).collect();
    let mut rig = Rig::new(&format!(
        "CREATE TABLE lookup ({}, PRIMARY KEY (c0))",
        definitions.join(", ")
    ))
    .await;
    let mut columns = vec![("id", "bigint")];
    columns.extend(names.iter().map(|name| (name.as_str(), "text")));
    let projected: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    rig.add(&shape("lookup", &columns, &["id"], &projected, 1, true))
        .await;
    let tuple = |value: &str, rest: &str| format!("1|{value}{}", format!("|{rest}").repeat(119));
    rig.write(FIRST, &[format!("+{}", tuple("A", "x"))])
        .await
        .unwrap();
    let written = rig
        .write(FIRST, &[format!("={}", tuple("B", "u"))])
        .await
        .unwrap();
    assert_eq!((written.inserted, written.deleted), (1, 1));
    assert_eq!(
        rows(&rig.db, "SELECT c0, c1, c119 FROM lookup").await,
        ["B|x|x"]
    );
}

#[tokio::test]
async fn large_batches_give_the_same_as_small_ones() {
    let row = |id: usize, step: usize| {
        let code = (id * 7 + step) % 3000;
        let label = format!("label {} of \\{id}\t{step}", "x".repeat(id % 50));
        format!("{id}|C{code}|{label}|-")
    };
    let steps: Vec<Vec<String>> = vec![
        (0..3000).map(|id| format!("+{}", row(id, 0))).collect(),
        // Every code moves to another row.
        (0..3000).map(|id| format!("={}", row(id, 7))).collect(),
        (0..3000)
            .filter(|id| id % 3 == 0)
            .map(|id| format!("-{id}"))
            .collect(),
        (0..3000)
            .filter(|id| id % 3 == 1)
            .map(|id| format!("={id}|C{}|u|-", (id * 7 + 7) % 3000))
            .collect(),
    ];
    let mut seen = Vec::new();
    for size in [3000, 400] {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(true)).await;
        for step in &steps {
            for chunk in step.chunks(size) {
                rig.write(FIRST, chunk).await.unwrap();
            }
        }
        seen.push(
            rows(
                &rig.db,
                "SELECT code, label FROM lookup ORDER BY code COLLATE \"C\"",
            )
            .await,
        );
    }
    assert_eq!(seen[0].len(), 2000);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_value_above_one_statement_s_bytes_goes_by_copy() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    let long = "y".repeat(3 << 20);
    rig.write(FIRST, &[format!("+1|A|{long}|-")]).await.unwrap();
    rig.write(FIRST, &["=1|B|u|-"]).await.unwrap();
    assert_eq!(
        rows(&rig.db, "SELECT code, length(label) FROM lookup").await,
        [format!("B|{}", 3 << 20)]
    );
}

#[tokio::test]
async fn a_writer_that_was_overtaken_writes_nothing() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.add(&other()).await;
    rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
    let mut new = rig.another_writer().await;
    let before = value(&rig.db, "SELECT epoch || ' ' || lsn FROM cdc.checkpoint").await;
    // One statement, COPY, an idle position.
    let small = rig.write(FIRST, &["=1|A|zombie|-"]).await.unwrap_err();
    let folds = vec![
        (FIRST, rig.fold(FIRST, &["+2|B|zombie|-"])),
        (SECOND, rig.fold(SECOND, &["+B|zombie"])),
    ];
    let copy = rig.apply(folds).await.unwrap_err();
    let position = rig.position();
    let idle = rig.writer.store(&position).await.unwrap_err();
    for error in [small, copy, idle] {
        assert_eq!(error.class(), Class::Fenced, "{error:?}");
    }
    assert_eq!(
        rows(&rig.db, "SELECT code, label FROM lookup").await,
        ["A|one"]
    );
    assert_eq!(rows(&rig.db, "SELECT count(*) FROM other").await, ["0"]);
    assert_eq!(
        value(&rig.db, "SELECT epoch || ' ' || lsn FROM cdc.checkpoint").await,
        before
    );
    let batch = Batch {
        position: rig.position(),
        folds: vec![(FIRST, rig.fold(FIRST, &["=1|A|new|-"]))],
        suspended: Vec::new(),
        transactions: 1,
        chunks: 0,
    };
    new.apply(batch).await.unwrap();
    assert_eq!(
        rows(&rig.db, "SELECT code, label FROM lookup").await,
        ["A|new"]
    );
}

#[tokio::test]
async fn rejected_rows_that_are_not_set_apart_write_nothing_and_tell_no_value() {
    let mut rig = Rig::new(
        "CREATE TABLE lookup (code varchar(10) PRIMARY KEY CHECK (code <> 'FORBIDDEN'), label varchar(12) NOT NULL,
             number text, synced timestamptz, UNIQUE (number));
         CREATE TABLE other (code text PRIMARY KEY, label int);
         CREATE TABLE kept (code varchar(10) REFERENCES lookup ON DELETE RESTRICT);
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no secret-trigger %', NEW.label; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON lookup FOR EACH ROW WHEN (NEW.code = 'TRIGGER') EXECUTE FUNCTION refuse();",
    )
    .await;
    let columns = [
        ("id", "bigint"),
        ("code", "text"),
        ("label", "text"),
        ("number", "text"),
    ];
    let projected = [("code", "code"), ("label", "label"), ("number", "number")];
    rig.add(&stopping(shape(
        "lookup",
        &columns,
        &["id"],
        &projected,
        1,
        true,
    )))
    .await;
    rig.add(&stopping(other())).await;
    rig.write(FIRST, &["+1|A|one|1", "+2|B|two|2"])
        .await
        .unwrap();
    rig.db
        .batch_execute("INSERT INTO kept VALUES ('B')")
        .await
        .unwrap();
    let lsn = value(&rig.db, "SELECT lsn FROM cdc.checkpoint").await;
    // ON DELETE RESTRICT has an SQLSTATE of its own from 18 on.
    let version = server_version(&rig.db).await;
    let restricted = if version >= 180_000 { "23001" } else { "23503" };
    let rejected = [
        ("=1|A|secret-too-long-for-it|1", "22001"),
        ("=1|A|-|1", "23502"),
        ("+3|FORBIDDEN|secret-check|3", "23514"),
        ("+3|C|secret|2", "23505"),
        ("+3|secret-code-long|x|3", "22001"),
        ("+3|TRIGGER|secret|3", "P0001"),
        ("-2", restricted),
    ];
    for (change, sqlstate) in rejected {
        for copy in [false, true] {
            let mut folds = vec![(FIRST, rig.fold(FIRST, &["=1|A|good|1", change]))];
            if copy {
                folds.push((SECOND, rig.fold(SECOND, &["+a|1"])));
            }
            let error = rig.apply(folds).await.unwrap_err();
            let shown = format!("{error} {error:?} {:?} {:?}", error.detail(), error.hint());
            assert_eq!(error.class(), Class::Rejected, "{change}: {shown}");
            assert_eq!(error.sqlstate(), Some(sqlstate), "{change}: {shown}");
            assert!(!shown.contains("secret"), "{change}: {shown}");
            assert!(shown.contains("public.lookup"), "{change}: {shown}");
            assert_eq!(rig.writer.culprit(), Some(FIRST), "{change}, copy {copy}");
        }
    }
    let error = rig
        .write(SECOND, &["+a|secret-no-number"])
        .await
        .unwrap_err();
    assert_eq!(
        (error.class(), error.sqlstate()),
        (Class::Rejected, Some("22P02")),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(
        rows(&rig.db, "SELECT code, label FROM lookup ORDER BY 1").await,
        ["A|one", "B|two"]
    );
    assert_eq!(
        value(&rig.db, "SELECT lsn FROM cdc.checkpoint").await,
        lsn,
        "the checkpoint stays"
    );
}

#[tokio::test]
async fn deferred_constraints_are_checked_before_the_commit() {
    let mut rig = Rig::new(
        "CREATE TABLE kind (code text PRIMARY KEY);
         INSERT INTO kind VALUES ('k');
         CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label text REFERENCES kind DEFERRABLE INITIALLY DEFERRED,
             synced timestamptz);
         CREATE TABLE other (code text PRIMARY KEY, label text);",
    )
    .await;
    rig.add(&stopping(labels(false))).await;
    rig.add(&stopping(other())).await;
    rig.write(FIRST, &["+1|A|k|-"]).await.unwrap();
    let small = rig.write(FIRST, &["=1|A|gone|-"]).await.unwrap_err();
    let folds = vec![
        (FIRST, rig.fold(FIRST, &["=1|A|gone|-"])),
        (SECOND, rig.fold(SECOND, &["+x|y"])),
    ];
    let copy = rig.apply(folds).await.unwrap_err();
    for error in [small, copy] {
        assert_eq!(error.class(), Class::Rejected, "{error:?}");
        assert_eq!(error.sqlstate(), Some("23503"), "{error:?}");
    }
}

/// The tables were analysed while they were small, and the plans of small batches are kept by then.
#[tokio::test]
async fn large_batch_into_small_tables_reads_them_once() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.write(FIRST, &["+1|A|one|-", "-1"]).await.unwrap();
    rig.db.batch_execute("ANALYZE").await.unwrap();
    rig.writer.warm(FIRST).await.unwrap();
    rig.write(FIRST, &["+2|B|two|-"]).await.unwrap();
    let many: Vec<String> = (3..50_003)
        .map(|id| format!("+{id}|C{id}|label {id}|-"))
        .collect();
    let written = rig.write(FIRST, &many).await.unwrap();
    assert_eq!(written.inserted, 50_000);
    // A nested loop would read, for each row, every block that this batch has filled so far.
    let map = rows(
        &rig.db,
        "SELECT 'cdc.' || relname FROM pg_class WHERE relname LIKE 'map_%' AND relkind = 'r'",
    )
    .await;
    for table in ["lookup", map[0].as_str()] {
        let sql = format!(
            "SELECT n_tup_ins, heap_blks_hit + heap_blks_read
             FROM pg_stat_user_tables t JOIN pg_statio_user_tables b USING (relid)
             WHERE relid = '{table}'::regclass"
        );
        let blocks = wait_until("the server's counters", async || {
            let counters = rows(&rig.db, &sql).await.remove(0);
            let (inserted, blocks) = counters.split_once('|').unwrap();
            if inserted.parse::<u64>().unwrap() > 50_000 {
                Ok(blocks.parse::<u64>().unwrap())
            } else {
                Err(counters)
            }
        })
        .await;
        assert!(blocks < 1_000_000, "{table}: {blocks} blocks");
    }
}

/// A process begins with tables that were filled a moment ago, so that the server knows nothing of
/// them.
#[tokio::test]
async fn batch_beside_large_tables_that_were_never_analysed_is_not_compared_with_all_of_them() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.db
        .batch_execute(&format!(
            "ALTER TABLE lookup SET (autovacuum_enabled = off);
             ALTER TABLE {map} SET (autovacuum_enabled = off);
             INSERT INTO lookup SELECT 'C' || n, 'label ' || n FROM generate_series(1, 200000) n;
             INSERT INTO {map} (i1, k1, state) SELECT n, 'C' || n, 's' FROM generate_series(1, 200000) n;",
            map = rig.models[0].target.map()
        ))
        .await
        .unwrap();
    let insert: Vec<String> = (200_001..202_501)
        .map(|id| format!("+{id}|C{id}|label {id}|-"))
        .collect();
    rig.writer = rig.another_writer().await;
    rig.writer.warm(FIRST).await.unwrap();
    // Plans of this session, with what they did, go into the server's log.
    let connection = rig.writer.connection();
    connection.batch_execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;
         SET auto_explain.log_timing = off; SET auto_explain.log_nested_statements = on;",
    )
    .await
    .unwrap();
    let before = support::target().log().len();
    assert_eq!(rig.write(FIRST, &insert).await.unwrap().inserted, 2_500);
    let update: Vec<String> = (99_000..100_000)
        .map(|id| format!("={id}|C{id}|new {id}|-"))
        .collect();
    assert_eq!(rig.write(FIRST, &update).await.unwrap().updated, 1_000);
    let log = support::target().log();
    let compared = log[before..]
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Rows Removed by Join Filter: "))
        .map(|rows| rows.parse::<u64>().unwrap());
    assert!(log[before..].contains("merge_"), "no plans in the log");
    assert_eq!(compared.max().unwrap_or(0).max(10_000), 10_000);
}

/// The read model stops at its first rejected row.
pub fn stopping(mut shape: Shape) -> Shape {
    shape.settings.on_row_error = OnRowError::Stop;
    shape
}

/// Nothing is remembered of a dead row, so the chunk that brings it back does not find what an
/// earlier one of the same transaction took away.
#[tokio::test]
async fn rows_that_die_and_come_back_within_a_large_transaction_keep_their_entries() {
    for back in [
        &["=1|A|one|-"][..],
        &["-1", "+1|A|one|-"],
        &["=1|A|other|-"],
        &["=1|B|one|-"],
    ] {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(false)).await;
        rig.write(FIRST, &["!"]).await.unwrap();
        rig.write(FIRST, &["+1|A|one|-", "+2|C|two|-"])
            .await
            .unwrap();
        rig.write_in_chunks(FIRST, &[&["=1|A|one|x"][..], back])
            .await
            .unwrap();
        assert_consistent(&rig, &format!("{back:?}")).await;
        rig.write(FIRST, &["-1"]).await.unwrap();
        assert_consistent(&rig, &format!("{back:?}, deleted")).await;
        assert_eq!(
            rows(&rig.db, "SELECT code FROM lookup").await,
            ["C"],
            "{back:?}"
        );
    }
}

/// An entry of a B-tree takes a third of a page; these texts do not compress.
#[tokio::test]
async fn values_too_large_for_an_index_are_rejected_alone() {
    let mut rig = Rig::new(
        "CREATE TABLE lookup (code text PRIMARY KEY, label text); CREATE INDEX ON lookup (label)",
    )
    .await;
    let columns = [("id", "bigint"), ("code", "text"), ("label", "text")];
    let projected = [("code", "code"), ("label", "label")];
    rig.add(&shape("lookup", &columns, &["id"], &projected, 1, true))
        .await;
    let long: String = (0..200u64)
        .map(|n| {
            format!(
                "{:016x}",
                n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            )
        })
        .collect();
    rig.write(FIRST, &["+1|A|one", "+2|B|two"]).await.unwrap();
    let changes = [
        format!("=1|A|{long}"),
        "=2|B|zwei".to_owned(),
        "+3|C|three".to_owned(),
    ];
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    rig.write(FIRST, &changes).await.unwrap();
    let shown = "SELECT code, label FROM lookup ORDER BY 1";
    assert_eq!(rows(&rig.db, shown).await, ["A|one", "B|zwei", "C|three"]);
    let rejected = "SELECT identity, key, shown, sqlstate FROM cdc.rejected";
    assert_eq!(rows(&rig.db, rejected).await, ["1|A|old row|54000"]);
    // A key has to be in the map's index too: such a row stops its read model, and nothing of the
    // batch is written.
    let changes = [format!("+4|{long}|four"), "+5|E|five".to_owned()];
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    let error = rig.write(FIRST, &changes).await.unwrap_err();
    assert_eq!(
        (error.class(), error.sqlstate(), rig.writer.culprit()),
        (Class::Rejected, Some("54000"), Some(FIRST)),
        "{error:?}"
    );
    assert_eq!(rows(&rig.db, shown).await, ["A|one", "B|zwei", "C|three"]);
}
