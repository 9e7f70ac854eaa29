//! The promise, on real servers: whatever happens to `cdc`, to the servers and to their sessions,
//! at any moment the lookup equals the live rows of the source as of one commit, never an older one
//! after a newer one, and the newest one when the source is quiet.
//!
//! Random sessions change `labels`, a reader looks at the lookup all the time, and an oracle that
//! does not know `cdc` says which states there were (`workload/oracle.rs`). What goes wrong is told
//! with the last statements as SQL for psql (`workload/journal.rs`). `CDC_TEST_SEED` replays what
//! the sessions choose, `CDC_TEST_SECONDS`, `CDC_TEST_KILLS` and `CDC_TEST_RESYNCS` make it longer;
//! `make campaign` and `make campaign-resyncs` do.

// Helpers assert by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod ddl;
mod journal;
mod oracle;
mod sessions;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc::cluster::{Cluster, Stop};
use fastrand::Rng;
use serde_json::Value;
use sessions::connect;
use stage::{Identity, Plan, Stage, Unique, number, seed};
use support::{Cdc, Side, Signal, own_cluster};

/// Resyncs, and dry runs, beside the workload of one stage.
const RESYNCS_OF_A_STAGE: u64 = 50;

/// Only the workload, on one kind of table.
async fn undisturbed(name: &'static str, plan: Plan) {
    let stage = Stage::set(name, seed(), plan).await;
    let cdc = Cdc::run(&stage.pair);
    while !stage.is_over() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.finish(vec![cdc]).await;
}

#[tokio::test]
async fn lookup_follows_the_demo_tables() {
    let plan = Plan {
        truncate: 400,
        ..Plan::default()
    };
    undisturbed("demo tables", plan).await;
}

#[tokio::test]
async fn lookup_follows_codes_that_are_checked_at_commit() {
    let plan = Plan {
        unique: Unique::AtCommit,
        truncate: 1000,
        ..Plan::default()
    };
    undisturbed("checked at commit", plan).await;
}

#[tokio::test]
async fn lookups_follow_transactions_of_many_rows() {
    let plan = Plan {
        unique: Unique::AtCommit,
        by_id: true,
        bulk: 60,
        truncate: 1000,
        ..Plan::default()
    };
    undisturbed("many rows", plan).await;
}

#[tokio::test]
async fn lookup_follows_out_of_line_values() {
    let plan = Plan {
        unique: Unique::AtCommit,
        large: true,
        truncate: 1000,
        ..Plan::default()
    };
    undisturbed("out of line", plan).await;
}

#[tokio::test]
async fn lookup_shows_the_smallest_id_of_a_code_that_is_not_unique() {
    let plan = Plan {
        unique: Unique::Never,
        large: true,
        truncate: 1000,
        ..Plan::default()
    };
    undisturbed("not unique", plan).await;
}

#[tokio::test]
async fn lookups_of_one_table_are_of_one_commit() {
    let plan = Plan {
        by_id: true,
        identity: Identity::Full,
        truncate: 400,
        ..Plan::default()
    };
    undisturbed("two lookups, full identity", plan).await;
}

#[tokio::test]
async fn lookup_follows_a_partitioned_table() {
    let plan = Plan {
        unique: Unique::Never,
        partitioned: true,
        truncate: 1000,
        ..Plan::default()
    };
    undisturbed("partitioned", plan).await;
}

#[tokio::test]
async fn lookups_follow_a_table_of_any_kind() {
    let plan = Plan::any(&mut Rng::with_seed(seed()));
    undisturbed("any kind", plan).await;
}

/// A seed, and a plan made from it: the tests with faults take every kind of table in time.
fn any() -> (u64, Plan) {
    let seed = seed();
    (seed, Plan::any(&mut Rng::with_seed(seed)))
}

