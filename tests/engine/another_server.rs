//! Another server takes the place of the source, with a database and tables of the same names: it
//! may be a restore by dump, or a mistake. Nothing of it is copied, and nothing is changed there,
//! before a person says so.

use cdc::cluster::Cluster;
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, Side, Signal, goes_on, labels_pair, live_labels, lookup, own_cluster, pg, rows,
    seed_labels, value, wait_in_step, wait_rows, wait_until,
};

/// The same pair with another server in the place of its source; its labels differ.
async fn replaced(pair: &Pair, other: &Cluster) -> (Pair, Client) {
    other.create_database(&pair.source_database).unwrap();
    let moved = Pair {
        source_url: other.url(&pair.source_database),
        ..pair.clone()
    };
    let source = pg(&moved.source_url).await;
    seed_labels(&source).await;
    source
        .batch_execute(
            "UPDATE labels SET label = 'of the other server'; DELETE FROM labels WHERE code = 'DR'",
        )
        .await
        .unwrap();
    (moved, source)
}

async fn output(pair: &Pair, arguments: &'static [&'static str]) -> std::process::Output {
    let pair = pair.clone();
    tokio::task::spawn_blocking(move || Cdc::output(&pair, arguments))
        .await
        .unwrap()
}

/// `cdc status` says that it is another server, and what to do.
async fn told_by_status(pair: &Pair) {
    wait_until("status says what is wrong", async || {
        let json = output(pair, &["status", "--json"]).await;
        let text = String::from_utf8(output(pair, &["status"]).await.stdout).unwrap();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let seen: Value = serde_json::from_slice(&json.stdout).unwrap();
        let told = json.status.code() == Some(1)
            && seen["healthy"] == false
            && seen["verdict"] == "retrying"
            && seen["pipeline"]["state"] == "retrying"
            && words.contains("another server or database")
            && words.contains("cdc resync --accept-new-source");
        if told {
            Ok(())
        } else {
            Err(format!("{seen:#}\n{text}"))
        }
    })
    .await;
}

#[tokio::test]
async fn another_server_is_taken_only_when_a_person_says_so() {
    let other = own_cluster(Side::Source, "other-source");
    let (pair, old, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &old, &target).await;
    let before = wait_in_step(&old, &target).await;
    cdc.stop(Signal::Term).await;
    let checkpoint = "SELECT c.lsn, p.system_identifier, p.source_database, p.healing FROM cdc.pipeline p, cdc.checkpoint c";
    let stored = rows(&target, checkpoint).await;
    let (moved, new) = replaced(&pair, &other).await;
    let mut cdc = Cdc::run(&moved);
    told_by_status(&moved).await;
    // Not once, but for as long as nobody says so.
    wait_until(
        "it was tried again and again",
        async || match crate::support::count_log(&cdc, "another server or database") {
            0..4 => Err(cdc.log()),
            _ => Ok(()),
        },
    )
    .await;
    assert!(cdc.is_running());
    assert_eq!(lookup(&target).await, before, "the last good state");
    assert_eq!(rows(&target, checkpoint).await, stored);
    let untouched = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";
    assert_eq!(
        value(&new, untouched).await,
        "0",
        "nothing was made at the other server"
    );
    // An ordinary resync is no consent.
    let heals = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal'";
    assert_eq!(value(&target, heals).await, "0");
    let accepted = output(&moved, &["resync", "--accept-new-source"]).await;
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(lookup(&target).await, live_labels(&new).await);
    goes_on("accepted", &new, &target).await;
    wait_rows(&target, heals, &["1"]).await;
    let healthy = output(&moved, &["status"]).await;
    assert!(healthy.status.success(), "{healthy:?}");
    // From here on the old one is the other server.
    cdc.stop(Signal::Term).await;
    let before = wait_in_step(&new, &target).await;
    let _cdc = Cdc::run(&pair);
    told_by_status(&pair).await;
    assert_eq!(lookup(&target).await, before);
}

/// The right server comes back: it goes on there as if nothing had been.
#[tokio::test]
async fn the_old_server_comes_back_and_nothing_is_copied() {
    let other = own_cluster(Side::Source, "other-source");
    let (pair, old, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &old, &target).await;
    cdc.stop(Signal::Term).await;
    old.batch_execute("UPDATE labels SET label = 'meanwhile' WHERE code = 'MR'")
        .await
        .unwrap();
    let (moved, _new) = replaced(&pair, &other).await;
    let mut cdc = Cdc::run(&moved);
    told_by_status(&moved).await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    let cdc = Cdc::run(&pair);
    goes_on("back", &old, &target).await;
    let copies = "SELECT origin || ' ' || state FROM cdc.resync";
    wait_rows(&target, copies, &["first copy done"]).await;
    assert_eq!(
        crate::support::count_log(&cdc, "the stream cannot continue"),
        0,
        "{}",
        cdc.log()
    );
}
