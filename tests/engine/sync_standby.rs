//! A source whose commits wait for `cdc`: `synchronous_standby_names` takes it for a standby. They
//! must not wait for long, whatever the target does. A hang is told by [`DEADLINE`], how fast it is
//! proves nothing here.

use cdc::cluster::Cluster;
use cdc::conninfo::{Conninfo, Host};
use cdc::protocol::pgoutput::{self, Message};
use cdc::source::replication::{Replication, StreamFrame};
use cdc::source::slot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::held::{self, CATCH_UP, FILL};
use crate::support::{
    self, Cdc, DEADLINE, Pair, Side, count_log, goes_on, labels_pair_on, lock_lookup, own_cluster,
    pg, value, wait_in_step, wait_log, wait_rows, wait_until,
};

/// A table that nobody follows.
const OTHER: &str = "CREATE TABLE other (n serial PRIMARY KEY, at timestamptz DEFAULT now())";

/// A source of its own, since the setting is the whole server's.
async fn pair_on(cluster: &Cluster) -> (Pair, Client, Client) {
    let (mut pair, source, target) = labels_pair_on(cluster, support::target()).await;
    // What waits for it waits for an hour.
    pair.config = format!("status_interval = \"1h\"\n{}", pair.config);
    source.batch_execute(OTHER).await.unwrap();
    (pair, source, target)
}

