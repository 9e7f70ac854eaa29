//! A process that is asked to leave in the middle of a copy takes the copy's table away: it may be
//! as large as the source's, and nobody knows when the next process starts.

use crate::support::held::{self, CATCH_UP, FILL};
use crate::support::{
    Cdc, Signal, goes_on, labels_pair, on_free_slot, wait_in_step, wait_log, wait_rows,
};

/// Where a copy is when the process is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    FirstCopy,
    Healing,
    /// A resync reads.
    Reading,
    /// A resync catches up.
    CatchingUp,
}

async fn asked_to_leave(at: At) {
    let (pair, source, target) = labels_pair().await;
    let in_resync = !matches!(at, At::FirstCopy | At::Healing);
    if at != At::FirstCopy {
        let mut cdc = Cdc::run(&pair);
        wait_in_step(&source, &target).await;
        wait_log(&cdc, "\"streaming\"").await;
        cdc.stop(Signal::Term).await;
    }
    if at == At::Healing {
        let drop = format!("SELECT pg_drop_replication_slot('{}')", pair.slot);
        on_free_slot(&source, &drop).await;
    }
    held::install(&target).await;
    let mut holders = Vec::new();
    for step in [FILL, CATCH_UP] {
        holders.push((held::hold(&pair, step).await, step));
    }
    let mut cdc = Cdc::run(&pair);
    if in_resync {
        wait_log(&cdc, "\"streaming\"").await;
        let ask = "INSERT INTO cdc.resync (origin) VALUES ('request')";
        target.batch_execute(ask).await.unwrap();
    }
    match at {
        At::CatchingUp => {
            held::wait_held(&target, FILL).await;
            source
                .batch_execute("UPDATE labels SET label = 'later' WHERE code = 'MR'")
                .await
                .unwrap();
            // Where the stream is, the copy has to come.
            wait_in_step(&source, &target).await;
            let (filled, _) = holders.remove(0);
            held::let_go(filled, FILL).await;
            held::wait_held(&target, CATCH_UP).await;
        }
        _ => held::wait_held(&target, FILL).await,
    }
    cdc.kill(Signal::Term);
    wait_log(&cdc, "stopping").await;
    // What the target works at ends: nothing is in the way of taking the table away.
    drop(holders);
    assert_eq!(cdc.wait().await.code(), Some(0), "{}", cdc.log());
    held::wait_nothing_left(&pair, &source, &target).await;
    let _cdc = Cdc::run(&pair);
    goes_on(&format!("{at:?}"), &source, &target).await;
    let open = "SELECT count(*) FROM cdc.resync WHERE state IN ('queued', 'running')";
    wait_rows(&target, open, &["0"]).await;
}

#[tokio::test]
async fn first_copy_that_is_left_takes_its_table_away() {
    asked_to_leave(At::FirstCopy).await;
}

#[tokio::test]
async fn healing_that_is_left_takes_its_table_away() {
    asked_to_leave(At::Healing).await;
}

#[tokio::test]
async fn resync_that_is_left_while_it_reads_takes_its_table_away() {
    asked_to_leave(At::Reading).await;
}

#[tokio::test]
async fn resync_that_is_left_while_it_catches_up_takes_its_table_away() {
    asked_to_leave(At::CatchingUp).await;
}
