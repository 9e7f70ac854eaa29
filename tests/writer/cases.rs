//! Small histories and what the lookup shows after them, in every way in which the writer can take
//! them.

use std::collections::BTreeMap;

use cdc::facts::ReplicaIdentity;
use cdc::read_model::Remembering;

use crate::key_index::forget_doubled_keys;
use crate::rig::{FIRST, Rig, SECOND, Shape, shape};
use crate::support::rows;
use crate::tables::{CASES, START, UNCHANGED};

/// A lookup, a report's table with a foreign key to it, and a second lookup.
pub const TABLES: &str = "
    CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label text NOT NULL, synced timestamptz NOT NULL DEFAULT now());
    CREATE TABLE resources (code varchar(10) REFERENCES lookup ON DELETE CASCADE);
    CREATE TABLE other (code text PRIMARY KEY, label text);";

/// Master rows are `id|code|label|deleted_at`.
pub fn labels(toastable: bool) -> Shape {
    let columns = [
        ("id", "bigint"),
        ("code", "character varying"),
        ("label", "text"),
        ("deleted_at", "timestamp with time zone"),
    ];
    let mut shape = shape(
        "lookup",
        &columns,
        &["id"],
        &[("code", "code"), ("label", "label")],
        1,
        toastable,
    );
    shape.settings.synced_at = Some("synced".to_owned());
    shape
}

/// The second read model, which makes a batch one of several read models.
pub fn other() -> Shape {
    shape(
        "other",
        &[("code", "text"), ("label", "text")],
        &["code"],
        &[("code", "code"), ("label", "label")],
        1,
        false,
    )
}

/// How a case's changes reach the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One batch of one read model: one statement.
    Statement,
    /// One batch of two read models: COPY.
    Copy,
    /// One batch beside so many new rows that all of these go past the stage.
    Beside,
    /// A batch for each change.
    Stepwise,
}

/// Identities of more new rows than are staged beside others, of no interest.
pub const BYSTANDERS: std::ops::Range<u32> = 100_000..105_001;

/// Inserts of these.
pub fn bystanders() -> impl Iterator<Item = String> {
    BYSTANDERS.map(|id| format!("+{id}|~{id}|bystander|-"))
}

/// What is known of a lookup row.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    label: String,
    xmin: String,
    synced: String,
}

async fn look(rig: &Rig) -> BTreeMap<String, Seen> {
    let sql = "SELECT code, label, xmin, synced FROM lookup WHERE code NOT LIKE '~%'";
    let found = rows(&rig.db, sql).await;
    found
        .iter()
        .map(|row| {
            let mut parts = row.split('|').map(str::to_owned);
            let mut next = || parts.next().unwrap();
            let code = next();
            let seen = Seen {
                label: next(),
                xmin: next(),
                synced: next(),
            };
            (code, seen)
        })
        .collect()
}

/// Shown rows of the map are the lookup's rows, and the bookkeeping counts them.
pub async fn assert_consistent(rig: &Rig, case: &str) {
    let lookup = rows(
        &rig.db,
        "SELECT code FROM lookup ORDER BY code COLLATE \"C\"",
    )
    .await;
    let map = rows(
        &rig.db,
        "SELECT k1 FROM cdc.map_1 WHERE state = 's' ORDER BY k1 COLLATE \"C\"",
    )
    .await;
    assert_eq!(lookup, map, "{case}: lookup and shown rows of the map");
    let count = rows(&rig.db, "SELECT rows FROM cdc.counted WHERE read_model = 1").await;
    assert_eq!(count, [lookup.len().to_string()], "{case}: counted rows");
}

