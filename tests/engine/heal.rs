//! What breaks the stream for good: the lookup is copied again by itself, or waits for a person,
//! and serves its last state meanwhile.

use cdc::cluster::{Cluster, Options};

use crate::support::{
    self, Cdc, Pair, Side, Signal, labels_pair, labels_pair_on, lookup, on_free_slot, target,
    value, wait_in_step, wait_log, wait_rows, wait_until,
};

#[tokio::test]
async fn publication_that_was_dropped_is_made_again() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    // While running; what is changed before it is there again was never in the stream.
    source
        .batch_execute(
            "DROP PUBLICATION cdc; UPDATE labels SET label = 'unpublished' WHERE code = 'MR'",
        )
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = 'published' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    // While stopped.
    cdc.stop(Signal::Term).await;
    source
        .batch_execute(
            "DROP PUBLICATION cdc; UPDATE labels SET label = 'stopped' WHERE code = 'MR'",
        )
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    source
        .batch_execute("DELETE FROM labels WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
}

#[tokio::test]
async fn slot_that_the_server_gave_up_is_made_again() {
    let cluster = Cluster::start(&Options {
        name: "small-wal".to_owned(),
        pg_bin: Side::Source.programs(),
        tcp: true,
        settings: [
            ("max_slot_wal_keep_size", "1MB"),
            ("min_wal_size", "32MB"),
            ("max_wal_size", "32MB"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..Options::default()
    })
    .unwrap();
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    source
        .batch_execute("UPDATE labels SET label = 'lost' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_until("the slot is lost", async || {
        for sql in [
            "CREATE TABLE t (x int)",
            "DROP TABLE t",
            "SELECT pg_switch_wal()",
            "CHECKPOINT",
        ] {
            source.batch_execute(sql).await.unwrap();
        }
        match value(&source, "SELECT wal_status FROM pg_replication_slots").await {
            lost if lost == "lost" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    assert!(
        cdc.log().contains("the slot was invalidated"),
        "{}",
        cdc.log()
    );
    source
        .batch_execute("DELETE FROM labels WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
}

/// Another database takes the place of the source: it may be a mistake, so a person has to say that
/// it is right.
#[tokio::test]
async fn another_source_is_taken_only_when_a_person_says_so() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let before = lookup(&target).await;
    cdc.stop(Signal::Term).await;
    let (other, new, _) = labels_pair().await;
    new.batch_execute("UPDATE labels SET label = 'new'")
        .await
        .unwrap();
    let moved = Pair {
        source_url: other.source_url,
        config: format!("[source]\nslot = \"{}\"\n", pair.slot),
        ..pair.clone()
    };
    // The old slot is on the same server here, which it would not be.
    on_free_slot(
        &source,
        &format!("SELECT pg_drop_replication_slot('{}')", pair.slot),
    )
    .await;
    let _cdc = Cdc::run(&moved);
    wait_rows(&target, "SELECT state FROM cdc.pipeline", &["retrying"]).await;
    let error = value(
        &target,
        "SELECT error || ' ' || error_hint FROM cdc.pipeline",
    )
    .await;
    assert!(
        error.contains("another server or database") && error.contains("--accept-new-source"),
        "{error}"
    );
    assert_eq!(lookup(&target).await, before, "the last good state");
    let output = tokio::task::spawn_blocking(move || {
        Cdc::output(&moved, &["resync", "--accept-new-source"])
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_in_step(&new, &target).await;
    new.batch_execute("DELETE FROM labels WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&new, &target).await;
}

/// More changes in one transaction than are kept in memory: it comes in chunks, and is seen as a
/// whole or not at all.
#[tokio::test]
async fn large_transactions_arrive_whole() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("CREATE UNIQUE INDEX ON labels (code) WHERE deleted_at IS NULL")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    let new = "INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'label ' || n, repeat('x', 50) FROM generate_series(1, 60000) n";
    for sql in [
        new,
        "UPDATE labels SET label = 'other ' || code WHERE code LIKE 'N%'",
        // Each row changes hands and back in another chunk, most are dead in between, and the codes
        // of dead rows are taken.
        "BEGIN;
         UPDATE labels SET deleted_at = now() WHERE code LIKE 'N%' AND length(code) > 3;
         SAVEPOINT s; DELETE FROM labels; ROLLBACK TO s;
         INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'heir ' || n, 'y' FROM generate_series(1000, 30000) n;
         UPDATE labels SET code = 'Z' || substr(code, 2), id = gen_random_uuid() WHERE label LIKE 'other%' AND deleted_at IS NOT NULL;
         UPDATE labels SET deleted_at = NULL WHERE code LIKE 'Z%';
         DELETE FROM labels WHERE code LIKE 'Z%' AND length(code) = 5;
         COMMIT",
        "BEGIN; UPDATE labels SET label = 'lost'; TRUNCATE labels; INSERT INTO labels (code, label, display_name) SELECT 'T' || n, 'label ' || n, repeat('x', 50) FROM generate_series(1, 40000) n;
         UPDATE labels SET display_name = 'kept' WHERE length(code) > 4; DELETE FROM labels WHERE code LIKE 'T1%'; COMMIT",
    ] {
        let before = support::live_labels(&source).await;
        source.batch_execute(sql).await.unwrap();
        let expected = support::live_labels(&source).await;
        wait_until("the lookup follows", async || {
            let seen = lookup(&target).await;
            if seen == expected {
                return Ok(());
            }
            assert!(seen == before, "a part of a transaction is seen: {} rows", seen.len());
            Err(format!("{} rows", seen.len()))
        })
        .await;
    }
}

/// A copy is brought forward by a transaction that does not fit into memory, and the stream goes on
/// with it.
#[tokio::test]
async fn large_transaction_beside_a_copy_arrives_whole() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    let rows = "INSERT INTO labels (code, label, display_name) SELECT $1 || n, 'label', repeat('x', 50) FROM generate_series(1, 60000) n";
    source.execute(rows, &[&"A"]).await.unwrap();
    let mut resync = Cdc::start(&mut Cdc::command(&pair, &["resync"]));
    source.execute(rows, &[&"B"]).await.unwrap();
    source
        .batch_execute(
            "UPDATE labels SET label = 'changed'; DELETE FROM labels WHERE code LIKE 'A%'",
        )
        .await
        .unwrap();
    assert!(resync.wait().await.success(), "{}", resync.log());
    wait_in_step(&source, &target).await;
    assert!(!cdc.log().contains("repaired"), "{}", cdc.log());
}
