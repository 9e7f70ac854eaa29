//! Rows that the target rejects: rejected in copies and stream, told, and healed.

use std::process::Output;

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::tags::{TAGS_LOOKUP, TAGS_MODEL};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, Signal, TO_VERSION_4, labels_pair, rows, value, wait_in_step,
    wait_log, wait_rows,
};

const REJECTED: &str = "SELECT coalesce(identity, '-'), coalesce(key, '-'), shown, sqlstate, \
    coalesce(constraint_name, column_name) FROM cdc.rejected ORDER BY 1, 2";
const STATE: &str = "SELECT state FROM cdc.read_model WHERE name = 'public.tags_lookup'";

/// Source and target of two read models; one row is rejected from the first copy on.
async fn tags_pair() -> (Pair, Client, Client) {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += TAGS_MODEL;
    pair.config += LABELS_MODEL;
    source
        .batch_execute(
            "CREATE TABLE tags (id int PRIMARY KEY, tag text, note text);
             INSERT INTO tags VALUES (1, 'a', 'x'), (2, 'b', 'secret'), (3, 'c', 'secret that is long'), (4, 'd', 'y')",
        )
        .await
        .unwrap();
    target
        .batch_execute(
            "CREATE TABLE tags_lookup (tag varchar(8) PRIMARY KEY, note varchar(10) CONSTRAINT no_secret CHECK (note <> 'secret'));
             INSERT INTO tags_lookup VALUES ('b', 'mine'), ('z', 'z')",
        )
        .await
        .unwrap();
    (pair, source, target)
}

async fn output(pair: &Pair, arguments: &'static [&'static str]) -> Output {
    let pair = pair.clone();
    tokio::task::spawn_blocking(move || Cdc::output(&pair, arguments))
        .await
        .unwrap()
}

#[tokio::test]
async fn rejected_rows_are_set_apart_told_and_healed() {
    let (pair, source, target) = tags_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_rows(&target, TAGS_LOOKUP, &["a|x", "b|mine", "d|y"]).await;
    let first = ["2|b|old row|23514|no_secret", "3|c|nothing|22001|note"];
    assert_eq!(rows(&target, REJECTED).await, first);
    wait_log(&cdc, "streaming").await;
    // One transaction over both read models.
    source
        .batch_execute(
            "BEGIN; UPDATE tags SET note = 'secret' WHERE id = 1; INSERT INTO tags VALUES (5, 'e', 'z'), (6, 'secret-key', 'z');
             DELETE FROM tags WHERE id = 4; UPDATE labels SET label = 'on' WHERE code = 'MR'; COMMIT",
        )
        .await
        .unwrap();
    wait_rows(&target, TAGS_LOOKUP, &["a|x", "b|mine", "e|z"]).await;
    wait_in_step(&source, &target).await;
    let stream = [
        "1|a|old row|23514|no_secret",
        "2|b|old row|23514|no_secret",
        "3|c|nothing|22001|note",
        "6|-|nothing|22001|tag",
    ];
    assert_eq!(rows(&target, REJECTED).await, stream);
    assert_eq!(rows(&target, STATE).await, ["in_step"]);
    wait_log(&cdc, "the target rejects rows").await;
    assert_told(&pair).await;
    assert_no_drift(&pair, &source, &target).await;
    cdc.stop(Signal::Term).await;
    assert!(
        !cdc.log().contains("secret-") && !cdc.log().contains("secret that"),
        "a value in the log"
    );
    // What is rejected outlasts the process, and heals when the row changes or goes.
    let cdc = Cdc::run(&pair);
    source
        .batch_execute(
            "UPDATE tags SET note = 'good' WHERE id IN (1, 3); DELETE FROM tags WHERE id IN (2, 6)",
        )
        .await
        .unwrap();
    wait_rows(&target, TAGS_LOOKUP, &["a|good", "c|good", "e|z"]).await;
    wait_rows(&target, REJECTED, &[]).await;
    assert!(cdc.log().contains("streaming"));
    // Or when the target's table takes it, at the next resync.
    source
        .batch_execute("UPDATE tags SET note = 'secret' WHERE id = 5")
        .await
        .unwrap();
    wait_rows(&target, REJECTED, &["5|e|old row|23514|no_secret"]).await;
    target
        .batch_execute("ALTER TABLE tags_lookup DROP CONSTRAINT no_secret")
        .await
        .unwrap();
    assert!(output(&pair, &["resync"]).await.status.success());
    wait_rows(&target, REJECTED, &[]).await;
    assert_eq!(
        rows(&target, TAGS_LOOKUP).await,
        ["a|good", "c|good", "e|secret"]
    );
}

