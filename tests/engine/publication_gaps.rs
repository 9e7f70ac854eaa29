//! What a publication lacks for one read model suspends that one alone, says why, and prints the
//! SQL; the others go on.

use tokio_postgres::Client;

use crate::support::{
    Cdc, LABELS_MODEL, Pair, Signal, count_log, labels_pair, rows, value, wait_equal, wait_in_step,
    wait_log, wait_rows, wait_until,
};

const STATES: &str = "SELECT name || ' ' || state FROM cdc.read_model ORDER BY name";
const TAGS: &str = "SELECT tag, note FROM tags ORDER BY 1";
const TAGS_LOOKUP: &str = "SELECT tag, note FROM tags_lookup ORDER BY 1";
const TAGS_MODEL: &str = "[[read_model]]\nsource = 'tags'\ntarget = 'tags_lookup'\nkey = ['tag']\ncolumns = ['tag', 'note']\n";
const ADD_TAGS: &str = "ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"tags\"";

/// Two read models on one slot.
async fn labels_and_tags() -> (Pair, Client, Client) {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('a', 'x'), ('b', 'y')",
        )
        .await
        .unwrap();
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    (pair, source, target)
}

/// Labels follow each change, whatever becomes of the tags.
async fn labels_go_on(case: &str, source: &Client, target: &Client) {
    eprintln!("{case}");
    for round in 0..3 {
        source
            .batch_execute(&format!(
                "UPDATE labels SET label = '{case} {round}' WHERE code = 'MR'; UPDATE tags SET note = '{case} {round}'"
            ))
            .await
            .unwrap();
        wait_in_step(source, target).await;
    }
}

/// Waits until the tags are suspended, or new and not copied, with this reason and remedy, and
/// `status` says so.
async fn tags_wait(pair: &Pair, target: &Client, state: &str, told: &str) {
    let query = "SELECT state || ' / ' || coalesce(reason, '') || ' / ' || coalesce(hint, '') FROM cdc.read_model WHERE name = 'public.tags_lookup'";
    wait_until("the tags wait, with the reason and the SQL", async || {
        let seen = rows(target, query).await.join("");
        if seen.starts_with(state) && seen.contains(told) {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    let pair = pair.clone();
    let status = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["status"]))
        .await
        .unwrap();
    assert_eq!(status.status.code(), Some(1));
    let words = String::from_utf8(status.stdout).unwrap();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(told), "{words}");
}

async fn all_in_step(source: &Client, target: &Client) {
    wait_rows(
        target,
        STATES,
        &["public.labels_lookup in_step", "public.tags_lookup in_step"],
    )
    .await;
    source
        .batch_execute("INSERT INTO tags VALUES (clock_timestamp()::text, 'again')")
        .await
        .unwrap();
    wait_equal(source, TAGS, target, TAGS_LOOKUP).await;
    wait_in_step(source, target).await;
}

/// While it streams, across restarts, and back again.
#[tokio::test]
async fn table_that_anothers_publication_loses_suspends_its_read_model_alone() {
    let (pair, source, target) = labels_and_tags().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels, tags")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    all_in_step(&source, &target).await;
    let shown = rows(&target, TAGS_LOOKUP).await;
    source
        .batch_execute("ALTER PUBLICATION cdc DROP TABLE tags; UPDATE tags SET note = 'unheard'")
        .await
        .unwrap();
    tags_wait(&pair, &target, "suspended", ADD_TAGS).await;
    labels_go_on("without the tags", &source, &target).await;
    for signal in [Signal::Term, Signal::Kill] {
        cdc.stop(signal).await;
        cdc = Cdc::run(&pair);
        labels_go_on("after a restart", &source, &target).await;
        tags_wait(&pair, &target, "suspended", ADD_TAGS).await;
    }
    assert_eq!(
        rows(&target, TAGS_LOOKUP).await,
        shown,
        "the last good state"
    );
    // Nothing is copied in vain meanwhile: what was merged would not be followed.
    assert_eq!(count_log(&cdc, "made a slot"), 0, "{}", cdc.log());
    source.batch_execute(ADD_TAGS).await.unwrap();
    all_in_step(&source, &target).await;
    assert!(cdc.is_running());
}

#[tokio::test]
async fn first_start_goes_on_with_what_anothers_publication_has() {
    let (pair, source, target) = labels_and_tags().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    tags_wait(&pair, &target, "new", ADD_TAGS).await;
    labels_go_on("first start", &source, &target).await;
    source.batch_execute(ADD_TAGS).await.unwrap();
    all_in_step(&source, &target).await;
    assert!(cdc.is_running());
}