async fn name_standbys(cluster: &Cluster, names: &str) {
    let client = pg(&cluster.url("postgres")).await;
    let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
    client.batch_execute(&set).await.unwrap();
    client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    wait_until("the setting is there", async || {
        let found = value(
            &pg(&cluster.url("postgres")).await,
            "SHOW synchronous_standby_names",
        )
        .await;
        if found == names { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Commits; a hang is told.
async fn commit(case: &str, client: &Client, statement: &str) {
    let started = std::time::Instant::now();
    let done = tokio::time::timeout(DEADLINE, client.batch_execute(statement)).await;
    done.unwrap_or_else(|_| panic!("{case}: the commit hangs: {statement}"))
        .unwrap();
    eprintln!("{case}: {:.3?}: {statement}", started.elapsed());
}

/// Commits of tables that are followed and that are not.
async fn commits(case: &str, source: &Client) {
    for n in 0..10 {
        commit(case, source, "INSERT INTO other DEFAULT VALUES").await;
        let update = format!("UPDATE labels SET label = '{case} {n}' WHERE code = 'MR'");
        commit(case, source, &update).await;
    }
}

/// Waits until the server takes this walsender for that.
async fn wait_sync_state(source: &Client, application_name: &str, states: &[&str]) {
    let query = format!(
        "SELECT sync_state FROM pg_stat_replication WHERE application_name = '{application_name}'"
    );
    wait_until("its sync_state", async || {
        let seen = support::rows(source, &query).await;
        match seen.as_slice() {
            [state] if states.contains(&state.as_str()) => Ok(()),
            _ => Err(format!("{seen:?}")),
        }
    })
    .await;
}

/// A real standby's part: another consumer, of nothing, that acknowledges at once.
async fn witness(cluster: &Cluster, pair: &Pair) -> JoinHandle<()> {
    let source = pg(&pair.source_url).await;
    source
        .batch_execute("CREATE PUBLICATION witness")
        .await
        .unwrap();
    let conninfo = Conninfo {
        hosts: vec![Host {
            host: cluster.socket_dir().to_str().unwrap().to_owned(),
            address: None,
            port: cluster.port(),
        }],
        user: "postgres".to_owned(),
        database: pair.source_database.clone(),
        ..Conninfo::default()
    };
    let mut replication = Replication::connect(&conninfo, "witness").await.unwrap();
    slot::create(&mut replication, "witness", slot::Kind::Temporary)
        .await
        .unwrap();
    replication
        .start("witness", cdc::lsn::Lsn::ZERO, "witness")
        .await
        .unwrap();
    let task = tokio::spawn(async move {
        let mut received = cdc::lsn::Lsn::ZERO;
        loop {
            while let Some(frame) = replication.next_frame().unwrap() {
                match frame {
                    StreamFrame::WalData { payload, .. } => {
                        if let Message::Commit(commit) = pgoutput::decode(payload).unwrap() {
                            received = received.max(commit.end_lsn);
                        }
                    }
                    StreamFrame::Keepalive { wal_end, .. } => received = received.max(wal_end),
                    StreamFrame::CopyDone => return,
                }
            }
            replication
                .send_status(received, received, received, false)
                .await
                .unwrap();
            if replication.fill().await.is_err() {
                return;
            }
        }
    });
    wait_sync_state(&source, "witness", &["async"]).await;
    task
}

fn stream_of(pair: &Pair) -> String {
    format!("cdc {} stream", pair.slot)
}

#[tokio::test]
async fn commits_do_not_wait_for_the_next_status() {
    let cluster = own_cluster(Side::Source, "synchronous");
    let (pair, source, target) = pair_on(&cluster).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    // It runs already: the change is noticed.
    for names in [
        "*",
        &format!("ANY 1 (\"{}\", nobody)", stream_of(&pair)),
        "*",
    ] {
        name_standbys(&cluster, names).await;
        commits(&names.replace('"', ""), &source).await;
        wait_in_step(&source, &target).await;
    }
    name_standbys(&cluster, "").await;
    commits("nobody", &source).await;
    goes_on("nobody", &source, &target).await;
    assert_eq!(count_log(&cdc, "trying again"), 0, "{}", cdc.log());
}

/// What the target has in hand is acknowledged when it is there, and not a commit before.
#[tokio::test]
async fn commits_go_on_while_the_target_is_locked() {
    let cluster = own_cluster(Side::Source, "synchronous");
    let (pair, source, target) = pair_on(&cluster).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let witness = witness(&cluster, &pair).await;
    let stream = stream_of(&pair);
    for names in [
        format!("FIRST 1 (\"{stream}\", witness)"),
        "*".to_owned(),
        "ANY 1 (*)".to_owned(),
    ] {
        eprintln!("{names}");
        name_standbys(&cluster, &names).await;
        wait_sync_state(&source, &stream, &["sync", "quorum"]).await;
        let holder = lock_lookup(&pair).await;
        commits("locked", &source).await;
        let rows = "INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'n', repeat('x', 50) FROM generate_series(1, 60000) n";
        commit("a large transaction", &source, rows).await;
        commits("locked, behind it", &source).await;
        let confirmed = format!(
            "SELECT confirmed_flush_lsn < pg_current_wal_flush_lsn() FROM pg_replication_slots WHERE slot_name = '{}'",
            pair.slot
        );
        wait_rows(&source, &confirmed, &["t"]).await;
        holder.batch_execute("COMMIT").await.unwrap();
        wait_in_step(&source, &target).await;
        wait_sync_state(&source, &stream, &["sync", "quorum"]).await;
        commits("free again", &source).await;
        commit(
            "free again",
            &source,
            "DELETE FROM labels WHERE code LIKE 'N%'",
        )
        .await;
        wait_in_step(&source, &target).await;
    }
    assert_eq!(count_log(&cdc, "trying again"), 0, "{}", cdc.log());
    assert!(!witness.is_finished());
    witness.abort();
}

/// The slot moves all the same where cdc is behind for long, so that the master's WAL goes.
#[tokio::test]
async fn commits_go_on_without_the_target_and_cdc_comes_back() {
    let cluster = own_cluster(Side::Source, "synchronous");
    let target_cluster = own_cluster(Side::Target, "gone");
    let (mut pair, source, target) = labels_pair_on(&cluster, &target_cluster).await;
    pair.config = format!("status_interval = \"1s\"\n{}", pair.config);
    source.batch_execute(OTHER).await.unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let witness = witness(&cluster, &pair).await;
    name_standbys(&cluster, "*").await;
    wait_sync_state(&source, &stream_of(&pair), &["sync"]).await;
    target_cluster.stop(cdc::cluster::Stop::Immediate).unwrap();
    commits("gone", &source).await;
    target_cluster.start_again().unwrap();
    let target = pg(&pair.target_url).await;
    wait_in_step(&source, &target).await;
    // Whichever of the two comes first.
    wait_sync_state(&source, &stream_of(&pair), &["sync", "potential"]).await;
    commits("back", &source).await;
    wait_in_step(&source, &target).await;
    witness.abort();
}

/// A copy has a walsender of its own for as long as it takes, which acknowledges nothing.
#[tokio::test]
async fn commits_never_wait_for_a_copy() {
    let cluster = own_cluster(Side::Source, "synchronous");
    let (pair, source, target) = pair_on(&cluster).await;
    held::install(&target).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let witness = witness(&cluster, &pair).await;
    let filled = held::hold(&pair, FILL).await;
    let caught_up = held::hold(&pair, CATCH_UP).await;
    target
        .batch_execute("INSERT INTO cdc.resync (origin) VALUES ('request')")
        .await
        .unwrap();
    held::wait_held(&target, FILL).await;
    source
        .batch_execute("UPDATE labels SET display_name = 'later' WHERE code = 'MRS'")
        .await
        .unwrap();
    held::let_go(filled, FILL).await;
    held::wait_held(&target, CATCH_UP).await;
    let copy = format!("cdc {} resync", pair.slot);
    for names in [
        format!("FIRST 1 (\"{copy}\", witness)"),
        format!("FIRST 1 (\"{}\", \"{copy}\", witness)", stream_of(&pair)),
    ] {
        name_standbys(&cluster, &names).await;
        wait_sync_state(&source, &copy, &["async"]).await;
        commits("beside a copy", &source).await;
    }
    held::let_go(caught_up, CATCH_UP).await;
    wait_rows(
        &target,
        "SELECT state FROM cdc.resync WHERE origin = 'request'",
        &["done"],
    )
    .await;
    goes_on("copied", &source, &target).await;
    witness.abort();
}
