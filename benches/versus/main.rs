//! `cdc` against PostgreSQL's own subscriptions, on the same load, in the same run.
//!
//! `cargo bench --bench versus -- [--scale F] [--rounds N] [--scenario NAME]... [--tcp|--unix]`
//!
//! Two throw-away servers with fsync on. In each scenario the slots of all consumers are made
//! first, then the load is committed, then one consumer after the other catches up with it, in an
//! order that turns from scenario to scenario and from round to round; the clock runs from the
//! moment at which the slot is read until the marker behind the load can be read at the target.
//! Then the result is compared with the source by a hash. Numbers of different runs, or machines,
//! are not to be compared: ratios of one round are, and the median of several rounds tells them
//! from the swings of a shared machine.
//!
//! `native` is a subscription of the plain rows (it keeps no lookup: soft-deleted rows stay);
//! `trigger` is one with an ENABLE REPLICA trigger that keeps the same lookup as `cdc`. All of them
//! with synchronous_commit off; `cdc (on)` is the default of `cdc`. `ceiling` reads the stream in
//! large pieces and throws it away.
#![allow(missing_docs, clippy::as_conversions, clippy::indexing_slicing)]

mod ceiling;
mod scenario;
mod subject;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::time::Instant;

use anyhow::Result;
use cdc::cluster::Cluster;
use cdc::conninfo::{Conninfo, Environment};
use cdc::lsn::Lsn;
use scenario::{SCENARIOS, Scenario};
use subject::{Consumer, SUBJECTS, Servers};
use support::arguments::Arguments;
use support::labels::{self, Kind};
use support::{connect, latency, measure, server};
use table::{Round, Run, Table};
use tokio_postgres::Client;

/// How often each scenario runs if nothing else is asked for.
const ROUNDS: f64 = 3.0;

fn main() -> Result<()> {
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    let arguments = Arguments::parse(1.0, &names, &["--tcp", "--unix"], &["--rounds"])?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let servers = Servers {
        source: server("versus-source", true)?,
        target: server("versus-target", true)?,
        tcp: !arguments.flag("--unix"),
    };
    println!(
        "PostgreSQL {}, {}, scale {}",
        servers.source.programs().major(),
        if servers.tcp { "TCP" } else { "Unix sockets" },
        arguments.scale
    );
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rounds = arguments.number("--rounds").unwrap_or(ROUNDS).max(1.0) as usize;
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        if !arguments.wants(scenario.name) {
            continue;
        }
        let changes = scenario.changes_at(arguments.scale);
        println!(
            "\n{} ({}; {changes} changes)",
            scenario.title, scenario.name
        );
        let mut table = Table::new(scenario, changes);
        for round in 0..rounds {
            // Names of databases and slots, and who is first.
            let (name, turn) = (number + round * SCENARIOS.len(), number + round);
            table.add(run_scenario(&servers, scenario, (name, turn), changes).await?);
        }
        table.print();
    }
    Ok(())
}

async fn run_scenario(
    servers: &Servers,
    scenario: &Scenario,
    (number, turn): (usize, usize),
    changes: u64,
) -> Result<Round> {
    let database = format!("source_{number}");
    servers.source.create_database(&database)?;
    let source = connect(&servers.source.url(&database)).await?;
    source.batch_execute(labels::SOURCE_TABLE).await?;
    source
        .batch_execute("CREATE PUBLICATION ceiling FOR TABLE labels")
        .await?;
    labels::rows_before(&source, scenario.kind.rows_before(changes)).await?;
    source.batch_execute("VACUUM ANALYZE labels").await?;

    let mut subjects = SUBJECTS;
    subjects.rotate_left(turn % SUBJECTS.len());
    let mut consumers = Vec::new();
    for subject in subjects {
        consumers.push(Consumer::new(servers, subject, number, &source).await?);
    }
    let mut round = Round::default();
    match scenario.kind {
        Kind::Latency => {
            for (consumer, round) in consumers.iter_mut().zip(0..) {
                consumer.follower.begin().await?;
                consumer.follower.wait_copied().await?;
                consumer.follower.wait_active(&source, true).await?;
                println!(
                    "  {:<9} {}",
                    consumer.subject.name(),
                    latency::measure(
                        &source,
                        (&consumer.follower.target, consumer.subject.table()),
                        changes,
                        round * changes
                    )
                    .await?
                );
                consumer.compare(&source).await?;
                consumer.follower.halt(&source).await?;
            }
        }
        Kind::Copy => {
            for consumer in &mut consumers {
                let before = cpu(servers, consumer, &source).await?;
                let started = Instant::now();
                consumer.follower.begin().await?;
                consumer.follower.wait_copied().await?;
                let run = cost(before, started, servers, consumer);
                round.runs.push((consumer.subject, run));
                consumer.compare(&source).await?;
                consumer.follower.wait_active(&source, true).await?;
                consumer.follower.halt(&source).await?;
            }
        }
        _ => {
            let end = prepare(&mut consumers, &source, scenario, changes).await?;
            for consumer in &mut consumers {
                let run = catch_up(servers, consumer, &source).await?;
                round.runs.push((consumer.subject, run));
            }
            round.discarded = discard(servers, &database, end).await?;
            source
                .execute("SELECT pg_drop_replication_slot('ceiling')", &[])
                .await?;
        }
    }
    for consumer in &mut consumers {
        consumer.follower.remove(&source).await?;
    }
    Ok(round)
}