/// Runs a case in every way: `start` is there, `batch` comes, `expected` is shown (`code=label`).
pub async fn check(rig: &mut Rig, case: &str, start: &[&str], batch: &[&str], expected: &[&str]) {
    for way in [Way::Statement, Way::Copy, Way::Beside, Way::Stepwise] {
        let case = format!("{case}, {way:?}");
        let mut from = vec!["!"];
        from.extend(start);
        rig.write(FIRST, &from).await.unwrap();
        forget_doubled_keys(rig).await;
        let link = "DELETE FROM resources; INSERT INTO resources SELECT code FROM lookup;";
        rig.db.batch_execute(link).await.unwrap();
        let before = look(rig).await;
        match way {
            Way::Statement => {
                rig.write(FIRST, batch)
                    .await
                    .unwrap_or_else(|error| panic!("{case}: {error:?}"));
            }
            Way::Copy => {
                let change = [format!("+{}|x", rig.lsn)];
                let folds = vec![
                    (SECOND, rig.fold(SECOND, &change)),
                    (FIRST, rig.fold(FIRST, batch)),
                ];
                rig.apply(folds)
                    .await
                    .unwrap_or_else(|error| panic!("{case}: {error:?}"));
            }
            Way::Beside => {
                // One that has not put them off.
                rig.writer = rig.another_writer().await;
                let beside = bystanders().chain(batch.iter().map(|change| (*change).to_owned()));
                rig.write(FIRST, &beside.collect::<Vec<_>>())
                    .await
                    .unwrap_or_else(|error| panic!("{case}: {error:?}"));
            }
            Way::Stepwise => {
                for change in batch {
                    rig.write(FIRST, &[change])
                        .await
                        .unwrap_or_else(|error| panic!("{case}: {error:?}"));
                }
            }
        }
        let after = look(rig).await;
        let shown: Vec<String> = after
            .iter()
            .map(|(code, seen)| format!("{code}={}", seen.label))
            .collect();
        assert_eq!(shown, expected, "{case}");
        assert_consistent(rig, &case).await;
        if way == Way::Stepwise {
            continue;
        }
        let linked = rows(&rig.db, "SELECT code FROM resources").await;
        for (code, now) in &after {
            let Some(then) = before.get(code) else {
                continue;
            };
            assert!(
                linked.contains(code),
                "{case}: {code} was deleted and inserted, which takes rows that refer to it along"
            );
            if then.label == now.label {
                assert_eq!(then, now, "{case}: {code} did not change but was written");
            } else {
                assert_ne!(then.xmin, now.xmin, "{case}: {code}");
                assert!(
                    then.synced < now.synced,
                    "{case}: {code} keeps its synced_at"
                );
            }
        }
    }
}

#[tokio::test]
async fn small_histories_end_in_what_the_source_shows() {
    for toastable in [false, true] {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(toastable)).await;
        rig.add(&other()).await;
        for (case, start, batch, expected) in CASES {
            check(
                &mut rig,
                &format!("{case}, toastable {toastable}"),
                start,
                batch,
                expected,
            )
            .await;
        }
        if toastable {
            for (case, start, batch, expected) in UNCHANGED {
                check(
                    &mut rig,
                    &format!("unchanged {case}"),
                    start,
                    batch,
                    expected,
                )
                .await;
            }
        }
    }
}

#[tokio::test]
async fn dead_rows_are_remembered_only_where_a_value_may_be_left_out() {
    for (toastable, expected) in [(false, 0), (true, 1)] {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(toastable)).await;
        rig.write(FIRST, &START).await.unwrap();
        let dead = rows(&rig.db, "SELECT count(*) FROM cdc.map_1 WHERE state = 'd'").await;
        assert_eq!(dead, [expected.to_string()]);
        rig.write(FIRST, &["-3"]).await.unwrap();
        assert_eq!(rows(&rig.db, "SELECT count(*) FROM cdc.map_1").await, ["2"]);
    }
}

#[tokio::test]
async fn a_value_that_nobody_has_breaks_the_read_model_before_anything_is_written() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.write(FIRST, &START).await.unwrap();
    rig.db
        .batch_execute("DELETE FROM lookup WHERE code = 'MR'")
        .await
        .unwrap();
    for change in ["=1|MR|u|-", "=77|MR|u|-"] {
        let error = rig
            .write(FIRST, &["=2|DR|Doc|-", change])
            .await
            .unwrap_err();
        assert_eq!(
            error.class(),
            cdc::error::Class::Broken,
            "{change}: {error:?}"
        );
    }
    assert_eq!(
        rows(&rig.db, "SELECT code, label FROM lookup").await,
        ["DR|Dr."]
    );
}

