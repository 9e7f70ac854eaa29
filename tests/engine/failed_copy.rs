//! A copy of everything that fails leaves no slot at the source: its snapshot is gone, so it would
//! only hold WAL until the next try.

use cdc::cluster::Stop;

use crate::support::held::{self, FILL};
use crate::support::{
    self, Cdc, Side, Signal, goes_on, labels_pair_on, on_free_slot, own_cluster, pg, wait_in_step,
    wait_log, wait_rows,
};

async fn target_is_lost_in_the_copy(healing: bool) {
    let cluster = own_cluster(Side::Target, "lost");
    let (pair, source, target) = labels_pair_on(support::source(), &cluster).await;
    if healing {
        let mut cdc = Cdc::run(&pair);
        wait_in_step(&source, &target).await;
        wait_log(&cdc, "\"streaming\"").await;
        cdc.stop(Signal::Term).await;
        let drop = format!("SELECT pg_drop_replication_slot('{}')", pair.slot);
        on_free_slot(&source, &drop).await;
    }
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    wait_rows(&source, &slots, &["1"]).await;
    cluster.stop(Stop::Immediate).unwrap();
    drop(holder);
    // The target stays away: no next try can begin.
    wait_rows(&source, &slots, &["0"]).await;
    wait_log(&cdc, "could not connect to the target").await;
    wait_rows(&source, &slots, &["0"]).await;
    cluster.start_again().unwrap();
    let target = pg(&pair.target_url).await;
    goes_on("copied after all", &source, &target).await;
    wait_rows(&source, &slots, &["1"]).await;
}

#[tokio::test]
async fn first_copy_that_fails_leaves_no_slot() {
    target_is_lost_in_the_copy(false).await;
}

#[tokio::test]
async fn healing_that_fails_leaves_no_slot() {
    target_is_lost_in_the_copy(true).await;
}
