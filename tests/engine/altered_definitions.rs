//! What people do to definitions: altered tables, changed configuration, rows that the target
//! rejects.

use crate::support::tags::TAGS_MODEL;
use crate::support::{
    Cdc, LABELS_MODEL, Signal, count_log, labels_pair, lookup, rows, value, wait_in_step, wait_log,
    wait_rows, wait_until,
};

const STATES: &str = "SELECT name, state FROM cdc.read_model ORDER BY name";

#[tokio::test]
async fn identity_that_is_changed_while_running_comes_back_by_itself() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let definition = "SELECT definition #>> '{}' LIKE '%PART%' FROM cdc.read_model";
    source
        .batch_execute("CREATE UNIQUE INDEX labels_code_all ON labels (code)")
        .await
        .unwrap();
    for (number, identity) in ["FULL", "USING INDEX labels_code_all", "DEFAULT"]
        .into_iter()
        .enumerate()
    {
        source
            .batch_execute(&format!("ALTER TABLE labels REPLICA IDENTITY {identity}"))
            .await
            .unwrap();
        for sql in [
            format!("UPDATE labels SET label = '{number}' WHERE code = 'MR'"),
            format!("UPDATE labels SET code = 'DR{number}' WHERE code LIKE 'DR%'"),
            "DELETE FROM labels WHERE code = 'NEW'".to_owned(),
            "INSERT INTO labels (code, label, display_name) VALUES ('NEW', 'new', 'new')"
                .to_owned(),
        ] {
            source.batch_execute(&sql).await.unwrap();
        }
        wait_in_step(&source, &target).await;
        if identity.starts_with("USING") {
            let identity = definition.replace("PART", "identity (code%");
            wait_rows(&target, &identity, &["t"]).await;
        }
        wait_rows(&target, STATES, &["public.labels_lookup|in_step"]).await;
        source
            .batch_execute("UPDATE labels SET deleted_at = now() WHERE code = 'NEW'")
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        source
            .batch_execute("UPDATE labels SET deleted_at = NULL WHERE code = 'NEW'")
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
    }
    assert!(cdc.is_running());
}

/// In a transaction that does not fit into memory, after rows that went past the stage. Stream and
/// watch may both find it first.
#[tokio::test]
async fn read_model_that_breaks_in_the_middle_of_a_large_transaction_shows_nothing_of_it() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('a', 'x')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    source
        .batch_execute(
            "BEGIN;
             INSERT INTO tags SELECT 't' || n, repeat('x', 100) FROM generate_series(1, 40000) n;
             INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'new', repeat('x', 50) FROM generate_series(1, 40000) n;
             ALTER TABLE tags RENAME note TO remark;
             INSERT INTO tags SELECT 'u' || n, repeat('x', 100) FROM generate_series(1, 40000) n;
             UPDATE labels SET label = 'on' WHERE code LIKE 'N1%';
             COMMIT",
        )
        .await
        .unwrap();
    let tags = "SELECT count(*), min(tag) FROM tags_lookup";
    wait_until("the other read model follows", async || {
        assert_eq!(rows(&target, tags).await, ["1|a"], "the last good state");
        let states = rows(&target, STATES).await;
        let followed = lookup(&target).await.len() > 40_000;
        let suspended = states
            == [
                "public.labels_lookup|in_step",
                "public.tags_lookup|suspended",
            ];
        if followed && suspended {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    })
    .await;
    wait_in_step(&source, &target).await;
    source
        .batch_execute("ALTER TABLE tags RENAME remark TO note")
        .await
        .unwrap();
    wait_rows(&target, tags, &["80001|a"]).await;
}

#[tokio::test]
async fn read_model_that_cannot_go_on_serves_its_last_state_while_the_others_go_on() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('a', 'x')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    let tags = "SELECT tag, note FROM tags_lookup ORDER BY 1";
    // A projected column goes away.
    source
        .batch_execute("ALTER TABLE tags RENAME note TO remark; INSERT INTO tags VALUES ('b', 'y')")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'on' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(
        &target,
        STATES,
        &[
            "public.labels_lookup|in_step",
            "public.tags_lookup|suspended",
        ],
    )
    .await;
    assert_eq!(rows(&target, tags).await, ["a|x"], "the last good state");
    assert!(
        value(
            &target,
            "SELECT reason FROM cdc.read_model WHERE name LIKE '%tags%'"
        )
        .await
        .contains("\"note\"")
    );
    source
        .batch_execute("ALTER TABLE tags RENAME remark TO note; INSERT INTO tags VALUES ('c', 'z')")
        .await
        .unwrap();
    wait_rows(&target, tags, &["a|x", "b|y", "c|z"]).await;
    wait_rows(
        &target,
        STATES,
        &["public.labels_lookup|in_step", "public.tags_lookup|in_step"],
    )
    .await;
    source
        .batch_execute("DELETE FROM tags WHERE tag = 'a'")
        .await
        .unwrap();
    wait_rows(&target, tags, &["b|y", "c|z"]).await;
}