#[tokio::test]
async fn identity_may_be_the_key() {
    let mut rig = Rig::new(TABLES).await;
    let mut shape = labels(true);
    shape.identity = vec!["code".to_owned()];
    shape.table.replica_identity = ReplicaIdentity::Index;
    rig.add(&shape).await;
    rig.add(&other()).await;
    let start = ["+1|MR|Mr.|-", "+2|DR|Dr.|-", "+3|SIR|Sir|x"];
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "code changed",
            &["=-|MR > 1|MS|Mr.|-"],
            &["DR=Dr.", "MS=Mr."],
        ),
        (
            "unchanged value moves along",
            &["=-|MR > 1|MS|u|-"],
            &["DR=Dr.", "MS=Mr."],
        ),
        (
            "unchanged code",
            &["=-|MR > 1|u|New|-"],
            &["DR=Dr.", "MR=New"],
        ),
        (
            "swap",
            &[
                "=-|MR > 1|T|Mr.|-",
                "=-|DR > 2|MR|Dr.|-",
                "=-|T > 1|DR|Mr.|-",
            ],
            &["DR=Mr.", "MR=Dr."],
        ),
        ("restore", &["=3|SIR|u|-"], &["DR=Dr.", "MR=Mr.", "SIR=Sir"]),
        ("delete", &["--|MR"], &["DR=Dr."]),
    ];
    for (case, batch, expected) in cases {
        check(&mut rig, case, &start, batch, expected).await;
    }
}

/// FULL without a primary key: the old tuple tells what was live, the key stands in for the
/// identity.
#[tokio::test]
async fn old_tuples_tell_what_was_live_under_full_without_a_primary_key() {
    let mut rig = Rig::new(TABLES).await;
    let mut shape = labels(true);
    shape.identity = vec!["code".to_owned()];
    shape.table.replica_identity = ReplicaIdentity::Full;
    shape.table.primary_key.clear();
    shape.remembering = Remembering::OldTuple;
    rig.add(&shape).await;
    rig.add(&other()).await;
    let start = ["+1|MR|Mr.|-", "+2|DR|Dr.|-", "+3|MR|Old|x"];
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "a dead row with the code of a live one goes",
            &["-3|MR|Old|x"],
            &["DR=Dr.", "MR=Mr."],
        ),
        (
            "a dead row changes",
            &["=3|MR|Old|x > 3|MR|Older|x"],
            &["DR=Dr.", "MR=Mr."],
        ),
        (
            "soft delete and take over",
            &["=1|MR|Mr.|- > 1|MR|Mr.|x", "=3|MR|Old|x > 3|MR|u|-"],
            &["DR=Dr.", "MR=Old"],
        ),
        (
            "code changed",
            &["=1|MR|Mr.|- > 1|MS|u|-"],
            &["DR=Dr.", "MS=Mr."],
        ),
        ("delete", &["-1|MR|Mr.|-"], &["DR=Dr."]),
        (
            "delete and insert",
            &["-1|MR|Mr.|-", "+4|MR|New|-"],
            &["DR=Dr.", "MR=New"],
        ),
        (
            "swap",
            &[
                "=1|MR|Mr.|- > 1|T|Mr.|-",
                "=2|DR|Dr.|- > 2|MR|Dr.|-",
                "=1|T|Mr.|- > 1|DR|Mr.|-",
            ],
            &["DR=Mr.", "MR=Dr."],
        ),
    ];
    for (case, batch, expected) in cases {
        check(&mut rig, case, &start, batch, expected).await;
    }
}

#[tokio::test]
async fn a_row_waits_and_takes_over_under_a_composite_key() {
    let mut rig =
        Rig::new("CREATE TABLE lookup (code text, lang text, word text, PRIMARY KEY (code, lang))")
            .await;
    let columns = [
        ("id", "bigint"),
        ("code", "text"),
        ("lang", "text"),
        ("word", "text"),
    ];
    let projected = [("code", "code"), ("lang", "lang"), ("word", "word")];
    rig.add(&shape("lookup", &columns, &["id"], &projected, 2, true))
        .await;
    rig.write(FIRST, &["+1|MR|en|one", "+2|MR|en|two", "+3|DR|en|three"])
        .await
        .unwrap();
    let lookup = "SELECT code, lang, word FROM lookup ORDER BY 1, 2";
    assert_eq!(rows(&rig.db, lookup).await, ["DR|en|three", "MR|en|one"]);
    rig.write(FIRST, &["-1", "-3"]).await.unwrap();
    assert_eq!(rows(&rig.db, lookup).await, ["MR|en|two"]);
}
