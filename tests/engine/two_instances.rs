//! Two instances of one pipeline: one works, the other waits and says so, and neither undoes what
//! the other one does.

use tokio_postgres::Client;

use crate::support::held::{self, FILL};
use crate::support::{
    Cdc, Pair, Signal, count_log, goes_on, labels_pair, on_free_slot, value, wait_log, wait_rows,
    wait_until,
};

const WAITS: &str = "another cdc owns this pipeline";

/// Waits until one of two works and the other one has said that it waits; returns the one that
/// works first.
async fn sorted(first: Cdc, second: Cdc) -> (Cdc, Cdc) {
    let first_waits = wait_until("one of the two waits", async || {
        match (first.log().contains(WAITS), second.log().contains(WAITS)) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    if first_waits {
        (second, first)
    } else {
        (first, second)
    }
}

/// The one that works is killed; the other one goes on without a copy.
async fn takes_over(mut owner: Cdc, other: &Cdc, source: &Client, target: &Client) {
    assert_eq!(count_log(other, "\"streaming\""), 0, "{}", other.log());
    owner.stop(Signal::Kill).await;
    source
        .batch_execute("UPDATE labels SET label = 'unattended' WHERE code = 'MR'")
        .await
        .unwrap();
    goes_on("taken over", source, target).await;
    wait_log(other, "\"streaming\"").await;
    assert_eq!(
        count_log(other, "the stream cannot continue"),
        0,
        "{}",
        other.log()
    );
    assert_eq!(count_log(other, "first copy"), 0, "{}", other.log());
}

async fn copies(target: &Client, origin: &str) -> String {
    value(
        target,
        &format!("SELECT count(*) FROM cdc.resync WHERE origin = '{origin}' AND state = 'done'"),
    )
    .await
}

#[tokio::test]
async fn of_two_that_start_on_a_fresh_pair_one_copies() {
    for _ in 0..3 {
        let (pair, source, target) = labels_pair().await;
        // At the same moment: neither finds the bookkeeping, the publication or the lookup.
        let (first, second) = (Cdc::run(&pair), Cdc::run(&pair));
        let (owner, other) = sorted(first, second).await;
        goes_on("fresh", &source, &target).await;
        takes_over(owner, &other, &source, &target).await;
        assert_eq!(copies(&target, "first copy").await, "1");
        held::wait_nothing_left(&pair, &source, &target).await;
    }
}

/// A slot that was just made is not in use until it is read: the second one must neither start nor
/// drop it.
#[tokio::test]
async fn second_one_waits_while_the_first_one_copies() {
    let (pair, source, target) = labels_pair().await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let first = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let second = Cdc::run(&pair);
    wait_log(&second, WAITS).await;
    assert_eq!(slots(&pair, &source).await, "1", "{}", second.log());
    held::wait_held(&target, FILL).await;
    held::let_go(holder, FILL).await;
    goes_on("copied", &source, &target).await;
    takes_over(first, &second, &source, &target).await;
    assert_eq!(copies(&target, "first copy").await, "1");
}

/// The first one ends in the middle of its copy: the second one begins it again.
#[tokio::test]
async fn second_one_copies_when_the_first_one_dies_in_its_copy() {
    let (pair, source, target) = labels_pair().await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let mut first = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let second = Cdc::run(&pair);
    wait_log(&second, WAITS).await;
    first.stop(Signal::Kill).await;
    source
        .batch_execute("UPDATE labels SET label = 'meanwhile' WHERE code = 'MR'")
        .await
        .unwrap();
    held::let_go(holder, FILL).await;
    goes_on("copied by the second one", &source, &target).await;
    assert_eq!(copies(&target, "first copy").await, "1");
    held::wait_nothing_left(&pair, &source, &target).await;
}

#[tokio::test]
async fn of_two_that_start_without_the_slot_one_heals() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    cdc.stop(Signal::Term).await;
    for healed in 1..=3 {
        source
            .batch_execute(
                "UPDATE labels SET label = 'lost ' || clock_timestamp() WHERE code = 'MRS'",
            )
            .await
            .unwrap();
        let drop = format!("SELECT pg_drop_replication_slot('{}')", pair.slot);
        on_free_slot(&source, &drop).await;
        let (first, second) = (Cdc::run(&pair), Cdc::run(&pair));
        let (owner, other) = sorted(first, second).await;
        goes_on("healed", &source, &target).await;
        takes_over(owner, &other, &source, &target).await;
        assert_eq!(copies(&target, "heal").await, healed.to_string());
    }
    held::wait_nothing_left(&pair, &source, &target).await;
}

/// The slot is dropped under two that run: the one that works heals, or the other one does, but
/// once.
#[tokio::test]
async fn of_two_that_lose_the_slot_one_heals() {
    let (pair, source, target) = labels_pair().await;
    let (first, second) = (Cdc::run(&pair), Cdc::run(&pair));
    let (_owner, _other) = sorted(first, second).await;
    goes_on("start", &source, &target).await;
    let drop = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}';
         SELECT pg_drop_replication_slot('{slot}')",
        slot = pair.slot
    );
    wait_until("the slot is dropped", async || {
        source
            .batch_execute(&drop)
            .await
            .map_err(|error| format!("{error:?}"))
    })
    .await;
    source
        .batch_execute("UPDATE labels SET label = 'lost' WHERE code = 'MRS'")
        .await
        .unwrap();
    wait_rows(
        &target,
        "SELECT count(*) FROM cdc.resync WHERE origin = 'heal' AND state = 'done'",
        &["1"],
    )
    .await;
    goes_on("healed", &source, &target).await;
    assert_eq!(copies(&target, "heal").await, "1");
    held::wait_nothing_left(&pair, &source, &target).await;
}

async fn slots(pair: &Pair, source: &Client) -> String {
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    value(source, &slots).await
}