/// Small and large batches take different ways through the writer.
#[tokio::test]
async fn refused_row_may_suspend_its_read_model_before_its_transaction_and_heals() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    pair.config += "on_row_error = 'stop'\n";
    source
        .batch_execute("CREATE TABLE tags (tag text PRIMARY KEY, note text)")
        .await
        .unwrap();
    target
        .batch_execute("CREATE TABLE tags_lookup (tag varchar(10) PRIMARY KEY, note text NOT NULL)")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    let tags = "SELECT tag FROM tags_lookup ORDER BY 1";
    for round in 0..2 {
        let good = format!("good{round}");
        source
            .batch_execute(&format!("INSERT INTO tags VALUES ('{good}', 'x')"))
            .await
            .unwrap();
        wait_rows(
            &target,
            &format!("SELECT count(*) FROM tags_lookup WHERE tag = '{good}'"),
            &["1"],
        )
        .await;
        // One transaction with a bad row and changes of both tables.
        source
            .batch_execute(&format!(
                "BEGIN; INSERT INTO tags VALUES ('half{round}', 'x'), ('bad', CASE {round} WHEN 0 THEN repeat('secret', 9) END);
                 {} UPDATE labels SET label = 'r{round}' WHERE code = 'MR'; COMMIT; INSERT INTO tags VALUES ('after{round}', 'x')",
                if round == 0 { "UPDATE tags SET tag = repeat('secret', 9) WHERE tag = 'bad';" } else { "" }
            ))
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        wait_rows(
            &target,
            STATES,
            &[
                "public.labels_lookup|in_step",
                "public.tags_lookup|suspended",
            ],
        )
        .await;
        let shown = rows(&target, tags).await;
        assert!(
            !shown
                .iter()
                .any(|tag| tag == &format!("half{round}") || tag == &format!("after{round}")),
            "{shown:?}"
        );
        assert!(shown.contains(&good));
        source
            .batch_execute("UPDATE labels SET label = 'meanwhile' WHERE code = 'MR'")
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        source
            .batch_execute(
                "UPDATE tags SET tag = 'mended', note = 'x' WHERE tag LIKE 'secret%' OR tag = 'bad'",
            )
            .await
            .unwrap();
        wait_rows(
            &target,
            STATES,
            &["public.labels_lookup|in_step", "public.tags_lookup|in_step"],
        )
        .await;
        assert_eq!(
            rows(&target, tags).await,
            rows(&source, "SELECT tag FROM tags ORDER BY 1").await
        );
        source
            .batch_execute("DELETE FROM tags WHERE tag = 'mended'")
            .await
            .unwrap();
        wait_rows(
            &target,
            "SELECT count(*) FROM tags_lookup WHERE tag = 'mended'",
            &["0"],
        )
        .await;
    }
    assert!(!cdc.log().contains("secret"), "a value in the log");
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
}

#[tokio::test]
async fn changed_and_new_read_models_are_copied_at_the_next_start() {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('a', 'x')",
        )
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    // Other columns, and another table.
    let plain = pair.config.clone();
    pair.config += &LABELS_MODEL.replace(
        "'label', 'display_name']",
        "'label', 'display_name', 'created_by']",
    );
    pair.config += TAGS_MODEL;
    target
        .batch_execute("ALTER TABLE labels_lookup ADD created_by uuid")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE labels SET created_by = id")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    let by = "SELECT count(*) FROM labels_lookup WHERE created_by IS NOT NULL";
    wait_rows(&target, by, &["3"]).await;
    wait_rows(&target, "SELECT tag FROM tags_lookup", &["a"]).await;
    source
        .batch_execute("BEGIN; INSERT INTO tags VALUES ('b'); UPDATE labels SET created_by = NULL WHERE code = 'MR'; COMMIT")
        .await
        .unwrap();
    wait_rows(
        &target,
        "SELECT tag FROM tags_lookup ORDER BY 1",
        &["a", "b"],
    )
    .await;
    wait_rows(&target, by, &["2"]).await;
    assert_eq!(count_log(&cdc, "copied again"), 0, "the stream goes on");
    cdc.stop(Signal::Term).await;
    // Back again: the tags are forgotten, their lookup stays as it is.
    pair.config = plain;
    source
        .batch_execute("DELETE FROM labels WHERE code = 'DR'")
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_until("the lookup follows", async || {
        let seen = lookup(&target).await;
        if seen.len() == 2 {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    wait_rows(&target, STATES, &["public.labels_lookup|in_step"]).await;
    assert_eq!(
        value(&target, "SELECT count(*) FROM tags_lookup").await,
        "2"
    );
}
