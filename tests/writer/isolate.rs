//! Rows that the target rejects: everything else goes on.

use bytes::Bytes;
use cdc::batch::{MergePosition, Merged, Written};
use cdc::error::Class;
use cdc::read_model::ModelIndex;
use cdc::settings::OnRowError;
use cdc::target::difference::Difference;
use cdc::target::shadow::ShadowWriter;
use futures_util::stream;

use crate::cases::other;
use crate::rig::{FIRST, Rig, SECOND, Shape, shape};
use crate::support::{rows, value};

/// A lookup that rejects in many ways, and a second one.
pub const TABLES: &str = "
    CREATE TABLE kind (number text PRIMARY KEY);
    INSERT INTO kind SELECT n::text FROM generate_series(0, 99) n;
    CREATE TABLE lookup (code varchar(10) PRIMARY KEY CHECK (code <> 'FORBIDDEN'), label varchar(12) NOT NULL,
        number text UNIQUE REFERENCES kind DEFERRABLE INITIALLY DEFERRED);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no secret %', NEW.label; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON lookup FOR EACH ROW WHEN (NEW.label = 'TRIGGER') EXECUTE FUNCTION refuse();
    CREATE TABLE other (code text PRIMARY KEY, label text);";

/// A report's rows that keep the lookup's rows from going.
pub const KEPT: &str = "CREATE TABLE kept (code varchar(10) REFERENCES lookup); INSERT INTO kept SELECT code FROM lookup;";

pub const LOOKUP: &str = "SELECT code, label, coalesce(number, '-') FROM lookup WHERE code <> 'ZZ' ORDER BY code COLLATE \"C\"";
pub const REJECTED: &str = "SELECT coalesce(identity, '-'), coalesce(key, '-'), shown, sqlstate, \
    coalesce(constraint_name, column_name, '-') FROM cdc.rejected ORDER BY 1, 2";

/// Master rows are `id|code|label|number|deleted_at`.
pub fn model() -> Shape {
    let columns = [
        ("id", "bigint"),
        ("code", "text"),
        ("label", "text"),
        ("number", "text"),
        ("deleted_at", "timestamp with time zone"),
    ];
    let projected = [("code", "code"), ("label", "label"), ("number", "number")];
    shape("lookup", &columns, &["id"], &projected, 1, true)
}

/// The last row is never rejected and not looked at: a read model without any such row stops.
const START: [&str; 4] = [
    "+1|A|one|1|-",
    "+2|B|two|2|-",
    "+3|C|three|3|x",
    "+0|ZZ|good|-|-",
];

/// Name, changes, expected lookup, expected rows that are rejected.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

