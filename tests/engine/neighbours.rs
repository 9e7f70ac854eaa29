//! Pipelines beside each other on the same databases, and publications that somebody else made.

use tokio_postgres::Client;

use crate::support::{
    Cdc, LABELS_MODEL, Pair, Signal, count_log, goes_on, labels_pair, rows, server_version,
    tear_down, value, wait_equal, wait_in_step, wait_log, wait_rows, wait_until,
};

const TAGS: &str = "SELECT tag, note FROM tags ORDER BY 1";
const TAGS_LOOKUP: &str = "SELECT tag, note FROM tags_lookup ORDER BY 1";

/// Everything that a publication is, so that a change of it shows.
const PUBLICATION: &str = "SELECT p.xmin, p.*, (SELECT array_agg(r.xmin::text || r.oid ORDER BY r.oid) FROM pg_publication_rel r WHERE r.prpubid = p.oid)
    FROM pg_publication p";

/// The same databases with a slot, a bookkeeping schema and a publication of its own, for the tags.
fn beside(pair: &Pair) -> Pair {
    let mut other = pair.clone();
    other.slot = format!("{}_tags", pair.slot);
    other.config = format!(
        "[source]\nslot = '{}'\npublication = 'tags'\n[target]\nschema = 'cdc_tags'\n[[read_model]]\nsource = 'tags'\ntarget = 'tags_lookup'\nkey = ['tag']\ncolumns = ['tag', 'note']\n",
        other.slot
    );
    other
}

async fn labels_and_tags() -> (Pair, Client, Client) {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text PRIMARY KEY, note text); INSERT INTO tags VALUES ('a', 'x'), ('b', 'y')",
        )
        .await
        .unwrap();
    (pair, source, target)
}

/// Each has its own way through a failure, a resync and its end.
#[tokio::test]
async fn two_pipelines_between_two_databases_do_not_disturb_each_other() {
    let (pair, source, target) = labels_and_tags().await;
    let other = beside(&pair);
    let mut labels = Cdc::run(&pair);
    let mut tags = Cdc::run(&other);
    goes_on("start", &source, &target).await;
    wait_log(&tags, "\"message\":\"streaming\"").await;
    let both = |n: u32| {
        format!(
            "BEGIN; UPDATE labels SET label = '{n}' WHERE code = 'MR'; UPDATE tags SET note = '{n}' WHERE tag = 'a';
             INSERT INTO tags VALUES ('{n}', 'new'); COMMIT"
        )
    };
    source.batch_execute(&both(1)).await.unwrap();
    wait_in_step(&source, &target).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    // One is killed, loses its slot and heals; the other one goes on meanwhile.
    tags.stop(Signal::Kill).await;
    source.batch_execute(&both(2)).await.unwrap();
    wait_in_step(&source, &target).await;
    crate::support::on_free_slot(
        &source,
        &format!("SELECT pg_drop_replication_slot('{}')", other.slot),
    )
    .await;
    let mut tags = Cdc::run(&other);
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_log(&tags, "the slot is missing").await;
    // Both at once.
    for number in 3..6 {
        source.batch_execute(&both(number)).await.unwrap();
        let (a, b) = std::thread::scope(|scope| {
            let resync = |pair| scope.spawn(move || Cdc::output(pair, &["resync"]));
            let (a, b) = (resync(&pair), resync(&other));
            (a.join().unwrap(), b.join().unwrap())
        });
        for output in [a, b] {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                text.contains("repaired: 0 missing, 0 different, 0 extra"),
                "{output:?}"
            );
        }
        wait_in_step(&source, &target).await;
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    }
    // One leaves for good.
    assert_eq!(tags.stop(Signal::Term).await.code(), Some(0));
    tear_down(&other).await;
    goes_on("alone", &source, &target).await;
    let left = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(rows(&source, left).await, [pair.slot.as_str()]);
    assert_eq!(
        rows(&source, "SELECT pubname FROM pg_publication").await,
        ["cdc"]
    );
    assert_eq!(
        count_log(&labels, "trying again"),
        0,
        "it was never disturbed"
    );
    assert_eq!(count_log(&labels, "first copy of every read model"), 1);
    assert_eq!(labels.stop(Signal::Term).await.code(), Some(0));
}

#[tokio::test]
async fn lookup_slot_and_bookkeeping_of_another_pipeline_are_refused() {
    let (pair, source, target) = labels_and_tags().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let other = beside(&pair);
    for (config, reason) in [
        (
            format!("{}{LABELS_MODEL}", other.config),
            "lookup table \"public.labels_lookup\" belongs to another pipeline",
        ),
        (
            other
                .config
                .replace("schema = 'cdc_tags'", "schema = 'cdc'"),
            "the bookkeeping in schema \"cdc\" belongs to a pipeline with another slot",
        ),
    ] {
        let mut second = Cdc::run(&Pair {
            config,
            ..other.clone()
        });
        assert_eq!(second.wait().await.code(), Some(2), "{reason}");
        let log = second.log();
        assert!(log.contains(reason), "{log}");
        assert!(log.contains("hint: "), "{log}");
        goes_on(reason, &source, &target).await;
    }
    // Two lookups of one table are no quarrel.
    target
        .batch_execute("CREATE TABLE labels_again (LIKE labels_lookup INCLUDING ALL)")
        .await
        .unwrap();
    let again = LABELS_MODEL.replace("labels_lookup", "labels_again");
    let _second = Cdc::run(&Pair {
        config: format!("{}{again}", other.config),
        ..other.clone()
    });
    let shown = "SELECT code, label, display_name FROM labels_lookup ORDER BY 1";
    wait_rows(
        &target,
        "SELECT to_regclass('cdc_tags.read_model') IS NOT NULL",
        &["t"],
    )
    .await;
    wait_equal(&target, shown, &target, &shown.replace("_lookup", "_again")).await;
    goes_on("two lookups", &source, &target).await;
    wait_equal(&target, shown, &target, &shown.replace("_lookup", "_again")).await;
    assert_eq!(count_log(&cdc, "trying again"), 0, "it was never disturbed");
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
}

