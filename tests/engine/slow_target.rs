//! A target that takes longer than the stream waits for it.

use crate::support::{
    BLOCKED, Cdc, Signal, count_log, database_pair, labels_pair, lock_lookup, pg, rows, wait_log,
    wait_rows, wait_until,
};

/// Longer than reading may stand still.
const SLOW_SECONDS: u32 = 12;

/// What the target has against a batch comes after the stream was closed. It must be known all the
/// same: else the same batch would be tried for ever, and hold up all others.
#[tokio::test]
async fn a_row_that_is_refused_late_suspends_its_read_model_and_no_other() {
    let mut pair = database_pair().await;
    let (source, target) = (pg(&pair.source_url).await, pg(&pair.target_url).await);
    source
        .batch_execute(
            "CREATE TABLE bad (id int PRIMARY KEY); CREATE TABLE good (id int PRIMARY KEY, big text)",
        )
        .await
        .unwrap();
    target
        .batch_execute(&format!(
            "CREATE FUNCTION late() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep({SLOW_SECONDS}); RETURN false; END$$;
             CREATE TABLE bad_lookup (id int PRIMARY KEY CHECK (late()));
             CREATE TABLE good_lookup (id int PRIMARY KEY, big text)"
        ))
        .await
        .unwrap();
    for (name, columns, on_row_error) in [
        ("bad", "['id']", "stop"),
        ("good", "['id', 'big']", "isolate"),
    ] {
        pair.config += &format!(
            "[[read_model]]\nsource = 'public.{name}'\ntarget = 'public.{name}_lookup'\nkey = ['id']\ncolumns = {columns}\non_row_error = '{on_row_error}'\n"
        );
    }
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    source
        .batch_execute("INSERT INTO bad VALUES (1)")
        .await
        .unwrap();
    // More than is kept in memory, while the target is at the row before them.
    for id in 1..=20 {
        let row = format!("INSERT INTO good VALUES ({id}, repeat('x', 1000000))");
        source.batch_execute(&row).await.unwrap();
    }
    wait_until("the read model is suspended", async || {
        let states = rows(
            &target,
            "SELECT name, state FROM cdc.read_model ORDER BY name",
        )
        .await;
        if states == ["public.bad_lookup|suspended", "public.good_lookup|in_step"] {
            Ok(())
        } else {
            Err(format!("found {states:?}"))
        }
    })
    .await;
    assert!(
        cdc.log().contains("the target is slow"),
        "the stream was closed before"
    );
    wait_rows(&target, "SELECT count(*) FROM good_lookup", &["20"]).await;
}

/// A batch holds rows of other lookups while it waits: it lets go of them, and says why.
#[tokio::test]
async fn a_lookup_that_stays_locked_is_not_waited_for_without_a_bound() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    let holder = lock_lookup(&pair).await;
    source
        .batch_execute("UPDATE labels SET label = 'behind the lock' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_log(
        &cdc,
        "Another session has locked a table for longer than 30 s",
    )
    .await;
    wait_rows(&target, BLOCKED, &["1"]).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    wait_rows(
        &target,
        "SELECT label FROM labels_lookup WHERE code = 'MR'",
        &["behind the lock"],
    )
    .await;
    assert_eq!(count_log(&cdc, "trying again"), 0, "{}", cdc.log());
}

/// Rows of a batch that is not written by one statement.
const MANY_ROWS: u32 = 600;

/// A statement that waits for a lock does not notice that its client has left: unless it is
/// cancelled it commits whenever the lock is free.
#[tokio::test]
async fn nothing_commits_after_the_process_has_left() {
    leave_while_the_lookup_is_locked("code = 'MR'").await;
}

/// The COMMIT of a larger batch is sent before the answer of the statement that waits.
#[tokio::test]
async fn no_commit_that_waits_is_carried_out_after_the_process_has_left() {
    leave_while_the_lookup_is_locked("code LIKE 'many %'").await;
}

async fn leave_while_the_lookup_is_locked(changed: &str) {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute(&format!(
            "INSERT INTO labels (code, label, display_name) SELECT 'many ' || n, 'l', 'd' FROM generate_series(1, {MANY_ROWS}) n"
        ))
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    let holder = lock_lookup(&pair).await;
    source
        .batch_execute(&format!(
            "UPDATE labels SET label = 'too late' WHERE {changed}"
        ))
        .await
        .unwrap();
    wait_rows(&target, BLOCKED, &["1"]).await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    wait_rows(&target, BLOCKED, &["0"]).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc %'";
    wait_rows(&target, ours, &["0"]).await;
    let late = "SELECT count(*) FROM labels_lookup WHERE label = 'too late'";
    assert_eq!(rows(&target, late).await, ["0"]);
}
