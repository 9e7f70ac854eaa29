//! `cdc` against PostgreSQL's own subscriptions, on the same load, in the same run.
//!
//! `cargo bench --bench versus -- [--scale F] [--scenario NAME]... [--tcp|--unix]`
//!
//! Two throw-away servers with fsync on. In each scenario the slots of all consumers are made first, then the load is committed,
//! then one consumer after the other catches up with it, in an order that turns from scenario to scenario; the clock
//! runs from the moment at which the slot is read until the marker behind the load can be read at the target. Then
//! the result is compared with the source by a hash. Numbers of different runs, or machines, are not to be compared: ratios are.
//!
//! `native` is a subscription of the plain rows (it keeps no lookup: soft-deleted rows stay); `trigger` is one
//! with an ENABLE REPLICA trigger that keeps the same lookup as `cdc`. All of them with synchronous_commit off; `cdc (on)` is
//! the default of `cdc`. `ceiling` reads the stream in large pieces and throws it away.
#![allow(missing_docs, clippy::as_conversions, clippy::indexing_slicing)]

mod ceiling;
mod load;
mod measure;
mod subject;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cdc::cluster::{Cluster, Options};
use cdc::conninfo::{Conninfo, Environment};
use cdc::lsn::Lsn;
use load::{Kind, SCENARIOS, Scenario};
use subject::{Consumer, SUBJECTS, Servers, Subject, connect};
use tokio_postgres::Client;

/// Rate and distance of the commits whose latency is measured.
const COMMIT_EVERY: Duration = Duration::from_millis(5);

/// What one consumer needed.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    seconds: f64,
    consumer_cpu: f64,
    target_cpu: f64,
    source_cpu: f64,
    peak_mb: f64,
}

struct Arguments {
    scale: f64,
    scenarios: Vec<String>,
    tcp: bool,
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(compare(&arguments))
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments {
        scale: 1.0,
        scenarios: Vec::new(),
        tcp: true,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| anyhow::anyhow!("{word} needs a value"))
        };
        match word.as_str() {
            "--scale" => arguments.scale = value()?.parse()?,
            "--scenario" => arguments.scenarios.push(value()?),
            "--tcp" => arguments.tcp = true,
            "--unix" => arguments.tcp = false,
            // Cargo's own.
            "--bench" => {}
            _ => bail!("cannot understand {word}"),
        }
    }
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    if let Some(name) = arguments
        .scenarios
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        bail!("there is no scenario {name}; there are {}", names.join(", "));
    }
    Ok(arguments)
}

async fn compare(arguments: &Arguments) -> Result<()> {
    let cluster = |name: &str| {
        let settings = [
            ("shared_buffers", "256MB"),
            ("max_wal_size", "4GB"),
            ("checkpoint_timeout", "30min"),
            ("autovacuum_naptime", "10s"),
        ];
        Cluster::start(&Options {
            name: name.to_owned(),
            tcp: true,
            fsync: true,
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Options::default()
        })
    };
    let servers = Servers {
        source: cluster("versus-source")?,
        target: cluster("versus-target")?,
        tcp: arguments.tcp,
    };
    println!(
        "PostgreSQL {}, {}, scale {}",
        servers.source.programs().major(),
        if servers.tcp { "TCP" } else { "Unix sockets" },
        arguments.scale
    );
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let wanted =
            arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|name| name == scenario.name);
        if wanted {
            run_scenario(&servers, scenario, number, arguments.scale).await?;
        }
    }
    Ok(())
}

