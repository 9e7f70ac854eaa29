//! The map is indexed by key only from when two live rows have had one key.

use std::time::Duration;

use cdc::batch::MergePosition;

use crate::cases::{TABLES, assert_consistent, labels};
use crate::isolate::{self, fill, resync};
use crate::rig::{FIRST, Rig, shape};
use crate::support::{pg, rows, value, wait_until};

/// How many indexes by key the map has.
pub async fn key_indexes(rig: &Rig) -> String {
    value(&rig.db, "SELECT count(to_regclass('cdc.map_1_key'))").await
}

/// Lets the map be as it is where no two rows have had one key yet, if no two have one now.
pub async fn forget_doubled_keys(rig: &Rig) {
    let hidden = "SELECT count(*) FROM cdc.map_1 WHERE state NOT IN ('s', 'd')";
    if value(&rig.db, hidden).await == "0" {
        rig.db
            .batch_execute("DROP INDEX IF EXISTS cdc.map_1_key")
            .await
            .unwrap();
    }
}

/// How many rows of the map were read by reading it from end to end, since it is there.
pub async fn map_rows_read(rig: &Rig) -> u64 {
    let read =
        "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'map_1' AND seq_scan > 0";
    wait_until("what was read is known", async || {
        rows(&rig.db, read).await.pop().ok_or_else(String::new)
    })
    .await
    .parse()
    .unwrap()
}

/// Until two rows have had one key the map is not asked for keys: what is shown tells who has one.
#[tokio::test]
async fn keys_are_indexed_from_when_two_rows_have_one() {
    let unique: &[&[&str]] = &[
        &["+5|E|five|-", "+6|F|six|x"],
        &["=1|B|one|-", "=2|A|two|-"],
        &["=1 > 7|B|one|-", "+1|G|new|-"],
        &["=3|A2|dead|-", "=2|A|two|x", "+8|A|eight|-"],
        &["-8", "=2|A|two|-"],
        &["!", "+1|A|one|-", "+2|B|two|-"],
        &["=1 > 9|A|one|-", "=2 > 1|B|two|-", "=9 > 2|A|one|-"],
    ];
    // What is shown under A then, and once that row has gone.
    let doubled: &[(&[&str], &str, &[&str])] = &[
        (&["+5|A|five|-"], "two", &["five"]),
        (&["=1|A|one|-"], "one", &["two"]),
        (&["=1 > 9|A|one|-"], "two", &["one"]),
        (
            &["=2|X|two|-", "+5|A|five|-", "+6|A|six|-"],
            "five",
            &["six"],
        ),
        (&["+5|A|five|-", "=2|A|deux|-"], "deux", &["five"]),
        (&["!", "+5|A|five|-", "+6|A|six|-"], "five", &["six"]),
    ];
    for (batch, shown, next) in doubled {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(true)).await;
        rig.write(FIRST, &["+1|A|one|-", "+2|B|two|-", "+3|A|dead|x"])
            .await
            .unwrap();
        for step in unique {
            rig.write(FIRST, step).await.unwrap();
            assert_consistent(&rig, &format!("{step:?}")).await;
            assert_eq!(key_indexes(&rig).await, "0", "{step:?}");
        }
        rig.write(FIRST, &["!", "+1|B|one|-", "+2|A|two|-"])
            .await
            .unwrap();
        rig.write(FIRST, batch).await.unwrap();
        assert_consistent(&rig, &format!("{batch:?}")).await;
        assert_eq!(key_indexes(&rig).await, "1", "{batch:?}");
        let under_a = "SELECT label FROM lookup WHERE code = 'A'";
        assert_eq!(rows(&rig.db, under_a).await, [*shown], "{batch:?}");
        let owner = "SELECT i1 FROM cdc.map_1 WHERE k1 = 'A' AND state = 's'";
        let gone = format!("-{}", value(&rig.db, owner).await);
        rig.write(FIRST, &[gone]).await.unwrap();
        assert_eq!(rows(&rig.db, under_a).await, *next, "{batch:?}");
    }
}