const CASES: &[Case] = &[
    (
        "a rejected update leaves the old row",
        &["=1|FORBIDDEN|x|1|-", "=2|B|TRIGGER|2|-", "+4|D|four|4|-"],
        &["B|two|2", "D|four|4"],
        &[
            "1|FORBIDDEN|nothing|23514|lookup_code_check",
            "2|B|old row|P0001|-",
        ],
    ),
    (
        "not null, by the row that comes",
        &["+4|D|-|4|-", "+5|E|five|5|-"],
        &["A|one|1", "B|two|2", "E|five|5"],
        &["4|D|nothing|23502|label"],
    ),
    (
        "a second unique index",
        &["+4|D|four|2|-", "+5|E|five|5|-"],
        &["A|one|1", "B|two|2", "E|five|5"],
        &["4|D|nothing|23505|lookup_number_key"],
    ),
    (
        "a deferred foreign key of the lookup",
        &["=1|A|one|1000|-", "=2|B|deux|2|-"],
        &["A|one|1", "B|deux|2"],
        &["1|A|old row|23503|lookup_number_fkey"],
    ),
    (
        "too long for its type",
        &["=1|A|far too long for it|1|-", "=2|B|deux|2|-"],
        &["A|one|1", "B|deux|2"],
        &["1|A|old row|22001|label"],
    ),
    (
        "a key that its type does not take",
        &["=1|FAR-TOO-LONG|one|1|-", "=2|B|deux|2|-"],
        &["B|deux|2"],
        &["1|-|nothing|22001|code"],
    ),
    (
        "the key is taken over by an accepted row, whoever is smaller",
        &["=1|A|TRIGGER|1|-", "+7|A|seven|7|-"],
        &["A|seven|7", "B|two|2"],
        &["1|A|other row|P0001|-"],
    ),
    (
        "the next one that claims the key is tried, and the next one",
        &[
            "+4|D|TRIGGER|4|-",
            "+5|D|TRIGGER|5|-",
            "+6|D|six|6|-",
            "+7|D|seven|7|-",
        ],
        &["A|one|1", "B|two|2", "D|six|6"],
        &["4|D|other row|P0001|-", "5|D|other row|P0001|-"],
    ),
    (
        "keys that are swapped, one of them rejected",
        &["=1|B|TRIGGER|1|-", "=2|A|two|2|-"],
        // Nobody accepted claims B: what stood there stays, though its number is in the way of
        // nobody.
        &["A|one|1", "B|two|2"],
        &["1|B|old row|P0001|-", "2|A|old row|23505|lookup_number_key"],
    ),
    (
        "numbers that are swapped",
        &["=1|A|one|2|-", "=2|B|two|1|-", "+4|D|TRIGGER|4|-"],
        &["A|one|2", "B|two|1"],
        &["4|D|nothing|P0001|-"],
    ),
    (
        "numbers that rotate, and one that is in nobody's gift",
        &[
            "+4|D|four|4|-",
            "=1|A|one|2|-",
            "=2|B|two|4|-",
            "=4|D|four|1|-",
            "+5|E|five|1|-",
        ],
        &["A|one|2", "B|two|4", "D|four|1"],
        &["5|E|nothing|23505|lookup_number_key"],
    ),
    (
        "one that is in another one's way at first",
        &["+4|D|four|1|-", "=1|A|one|9|-", "+5|E|TRIGGER|5|-"],
        &["A|one|9", "B|two|2", "D|four|1"],
        &["5|E|nothing|P0001|-"],
    ),
    (
        "rejected and gone in one batch",
        &["+4|D|TRIGGER|4|-", "-4", "+5|E|five|5|-"],
        &["A|one|1", "B|two|2", "E|five|5"],
        &[],
    ),
    (
        "a dead row is never rejected",
        &["=1|A|far too long for it|1|x", "=3|C|TRIGGER|3|x"],
        &["B|two|2"],
        &[],
    ),
    (
        "after a truncate",
        &["!", "+1|A|TRIGGER|1|-", "+2|B|deux|2|-", "+3|C|three|3|-"],
        &["A|one|1", "B|deux|2", "C|three|3"],
        &["1|A|old row|P0001|-"],
    ),
    (
        "the identity moves along",
        &["=1|A|TRIGGER|1|-", "=1 > 9|A|u|u|-"],
        &["A|one|1", "B|two|2"],
        &["9|A|old row|P0001|-"],
    ),
];

pub async fn start(rig: &mut Rig) {
    rig.db.batch_execute("DELETE FROM lookup").await.unwrap();
    let mut from = vec!["!"];
    from.extend(START);
    rig.write(FIRST, &from).await.unwrap();
    assert_eq!(rows(&rig.db, REJECTED).await, [""; 0]);
}

async fn assert_counted(rig: &Rig, case: &str) {
    let counted = value(
        &rig.db,
        "SELECT rows = (SELECT count(*) FROM lookup) FROM cdc.counted WHERE read_model = 1",
    )
    .await;
    assert_eq!(counted, "t", "{case}");
    let counted = "SELECT rejected = (SELECT count(*) FROM cdc.rejected) FROM cdc.freshness WHERE read_model LIKE '%.lookup'";
    assert_eq!(value(&rig.db, counted).await, "t", "{case}");
}

