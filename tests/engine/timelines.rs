//! Two servers that both say they are the primary: after a failover the old one comes back. What it
//! has is older than what the lookups show.

use cdc::cluster::Stop;
use tokio_postgres::Client;

use crate::support::couple::{Couple, couple};
use crate::support::{
    Cdc, Pair, Signal, count_log, lookup, pg, rows, value, wait_in_step, wait_log, wait_rows,
    wait_until,
};

const HEALS: &str = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal'";
const TIMELINE: &str = "SELECT timeline FROM cdc.pipeline";
const ANOTHER: &str = "the source is another server than the one that was copied";

/// The standby is the primary, `cdc` has followed it there by a copy, and the old primary has come
/// back as if nothing had happened. Both have had a change since.
async fn old_primary_is_back(couple: &Couple, cdc: &Cdc) -> Client {
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(cdc, "streaming").await;
    couple.primary.stop(Stop::Fast).unwrap();
    let new = couple.promote().await;
    change(&new, "on the new primary").await;
    wait_in_step(&new, &couple.target).await;
    wait_rows(&couple.target, TIMELINE, &["2"]).await;
    couple.primary.start_again().unwrap();
    let old = pg(&couple.primary.url(&couple.pair.source_database)).await;
    assert_eq!(value(&old, "SELECT pg_is_in_recovery()").await, "f");
    change(&old, "on the old primary").await;
    new
}

async fn change(source: &Client, label: &str) {
    source
        .batch_execute(&format!(
            "UPDATE labels SET label = '{label}' WHERE code = 'MR'"
        ))
        .await
        .unwrap();
}

/// The connections of `cdc` are lost for a moment; waits until it streams again.
async fn flicker(cdc: &Cdc, source: &Client) {
    let before = count_log(cdc, "\"streaming\"");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
    source.batch_execute(end).await.unwrap();
    wait_until("it streams again", async || {
        let now = count_log(cdc, "\"streaming\"");
        if now > before {
            Ok(())
        } else {
            Err(format!("{now} times, as before"))
        }
    })
    .await;
}

async fn output(pair: &Pair, arguments: &'static [&'static str]) -> std::process::Output {
    let pair = pair.clone();
    tokio::task::spawn_blocking(move || Cdc::output(&pair, arguments))
        .await
        .unwrap()
}

/// `cdc status` sees the slot that is read, so it asks the server that is streamed from.
async fn slot_is_read(pair: &Pair) {
    let output = output(pair, &["status", "--json"]).await;
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["slot"]["active"], true, "{seen:#}");
}

/// The connection string names the old primary first, and it takes writes: it is passed over all
/// the same.
#[tokio::test]
async fn old_primary_that_comes_back_is_passed_over() {
    let couple = couple("old-primary-passed", None, &[]).await;
    let mut cdc = Cdc::run(&couple.pair);
    let new = old_primary_is_back(&couple, &cdc).await;
    for round in 1..=2 {
        flicker(&cdc, &new).await;
        change(&new, &format!("after flicker {round}")).await;
        wait_in_step(&new, &couple.target).await;
    }
    // The commands ask the server that is streamed from.
    slot_is_read(&couple.pair).await;
    // The same at a start.
    cdc.stop(Signal::Kill).await;
    change(&new, "while it was away").await;
    let cdc = Cdc::run(&couple.pair);
    couple.follows(&new).await;
    assert_eq!(rows(&couple.target, HEALS).await, ["1"], "{}", cdc.log());
    couple.no_difference().await;
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
    let old = pg(&couple.primary.url(&couple.pair.source_database)).await;
    assert_eq!(
        value(&old, ours).await,
        "0",
        "nothing of ours is at the old primary"
    );
}

/// The new primary is away: the lookups wait for it rather than go back in time, until a person
/// says that the old one is right.
#[tokio::test]
async fn old_primary_alone_is_taken_only_when_a_person_says_so() {
    let couple = couple("old-primary-alone", None, &[]).await;
    let mut cdc = Cdc::run(&couple.pair);
    let new = old_primary_is_back(&couple, &cdc).await;
    let shown = lookup(&couple.target).await;
    drop(new);
    couple.standby.stop(Stop::Fast).unwrap();
    wait_log(&cdc, ANOTHER).await;
    let told = "SELECT state || ' / ' || error || ' / ' || error_hint FROM cdc.pipeline";
    wait_until("status tells why, and what to do", async || {
        let told = value(&couple.target, told).await;
        let all = [
            "retrying",
            ANOTHER,
            "timeline 1, the lookups are of timeline 2",
            "cdc resync --accept-new-source",
        ];
        if all.iter().all(|part| told.contains(part)) {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    assert_eq!(lookup(&couple.target).await, shown);
    assert!(cdc.is_running());
    // The new primary comes back: it goes on there, without a copy.
    couple.standby.start_again().unwrap();
    let new = pg(&couple.standby_url()).await;
    change(&new, "back again").await;
    wait_in_step(&new, &couple.target).await;
    assert_eq!(rows(&couple.target, HEALS).await, ["1"], "{}", cdc.log());
    // It goes for good: a person says that the old one is right, though its timeline is lower.
    drop(new);
    couple.standby.stop(Stop::Fast).unwrap();
    let pair = couple.pair.clone();
    let accepted =
        tokio::task::spawn_blocking(move || Cdc::output(&pair, &["resync", "--accept-new-source"]))
            .await
            .unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    let old = pg(&couple.primary.url(&couple.pair.source_database)).await;
    couple.follows(&old).await;
    wait_rows(&couple.target, TIMELINE, &["1"]).await;
    cdc.stop(Signal::Term).await;
    let cdc = Cdc::run(&couple.pair);
    change(&old, "after a restart").await;
    wait_in_step(&old, &couple.target).await;
    assert_eq!(count_log(&cdc, ANOTHER), 0, "{}", cdc.log());
}

/// Any server will do, says the connection string, and the standby comes first: stream and copies
/// are with the primary all the same, since to a standby every snapshot would look settled.
#[tokio::test]
async fn standby_is_passed_over_by_stream_and_copies() {
    let couple = couple("standby-first", None, &[]).await;
    let mut pair = couple.pair.clone();
    pair.source_url = format!(
        "host={},{} port={},{} user=postgres dbname={}",
        couple.standby.socket_dir().display(),
        couple.primary.socket_dir().display(),
        couple.standby.port(),
        couple.primary.port(),
        pair.source_database
    );
    let mut cdc = Cdc::run(&pair);
    couple.follows(&couple.source).await;
    let standby = pg(&couple.standby_url()).await;
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
    assert_eq!(value(&standby, ours).await, "0", "{}", cdc.log());
    let resync = output(&pair, &["resync"]).await;
    assert!(resync.status.success(), "{resync:?}");
    assert_eq!(count_log(&cdc, "trying again"), 0, "{}", cdc.log());
    // The commands ask the primary too.
    slot_is_read(&pair).await;
    let check = output(&pair, &["check"]).await;
    assert!(check.status.success(), "{check:?}");
    cdc.stop(Signal::Term).await;
    let teardown = output(&pair, &["teardown", "--yes"]).await;
    assert!(teardown.status.success(), "{teardown:?}");
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    assert_eq!(value(&couple.source, &slots).await, "0");
}