/// A read model is added to the configuration before the DBA has published its table, or made it at
/// all.
#[tokio::test]
async fn read_model_that_is_added_too_early_stops_no_other() {
    let (pair, source, target) = labels_and_tags().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels")
        .await
        .unwrap();
    let without = Pair {
        config: pair.config.replace(TAGS_MODEL, ""),
        ..pair.clone()
    };
    let mut cdc = Cdc::run(&without);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    cdc.stop(Signal::Term).await;
    source
        .batch_execute("ALTER TABLE tags RENAME TO later")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    tags_wait(
        &pair,
        &target,
        "new",
        "table \"public.tags\" does not exist",
    )
    .await;
    source
        .batch_execute("UPDATE labels SET label = 'no tags' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    source
        .batch_execute("ALTER TABLE later RENAME TO tags")
        .await
        .unwrap();
    tags_wait(&pair, &target, "new", ADD_TAGS).await;
    labels_go_on("not published", &source, &target).await;
    assert!(cdc.is_running());
    source.batch_execute(ADD_TAGS).await.unwrap();
    all_in_step(&source, &target).await;
}

/// An option that all tables need suspends all; a process that has run does not end for it, and
/// comes back with it.
#[tokio::test]
async fn operations_that_are_published_no_more_suspend_until_they_are() {
    let (pair, source, target) = labels_and_tags().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels, tags")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    all_in_step(&source, &target).await;
    source
        .batch_execute("ALTER PUBLICATION cdc SET (publish = 'insert, delete')")
        .await
        .unwrap();
    let remedy = "SET (publish = 'insert, update, delete, truncate')";
    tags_wait(&pair, &target, "suspended", remedy).await;
    cdc.stop(Signal::Kill).await;
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    tags_wait(&pair, &target, "suspended", remedy).await;
    assert!(cdc.is_running());
    source
        .batch_execute(&format!(
            "ALTER PUBLICATION cdc {remedy}; UPDATE labels SET label = 'back' WHERE code = 'MR'"
        ))
        .await
        .unwrap();
    all_in_step(&source, &target).await;
}

/// A partitioned table needs what an ordinary one beside it does not.
#[tokio::test]
async fn partitions_that_are_published_by_themselves_suspend_their_read_model_alone() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text) PARTITION BY LIST (tag);
             CREATE TABLE tags_a PARTITION OF tags FOR VALUES IN ('a'); CREATE TABLE tags_rest PARTITION OF tags DEFAULT;
             INSERT INTO tags VALUES ('a', 'x'); CREATE PUBLICATION cdc FOR TABLE labels, tags",
        )
        .await
        .unwrap();
    let pair = Pair {
        config: format!("{}{LABELS_MODEL}{TAGS_MODEL}", pair.config),
        ..pair
    };
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let remedy = "SET (publish_via_partition_root = true)";
    tags_wait(&pair, &target, "new", remedy).await;
    labels_go_on("without the root", &source, &target).await;
    source
        .batch_execute(&format!("ALTER PUBLICATION cdc {remedy}"))
        .await
        .unwrap();
    all_in_step(&source, &target).await;
}

/// A role that owns one table and not the other can publish one and not the other.
#[tokio::test]
async fn table_that_the_role_may_not_publish_suspends_its_read_model_alone() {
    let (mut pair, source, target) = labels_and_tags().await;
    let database = value(&source, "SELECT current_database()").await;
    let role = format!("publisher_{}", pair.slot);
    source
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {database} TO {role};
             GRANT USAGE ON SCHEMA public TO {role}; ALTER TABLE labels OWNER TO {role}; GRANT SELECT ON tags TO {role}"
        ))
        .await
        .unwrap();
    pair.source_url = pair.source_url.replace("postgres@", &format!("{role}@"));
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    tags_wait(&pair, &target, "new", ADD_TAGS).await;
    labels_go_on("not the owner", &source, &target).await;
    source.batch_execute(ADD_TAGS).await.unwrap();
    all_in_step(&source, &target).await;
}

/// CREATE and ALTER PUBLICATION wait for a VACUUM or an index that is made: only that table's read
/// model does.
#[tokio::test]
async fn table_that_cannot_be_locked_keeps_no_other_waiting() {
    for first_start in [true, false] {
        let (pair, source, target) = labels_and_tags().await;
        if !first_start {
            let without = Pair {
                config: pair.config.replace(TAGS_MODEL, ""),
                ..pair.clone()
            };
            let mut cdc = Cdc::run(&without);
            wait_in_step(&source, &target).await;
            wait_log(&cdc, "\"streaming\"").await;
            cdc.stop(Signal::Term).await;
        }
        let vacuum = crate::support::pg(&pair.source_url).await;
        // The lock that VACUUM and CREATE INDEX CONCURRENTLY have for as long as they take.
        vacuum
            .batch_execute("BEGIN; LOCK TABLE tags IN SHARE UPDATE EXCLUSIVE MODE")
            .await
            .unwrap();
        let mut cdc = Cdc::run(&pair);
        wait_in_step(&source, &target).await;
        labels_go_on("while it is locked", &source, &target).await;
        tags_wait(&pair, &target, "new", "lock").await;
        vacuum.batch_execute("COMMIT").await.unwrap();
        all_in_step(&source, &target).await;
        assert!(cdc.is_running());
    }
}