#[tokio::test]
async fn rejected_rows_are_set_apart_and_all_else_goes_on() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    rig.add(&other()).await;
    for (case, batch, lookup, rejected) in CASES {
        for way in ["statement", "copy", "stepwise"] {
            // Where rows stand in each other's way, one batch takes them all and single steps do
            // not; nor is the state between a truncate and what follows ever seen.
            let whole = ["swapped", "rotate", "way", "truncate"];
            if way == "stepwise" && whole.iter().any(|word| case.contains(word)) {
                continue;
            }
            let case = format!("{case}, {way}");
            start(&mut rig).await;
            match way {
                "statement" => drop(rig.write(FIRST, batch).await.unwrap()),
                "copy" => {
                    let change = [format!("+{}|x", rig.lsn)];
                    let folds = vec![
                        (FIRST, rig.fold(FIRST, batch)),
                        (SECOND, rig.fold(SECOND, &change)),
                    ];
                    rig.apply(folds).await.unwrap();
                }
                _ => {
                    for change in *batch {
                        rig.write(FIRST, &[change]).await.unwrap();
                    }
                }
            }
            assert_eq!(rows(&rig.db, LOOKUP).await, *lookup, "{case}");
            assert_eq!(rows(&rig.db, REJECTED).await, *rejected, "{case}");
            assert_counted(&rig, &case).await;
            assert_position(&rig).await;
        }
    }
}

async fn assert_position(rig: &Rig) {
    let lsn = value(&rig.db, "SELECT lsn - '0/0'::pg_lsn FROM cdc.checkpoint").await;
    assert_eq!(lsn, rig.lsn.to_string(), "the checkpoint goes on");
}

#[tokio::test]
async fn a_row_heals_when_it_changes_or_goes() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a good state", &["=1|A|good|1|-"], &["A|good|1", "B|two|2"]),
        (
            "a good state elsewhere",
            &["=1|D|good|1|-"],
            &["B|two|2", "D|good|1"],
        ),
        (
            "a key that its type does not take, then one that it does",
            &["=1|FAR-TOO-LONG|x|1|-", "=1|A|x|1|-"],
            &["A|x|1", "B|two|2"],
        ),
        (
            "values from the map",
            &["=1|D|u|1|-", "=1|D|new|u|-"],
            &["B|two|2", "D|new|1"],
        ),
        ("gone", &["-1"], &["B|two|2"]),
        ("dead", &["=1|A|TRIGGER|1|x"], &["B|two|2"]),
        ("truncate", &["!", "+1|A|x|1|-"], &["A|x|1"]),
        (
            "identity changed",
            &["=1 > 9|A|x|1|-"],
            &["A|x|1", "B|two|2"],
        ),
    ];
    for bad in ["TRIGGER", "far too long for it"] {
        for (case, batch, lookup) in cases {
            if bad != "TRIGGER" && case.contains("map") {
                continue;
            }
            start(&mut rig).await;
            rig.write(FIRST, &[format!("=1|A|{bad}|1|-")])
                .await
                .unwrap();
            assert_eq!(
                rows(&rig.db, LOOKUP).await,
                ["A|one|1", "B|two|2"],
                "{case}"
            );
            assert_eq!(rows(&rig.db, REJECTED).await.len(), 1, "{case}");
            for change in *batch {
                rig.write(FIRST, &[change]).await.unwrap();
            }
            assert_eq!(rows(&rig.db, LOOKUP).await, *lookup, "{bad}, {case}");
            assert_eq!(rows(&rig.db, REJECTED).await, [""; 0], "{bad}, {case}");
            assert_counted(&rig, case).await;
        }
    }
}