/// Waits until the log says this, if it comes to that soon: a copy may have to wait, another one
/// may own the pipeline.
async fn until_logged(cdc: &Cdc, message: &str) {
    let message = format!("\"message\":\"{message}\"");
    let started = Instant::now();
    while !cdc.log().contains(&message) && started.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn kills_lose_nothing() {
    let (seed, plan) = any();
    let mut stage = Stage::set("kills", seed, plan).await;
    for kill in 0..number("CDC_TEST_KILLS", 15) {
        let cdc = Cdc::run(&stage.pair);
        // Its resync is killed with it, or before it, or becomes the owner in its place.
        let resync = (kill % 4 == 1).then(|| stage.begin(&["resync"]));
        match kill % 3 {
            // Before the stream, often within the first copy.
            0 => stage.pause(10..500).await,
            // Around the first batch.
            1 => {
                until_logged(&cdc, "streaming").await;
                stage.pause(0..300).await;
            }
            // Later.
            _ => {
                until_logged(&cdc, "applied changes").await;
                stage.pause(0..200).await;
            }
        }
        stage.kill(cdc).await;
        drop(resync);
    }
    let cdc = Cdc::run(&stage.pair);
    stage.pause(300..600).await;
    stage.finish(vec![cdc]).await;
}

/// Stops a server and starts it again, without blocking the workload and the reader.
async fn restart(cluster: &Arc<Cluster>, how: Stop) {
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || cluster.restart(how))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn restarts_of_the_servers_lose_nothing() {
    let source = Arc::new(own_cluster(Side::Source, "workload-source"));
    let target = Arc::new(own_cluster(Side::Target, "workload-target"));
    let (seed, plan) = any();
    let mut stage = Stage::set_on("restarts", seed, plan, &source, &target).await;
    let cdc = Cdc::run(&stage.pair);
    until_logged(&cdc, "streaming").await;
    let mut round = stage.rng.u32(..);
    while !stage.is_over() {
        stage.pause(200..1500).await;
        let how = if round & 1 == 0 {
            Stop::Fast
        } else {
            Stop::Immediate
        };
        match round >> 1 & 3 {
            0 | 1 => restart(&source, how).await,
            2 => restart(&target, how).await,
            _ => {
                tokio::join!(restart(&source, how), restart(&target, how));
            }
        }
        round = round.wrapping_add(1 + stage.rng.u32(0..2));
    }
    stage.finish(vec![cdc]).await;
}

/// A resync and a dry run of every kind of table find nothing, as often as asked for. The oracle
/// holds every state that it has seen, so a long campaign is made of stages, each with a seed of
/// its own.
#[tokio::test]
async fn resync_beside_the_stream_finds_nothing_to_repair() {
    let wanted = number("CDC_TEST_RESYNCS", 4);
    let first = seed();
    let (started, mut done) = (Instant::now(), 0);
    for stage in 0.. {
        done += resyncs(first + stage, RESYNCS_OF_A_STAGE.min(wanted - done)).await;
        if done >= wanted {
            break;
        }
    }
    let took = started.elapsed();
    let rate = u128::from(done) * 60_000 / took.as_millis().max(1);
    eprintln!(
        "resync: CDC_TEST_SEED={first} and those after it: {done} resyncs and {done} dry runs in {took:.0?} ({rate} of each a minute)"
    );
}

/// One stage: at least so many pairs of a resync and a dry run, and for as long as the workload
/// takes. Returns how many.
async fn resyncs(seed: u64, pairs: u64) -> u64 {
    let plan = Plan {
        crowded: true,
        ..Plan::any(&mut Rng::with_seed(seed))
    };
    let mut stage = Stage::set("resync", seed, plan).await;
    let cdc = Cdc::run(&stage.pair);
    // A resync that is asked for during the first copy is done with it, and tells all of its rows.
    support::wait_until("the first copy is done", async || {
        let output = stage.command(&["status", "--json"]).await;
        let status: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        match status["pipeline"]["state"].as_str() {
            Some("streaming") => Ok(()),
            state => Err(format!("{state:?}")),
        }
    })
    .await;
    let mut done = 0;
    while !stage.is_over() || done < pairs {
        finds_nothing(&stage, seed, &plan, false).await;
        stage.pause(0..100).await;
        finds_nothing(&stage, seed, &plan, true).await;
        stage.pause(0..100).await;
        done += 1;
    }
    stage.finish(vec![cdc]).await;
    done
}

async fn finds_nothing(stage: &Stage, seed: u64, plan: &Plan, dry: bool) {
    let (arguments, kinds) = if dry {
        (
            &["resync", "--json", "--dry-run"][..],
            ["missing", "extra", "different"],
        )
    } else {
        (
            &["resync", "--json"][..],
            ["inserted", "updated", "deleted"],
        )
    };
    let output = stage.command(arguments).await;
    assert!(
        output.status.success(),
        "CDC_TEST_SEED={seed}: cdc {arguments:?}: {output:?}"
    );
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lookups = result.as_object().unwrap();
    assert_eq!(lookups.len(), if plan.by_id { 2 } else { 1 }, "{result}");
    for found in lookups.values() {
        for kind in kinds {
            assert_eq!(
                found[kind].as_i64(),
                Some(0),
                "CDC_TEST_SEED={seed}: cdc {arguments:?}: {result}"
            );
        }
    }
}

#[tokio::test]
async fn of_two_instances_a_zombie_writes_nothing() {
    let (seed, plan) = any();
    let mut stage = Stage::set("zombie", seed, plan).await;
    let mut cdcs = [Cdc::run(&stage.pair), Cdc::run(&stage.pair)];
    let source = connect(&stage.pair.source_url).await.unwrap();
    let owner = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}' AND active",
        stage.pair.slot
    );
    let mut halted = 0;
    while !stage.is_over() {
        stage.pause(100..500).await;
        cdcs[halted].kill(Signal::Stop);
        stage.pause(0..300).await;
        // The source gives the halted one up, as after wal_sender_timeout, and the other one takes
        // over.
        if stage.rng.u32(0..4) > 0 {
            let _ = support::rows(&source, &owner).await;
        }
        stage.pause(200..1200).await;
        cdcs[halted].kill(Signal::Cont);
        halted = 1 - halted;
    }
    stage.finish(Vec::from(cdcs)).await;
}

