//! The WAL budget: the slot is given up rather than the source's disk filled, and everything heals.

use cdc::cluster::Stop;

use crate::support::{
    Cdc, Pair, Side, count_log, labels_pair, labels_pair_on, own_cluster, pg, rows, source, value,
    wait_in_step, wait_log, wait_rows, wait_until,
};

/// More WAL than the limit, in a table that nobody follows.
async fn write_wal(client: &tokio_postgres::Client) {
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS busy (x text); INSERT INTO busy SELECT repeat('x', 500) FROM generate_series(1, 8000)")
        .await
        .unwrap();
}

fn limited(pair: &Pair) -> Pair {
    Pair {
        config: format!("{}max_retained_wal = \"2MB\"\n", pair.config),
        ..pair.clone()
    }
}

async fn wait_until_dropped(client: &tokio_postgres::Client, slot: &str) {
    let slots = format!("SELECT slot_name FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_rows(client, &slots, &[]).await;
}

#[tokio::test]
async fn slot_is_given_up_while_the_target_takes_nothing_and_comes_back_with_exact_copies() {
    let (pair, source, target) = labels_pair().await;
    let pair = limited(&pair);
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    // A stream that keeps up is never given up, however much others write.
    write_wal(&source).await;
    let end = value(&source, "SELECT pg_current_wal_lsn()").await;
    let passed = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    wait_rows(&source, &passed, &["t"]).await;
    assert_eq!(count_log(&cdc, "dropped the slot to free WAL"), 0);
    let before = rows(&target, "SELECT * FROM labels_lookup ORDER BY code").await;
    let locker = pg(&pair.target_url).await;
    locker
        .batch_execute("BEGIN; LOCK labels_lookup IN SHARE MODE")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'waits' WHERE code = 'MR'")
        .await
        .unwrap();
    write_wal(&source).await;
    wait_log(&cdc, "dropped the slot to free WAL").await;
    assert!(
        cdc.log()
            .contains("more than source.max_retained_wal (2MB)"),
        "{}",
        cdc.log()
    );
    // Said where reports look, and the last good state is there.
    let reason = "SELECT reason LIKE 'the slot held % more than source.max_retained_wal (2MB)' FROM cdc.freshness";
    wait_rows(&target, reason, &["t"]).await;
    assert_eq!(
        rows(&target, "SELECT * FROM labels_lookup ORDER BY code").await,
        before
    );
    locker.batch_execute("ROLLBACK").await.unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, "SELECT healing IS NULL FROM cdc.pipeline", &["t"]).await;
    source
        .batch_execute("DELETE FROM labels WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
}

#[tokio::test]
async fn slot_is_given_up_while_the_target_is_down() {
    let cluster = own_cluster(Side::Target, "own-target");
    let (pair, source, target) = labels_pair_on(source(), &cluster).await;
    let pair = limited(&pair);
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    drop(target);
    cluster.stop(Stop::Fast).unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'while it was down' WHERE code = 'MR'")
        .await
        .unwrap();
    write_wal(&source).await;
    wait_until_dropped(&source, &pair.slot).await;
    wait_log(&cdc, "dropped the slot to free WAL").await;
    cluster.start_again().unwrap();
    let target = pg(&pair.target_url).await;
    wait_in_step(&source, &target).await;
    let healed = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal' AND state = 'done'";
    wait_rows(&target, healed, &["1"]).await;
    wait_until("status is healthy and shows the limit", async || {
        let status = Cdc::output(&pair, &["status"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        if status.status.success() && text.contains("of at most 2 MB") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
}