/// A value that was left out and that nothing holds, since the lookup's type did not take it.
#[tokio::test]
async fn a_left_out_value_of_a_row_that_was_not_staged_breaks_the_read_model() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig.write(FIRST, &["=1|A|far too long for it|1|-"])
        .await
        .unwrap();
    let error = rig.write(FIRST, &["=1|A|u|7|-"]).await.unwrap_err();
    assert_eq!(error.class(), Class::Broken, "{error:?}");
    // Its key is known.
    rig.write(FIRST, &["=1|u|uno|7|-"]).await.unwrap();
    assert_eq!(rows(&rig.db, LOOKUP).await, ["A|uno|7", "B|two|2"]);
}

#[tokio::test]
async fn a_row_that_may_not_be_deleted_stays() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig.db.batch_execute(KEPT).await.unwrap();
    rig.db
        .batch_execute("DELETE FROM kept WHERE code = 'A'")
        .await
        .unwrap();
    let restricted = |sql: &'static str| sql;
    rig.write(FIRST, &["-1", "-2", "+4|D|four|4|-"])
        .await
        .unwrap();
    assert_eq!(rows(&rig.db, LOOKUP).await, ["B|two|2", "D|four|4"]);
    let rejected =
        restricted("SELECT coalesce(identity, '-'), key, shown, constraint_name FROM cdc.rejected");
    assert_eq!(
        rows(&rig.db, rejected).await,
        ["-|B|old row|kept_code_fkey"]
    );
    assert_counted(&rig, "kept").await;
    // Swapped numbers cannot be written by delete and insert here.
    rig.write(FIRST, &["+5|E|five|5|-"]).await.unwrap();
    rig.write(FIRST, &["=4|D|four|5|-", "=5|E|five|4|-"])
        .await
        .unwrap();
    assert_eq!(
        rows(&rig.db, LOOKUP).await,
        ["B|two|2", "D|four|4", "E|five|5"]
    );
    assert_eq!(rows(&rig.db, rejected).await.len(), 3);
    // Another row takes the key over.
    rig.write(FIRST, &["+6|B|six|6|-"]).await.unwrap();
    assert_eq!(
        rows(&rig.db, LOOKUP).await,
        ["B|six|6", "D|four|4", "E|five|5"]
    );
    assert_eq!(rows(&rig.db, rejected).await.len(), 2);
}

/// Fills a shadow with these lines.
pub async fn fill(rig: &Rig, index: ModelIndex, lines: &[&str]) -> ShadowWriter {
    let model = rig.models[index.0].target.clone();
    let mut shadow = rig.shadow(index).await;
    let pieces = || {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| Ok(Bytes::from(format!("{}\n", line.replace('|', "\t")))))
            .collect();
        stream::iter(lines)
    };
    if shadow
        .fill(&model, pieces(), &cdc::target::shadow::Counter::default())
        .await
        .is_err()
    {
        shadow.take(&rig.bookkeeping, &model).await.unwrap();
        shadow
            .fill_carefully(&model, pieces(), &cdc::target::shadow::Counter::default())
            .await
            .unwrap();
    }
    shadow
}

/// Merges a copy of these lines; tells what a dry run would have found before.
pub async fn resync(rig: &mut Rig, lines: &[&str]) -> (Difference, Written) {
    let model = rig.models[0].target.clone();
    let mut shadow = fill(rig, FIRST, lines).await;
    let found = shadow.compare(&model, 10).await.unwrap();
    let position = MergePosition::Running(rig.position().lsn, None);
    let merged = rig.writer.merge(&[FIRST], &position, 20).await.unwrap();
    let written = merged.into_iter().next().unwrap().result;
    shadow.give_back(&rig.bookkeeping).await.unwrap();
    (found, written.unwrap())
}

const COPY: [&str; 6] = [
    "1|l|A|TRIGGER|1",
    "2|l|B|far too long for it|2",
    "3|d|C|dead and far too long|3",
    "4|l|FAR-TOO-LONG|four|4",
    "5|l|E|five|5",
    "6|l|A2|six|1",
];

