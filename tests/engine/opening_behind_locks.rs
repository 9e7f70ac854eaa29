//! A session opens within a limit: what somebody has locked ends in an error that says so, and in
//! the next try.

use crate::support::{
    Cdc, Side, Signal, goes_on, labels_pair_on, own_cluster, pg, target, wait_log,
};

/// Starts a second session while this lock is held; it says that it waits no longer, and goes on
/// once the lock is free.
async fn with_lock_held(of_source: bool, table: &str) {
    // A lock of this kind has a transaction id, and holds up every slot creation of its cluster.
    let cluster = own_cluster(Side::Source, "opening");
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    cdc.stop(Signal::Term).await;
    let holder = pg(if of_source {
        &pair.source_url
    } else {
        &pair.target_url
    })
    .await;
    holder
        .batch_execute(&format!(
            "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        ))
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "Another session has locked a table").await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'after the lock' WHERE code = 'MR'")
        .await
        .unwrap();
    goes_on(table, &source, &target).await;
}

#[tokio::test]
async fn lock_on_the_bookkeeping_does_not_hold_the_opening_up_without_a_word() {
    with_lock_held(false, "cdc.read_model").await;
}

/// Every session of the source looks there.
#[tokio::test]
async fn lock_on_a_catalog_of_the_source_does_not_hold_the_opening_up_without_a_word() {
    with_lock_held(true, "pg_catalog.pg_publication_rel").await;
}
