//! Small histories and what the lookup shows after them, in every way in which the writer can take them.

use std::collections::BTreeMap;

use cdc::facts::ReplicaIdentity;
use cdc::read_model::Remembering;

use crate::rig::{Rig, Shape, shape};
use crate::support::rows;

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
    /// A batch for each change.
    Stepwise,
}

/// What is known of a lookup row.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    label: String,
    xmin: String,
    synced: String,
}

async fn look(rig: &Rig) -> BTreeMap<String, Seen> {
    let found = rows(&rig.db, "SELECT code, label, xmin, synced FROM lookup").await;
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
    let lookup = rows(&rig.db, "SELECT code FROM lookup ORDER BY code COLLATE \"C\"").await;
    let map = rows(
        &rig.db,
        "SELECT k1 FROM cdc.map_1 WHERE state = 's' ORDER BY k1 COLLATE \"C\"",
    )
    .await;
    assert_eq!(lookup, map, "{case}: lookup and shown rows of the map");
    let count = rows(&rig.db, "SELECT rows FROM cdc.read_model WHERE id = 1").await;
    assert_eq!(count, [lookup.len().to_string()], "{case}: counted rows");
}

/// Runs a case in every way: `start` is there, `batch` comes, `expected` is shown (`code=label`).
async fn check(rig: &mut Rig, case: &str, start: &[&str], batch: &[&str], expected: &[&str]) {
    for way in [Way::Statement, Way::Copy, Way::Stepwise] {
        let case = format!("{case}, {way:?}");
        let mut from = vec!["!"];
        from.extend(start);
        rig.write(0, &from).await.unwrap();
        let link = "DELETE FROM resources; INSERT INTO resources SELECT code FROM lookup;";
        rig.db.batch_execute(link).await.unwrap();
        let before = look(rig).await;
        match way {
            Way::Statement => {
                rig.write(0, batch)
                    .await
                    .unwrap_or_else(|error| panic!("{case}: {error:?}"));
            }
            Way::Copy => {
                let change = [format!("+{}|x", rig.lsn)];
                let folds = vec![(1, rig.fold(1, &change)), (0, rig.fold(0, batch))];
                rig.apply(folds)
                    .await
                    .unwrap_or_else(|error| panic!("{case}: {error:?}"));
            }
            Way::Stepwise => {
                for change in batch {
                    rig.write(0, &[change])
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
            let Some(then) = before.get(code) else { continue };
            assert!(
                linked.contains(code),
                "{case}: {code} was deleted and inserted, which takes rows that refer to it along"
            );
            if then.label == now.label {
                assert_eq!(then, now, "{case}: {code} did not change but was written");
            } else {
                assert_ne!(then.xmin, now.xmin, "{case}: {code}");
                assert!(then.synced < now.synced, "{case}: {code} keeps its synced_at");
            }
        }
    }
}

/// Live rows 1 MR and 2 DR, dead row 3 SIR.
const START: [&str; 3] = ["+1|MR|Mr.|-", "+2|DR|Dr.|-", "+3|SIR|Sir|x"];

/// Name, rows at the start, changes, expected lookup.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

/// Cases without unchanged values; they hold whether or not columns can be stored out of line.
const CASES: &[Case] = &[
    // The truth table.
    (
        "insert live",
        &START,
        &["+4|MS|Ms.|-"],
        &["DR=Dr.", "MR=Mr.", "MS=Ms."],
    ),
    ("insert dead", &START, &["+4|MS|Ms.|x"], &["DR=Dr.", "MR=Mr."]),
    (
        "insert without key",
        &START,
        &["+4|-|Ms.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    ("update same key", &START, &["=1|MR|Sir|-"], &["DR=Dr.", "MR=Sir"]),
    (
        "update that changes nothing",
        &START,
        &["=1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    ("key change", &START, &["=1|MS|Mr.|-"], &["DR=Dr.", "MS=Mr."]),
    ("key becomes null", &START, &["=1|-|Mr.|-"], &["DR=Dr."]),
    (
        "key is null no more",
        &["+1|-|Mr.|-"],
        &["=1|MR|Mr.|-"],
        &["MR=Mr."],
    ),
    ("soft delete", &START, &["=1|MR|Mr.|x"], &["DR=Dr."]),
    (
        "soft delete with another code",
        &START,
        &["=1|OLD|Mr.|x"],
        &["DR=Dr."],
    ),
    (
        "restore",
        &START,
        &["=3|SIR|Sir|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "restore with another code",
        &START,
        &["=3|LADY|Lady|-"],
        &["DR=Dr.", "LADY=Lady", "MR=Mr."],
    ),
    (
        "dead stays dead",
        &START,
        &["=3|SIR|Knight|x"],
        &["DR=Dr.", "MR=Mr."],
    ),
    ("delete live", &START, &["-1"], &["DR=Dr."]),
    ("delete dead", &START, &["-3"], &["DR=Dr.", "MR=Mr."]),
    ("delete unknown", &START, &["-77"], &["DR=Dr.", "MR=Mr."]),
    ("truncate", &START, &["!"], &[]),
    // Keys that change hands.
    (
        "two codes swapped",
        &START,
        &["=1|T|Mr.|-", "=2|MR|Dr.|-", "=1|DR|Mr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "swapped at once",
        &START,
        &["=1|DR|Mr.|-", "=2|MR|Dr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "rotated",
        &["+1|A|a|-", "+2|B|b|-", "+3|C|c|-"],
        &["=1|B|a|-", "=2|C|b|-", "=3|A|c|-"],
        &["A=c", "B=a", "C=b"],
    ),
    (
        "chain",
        &["+1|A|a|-", "+2|B|b|-"],
        &["=1|C|a|-", "=2|A|b|-"],
        &["A=b", "C=a"],
    ),
    (
        "chain, other order",
        &["+1|A|a|-", "+2|B|b|-"],
        &["=2|C|b|-", "=1|B|a|-"],
        &["B=a", "C=b"],
    ),
    (
        "code freed by soft delete is taken",
        &START,
        &["=1|MR|Mr.|x", "+4|MR|New|-"],
        &["DR=Dr.", "MR=New"],
    ),
    (
        "code taken before it is freed by soft delete",
        &START,
        &["+4|MR|New|-", "=1|MR|Mr.|x"],
        &["DR=Dr.", "MR=New"],
    ),
    (
        "code freed by delete is taken",
        &START,
        &["-1", "+4|MR|New|-"],
        &["DR=Dr.", "MR=New"],
    ),
    (
        "code freed is taken with the same label",
        &START,
        &["-1", "+4|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "code freed by change is taken by another row",
        &START,
        &["=1|X|Mr.|-", "=2|MR|Dr.|-"],
        &["MR=Dr.", "X=Mr."],
    ),
    (
        "late delete of a row whose code was taken",
        &["+3|SIR|Sir|x", "+4|SIR|New|-"],
        &["-3"],
        &["SIR=New"],
    ),
    (
        "late change of a dead row whose code was taken",
        &["+3|SIR|Sir|x", "+4|SIR|New|-"],
        &["=3|SIR|Old|x"],
        &["SIR=New"],
    ),
    (
        "soft delete after the code was taken over by a later row",
        &["+1|MR|Mr.|-", "=1|MR|Mr.|x", "+4|MR|New|-"],
        &["=1|MR|Mr.|x", "-1"],
        &["MR=New"],
    ),
    (
        "insert and delete in one batch",
        &START,
        &["+4|MS|Ms.|-", "-4"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "delete and insert of one identity",
        &START,
        &["-1", "+1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "delete and insert of one identity with another code",
        &START,
        &["-1", "+1|MS|Ms.|-"],
        &["DR=Dr.", "MS=Ms."],
    ),
    (
        "there and back",
        &START,
        &["=1|X|Mr.|-", "=1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "soft delete and restore",
        &START,
        &["=1|MR|Mr.|x", "=1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    // Identities that change.
    (
        "identity changed",
        &START,
        &["=1 > 9|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "identity and code changed",
        &START,
        &["=1 > 9|MS|Mr.|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    (
        "identity changed and deleted",
        &START,
        &["=1 > 9|MR|Mr.|-", "-9"],
        &["DR=Dr."],
    ),
    (
        "identity taken by another row",
        &START,
        &["=1 > 9|MR|Mr.|-", "=2 > 1|DR|Dr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "identities swapped",
        &START,
        &["=1 > 9|MR|Mr.|-", "=2 > 1|DR|Dr.|-", "=9 > 2|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "identities and codes swapped",
        &START,
        &["=1 > 9|T|Mr.|-", "=2 > 1|MR|Dr.|-", "=9 > 2|DR|Mr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "identity of a dead row changed and restored",
        &START,
        &["=3 > 8|SIR|Sir|x", "=8|SIR|Sir|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "identity freed by a change is inserted again",
        &START,
        &["=1 > 9|MR|Mr.|-", "+1|MS|Ms.|-"],
        &["DR=Dr.", "MR=Mr.", "MS=Ms."],
    ),
    // TRUNCATE within a batch.
    (
        "kept after truncate",
        &START,
        &["!", "+7|MR|Mr.|-", "+8|DR|Doc|-"],
        &["DR=Doc", "MR=Mr."],
    ),
    ("truncate after inserts", &START, &["+4|MS|Ms.|-", "!"], &[]),
    (
        "truncate, insert, truncate, insert",
        &START,
        &["!", "+4|MS|Ms.|-", "!", "+5|MR|Mr.|-"],
        &["MR=Mr."],
    ),
    (
        "truncate, then the same identities with swapped codes",
        &START,
        &["!", "+1|DR|Mr.|-", "+2|MR|Dr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    // Two live rows with one key: the smallest identity is shown.
    (
        "duplicate with a larger identity waits",
        &START,
        &["+4|MR|Four|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "duplicate with a smaller identity takes over",
        &START,
        &["+0|MR|Zero|-"],
        &["DR=Dr.", "MR=Zero"],
    ),
    (
        "duplicates in one batch",
        &[],
        &["+5|A|five|-", "+4|A|four|-", "+6|A|six|-"],
        &["A=four"],
    ),
    (
        "waiting row takes over after a delete",
        &["+1|A|one|-", "+2|A|two|-"],
        &["-1"],
        &["A=two"],
    ),
    (
        "waiting row takes over after a soft delete",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=1|A|one|x"],
        &["A=two"],
    ),
    (
        "waiting row takes over after a code change",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=1|B|one|-"],
        &["A=two", "B=one"],
    ),
    (
        "waiting row takes over after an identity change",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=1 > 9|A|one|-"],
        &["A=two"],
    ),
    (
        "waiting row is changed",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=2|A|deux|-", "-1"],
        &["A=deux"],
    ),
    (
        "waiting row leaves",
        &["+1|A|one|-", "+2|A|two|-", "+3|A|three|-"],
        &["=2|B|two|-", "-1"],
        &["A=three", "B=two"],
    ),
    (
        "waiting row is deleted",
        &["+1|A|one|-", "+2|A|two|-"],
        &["-2"],
        &["A=one"],
    ),
    (
        "shown row is beaten by a smaller one that comes and goes",
        &["+5|A|five|-"],
        &["+1|A|one|-", "-1"],
        &["A=five"],
    ),
    (
        "duplicates swap places",
        &["+1|A|one|-", "+2|A|two|-", "+3|B|three|-"],
        &["=1|B|one|-"],
        &["A=two", "B=one"],
    ),
    (
        "duplicates after truncate",
        &START,
        &["!", "+9|MR|nine|-", "+8|MR|eight|-"],
        &["MR=eight"],
    ),
];

/// Cases with unchanged out-of-line values (`u`).
const UNCHANGED: &[Case] = &[
    (
        "from the lookup row",
        &START,
        &["=1|MR|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    ("key unchanged too", &START, &["=1|u|u|-"], &["DR=Dr.", "MR=Mr."]),
    (
        "only the key unchanged",
        &START,
        &["=1|u|Sir|-"],
        &["DR=Dr.", "MR=Sir"],
    ),
    (
        "moves along with the key",
        &START,
        &["=1|MS|u|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    (
        "moves along with swapped keys",
        &START,
        &["=1|DR|u|-", "=2|MR|u|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "moves along with the identity",
        &START,
        &["=1 > 9|MS|u|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    (
        "identities swapped",
        &START,
        &["=1 > 9|MR|u|-", "=2 > 1|DR|u|-", "=9 > 2|MR|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "restored from the map",
        &START,
        &["=3|SIR|u|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "restored under another code",
        &START,
        &["=3|S|u|-"],
        &["DR=Dr.", "MR=Mr.", "S=Sir"],
    ),
    (
        "dead, changed, restored",
        &START,
        &["=3|SIR|u|x", "=3|u|u|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "soft delete and restore",
        &START,
        &["=1|MR|u|x", "=1|MR|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "soft delete, code taken, restored elsewhere",
        &START,
        &["=1|MR|u|x", "=2|MR|u|-", "=1|X|u|-"],
        &["MR=Dr.", "X=Mr."],
    ),
    (
        "filled within the batch",
        &START,
        &["=1|MR|New|-", "=1|X|u|-"],
        &["DR=Dr.", "X=New"],
    ),
    (
        "insert then unchanged",
        &START,
        &["+4|MS|Ms.|-", "=4|M|u|-"],
        &["DR=Dr.", "M=Ms.", "MR=Mr."],
    ),
    (
        "waiting row from the map",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=2|B|u|-"],
        &["A=one", "B=two"],
    ),
    (
        "waiting row takes over with its own value",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=2|A|u|-", "=1|A|u|x"],
        &["A=two"],
    ),
    (
        "beaten row keeps its own value",
        &["+2|A|two|-"],
        &["+1|A|one|-", "=2|A|u|-", "-1"],
        &["A=two"],
    ),
    (
        "beaten in one batch, comes back in the next",
        &["+2|A|two|-", "+1|A|one|-"],
        &["=1|B|u|-", "=2|A|u|-"],
        &["A=two", "B=one"],
    ),
    (
        "key without value becomes live",
        &["+1|-|one|-"],
        &["=1|A|u|-"],
        &["A=one"],
    ),
];

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
                check(&mut rig, &format!("unchanged {case}"), start, batch, expected).await;
            }
        }
    }
}

#[tokio::test]
async fn dead_rows_are_remembered_only_where_a_value_may_be_left_out() {
    for (toastable, expected) in [(false, 0), (true, 1)] {
        let mut rig = Rig::new(TABLES).await;
        rig.add(&labels(toastable)).await;
        rig.write(0, &START).await.unwrap();
        let dead = rows(&rig.db, "SELECT count(*) FROM cdc.map_1 WHERE state = 'd'").await;
        assert_eq!(dead, [expected.to_string()]);
        rig.write(0, &["-3"]).await.unwrap();
        assert_eq!(rows(&rig.db, "SELECT count(*) FROM cdc.map_1").await, ["2"]);
    }
}

#[tokio::test]
async fn a_value_that_nobody_has_breaks_the_read_model_before_anything_is_written() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.write(0, &START).await.unwrap();
    rig.db
        .batch_execute("DELETE FROM lookup WHERE code = 'MR'")
        .await
        .unwrap();
    for change in ["=1|MR|u|-", "=77|MR|u|-"] {
        let error = rig.write(0, &["=2|DR|Doc|-", change]).await.unwrap_err();
        assert_eq!(error.class(), cdc::error::Class::Broken, "{change}: {error:?}");
    }
    assert_eq!(rows(&rig.db, "SELECT code, label FROM lookup").await, ["DR|Dr."]);
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
        ("code changed", &["=-|MR > 1|MS|Mr.|-"], &["DR=Dr.", "MS=Mr."]),
        (
            "unchanged value moves along",
            &["=-|MR > 1|MS|u|-"],
            &["DR=Dr.", "MS=Mr."],
        ),
        ("unchanged code", &["=-|MR > 1|u|New|-"], &["DR=Dr.", "MR=New"]),
        (
            "swap",
            &["=-|MR > 1|T|Mr.|-", "=-|DR > 2|MR|Dr.|-", "=-|T > 1|DR|Mr.|-"],
            &["DR=Mr.", "MR=Dr."],
        ),
        ("restore", &["=3|SIR|u|-"], &["DR=Dr.", "MR=Mr.", "SIR=Sir"]),
        ("delete", &["--|MR"], &["DR=Dr."]),
    ];
    for (case, batch, expected) in cases {
        check(&mut rig, case, &start, batch, expected).await;
    }
}

/// FULL without a primary key: the old tuple tells what was live, the key stands in for the identity.
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
        ("code changed", &["=1|MR|Mr.|- > 1|MS|u|-"], &["DR=Dr.", "MS=Mr."]),
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