const COPY_REJECTED: [&str; 3] = [
    "1|A|old row|P0001|-",
    "2|B|nothing|22001|label",
    "4|-|nothing|22001|code",
];

#[tokio::test]
async fn copies_set_rows_apart_too_and_see_no_drift_in_them() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    // What stands under a rejected row's key stays, whoever wrote it.
    rig.db
        .batch_execute("INSERT INTO lookup VALUES ('A', 'mine', '8'), ('Z', 'gone', '9')")
        .await
        .unwrap();
    let (_, written) = resync(&mut rig, &COPY).await;
    assert_eq!(
        (written.inserted, written.updated, written.deleted),
        (2, 0, 1)
    );
    let lookup = ["A|mine|8", "A2|six|1", "E|five|5"];
    assert_eq!(rows(&rig.db, LOOKUP).await, lookup);
    assert_eq!(rows(&rig.db, REJECTED).await, COPY_REJECTED);
    assert_eq!(written.rejected.len(), 3);
    assert_counted(&rig, "first copy").await;
    let (found, written) = resync(&mut rig, &COPY).await;
    let rejected = found.keys.first().map(|(_, keys)| keys.join(" "));
    assert_eq!((found.rejected, rejected.as_deref()), (3, Some("A B 4")));
    let healthy = Difference {
        same: 2,
        rejected: 3,
        keys: found.keys.clone(),
        rejections: found.rejections.clone(),
        ..Difference::default()
    };
    assert_eq!(found, healthy, "a dry run sees nothing else in health");
    assert_eq!(written.changed(), 0, "a resync in health writes nothing");
    assert_eq!(rows(&rig.db, REJECTED).await, COPY_REJECTED);
    // The stream goes on from there.
    rig.write(FIRST, &["=2|B|two|u|-"]).await.unwrap_err();
    rig.write(FIRST, &["=2|B|two|2|-", "=1|A|u|10|-", "+7|G|seven|7|-"])
        .await
        .unwrap();
    assert_eq!(
        rows(&rig.db, LOOKUP).await,
        ["A|mine|8", "A2|six|1", "B|two|2", "E|five|5", "G|seven|7"]
    );
    // The target's table has changed: a resync heals, and that is no drift.
    rig.db
        .batch_execute("DROP TRIGGER refuse ON lookup; UPDATE cdc.read_model SET state = 'in_step'")
        .await
        .unwrap();
    let (_, written) = resync(
        &mut rig,
        &[
            "1|l|A|TRIGGER|10",
            "2|l|B|two|2",
            "4|l|D|four|4",
            "5|l|E|five|5",
            "6|l|A2|six|1",
            "7|l|G|seven|7",
        ],
    )
    .await;
    assert_eq!((written.changed(), written.rejected_in_all), (2, 0));
    assert_eq!(rows(&rig.db, REJECTED).await, [""; 0]);
    let drift = value(&rig.db, "SELECT last_resync_repaired FROM cdc.read_model").await;
    assert_eq!(drift, "0");
    rig.write(FIRST, &["=5|E|far too long for it|5|-", "=2|B|zwei|2|-"])
        .await
        .unwrap();
    assert_eq!(rows(&rig.db, REJECTED).await, ["5|E|old row|22001|label"]);
    assert_eq!(
        rows(&rig.db, "SELECT label FROM lookup WHERE code = 'B'").await,
        ["zwei"]
    );
}