#[tokio::test]
async fn terminated_backends_lose_nothing() {
    let (seed, plan) = any();
    let mut stage = Stage::set("terminated", seed, plan).await;
    let cdc = Cdc::run(&stage.pair);
    until_logged(&cdc, "streaming").await;
    let source = connect(&stage.pair.source_url).await.unwrap();
    let target = connect(&stage.pair.target_url).await.unwrap();
    while !stage.is_over() {
        stage.pause(20..900).await;
        let side = if stage.rng.bool() { &source } else { &target };
        // A cancelled statement leaves its connection open.
        let how = if stage.rng.u32(0..3) == 0 {
            "pg_cancel_backend"
        } else {
            "pg_terminate_backend"
        };
        let salt = stage.rng.u32(..);
        let limit = stage.rng.u32(1..3);
        let query = format!(
            "SELECT {how}(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc %' \
             ORDER BY md5(application_name || '{salt}') LIMIT {limit}) picked"
        );
        let _ = support::rows(side, &query).await;
    }
    stage.finish(vec![cdc]).await;
}

#[tokio::test]
async fn both_databases_may_be_in_one_cluster() {
    let cluster = own_cluster(Side::Source, "workload-one");
    let (seed, plan) = any();
    let plan = Plan {
        one_database: seed % 2 == 1,
        ..plan
    };
    let stage = Stage::set_on("one cluster", seed, plan, &cluster, &cluster).await;
    let cdc = Cdc::run(&stage.pair);
    // Copies make slots, and slots wait for every write transaction of the cluster, those of cdc
    // too.
    while !stage.is_over() {
        let output = stage.command(&["resync"]).await;
        assert!(output.status.success(), "{output:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.finish(vec![cdc]).await;
}