/// Whoever takes a row out of the lookup frees its key for others, until a copy puts it right.
#[tokio::test]
async fn a_key_whose_row_was_taken_out_of_the_lookup_is_given_back_by_a_copy() {
    for many in [false, true] {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(true)).await;
        rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
        rig.db.batch_execute("DELETE FROM lookup").await.unwrap();
        let mut batch = vec!["+2|A|two|-".to_owned()];
        batch.extend((10..if many { 600 } else { 20 }).map(|n| format!("+{n}|C{n}|label|-")));
        rig.write(FIRST, &batch).await.unwrap();
        let under_a = "SELECT label FROM lookup WHERE code = 'A'";
        assert_eq!(rows(&rig.db, under_a).await, ["two"]);
        if many {
            // The one that had it first goes, and takes its row along.
            rig.write(FIRST, &["-1"]).await.unwrap();
            assert_eq!(rows(&rig.db, under_a).await, [""; 0]);
            resync(&mut rig, &["2|l|A|two"]).await;
            assert_eq!(rows(&rig.db, under_a).await, ["two"]);
            assert_consistent(&rig, "copied").await;
            continue;
        }
        resync(&mut rig, &["1|l|A|one", "2|l|A|two"]).await;
        assert_eq!(rows(&rig.db, under_a).await, ["one"]);
        assert_consistent(&rig, "copied").await;
        rig.write(FIRST, &["-1"]).await.unwrap();
        assert_eq!(rows(&rig.db, under_a).await, ["two"]);
    }
}

/// While somebody holds a snapshot, an index that is made over entries that were changed in place
/// is of no use to the transaction that makes it: the map is read some times then, not once for
/// each key.
#[tokio::test]
async fn an_index_that_cannot_be_used_yet_is_no_disaster() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    let start: Vec<String> = (0..5000).map(|id| format!("+{id}|C{id}|label|-")).collect();
    rig.write(FIRST, &start).await.unwrap();
    let report = pg(&rig.url).await;
    report
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM lookup")
        .await
        .unwrap();
    for deleted in ["x", "-"] {
        let lines: Vec<String> = (0..20)
            .map(|id| format!("={id}|C{id}|label|{deleted}"))
            .collect();
        rig.write(FIRST, &lines).await.unwrap();
    }
    let mut lines: Vec<String> = (100..1000)
        .map(|id| format!("={id}|D{id}|label|-"))
        .collect();
    lines.push("+9000|C50|second|-".to_owned());
    rig.write(FIRST, &lines).await.unwrap();
    let checked = "SELECT indcheckxmin FROM pg_index WHERE indexrelid = 'cdc.map_1_key'::regclass";
    assert_eq!(value(&rig.db, checked).await, "t");
    assert_consistent(&rig, "beside a report").await;
    report.batch_execute("COMMIT").await.unwrap();
    let read = map_rows_read(&rig).await;
    assert!(read < 100 * 5000, "{read} rows of the map were read");
}

/// Nor where the copy itself has changed an entry in place.
#[tokio::test]
async fn a_copy_that_changes_a_key_and_doubles_another_reads_the_map_a_few_times() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    let start: Vec<String> = (0..3000).map(|id| format!("+{id}|C{id}|label|-")).collect();
    rig.write(FIRST, &start).await.unwrap();
    rig.write(FIRST, &["=7|E7|label|-"]).await.unwrap();
    let mut lines: Vec<String> = (0..3000).map(|id| format!("{id}|l|C{id}|label")).collect();
    lines[7] = "7|l|F7|label".to_owned();
    lines.push("9000|l|C50|second".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let _shadow = fill(&rig, FIRST, &lines).await;
    let position = MergePosition::Running(rig.position().lsn, None);
    let mut merged = rig.writer.merge(&[FIRST], &position, 0).await.unwrap();
    assert_eq!(merged.remove(0).result.unwrap().updated, 0);
    assert_eq!(
        rows(
            &rig.db,
            "SELECT code FROM lookup WHERE code IN ('E7', 'F7')"
        )
        .await,
        ["F7"]
    );
    assert_consistent(&rig, "a doubled key").await;
    let read = map_rows_read(&rig).await;
    assert!(read < 100 * 3000, "{read} rows of the map were read");
}

