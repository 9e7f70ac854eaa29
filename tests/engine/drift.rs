//! What is told of a resync that repaired something: counts, a bounded sample of keys, never a
//! value; and what a report sees of it in `cdc.freshness`.

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::tags::{TAGS_LOOKUP, TAGS_MODEL};
use crate::support::{
    self, Cdc, LABELS_MODEL, Pair, labels_pair, pg, rows, value, wait_in_step, wait_log, wait_rows,
    wait_until,
};

const SECRET: &str = "a secret value";

async fn resync(pair: &Pair, arguments: &'static [&'static str]) -> String {
    let pair = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, arguments))
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn status(pair: &Pair) -> Value {
    let pair = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["status", "--json"]))
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn repairs_are_told_by_a_bounded_sample_of_keys_and_never_by_a_value() {
    let (pair, source, target) = labels_pair().await;
    let more = format!(
        "INSERT INTO labels (code, label, display_name) SELECT 'L' || n, '{SECRET}', '{SECRET}' FROM generate_series(100, 299) n"
    );
    source.batch_execute(&more).await.unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    // As many rows as before, so that no watch sees it by their number.
    target
        .batch_execute(&format!(
            "UPDATE labels_lookup SET label = '{SECRET} too' WHERE code LIKE 'L1%';
             DELETE FROM labels_lookup WHERE code = 'MR';
             INSERT INTO labels_lookup (code, label, display_name) VALUES ('EXTRA', '{SECRET}', 'e')"
        ))
        .await
        .unwrap();
    let printed = resync(&pair, &["resync", "--json"]).await;
    wait_in_step(&source, &target).await;
    let shown = status(&pair).await;
    let newest = &shown["resyncs"][0];
    assert_eq!(
        (&newest["origin"], &newest["state"]),
        (&"request".into(), &"done".into()),
        "{newest}"
    );
    let stored = value(
        &target,
        "SELECT result FROM cdc.resync WHERE origin = 'request'",
    )
    .await;
    for (place, found) in [
        ("printed", serde_json::from_str::<Value>(&printed).unwrap()),
        ("status", newest["result"].clone()),
        ("bookkeeping", serde_json::from_str(&stored).unwrap()),
    ] {
        let found = &found["public.labels_lookup"];
        assert_eq!(found["inserted"], 1, "{place}: {found}");
        assert_eq!(found["updated"], 100, "{place}: {found}");
        assert_eq!(found["deleted"], 1, "{place}: {found}");
        assert_eq!(found["unchanged"], 102, "{place}: {found}");
        let keys = found["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 20, "{place}: {keys:?}");
        let known = |key: &Value| {
            let key = key.as_str().unwrap();
            key == "MR" || key == "EXTRA" || key.starts_with("L1")
        };
        assert!(keys.iter().all(known), "{place}: {keys:?}");
    }
    assert_eq!(
        shown["read_models"][0]["last_resync"]["repaired"], 102,
        "{shown:#}"
    );
    // Not in what is printed, nor in the bookkeeping but for the rows that are kept themselves, nor
    // in the log.
    let kept = rows(
        &target,
        "SELECT t::text FROM cdc.resync t UNION ALL SELECT t::text FROM cdc.read_model t UNION ALL SELECT t::text FROM cdc.pipeline t UNION ALL SELECT t::text FROM cdc.checkpoint t",
    )
    .await;
    for text in [printed, shown.to_string(), kept.join("\n"), cdc.log()] {
        assert!(!text.contains(SECRET), "{text}");
    }
    // One that has nothing to repair says so, and the last one's sample is history.
    resync(&pair, &["resync"]).await;
    let shown = status(&pair).await;
    let origins: Vec<&Value> = shown["resyncs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resync| &resync["origin"])
        .collect();
    assert_eq!(origins, ["request", "request", "first copy"]);
    let found = &shown["resyncs"][0]["result"]["public.labels_lookup"];
    assert_eq!(
        (&found["updated"], &found["keys"]),
        (&0.into(), &Value::Array(Vec::new())),
        "{found}"
    );
    assert_eq!(
        shown["resyncs"][1]["result"]["public.labels_lookup"]["updated"],
        100
    );
    assert_eq!(shown["read_models"][0]["last_resync"]["repaired"], 0);
}

#[tokio::test]
async fn resync_of_one_read_model_leaves_the_others_alone() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('one', '1'), ('two', '2')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let tags = TAGS_LOOKUP;
    wait_rows(&target, tags, &["one|1", "two|2"]).await;
    target
        .batch_execute(
            "UPDATE labels_lookup SET label = 'edited'; UPDATE tags_lookup SET note = '7'",
        )
        .await
        .unwrap();
    let others = "SELECT last_resync_at FROM cdc.read_model WHERE name = 'public.tags_lookup'";
    let before = rows(&target, others).await;
    // As people write it, and as it is called.
    for arguments in [
        &["resync", "labels_lookup"][..],
        &["resync", "public.labels_lookup"],
    ] {
        let printed = resync(&pair, arguments).await;
        assert!(
            printed.contains("labels_lookup") && !printed.contains("tags_lookup"),
            "{printed}"
        );
    }
    wait_in_step(&source, &target).await;
    assert_eq!(rows(&target, tags).await, ["one|7", "two|7"]);
    assert_eq!(rows(&target, others).await, before);
    let asked = "SELECT DISTINCT read_models FROM cdc.resync WHERE origin = 'request'";
    assert_eq!(rows(&target, asked).await, ["{public.labels_lookup}"]);
    // The stream of the other one goes on beside it.
    source
        .batch_execute("UPDATE tags SET note = '3' WHERE tag = 'one'")
        .await
        .unwrap();
    wait_rows(&target, tags, &["one|3", "two|7"]).await;
    resync(&pair, &["resync", "tags_lookup"]).await;
    assert_eq!(rows(&target, tags).await, ["one|3", "two|2"]);
}

/// What the role of the reports sees, one column after the other.
async fn freshness(reports: &Client, columns: &str) -> Vec<String> {
    rows(
        reports,
        &format!("SELECT {columns} FROM cdc.freshness ORDER BY read_model"),
    )
    .await
}

#[tokio::test]
async fn freshness_tells_a_report_how_old_and_how_right_its_lookup_is() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config = format!("status_interval = \"200ms\"\n{}", pair.config);
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let reports = pg(&pair.target_url.replace("postgres@", "reports@")).await;
    assert!(
        reports
            .batch_execute("SELECT FROM cdc.pipeline")
            .await
            .is_err(),
        "nothing else is to be read"
    );
    // After the first copy.
    let all = "read_model, state, rows, reason, rejected, last_resync_at IS NOT NULL, last_resync_repaired";
    assert_eq!(
        freshness(&reports, all).await,
        ["public.labels_lookup|streaming|3|-|0|t|0"]
    );
    // Right after a change: of its commit, or later, and not of the future.
    for n in 0..5 {
        source
            .batch_execute(&format!(
                "UPDATE labels SET label = 'n{n}' WHERE code = 'MR'"
            ))
            .await
            .unwrap();
        let commit = value(&source, "SELECT pg_current_wal_lsn()").await;
        let time = value(&source, "SELECT clock_timestamp()").await;
        let seen_together = format!(
            "SELECT (SELECT label = 'n{n}' FROM labels_lookup WHERE code = 'MR'), as_of_lsn >= '{commit}',
                    as_of <= clock_timestamp() AND applied_at <= clock_timestamp() AND last_change_at <= applied_at
             FROM cdc.freshness"
        );
        wait_until("report and freshness are of one state", async || {
            // In one snapshot, as the footer of a report has it: the position never runs ahead of
            // the rows.
            let seen = rows(&reports, &seen_together).await;
            assert!(!seen[0].starts_with("f|t"), "{seen:?}");
            if seen == ["t|t|t"] {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
        // While idle: the same rows as of a later time.
        let later =
            format!("SELECT as_of > '{time}' AND last_change_at < as_of FROM cdc.freshness");
        wait_rows(&reports, &later, &["t"]).await;
    }
    let changed = freshness(&reports, "last_change_at").await;
    // After a resync that repaired something.
    let before = freshness(&reports, "last_resync_at").await;
    target
        .batch_execute("UPDATE labels_lookup SET label = 'edited' WHERE code IN ('MRS', 'DR')")
        .await
        .unwrap();
    resync(&pair, &["resync"]).await;
    let repaired = format!(
        "SELECT last_resync_at > '{}', last_resync_repaired, rows, state, as_of <= clock_timestamp() FROM cdc.freshness",
        before[0]
    );
    assert_eq!(rows(&reports, &repaired).await, ["t|2|3|streaming|t"]);
    // After one that had nothing to repair.
    resync(&pair, &["resync"]).await;
    assert_eq!(freshness(&reports, "last_resync_repaired").await, ["0"]);
    let idle = format!(
        "SELECT last_change_at >= '{}', as_of > last_resync_at FROM cdc.freshness",
        changed[0]
    );
    wait_rows(&reports, &idle, &["t|t"]).await;
    assert_eq!(
        support::lookup(&reports).await,
        support::live_labels(&source).await
    );
}