#[tokio::test]
async fn a_read_model_of_which_every_row_is_rejected_or_too_many_stops() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    rig.write(FIRST, &["!", "+1|A|TRIGGER|1|-"]).await.unwrap();
    assert_eq!(
        rows(&rig.db, REJECTED).await.len(),
        1,
        "a single row is rejected"
    );
    let error = rig.write(FIRST, &["+2|B|TRIGGER|2|-"]).await.unwrap_err();
    assert_eq!(
        (error.class(), rig.writer.culprit()),
        (Class::Rejected, Some(FIRST)),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("all 2 rows are rejected"),
        "{error}"
    );
    start(&mut rig).await;
    for (bad, count) in [
        ("TRIGGER", 1000),
        ("far too long for it", 1000),
        ("TRIGGER", 3000),
        ("far too long for it", 3000),
    ] {
        start(&mut rig).await;
        let batch: Vec<String> = (0..count)
            .map(|n| format!("+{}|N{n}|{bad}|-|-", 100 + n))
            .collect();
        let written = rig.write(FIRST, &batch).await;
        if count == 1000 {
            assert_eq!(written.unwrap().rejected.len(), 1000);
            let error = rig
                .write(FIRST, &[format!("+5000|M|{bad}|-|-")])
                .await
                .unwrap_err();
            assert!(error.to_string().contains("more than 1000"), "{error}");
            assert_eq!(rig.writer.culprit(), Some(FIRST));
            rig.write(FIRST, &["+5001|M|fine|-|-", "-100"])
                .await
                .unwrap();
            assert_eq!(rows(&rig.db, REJECTED).await.len(), 999);
        } else {
            let error = written.unwrap_err();
            assert!(error.to_string().contains("more than 1000"), "{error}");
            assert_eq!(rows(&rig.db, REJECTED).await.len(), 0);
            assert_eq!(rows(&rig.db, LOOKUP).await.len(), 2);
        }
    }
}

#[tokio::test]
async fn few_bad_rows_among_many_good_ones() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    let label = |n: usize| match n % 1000 {
        7 => "TRIGGER",
        8 => "far too long for it",
        _ => "fine",
    };
    let batch: Vec<String> = (0..20_000)
        .map(|n| format!("+{}|N{n}|{}|-|-", 100 + n, label(n)))
        .collect();
    let written = rig.write(FIRST, &batch).await.unwrap();
    assert_eq!((written.inserted, written.rejected.len()), (19_960, 40));
    let batch: Vec<String> = (0..20_000)
        .map(|n| format!("={}|N{n}|{}|-|-", 100 + n, label(n + 1)))
        .collect();
    let written = rig.write(FIRST, &batch).await.unwrap();
    assert_eq!((written.inserted, written.rejected.len()), (20, 40));
    assert_counted(&rig, "many").await;
}

/// As many keys are told of a batch with rejected rows as of any other.
#[tokio::test]
async fn no_more_keys_are_told_than_wanted() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig.writer.report_keys = 3;
    let mut batch: Vec<String> = (10..20).map(|n| format!("+{n}|N{n}|new|{n}|-")).collect();
    // Those that come second claim keys that are rejected to the first.
    batch.extend((20..30).map(|n| format!("+{n}|D{n}|TRIGGER|{n}|-")));
    batch.extend((30..40).map(|n| format!("+{n}|D{}|second|{n}|-", n - 10)));
    batch.push("=1|A|uno|1|-".to_owned());
    let written = rig.write(FIRST, &batch).await.unwrap();
    assert_eq!(
        (written.inserted, written.updated, written.rejected.len()),
        (20, 1, 10)
    );
    assert_eq!(
        (written.inserted_keys.len(), written.updated_keys.len()),
        (3, 1)
    );
    let taken_back: Vec<String> = (10..20).map(|n| format!("-{n}")).collect();
    let written = rig.write(FIRST, &taken_back).await.unwrap();
    assert_eq!((written.deleted, written.deleted_keys.len()), (10, 3));
}

#[tokio::test]
async fn another_process_goes_on_with_the_rows_that_are_set_apart() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig.write(FIRST, &["=1|A|TRIGGER|1|-"]).await.unwrap();
    rig.writer = rig.another_writer().await;
    rig.write(FIRST, &["=2|A|two|2|-"]).await.unwrap();
    assert_eq!(rows(&rig.db, REJECTED).await, ["1|A|other row|P0001|-"]);
    rig.write(FIRST, &["-2"]).await.unwrap();
    assert_eq!(
        rows(&rig.db, LOOKUP).await,
        ["A|two|2"],
        "it stays as it was last shown"
    );
    rig.write(FIRST, &["-1"]).await.unwrap();
    assert_eq!(rows(&rig.db, LOOKUP).await, [""; 0]);
}