/// A key of several columns, of which the server expects far fewer matches than there are.
#[tokio::test]
async fn rows_of_a_composite_key_may_all_take_another_ones() {
    let mut rig =
        Rig::new("CREATE TABLE lookup (a bigint, b bigint, label text, PRIMARY KEY (a, b));").await;
    let columns = [
        ("id", "bigint"),
        ("a", "bigint"),
        ("b", "bigint"),
        ("label", "text"),
    ];
    let projected = [("a", "a"), ("b", "b"), ("label", "label")];
    rig.add(&shape("lookup", &columns, &["id"], &projected, 2, false))
        .await;
    let line = |kind: char, id: usize, key: usize| format!("{kind}{id}|{key}|{key}|label {id}");
    let start: Vec<String> = (0..20_000).map(|id| line('+', id, id)).collect();
    rig.write(FIRST, &start).await.unwrap();
    rig.db
        .batch_execute("ANALYZE lookup; ANALYZE cdc.map_1")
        .await
        .unwrap();
    let rotated: Vec<String> = (0..2000).map(|id| line('=', id, (id + 1) % 2000)).collect();
    assert_eq!(rig.write(FIRST, &rotated).await.unwrap().updated, 2000);
    let wrong =
        "SELECT count(*) FROM lookup WHERE a < 2000 AND label <> 'label ' || (a + 1999) % 2000";
    assert_eq!(value(&rig.db, wrong).await, "0");
    assert_eq!(key_indexes(&rig).await, "0");
}

/// A row that is dead may have a key that is too large for an index; nobody looks for it.
#[tokio::test]
async fn a_large_key_of_a_dead_row_is_not_indexed() {
    let mut rig =
        Rig::new("CREATE TABLE lookup (code text PRIMARY KEY, label text CHECK (label <> 'BAD'));")
            .await;
    let mut shape = labels(true);
    shape.settings.synced_at = None;
    rig.add(&shape).await;
    let hash = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n";
    let long = value(&rig.db, hash).await;
    rig.write(
        FIRST,
        &["+1|A|one|-".to_owned(), format!("+2|{long}|two|x")],
    )
    .await
    .unwrap();
    let rejected = rig.write(FIRST, &["+3|B|BAD|-"]).await.unwrap();
    assert_eq!(rejected.rejected_in_all, 1);
    rig.write(FIRST, &["+4|A|four|-"]).await.unwrap();
    let shown = "SELECT code, label FROM lookup";
    assert_eq!(rows(&rig.db, shown).await, ["A|one"]);
    rig.write(FIRST, &["-1"]).await.unwrap();
    assert_eq!(rows(&rig.db, shown).await, ["A|four"]);
}

/// What a VACUUM of the map holds is in nobody's way, once the map has its index by key.
#[tokio::test]
async fn the_map_is_written_beside_a_vacuum() {
    let mut rig = Rig::new(isolate::TABLES).await;
    rig.add(&isolate::model()).await;
    isolate::start(&mut rig).await;
    let vacuum = pg(&rig.url).await;
    for (doubled, gone) in [
        ("+5|A|five|5|-", "-5"),
        ("+6|D|TRIGGER|6|-", "=1|A|uno|1|-"),
    ] {
        rig.write(FIRST, &[doubled]).await.unwrap();
        vacuum
            .batch_execute("BEGIN; LOCK TABLE cdc.map_1 IN SHARE UPDATE EXCLUSIVE MODE")
            .await
            .unwrap();
        let batches = async {
            rig.write(FIRST, &["+7|A|seven|7|-"]).await.unwrap();
            rig.write(FIRST, &["-7", gone]).await.unwrap();
        };
        let written = tokio::time::timeout(Duration::from_secs(60), batches).await;
        assert!(written.is_ok(), "it waits for the VACUUM");
        vacuum.batch_execute("COMMIT").await.unwrap();
    }
    assert_eq!(rows(&rig.db, isolate::LOOKUP).await, ["A|uno|1", "B|two|2"]);
}
