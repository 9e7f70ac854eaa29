//! The idle pipeline, which is the normal one: the source writes much that nobody follows, the slot
//! follows, and nothing else happens.
//!
//! `CDC_TEST_IDLE_MB` is the WAL that is written, 64 MB unless it says otherwise.

use std::time::{Duration, Instant};

use cdc::cluster::Cluster;
use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, database_pair, database_pair_on, pg, seeded, source, value, wait_in_step, wait_log,
    wait_rows, wait_until,
};

/// `status_interval` of these tests.
const INTERVAL: Duration = Duration::from_secs(1);

/// For how long it is looked at least, so that a spinning process shows.
const LOOKED_AT: Duration = Duration::from_secs(5);

/// CPU time of the process so far: utime and stime of `/proc/PID/stat`, in hundredths of a second.
fn cpu_time(cdc: &Cdc) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", cdc.pid())).unwrap();
    // The name in parentheses may have blanks.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Checkpoints that were stored.
async fn checkpoints(target: &Client) -> u32 {
    value(target, "SELECT count(*) FROM checkpoints")
        .await
        .parse()
        .unwrap()
}

/// Writes WAL that no read model is about, into this database and another one of the server, for as
/// long as it is looked.
async fn write_wal(source: &Client, cluster: &Cluster, megabytes: u64) {
    let other = pg(&cluster.url("postgres")).await;
    let make = "CREATE TABLE IF NOT EXISTS idle_busy (n int, x text)";
    let write = "TRUNCATE idle_busy; INSERT INTO idle_busy SELECT n, repeat('x', 500) FROM generate_series(1, 6000) n";
    let start = value(source, "SELECT pg_current_wal_insert_lsn()").await;
    let written =
        format!("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{start}')::bigint >> 20");
    for client in [source, &other] {
        client.batch_execute(make).await.unwrap();
    }
    while value(source, &written).await.parse::<u64>().unwrap() < megabytes {
        for client in [source, &other] {
            client.batch_execute(write).await.unwrap();
        }
    }
}

/// Follows the tables of the demo while this much is written elsewhere.
async fn stays_idle(pair: &mut Pair, cluster: &Cluster, megabytes: u64) {
    pair.config = format!(
        "status_interval = \"{}s\"\n{}",
        INTERVAL.as_secs(),
        pair.config
    );
    let (source, target) = seeded(pair).await;
    let cdc = Cdc::start(Cdc::command(pair, &["run"]).env("CDC_LOG", "info"));
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    // Counted by a trigger: statistics are late, and in other ways with each version.
    target
        .batch_execute(
            "CREATE TABLE checkpoints (lsn pg_lsn);
             CREATE FUNCTION count_checkpoints() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO public.checkpoints VALUES (NEW.lsn); RETURN NULL; END$$;
             CREATE TRIGGER count_checkpoints AFTER UPDATE ON cdc.checkpoint FOR EACH ROW EXECUTE FUNCTION count_checkpoints()",
        )
        .await
        .unwrap();
    let (started, cpu, logged) = (Instant::now(), cpu_time(&cdc), cdc.log());
    let before = checkpoints(&target).await;
    if megabytes > 0 {
        write_wal(&source, cluster, megabytes).await;
    }
    let end = value(&source, "SELECT pg_current_wal_insert_lsn()").await;
    let passed = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    wait_rows(&source, &passed, &["t"]).await;
    wait_until("it was looked at for long enough", async || {
        let elapsed = started.elapsed();
        if elapsed >= LOOKED_AT {
            Ok(())
        } else {
            Err(format!("{elapsed:?}"))
        }
    })
    .await;
    let (elapsed, used) = (started.elapsed(), cpu_time(&cdc) - cpu);
    let stored = checkpoints(&target).await - before;
    let most = elapsed.as_secs_f64() / INTERVAL.as_secs_f64() + 3.0;
    eprintln!("{megabytes} MB in {elapsed:.1?}: {stored} checkpoints, {used:?} of CPU time");
    assert!(stored > 0, "the position is stored");
    assert!(
        f64::from(stored) <= most,
        "{stored} checkpoints in {elapsed:?}"
    );
    assert!(used < elapsed / 5, "{used:?} of CPU time in {elapsed:?}");
    assert_eq!(cdc.log(), logged, "nothing is said");
    // It still follows.
    source
        .batch_execute("UPDATE labels SET label = 'after it' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
}

fn megabytes() -> u64 {
    std::env::var("CDC_TEST_IDLE_MB").map_or(64, |text| text.parse().unwrap())
}

#[tokio::test]
async fn slot_follows_much_wal_of_others_at_no_cost() {
    let mut pair = database_pair().await;
    stays_idle(&mut pair, source(), megabytes()).await;
}

/// The target's own WAL is foreign WAL of the source here, the checkpoints' too.
#[tokio::test]
async fn checkpoints_do_not_feed_on_themselves_in_one_cluster() {
    let mut pair = database_pair_on(source(), source()).await;
    stays_idle(&mut pair, source(), 0).await;
    let mut pair = database_pair_on(source(), source()).await;
    stays_idle(&mut pair, source(), megabytes()).await;
}
