//! A pipeline that has nothing to do: what it asks of the target, and that it is still there when
//! somebody waits.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{
    Cdc, Side, labels_pair_on, own_cluster, pg, source as shared_source, value, wait_in_step,
    wait_log,
};

/// How long it is looked.
const LOOKED: Duration = Duration::from_secs(30);

/// Most statements a minute.
const MOST: u32 = 100;

async fn waited(target: &Client, lsn: &str) -> Duration {
    let started = Instant::now();
    assert_eq!(
        value(target, &format!("SELECT cdc.wait_for('{lsn}')")).await,
        "t"
    );
    started.elapsed()
}

/// Processor time of the server's sessions of `cdc` so far, by /proc.
async fn cpu_time(target: &Client) -> Duration {
    let pids = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
    let mut ticks = 0;
    for pid in value(target, pids).await.split_whitespace() {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    }
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn idle_pipeline_asks_the_target_little_and_answers_who_waits() {
    let cluster = own_cluster(Side::Target, "at-rest");
    let (pair, source, target) = labels_pair_on(shared_source(), &cluster).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    // What a session does when it begins is over.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let admin = pg(&cluster.url("postgres")).await;
    let logs = async |setting: &str| {
        admin
            .batch_execute(&format!("ALTER SYSTEM SET log_statement = '{setting}'"))
            .await
            .unwrap();
        admin
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
    };
    let before = cpu_time(&target).await;
    logs("all").await;
    tokio::time::sleep(LOOKED).await;
    logs("none").await;
    let cpu = cpu_time(&target).await.saturating_sub(before);
    let log = cluster.log();
    let of_cdc = format!(" cdc {} ", pair.slot);
    let statements: Vec<&str> = log
        .lines()
        .filter(|line| {
            line.contains(&of_cdc)
                && (line.contains("LOG:  execute ") || line.contains("LOG:  statement: "))
        })
        .collect();
    let a_minute =
        u32::try_from(statements.len()).unwrap() * 60 / u32::try_from(LOOKED.as_secs()).unwrap();
    eprintln!(
        "an idle pipeline: {a_minute} statements and {:?} of the target's processor a minute",
        cpu * 60 / u32::try_from(LOOKED.as_secs()).unwrap()
    );
    assert!(
        (20..MOST).contains(&a_minute),
        "{a_minute} a minute:\n{}",
        statements.join("\n")
    );
    let asleep = statements
        .iter()
        .filter(|line| line.contains("pg_sleep"))
        .count();
    assert_eq!(asleep, 0, "no statement sleeps in the server");
    // Who waits for a position of the idle source is heard, the first one and the next.
    for _ in 0..3 {
        source
            .batch_execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            .await
            .unwrap();
        let lsn = value(&source, "SELECT pg_current_wal_insert_lsn()").await;
        eprintln!("waited {:?}", waited(&target, &lsn).await);
    }
}
