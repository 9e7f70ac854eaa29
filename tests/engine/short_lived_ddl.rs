//! What comes and goes between two looks of the watch: the catalogs say nothing of it afterwards,
//! and the stream has brought rows of it, or has not.

use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, Signal, database_pair, pg, rows, wait_equal, wait_log, wait_rows, wait_until,
};

const CONFIG: &str = "
[[read_model]]
source = 'public.places'
target = 'public.places_lookup'
key = ['code']
columns = ['code', 'mood']
";

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('calm', 'loud');
    CREATE TABLE places (region text NOT NULL, code text NOT NULL, mood mood, PRIMARY KEY (region, code)) PARTITION BY LIST (region);
    CREATE TABLE places_north PARTITION OF places FOR VALUES IN ('north');
    CREATE TABLE places_west (LIKE places INCLUDING ALL);
    INSERT INTO places_west VALUES ('west', 'W1', 'calm'), ('west', 'W2', 'calm');
    INSERT INTO places VALUES ('north', 'N1', 'calm'), ('north', 'N2', 'loud')";

const ATTACH: &str = "ALTER TABLE places ATTACH PARTITION places_west FOR VALUES IN ('west')";
const CHANGE_WEST: &str = "UPDATE places SET mood = 'loud' WHERE region = 'west'";
const DETACH: &str = "ALTER TABLE places DETACH PARTITION places_west";

const OF_SOURCE: &str = "SELECT code, mood::text FROM places ORDER BY 1";
const SHOWN: &str = "SELECT code, mood::text FROM places_lookup ORDER BY 1";
const LAST: &str = "UPDATE places SET mood = 'calm' WHERE code = 'N2'";

async fn following() -> (Pair, Client, Client, Cdc) {
    let mut pair = database_pair().await;
    pair.config += CONFIG;
    let (source, target) = (pg(&pair.source_url).await, pg(&pair.target_url).await);
    source.batch_execute(TABLES).await.unwrap();
    target
        .batch_execute("CREATE TABLE places_lookup (code text PRIMARY KEY, mood text)")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
    (pair, source, target, cdc)
}

/// Each statement a transaction of its own, right after each other.
async fn run(source: &Client, statements: &[&str]) {
    for statement in statements {
        source
            .batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

#[tokio::test]
async fn partition_that_was_there_for_a_moment_leaves_no_rows() {
    for drop in [DETACH, "DROP TABLE places_west"] {
        let (_pair, source, target, _cdc) = following().await;
        run(&source, &[ATTACH, CHANGE_WEST, drop, LAST]).await;
        wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
        // Again, where the watch has seen it go.
        if drop == DETACH {
            run(&source, &[ATTACH, CHANGE_WEST, drop]).await;
            wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
        }
    }
}

/// The process that has written the rows is gone before it looks again.
#[tokio::test]
async fn partition_that_was_there_for_a_moment_leaves_no_rows_after_a_crash() {
    let (pair, source, target, mut cdc) = following().await;
    run(&source, &[ATTACH, CHANGE_WEST]).await;
    wait_rows(
        &target,
        "SELECT count(*) FROM places_lookup WHERE code LIKE 'W%'",
        &["2"],
    )
    .await;
    cdc.stop(Signal::Kill).await;
    run(&source, &[DETACH]).await;
    let _cdc = Cdc::run(&pair);
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
}

#[tokio::test]
async fn partition_that_was_there_while_nobody_read_the_stream_leaves_no_rows() {
    let (pair, source, target, mut cdc) = following().await;
    cdc.stop(Signal::Term).await;
    run(&source, &[ATTACH, CHANGE_WEST, DETACH, LAST]).await;
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    run(
        &source,
        &["INSERT INTO places VALUES ('north', 'N3', 'loud')"],
    )
    .await;
    wait_rows(
        &target,
        "SELECT count(*) FROM places_lookup WHERE code = 'N3'",
        &["1"],
    )
    .await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
}

/// Before PostgreSQL 15 a walsender keeps under which name it sends a partition's changes, after
/// that was detached too.
#[tokio::test]
async fn changes_of_a_partition_that_was_detached_are_never_shown() {
    let (_pair, source, target, _cdc) = following().await;
    run(&source, &[ATTACH, CHANGE_WEST]).await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
    run(
        &source,
        &[
            CHANGE_WEST,
            "BEGIN; ALTER TABLE places DETACH PARTITION places_west; UPDATE places_west SET code = code || ' alone'; COMMIT",
            "INSERT INTO places_west VALUES ('west', 'W3 alone', 'calm')",
            LAST,
        ],
    )
    .await;
    let expected = rows(&source, OF_SOURCE).await;
    wait_until("the partition is gone", async || {
        let shown = rows(&target, SHOWN).await;
        assert!(!shown.iter().any(|row| row.contains("alone")), "{shown:?}");
        if shown == expected {
            Ok(())
        } else {
            Err(format!("{shown:?}"))
        }
    })
    .await;
}

/// A partition that stays gets its rows by the same resync, and is noticed when it goes.
#[tokio::test]
async fn partition_that_stays_is_followed_and_noticed_when_it_goes() {
    let (_pair, source, target, _cdc) = following().await;
    run(
        &source,
        &[ATTACH, "UPDATE places SET mood = 'loud' WHERE code = 'W1'"],
    )
    .await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
    run(
        &source,
        &["UPDATE places SET mood = 'loud' WHERE code = 'W2'"],
    )
    .await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
    run(&source, &[DETACH]).await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
}

/// What is changed while the partition is away is in no stream.
#[tokio::test]
async fn partition_that_was_away_for_a_moment_is_copied_again() {
    let (_pair, source, target, _cdc) = following().await;
    run(
        &source,
        &[
            "ALTER TABLE places DETACH PARTITION places_north",
            "UPDATE places_north SET mood = 'loud'; DELETE FROM places_north WHERE code = 'N2'",
            "ALTER TABLE places ATTACH PARTITION places_north FOR VALUES IN ('north')",
        ],
    )
    .await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
}

/// The row that is written in between has the label's other name.
#[tokio::test]
async fn label_that_had_another_name_for_a_moment_is_not_shown() {
    let (_pair, source, target, _cdc) = following().await;
    run(
        &source,
        &[
            "ALTER TYPE mood RENAME VALUE 'calm' TO 'quiet'",
            "INSERT INTO places VALUES ('north', 'N3', 'quiet')",
            "ALTER TYPE mood RENAME VALUE 'quiet' TO 'calm'",
        ],
    )
    .await;
    wait_equal(&source, OF_SOURCE, &target, SHOWN).await;
}
