//! A process that has stopped without a word leaves its walsender behind, and with it the
//! pipeline's lock: for hours, where wal_sender_timeout is off. The next one ends it, and never
//! that of a living owner.

use std::time::{Duration, Instant};

use cdc::cluster::{Cluster, Options};

use crate::support::{
    self, BLOCKED, Cdc, Side, Signal, count_log, goes_on, labels_pair_on, lock_lookup,
    wait_in_step, wait_log, wait_rows, wait_until,
};

const WAITS: &str = "another cdc owns this pipeline";
const ENDS: &str = "its owner gives no sign of life";

/// A source that waits for its clients for as long as it takes.
fn patient_source() -> Cluster {
    Cluster::start(&Options {
        name: "patient".to_owned(),
        pg_bin: Side::Source.programs(),
        tcp: true,
        settings: vec![("wal_sender_timeout".to_owned(), "0".to_owned())],
        ..Options::default()
    })
    .unwrap()
}

#[tokio::test]
async fn walsender_of_a_process_that_has_stopped_is_ended() {
    let cluster = patient_source();
    let (pair, source, target) = labels_pair_on(&cluster, support::target()).await;
    let mut first = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&first, "\"streaming\"").await;
    first.kill(Signal::Stop);
    let second = Cdc::run(&pair);
    wait_log(&second, WAITS).await;
    source
        .batch_execute("UPDATE labels SET label = 'unattended' WHERE code = 'MR'")
        .await
        .unwrap();
    goes_on("taken over", &source, &target).await;
    assert_eq!(count_log(&second, ENDS), 1, "{}", second.log());
    assert_eq!(
        count_log(&second, "the stream cannot continue"),
        0,
        "{}",
        second.log()
    );
    // What comes back finds another owner.
    first.kill(Signal::Cont);
    wait_log(&first, WAITS).await;
    goes_on("both run", &source, &target).await;
    assert_eq!(count_log(&first, ENDS), 0, "{}", first.log());
}

/// It has a batch in hand for longer than a silence may last, and no position to store.
#[tokio::test]
async fn walsender_of_a_living_owner_is_left_alone() {
    let cluster = patient_source();
    let (pair, source, target) = labels_pair_on(&cluster, support::target()).await;
    let first = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&first, "\"streaming\"").await;
    let holder = lock_lookup(&pair).await;
    source
        .batch_execute("UPDATE labels SET label = 'in hand' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_rows(&target, BLOCKED, &["1"]).await;
    let second = Cdc::run(&pair);
    wait_log(&second, WAITS).await;
    let started = Instant::now();
    wait_until("it was waited for long enough", async || {
        if started.elapsed() > Duration::from_secs(85) {
            Ok(())
        } else {
            Err(format!("{:?}", started.elapsed()))
        }
    })
    .await;
    assert_eq!(count_log(&second, ENDS), 0, "{}", second.log());
    holder.batch_execute("COMMIT").await.unwrap();
    goes_on("free again", &source, &target).await;
    assert_eq!(count_log(&first, "trying again"), 0, "{}", first.log());
    assert_eq!(count_log(&second, "\"streaming\""), 0, "{}", second.log());
}