/// Makes every slot, then commits the load; returns its end.
async fn prepare(
    consumers: &mut [Consumer],
    source: &Client,
    scenario: &Scenario,
    changes: u64,
) -> Result<Lsn> {
    for consumer in consumers.iter_mut() {
        consumer.follower.begin().await?;
        consumer.follower.wait_copied().await?;
        consumer.follower.wait_active(source, true).await?;
        consumer.follower.halt(source).await?;
        consumer
            .follower
            .target
            .batch_execute("VACUUM ANALYZE")
            .await?;
    }
    source
        .query(
            "SELECT pg_create_logical_replication_slot('ceiling', 'pgoutput')",
            &[],
        )
        .await?;
    labels::commit_load(source, scenario.kind, changes).await?;
    let end: String = source
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await?
        .get(0);
    Ok(end.parse()?)
}

async fn catch_up(servers: &Servers, consumer: &mut Consumer, source: &Client) -> Result<Run> {
    let before = cpu(servers, consumer, source).await?;
    consumer.follower.go_on().await?;
    consumer.follower.wait_active(source, true).await?;
    let started = Instant::now();
    consumer
        .follower
        .wait_until(&labels::marker_is_in(consumer.subject.table()))
        .await?;
    let run = cost(before, started, servers, consumer);
    consumer.follower.halt(source).await?;
    consumer.compare(source).await?;
    Ok(run)
}

/// CPU seconds of target and source so far, once both are quiet.
async fn cpu(servers: &Servers, consumer: &Consumer, source: &Client) -> Result<(f64, f64)> {
    source.batch_execute("CHECKPOINT").await?;
    consumer.follower.target.batch_execute("CHECKPOINT").await?;
    Ok(cpu_now(servers))
}

fn cpu_now(servers: &Servers) -> (f64, f64) {
    let of = |cluster: &Cluster| cluster.pid().map_or(0.0, measure::cpu_of_server);
    (of(&servers.target), of(&servers.source))
}

fn cost(before: (f64, f64), started: Instant, servers: &Servers, consumer: &Consumer) -> Run {
    let seconds = started.elapsed().as_secs_f64();
    let (target, source) = cpu_now(servers);
    Run {
        seconds,
        consumer_cpu: consumer.follower.pid().map_or(0.0, measure::cpu_of),
        target_cpu: target - before.0,
        source_cpu: source - before.1,
        peak_mb: consumer.follower.peak_mb(),
    }
}

/// How long it takes to read the load and throw it away, by who does so.
async fn discard(servers: &Servers, database: &str, end: Lsn) -> Result<Vec<(&'static str, f64)>> {
    let url = servers.source_url(database);
    let conninfo = Conninfo::parse(&url, &Environment::default())?;
    let paced = ceiling::paced(&conninfo, "ceiling", end, servers.tcp).await?;
    let mut discarded = vec![("ceiling", paced.as_secs_f64())];
    let program = servers.source.programs().path("pg_recvlogical");
    let eager = ceiling::recvlogical(&program, &url, "ceiling", end);
    discarded.extend(eager.map(|taken| ("recvlog.", taken.as_secs_f64())));
    Ok(discarded)
}