async fn run_scenario(servers: &Servers, scenario: &Scenario, number: usize, scale: f64) -> Result<()> {
    let changes = scenario.changes_at(scale);
    let database = format!("source_{number}");
    servers.source.create_database(&database)?;
    let source = connect(&servers.source.url(&database)).await?;
    source.batch_execute(load::SOURCE_TABLE).await?;
    source
        .batch_execute("CREATE PUBLICATION ceiling FOR TABLE labels")
        .await?;
    load::rows_before(&source, scenario.rows_before(changes)).await?;
    source.batch_execute("VACUUM ANALYZE labels").await?;
    println!("\n{} ({}; {changes} changes)", scenario.title, scenario.name);

    let mut subjects = SUBJECTS;
    subjects.rotate_left(number % SUBJECTS.len());
    let mut consumers = Vec::new();
    for subject in subjects {
        consumers.push(Consumer::new(servers, subject, number, &source).await?);
    }
    match scenario.kind {
        Kind::Latency => {
            for (consumer, round) in consumers.iter_mut().zip(0..) {
                consumer.begin().await?;
                consumer.wait_copied().await?;
                consumer.wait_active(&source, true).await?;
                println!(
                    "  {:<9} {}",
                    consumer.subject.name(),
                    latency(consumer, &source, changes, round * changes).await?
                );
                consumer.compare(&source).await?;
                consumer.halt(&source).await?;
            }
        }
        Kind::Copy => {
            let mut runs = Vec::new();
            for consumer in &mut consumers {
                let before = cpu(servers, consumer, &source).await?;
                let started = Instant::now();
                consumer.begin().await?;
                consumer.wait_copied().await?;
                runs.push((consumer.subject, cost(before, started, servers, consumer)));
                consumer.compare(&source).await?;
                consumer.wait_active(&source, true).await?;
                consumer.halt(&source).await?;
            }
            print(scenario, changes, &runs);
        }
        _ => {
            let end = prepare(&mut consumers, &source, scenario, changes).await?;
            let mut runs = Vec::new();
            for consumer in &mut consumers {
                runs.push((consumer.subject, catch_up(servers, consumer, &source).await?));
            }
            print(scenario, changes, &runs);
            print_ceiling(servers, &database, changes, end).await?;
            source
                .execute("SELECT pg_drop_replication_slot('ceiling')", &[])
                .await?;
        }
    }
    for consumer in consumers {
        consumer.remove(&source).await?;
    }
    Ok(())
}