async fn assert_told(pair: &Pair) {
    let json = output(pair, &["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(status["read_models"][0]["rejected"], 4, "{status}");
    let first = &status["read_models"][0]["rejections"][0];
    let told = ["identity", "key", "shown", "sqlstate", "column"]
        .map(|name| first[name].as_str().unwrap());
    assert_eq!(told, ["3", "c", "nothing", "22001", "note"]);
    assert_eq!(status["read_models"][1]["rejected"], 0);
    let text = output(pair, &["status"]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("the target rejects 4 rows of public.tags_lookup"),
        "{text}"
    );
}

async fn assert_no_drift(pair: &Pair, source: &Client, target: &Client) {
    let dry = output(pair, &["resync", "--dry-run"]).await;
    let text = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert_eq!(
        text.matches("0 missing, 0 extra, 0 different").count(),
        2,
        "{text}"
    );
    // Rejected rows are differences all the same, of their own kind.
    assert_eq!(
        (text.matches("4 rejected").count(), dry.status.code()),
        (1, Some(1)),
        "{text}"
    );
    let before = rows(target, REJECTED).await;
    assert!(output(pair, &["resync"]).await.status.success());
    assert_eq!(rows(target, REJECTED).await, before);
    wait_in_step(source, target).await;
    let drift = "SELECT max(last_resync_repaired) FROM cdc.read_model";
    assert_eq!(value(target, drift).await, "0");
}

#[tokio::test]
async fn a_read_model_with_too_many_rejected_rows_is_suspended_and_the_others_go_on() {
    let (pair, source, target) = tags_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    source
        .batch_execute(
            "INSERT INTO tags SELECT n, 'n' || n, 'secret that is long' FROM generate_series(1000, 4000) n;
             UPDATE labels SET label = 'on' WHERE code = 'MR'",
        )
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, STATE, &["suspended"]).await;
    let reason = "SELECT reason LIKE '%more than 1000%' FROM cdc.read_model WHERE name = 'public.tags_lookup'";
    assert_eq!(value(&target, reason).await, "t");
    assert_eq!(rows(&target, TAGS_LOOKUP).await, ["a|x", "b|mine", "d|y"]);
    source
        .batch_execute("DELETE FROM tags WHERE id >= 1000")
        .await
        .unwrap();
    wait_rows(&target, STATE, &["in_step"]).await;
    assert_eq!(rows(&target, REJECTED).await.len(), 2);
    assert!(cdc.is_running());
}

#[tokio::test]
async fn bookkeeping_of_the_version_before_is_brought_up_to_date() {
    let (pair, source, target) = tags_pair().await;
    source
        .batch_execute("DELETE FROM tags WHERE note LIKE 'secret%'")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_rows(&target, TAGS_LOOKUP, &["a|x", "d|y"]).await;
    wait_log(&cdc, "streaming").await;
    cdc.stop(Signal::Term).await;
    target
        .batch_execute(&format!(
            "{TO_VERSION_4}
             DROP VIEW cdc.rejected; DROP TABLE cdc.rejection, cdc.rejected_1, cdc.rejected_2;
             ALTER TABLE cdc.read_model DROP compared_at, DROP differing;
             UPDATE cdc.version SET version = 1"
        ))
        .await
        .unwrap();
    let seen = output(&pair, &["status", "--json"]).await;
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["read_models"][0]["state"], "in_step", "{seen}");
    let _cdc = Cdc::run(&pair);
    source
        .batch_execute("INSERT INTO tags VALUES (2, 'b', 'secret'), (7, 'g', 'y')")
        .await
        .unwrap();
    wait_rows(&target, TAGS_LOOKUP, &["a|x", "d|y", "g|y"]).await;
    let rejected =
        "SELECT rejected, version FROM cdc.freshness, cdc.version WHERE read_model LIKE '%tags%'";
    wait_rows(&target, rejected, &["1|6"]).await;
}