/// A lookup whose deferred foreign key leads to another lookup: the other one's rows may come later
/// in the batch.
#[tokio::test]
async fn rows_that_wait_for_another_lookup_are_tried_again() {
    let mut rig = Rig::new(
        "CREATE TABLE other (code text PRIMARY KEY, label text CHECK (label <> 'bad'));
         CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label text, number text REFERENCES other);",
    )
    .await;
    rig.add(&model()).await;
    rig.add(&other()).await;
    rig.write(SECOND, &["+z|z"]).await.unwrap();
    let folds = vec![
        (
            FIRST,
            rig.fold(FIRST, &["+1|A|one|x|-", "+2|B|two|y|-", "+3|C|three|z|-"]),
        ),
        (SECOND, rig.fold(SECOND, &["+x|fine", "+y|bad"])),
    ];
    let written = rig.apply(folds).await.unwrap();
    assert_eq!(written[0].1.inserted, 2);
    assert_eq!(rows(&rig.db, LOOKUP).await, ["A|one|x", "C|three|z"]);
    assert_eq!(
        rows(&rig.db, REJECTED).await,
        [
            "2|B|nothing|23503|lookup_number_fkey",
            "y|y|nothing|23514|other_label_check"
        ]
    );
}

/// The same in copies, in both directions: rows that come, and rows that go.
#[tokio::test]
async fn copies_that_wait_for_another_lookup_are_tried_again() {
    let mut rig = Rig::new(
        "CREATE TABLE other (code text PRIMARY KEY, label text);
         CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label text, number text REFERENCES other);",
    )
    .await;
    rig.add(&model()).await;
    rig.add(&other()).await;
    for (order, lines, others) in [
        (
            [FIRST, SECOND],
            vec!["0|l|Z|free|\\N", "1|l|A|one|x"],
            vec!["x|l|x|x", "y|l|y|y"],
        ),
        (
            [SECOND, FIRST],
            vec!["0|l|Z|free|\\N", "1|l|A|one|y"],
            vec!["y|l|y|y"],
        ),
    ] {
        fill(&rig, FIRST, &lines).await;
        fill(&rig, SECOND, &others).await;
        let position = MergePosition::Running(rig.position().lsn, None);
        let merged = rig.writer.merge(&order, &position, 20).await.unwrap();
        for Merged { index, result } in merged {
            let written = result.unwrap();
            assert_eq!(
                written.rejected_in_all, 0,
                "{order:?}: {index:?}: {written:?}"
            );
        }
        assert_eq!(rows(&rig.db, REJECTED).await, [""; 0], "{order:?}");
        let number = lines[1].rsplit('|').next().unwrap();
        assert_eq!(
            rows(&rig.db, "SELECT number FROM lookup WHERE code = 'A'").await,
            [number]
        );
        assert_eq!(
            rows(&rig.db, "SELECT code FROM other").await.len(),
            others.len()
        );
    }
}

#[tokio::test]
async fn a_read_model_may_stop_at_its_first_rejected_row() {
    let mut rig = Rig::new(TABLES).await;
    let mut stops = model();
    stops.settings.on_row_error = OnRowError::Stop;
    rig.add(&stops).await;
    start(&mut rig).await;
    for bad in ["TRIGGER", "far too long for it"] {
        let error = rig
            .write(FIRST, &[format!("=1|A|{bad}|1|-")])
            .await
            .unwrap_err();
        assert_eq!(
            (error.class(), rig.writer.culprit()),
            (Class::Rejected, Some(FIRST)),
            "{error:?}"
        );
        assert_eq!(rows(&rig.db, LOOKUP).await, ["A|one|1", "B|two|2"]);
    }
}
