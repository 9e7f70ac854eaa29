//! The slot comes back behind the checkpoint: transactions that were applied are sent again, some
//! of them in the layout that the table had then. They say nothing about the table of today.

use cdc::cluster::Stop;

use crate::support::{
    Cdc, Side, Signal, goes_on, labels_pair, labels_pair_on, own_cluster, pg, target, value,
    wait_in_step, wait_log, wait_rows,
};

/// Applies a change, alters the table, restarts the source and checks that later changes arrive.
async fn alter_and_restart(alter: &str, how: Stop) {
    let cluster = own_cluster(Side::Source, "comes-again");
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    let mut cdc = Cdc::run(&pair);
    goes_on(alter, &source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = 'before' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    // A clean stop of the server waits for its walsender, so cdc must go on then.
    let halted = how == Stop::Immediate;
    if halted {
        cdc.kill(Signal::Stop);
    }
    source.batch_execute(alter).await.unwrap();
    cluster.restart(how).unwrap();
    let source = pg(&pair.source_url).await;
    if halted {
        let slot = format!(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
            pair.slot
        );
        let slot = value(&source, &slot).await;
        let behind = format!("SELECT lsn > '{slot}' FROM cdc.checkpoint");
        assert_eq!(value(&target, &behind).await, "t", "the slot is at {slot}");
        cdc.kill(Signal::Cont);
    }
    source
        .batch_execute(
            "UPDATE labels SET label = 'after' WHERE code = 'MR'; \
             INSERT INTO labels (code, label, display_name) VALUES ('LATE', 'l', 'l')",
        )
        .await
        .unwrap();
    goes_on(alter, &source, &target).await;
    assert!(cdc.is_running());
}

#[tokio::test]
async fn another_replica_identity_before_a_crash_loses_nothing() {
    alter_and_restart("ALTER TABLE labels REPLICA IDENTITY FULL", Stop::Immediate).await;
}

#[tokio::test]
async fn another_replica_identity_before_a_clean_restart_loses_nothing() {
    alter_and_restart("ALTER TABLE labels REPLICA IDENTITY FULL", Stop::Fast).await;
}

#[tokio::test]
async fn another_identity_index_before_a_crash_loses_nothing() {
    let alter = "CREATE UNIQUE INDEX other ON labels (code, id); ALTER TABLE labels ALTER code SET NOT NULL; \
                 ALTER TABLE labels REPLICA IDENTITY USING INDEX other";
    alter_and_restart(alter, Stop::Immediate).await;
}

/// The bookkeeping is made to call a read model in step that takes no part in the stream.
#[tokio::test]
async fn read_model_that_is_marked_in_step_but_is_not_in_the_stream_is_found() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config.insert_str(0, "status_interval = '200ms'\n");
    let mut first = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    first.stop(Signal::Term).await;
    // The watch looks now, and again in ten seconds: by then the session would begin again and bind
    // what is altered.
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "looked at the source's catalogs").await;
    source
        .batch_execute(
            "ALTER TABLE labels RENAME COLUMN label TO other; UPDATE labels SET other = 'x'",
        )
        .await
        .unwrap();
    wait_rows(&target, "SELECT state FROM cdc.read_model", &["suspended"]).await;
    target
        .batch_execute("UPDATE cdc.read_model SET state = 'in_step', reason = NULL")
        .await
        .unwrap();
    wait_log(&cdc, "took no part in the stream").await;
    wait_rows(&target, "SELECT state FROM cdc.read_model", &["suspended"]).await;
    source
        .batch_execute("ALTER TABLE labels RENAME COLUMN other TO label")
        .await
        .unwrap();
    goes_on("renamed back", &source, &target).await;
}
