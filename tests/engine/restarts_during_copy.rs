//! A server is restarted in the middle of a copy, in order or not: the copy is begun again by
//! itself, and is exact.

use cdc::cluster::{Cluster, Stop};
use tokio_postgres::Client;

use crate::support::held::{self, CATCH_UP, FILL};
use crate::support::{
    Cdc, Pair, Side, goes_on, labels_pair_on, own_cluster, pg, source, target, wait_in_step,
    wait_log, wait_rows,
};

const MANNERS: [Stop; 2] = [Stop::Fast, Stop::Immediate];

/// Restarts a server of the pair and connects to both again. Who works with the cluster goes on
/// meanwhile.
async fn restart(cluster: &Cluster, how: Stop, pair: &Pair) -> (Client, Client) {
    // Blocks: there is nothing else to be done in the test meanwhile.
    cluster.restart(how).unwrap();
    (pg(&pair.source_url).await, pg(&pair.target_url).await)
}

/// The first copy of a fresh pair is under way when the server is restarted.
async fn in_a_first_copy(side: Side, cluster: &Cluster, how: Stop) {
    let (pair, _, at_target) = fresh(side, cluster).await;
    held::install(&at_target).await;
    let holder = held::hold(&pair, FILL).await;
    let mut cdc = Cdc::run(&pair);
    held::wait_held(&at_target, FILL).await;
    let (at_source, at_target) = restart(cluster, how, &pair).await;
    at_source
        .batch_execute("UPDATE labels SET label = 'after the restart' WHERE code = 'MR'")
        .await
        .unwrap();
    if side == Side::Source {
        held::let_go(holder, FILL).await;
    }
    goes_on(
        &format!("first copy, {side:?}, {how:?}"),
        &at_source,
        &at_target,
    )
    .await;
    let copies = "SELECT origin || ' ' || state FROM cdc.resync";
    wait_rows(&at_target, copies, &["first copy done"]).await;
    held::wait_nothing_left(&pair, &at_source, &at_target).await;
    assert!(cdc.is_running());
}

/// The same for a resync that somebody has asked for; a row was edited that only it can mend.
async fn in_a_resync(side: Side, cluster: &Cluster, how: Stop, step: u8) {
    let (pair, at_source, at_target) = fresh(side, cluster).await;
    held::install(&at_target).await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&at_source, &at_target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let filled = held::hold(&pair, FILL).await;
    let caught_up = held::hold(&pair, CATCH_UP).await;
    at_target
        .batch_execute(
            "UPDATE labels_lookup SET label = 'edited' WHERE code = 'MRS'; INSERT INTO cdc.resync (origin) VALUES ('request')",
        )
        .await
        .unwrap();
    held::wait_held(&at_target, FILL).await;
    at_source
        .batch_execute("UPDATE labels SET label = 'before the restart' WHERE code = 'DR'")
        .await
        .unwrap();
    // The stream is past it, and so has the copy to come.
    let streamed = "SELECT label FROM labels_lookup WHERE code = 'DR'";
    wait_rows(&at_target, streamed, &["before the restart"]).await;
    let mut holders = vec![(caught_up, CATCH_UP)];
    if step == CATCH_UP {
        held::let_go(filled, FILL).await;
        held::wait_held(&at_target, CATCH_UP).await;
    } else {
        holders.push((filled, FILL));
    }
    let (at_source, at_target) = restart(cluster, how, &pair).await;
    at_source
        .batch_execute("UPDATE labels SET label = 'after the restart' WHERE code = 'MR'")
        .await
        .unwrap();
    if side == Side::Source {
        for (holder, step) in holders {
            held::let_go(holder, step).await;
        }
    }
    let requested = "SELECT state, result -> 'public.labels_lookup' ->> 'updated' FROM cdc.resync WHERE origin = 'request'";
    wait_rows(&at_target, requested, &["done|1"]).await;
    goes_on(
        &format!("resync, {side:?}, {how:?}, {step}"),
        &at_source,
        &at_target,
    )
    .await;
    let heals = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal'";
    wait_rows(&at_target, heals, &["0"]).await;
    held::wait_nothing_left(&pair, &at_source, &at_target).await;
    assert!(cdc.is_running());
}

/// A pair with the one server for this side, and the shared one for the other.
async fn fresh(side: Side, cluster: &Cluster) -> (Pair, Client, Client) {
    match side {
        Side::Source => labels_pair_on(cluster, target()).await,
        Side::Target => labels_pair_on(source(), cluster).await,
    }
}

#[tokio::test]
async fn source_restarts_in_the_middle_of_a_first_copy() {
    let cluster = own_cluster(Side::Source, "restarted-source");
    for how in MANNERS {
        in_a_first_copy(Side::Source, &cluster, how).await;
    }
}

#[tokio::test]
async fn target_restarts_in_the_middle_of_a_first_copy() {
    let cluster = own_cluster(Side::Target, "restarted-target");
    for how in MANNERS {
        in_a_first_copy(Side::Target, &cluster, how).await;
    }
}

#[tokio::test]
async fn source_restarts_in_the_middle_of_a_resync() {
    let cluster = own_cluster(Side::Source, "restarted-source");
    for how in MANNERS {
        for step in [FILL, CATCH_UP] {
            in_a_resync(Side::Source, &cluster, how, step).await;
        }
    }
}

#[tokio::test]
async fn target_restarts_in_the_middle_of_a_resync() {
    let cluster = own_cluster(Side::Target, "restarted-target");
    for how in MANNERS {
        for step in [FILL, CATCH_UP] {
            in_a_resync(Side::Target, &cluster, how, step).await;
        }
    }
}