/// As long as it carries what is needed it does not matter who made it, nor how.
#[tokio::test]
async fn publication_of_somebody_else_is_used_as_it_is() {
    for (publication, from) in [
        ("CREATE PUBLICATION cdc FOR ALL TABLES", 130_000),
        (
            "CREATE PUBLICATION cdc FOR TABLES IN SCHEMA public",
            150_000,
        ),
        (
            "CREATE PUBLICATION cdc FOR TABLE tags, labels, others",
            130_000,
        ),
        // Of another table it may publish what it likes.
        (
            "CREATE PUBLICATION cdc FOR TABLE others (id) WHERE (id > 0), labels",
            150_000,
        ),
    ] {
        let (pair, source, target) = labels_and_tags().await;
        if server_version(&source).await < from {
            eprintln!("NOT RUN: {publication}");
            continue;
        }
        source
            .batch_execute(&format!(
                "CREATE TABLE others (id int PRIMARY KEY, v int); {publication}"
            ))
            .await
            .unwrap();
        let made = rows(&source, PUBLICATION).await;
        let mut cdc = Cdc::run(&pair);
        goes_on(publication, &source, &target).await;
        // What nobody follows passes by, new tables too.
        source
            .batch_execute("CREATE TABLE newer (id int PRIMARY KEY); INSERT INTO newer VALUES (1); INSERT INTO others VALUES (1, 1); INSERT INTO tags VALUES ('c', 'z')")
            .await
            .unwrap();
        goes_on(publication, &source, &target).await;
        assert_eq!(rows(&source, PUBLICATION).await, made, "not altered");
        assert_eq!(count_log(&cdc, "trying again"), 0);
        assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    }
}

/// A person has to alter it: what to run is told, and nothing was changed at either side.
#[tokio::test]
async fn publication_of_somebody_else_that_lacks_something_is_refused_with_the_remedy() {
    let again = "ALTER PUBLICATION \"cdc\" DROP TABLE \"public\".\"labels\"";
    let add = "ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"labels\"";
    for (publication, remedy, from) in [
        ("CREATE PUBLICATION cdc", add, 130_000),
        ("CREATE PUBLICATION cdc FOR TABLE tags", add, 130_000),
        (
            "CREATE PUBLICATION cdc FOR TABLE labels WITH (publish = 'insert, update, delete')",
            "ALTER PUBLICATION \"cdc\" SET (publish = 'insert, update, delete, truncate')",
            130_000,
        ),
        (
            "CREATE PUBLICATION cdc FOR TABLE labels WHERE (id IS NOT NULL)",
            again,
            150_000,
        ),
        (
            "CREATE PUBLICATION cdc FOR TABLE labels (id, code, label)",
            again,
            150_000,
        ),
        (
            "CREATE PUBLICATION cdc FOR TABLES IN SCHEMA away",
            add,
            150_000,
        ),
    ] {
        let (pair, source, target) = labels_and_tags().await;
        if server_version(&source).await < from {
            eprintln!("NOT RUN: {publication}");
            continue;
        }
        source
            .batch_execute(&format!("CREATE SCHEMA away; {publication}"))
            .await
            .unwrap();
        let made = rows(&source, PUBLICATION).await;
        let mut cdc = Cdc::run(&pair);
        assert_eq!(cdc.wait().await.code(), Some(2), "{publication}");
        let log = cdc.log();
        assert!(
            log.contains("publication \"cdc\" does not publish what is needed"),
            "{log}"
        );
        assert!(
            log.contains("it was not made by cdc, so cdc does not alter it"),
            "{log}"
        );
        assert!(log.contains(remedy), "{log}");
        assert_eq!(rows(&source, PUBLICATION).await, made, "not altered");
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
        assert_eq!(value(&source, slots).await, "0");
        // As told.
        let hint = log.split_once("hint: ").unwrap().1;
        let sql = hint.lines().next().unwrap().trim_start_matches("Run: ");
        source.batch_execute(sql).await.unwrap();
        let _cdc = Cdc::run(&pair);
        goes_on(publication, &source, &target).await;
    }
}

/// The stream goes on with what it has: the remedy is told while the lookup serves its last good
/// state.
#[tokio::test]
async fn publication_of_somebody_else_that_is_narrowed_while_running_is_told() {
    let (pair, source, target) = labels_and_tags().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let shown = rows(&target, "SELECT code, label FROM labels_lookup ORDER BY 1").await;
    source
        .batch_execute(
            "ALTER PUBLICATION cdc SET TABLE tags; UPDATE labels SET label = 'unheard' WHERE code = 'MR'",
        )
        .await
        .unwrap();
    wait_until("it says what is missing", async || {
        let told = rows(
            &target,
            "SELECT coalesce(reason, '') || ' / ' || coalesce(hint, '') FROM cdc.read_model",
        )
        .await;
        if told
            .iter()
            .all(|told| told.contains("ADD TABLE \"public\".\"labels\""))
        {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    assert_eq!(
        rows(&target, "SELECT code, label FROM labels_lookup ORDER BY 1").await,
        shown
    );
    source
        .batch_execute("ALTER PUBLICATION cdc ADD TABLE labels")
        .await
        .unwrap();
    goes_on("added again", &source, &target).await;
    assert!(cdc.is_running());
}