/// Makes every slot, then commits the load; returns its end.
async fn prepare(
    consumers: &mut [Consumer<'_>],
    source: &Client,
    scenario: &Scenario,
    changes: u64,
) -> Result<Lsn> {
    for consumer in consumers.iter_mut() {
        consumer.begin().await?;
        consumer.wait_copied().await?;
        consumer.wait_active(source, true).await?;
        consumer.halt(source).await?;
        consumer.target.batch_execute("VACUUM ANALYZE").await?;
    }
    source
        .query(
            "SELECT pg_create_logical_replication_slot('ceiling', 'pgoutput')",
            &[],
        )
        .await?;
    load::commit_load(source, scenario.kind, changes).await?;
    let end: String = source
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await?
        .get(0);
    Ok(end.parse()?)
}

async fn catch_up(servers: &Servers, consumer: &mut Consumer<'_>, source: &Client) -> Result<Run> {
    let before = cpu(servers, consumer, source).await?;
    consumer.go_on().await?;
    consumer.wait_active(source, true).await?;
    let started = Instant::now();
    consumer.wait_for(load::MARKER).await?;
    let run = cost(before, started, servers, consumer);
    consumer.halt(source).await?;
    consumer.compare(source).await?;
    Ok(run)
}

/// CPU seconds of target and source so far, once both are quiet.
async fn cpu(servers: &Servers, consumer: &Consumer<'_>, source: &Client) -> Result<(f64, f64)> {
    source.batch_execute("CHECKPOINT").await?;
    consumer.target.batch_execute("CHECKPOINT").await?;
    Ok(cpu_now(servers))
}

fn cpu_now(servers: &Servers) -> (f64, f64) {
    let of = |cluster: &Cluster| cluster.pid().map_or(0.0, measure::cpu_of_server);
    (of(&servers.target), of(&servers.source))
}

fn cost(before: (f64, f64), started: Instant, servers: &Servers, consumer: &Consumer<'_>) -> Run {
    let seconds = started.elapsed().as_secs_f64();
    let (target, source) = cpu_now(servers);
    let own = consumer.pid();
    Run {
        seconds,
        consumer_cpu: own.map_or(0.0, measure::cpu_of),
        target_cpu: target - before.0,
        source_cpu: source - before.1,
        peak_mb: own.map_or(0.0, measure::peak_mb),
    }
}

fn print(scenario: &Scenario, changes: u64, runs: &[(Subject, Run)]) {
    let of = |subject| {
        runs.iter()
            .find(|(of, _)| *of == subject)
            .map(|(_, run)| run.seconds)
    };
    let native = of(Subject::Native).unwrap_or_default();
    println!(
        "  {:<9} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "", "k/s", "x native", "consumer", "target", "source", "peak MB"
    );
    for subject in SUBJECTS {
        let Some((_, run)) = runs.iter().find(|(of, _)| *of == subject) else {
            continue;
        };
        println!(
            "  {:<9} {:>7.1} {:>9.2} {:>7.2}s {:>7.2}s {:>7.2}s {:>8.1}",
            subject.name(),
            changes as f64 / run.seconds / 1000.0,
            native / run.seconds,
            run.consumer_cpu,
            run.target_cpu,
            run.source_cpu,
            run.peak_mb
        );
    }
    if let (Some((reference, goal)), Some(cdc)) = (scenario.reference, of(Subject::Cdc)) {
        let reached = native / cdc;
        let verdict = if reached >= goal { "reached" } else { "missed" };
        println!("  goal {goal} x native {verdict} (reference machine: native {reference} k/s)");
    }
}

async fn print_ceiling(servers: &Servers, database: &str, changes: u64, end: Lsn) -> Result<()> {
    let url = servers.source_url(database);
    let rate = |taken: Duration| changes as f64 / taken.as_secs_f64() / 1000.0;
    let conninfo = Conninfo::parse(&url, &Environment::default())?;
    let paced = ceiling::paced(&conninfo, "ceiling", end, servers.tcp).await?;
    println!("  {:<9} {:>7.1}", "ceiling", rate(paced));
    let program = servers.source.programs().path("pg_recvlogical");
    if let Some(taken) = ceiling::recvlogical(&program, &url, "ceiling", end) {
        println!("  {:<9} {:>7.1}", "recvlog.", rate(taken));
    }
    Ok(())
}

/// Time from the end of a COMMIT until its row can be read at the target; the commits are numbered from `first`.
async fn latency(consumer: &Consumer<'_>, source: &Client, commits: u64, first: u64) -> Result<String> {
    let update = source
        .prepare("UPDATE labels SET label = $1 WHERE id = row_id(1)")
        .await?;
    let read = format!("SELECT label FROM {} WHERE code = 'C1'", consumer.subject.table());
    let read = consumer.target.prepare(&read).await?;
    let start = Instant::now();
    let writer = async {
        let mut committed = Vec::new();
        let mut ticks = tokio::time::interval(COMMIT_EVERY);
        for number in 0..commits {
            ticks.tick().await;
            source.execute(&update, &[&(first + number).to_string()]).await?;
            committed.push(start.elapsed());
        }
        anyhow::Ok(committed)
    };
    let reader = async {
        let mut seen: Vec<Duration> = Vec::new();
        while (seen.len() as u64) < commits {
            let label: String = consumer.target.query_one(&read, &[]).await?.get(0);
            let now = start.elapsed();
            if let Some(number) = label
                .parse::<u64>()
                .ok()
                .and_then(|label| label.checked_sub(first))
            {
                seen.resize(seen.len().max(usize::try_from(number)? + 1), now);
            }
            if now > COMMIT_EVERY * u32::try_from(commits)? + Duration::from_secs(30) {
                bail!("the last commit does not arrive");
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        anyhow::Ok(seen)
    };
    let (committed, seen) = tokio::try_join!(writer, reader)?;
    let mut taken: Vec<f64> = committed
        .iter()
        .zip(&seen)
        .map(|(from, to)| to.saturating_sub(*from).as_secs_f64() * 1000.0)
        .collect();
    taken.sort_by(f64::total_cmp);
    let at = |part: usize| taken[(taken.len() - 1) * part / 100];
    Ok(format!(
        "p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        at(50),
        at(99),
        at(100)
    ))
}
