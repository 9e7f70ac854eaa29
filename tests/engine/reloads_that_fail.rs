//! SIGHUP with a configuration that is read without a mistake, but that no session can begin with:
//! the one before is in force again, and no read model waits for a person.

use tokio_postgres::Client;

use super::reloads::lock_of;
use crate::support::daemon::{Daemon, walsender};
use crate::support::tags::{ALL_IN_STEP, STATES, TAGS_MODEL};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, Signal, count_log, goes_on, labels_pair, pg, rows, tear_down, value,
    wait_log, wait_rows, wait_until,
};

const BACK: &str =
    "the settings that were read again do not work: the ones before are in force again";

async fn make_tags(source: &Client) {
    source
        .batch_execute("CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('a', 'x')")
        .await
        .unwrap();
}

/// Waits until the settings before are in force again for this time; returns the line.
async fn wait_back(daemon: &Daemon, count: usize) -> String {
    wait_until("the settings before are in force again", async || {
        let log = daemon.cdc.log();
        let line = log
            .lines()
            .filter(|line| line.contains(BACK))
            .nth(count - 1);
        line.map(str::to_owned).ok_or(log.clone())
    })
    .await
}

/// The same databases with another pipeline, which has the tags.
fn beside(pair: &Pair) -> Pair {
    let mut other = pair.clone();
    other.slot = format!("{}_tags", pair.slot);
    other.config = format!(
        "[source]\nslot = '{}'\npublication = 'tags'\n[target]\nschema = 'cdc_tags'\n{TAGS_MODEL}",
        other.slot
    );
    other
}

#[tokio::test]
async fn a_lookup_of_another_pipeline_does_not_stop_the_others() {
    let (mut pair, source, target) = labels_pair().await;
    make_tags(&source).await;
    pair.config += LABELS_MODEL;
    let other = beside(&pair);
    let mut tags = Cdc::run(&other);
    wait_log(&tags, "\"message\":\"streaming\"").await;
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let both = format!("{}{TAGS_MODEL}[resync]\nschedule = 'off'\n", pair.config);
    // Each reload tries it again.
    for count in 1..3 {
        let line = daemon.reload_with(&both).await;
        assert!(line.contains("tags_lookup added"), "{line}");
        let line = wait_back(&daemon, count).await;
        for text in [
            "\"level\":\"ERROR\"",
            "lookup table \\\"public.tags_lookup\\\" belongs to another pipeline",
            "Its bookkeeping is in schema \\\"cdc_tags\\\".",
            "Let one pipeline keep it",
        ] {
            assert!(line.contains(text), "{text} is not in {line}");
        }
        goes_on(&format!("as before {count}"), &source, &target).await;
    }
    assert_eq!(count_log(&daemon.cdc, BACK), 2);
    assert_eq!(count_log(&daemon.cdc, "trying again"), 0);
    assert_eq!(
        rows(&target, STATES).await,
        ["public.labels_lookup in_step"]
    );
    // What takes effect at once was taken.
    let line = daemon.reload_with(&both.replace(TAGS_MODEL, "")).await;
    assert!(line.contains("nothing changed"), "{line}");
    tags.stop(Signal::Term).await;
    tear_down(&other).await;
    daemon.reload_with(&both).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}

#[tokio::test]
async fn a_lookup_that_is_its_own_source_does_not_stop_the_others() {
    let (mut pair, source, _target) = labels_pair().await;
    make_tags(&source).await;
    pair.config += LABELS_MODEL;
    pair.target_url.clone_from(&pair.source_url);
    pair.target_database.clone_from(&pair.source_database);
    let mut daemon = Daemon::run(&pair);
    // It creates the lookup.
    wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
    let itself = TAGS_MODEL.replace("tags_lookup", "tags");
    daemon
        .reload_with(&format!("{}{itself}", pair.config))
        .await;
    let line = wait_back(&daemon, 1).await;
    assert!(line.contains("is its own source"), "{line}");
    goes_on("as before", &source, &source).await;
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}

/// The file of another pipeline, by mistake.
#[tokio::test]
async fn the_read_models_of_another_pipeline_are_not_taken() {
    let (mut pair, source, target) = labels_pair().await;
    make_tags(&source).await;
    pair.config += LABELS_MODEL;
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let before = walsender(&source, &pair).await;
    let line = daemon.reload_with(&beside(&pair).config).await;
    assert!(line.contains("what changed needs a restart"), "{line}");
    for change in [
        "read_model public.tags_lookup added",
        "read_model public.labels_lookup removed",
    ] {
        let log = daemon.cdc.log();
        let named = |line: &str| line.contains("\"level\":\"WARN\"") && line.contains(change);
        assert_eq!(log.lines().filter(|line| named(line)).count(), 1, "{log}");
    }
    goes_on("as before", &source, &target).await;
    assert_eq!(walsender(&source, &pair).await, before);
    assert_eq!(
        rows(&target, STATES).await,
        ["public.labels_lookup in_step"]
    );
}

/// Between two sessions a process leaves as it does from one.
#[tokio::test]
async fn a_process_that_leaves_between_two_sessions_says_so() {
    let (pair, source, target) = labels_pair().await;
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let waits = pg(&pair.source_url).await;
    let lock = format!("SELECT pg_advisory_lock({})", lock_of(&pair.slot));
    // It is granted once the session ends.
    let waits = tokio::spawn(async move {
        waits.batch_execute(&lock).await.unwrap();
        waits
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    wait_rows(&source, waiting, &["1"]).await;
    let state = "SELECT state FROM cdc.pipeline";
    assert_eq!(value(&target, state).await, "streaming");
    daemon
        .reload_with(&format!("status_interval = '1s'\n{}", pair.config))
        .await;
    let _owner = waits.await.unwrap();
    wait_log(&daemon.cdc, "another cdc owns this pipeline").await;
    assert_eq!(value(&target, state).await, "streaming");
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
    assert_eq!(value(&target, state).await, "stopped");
}
