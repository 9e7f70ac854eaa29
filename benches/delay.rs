//! What a long way costs: `cdc` with source and target near, and with a round trip of some
//! milliseconds to both.
//!
//! `cargo bench --bench delay -- [--delay-ms F] [--scale F] [--scenario NAME]...`
//!
//! The scenario `tls` is about another way: what TLS to the target costs. It takes transactions of
//! some sizes one at a time, over TLS and without it.
//!
//! Two throw-away servers with fsync on, TCP. Beside the run without a proxy there is one through a
//! proxy that delays nothing: what the proxy itself costs on this machine is not the way's. The
//! delay is 5 ms if nothing else is said. Each result is compared with the source by a hash. Scale
//! 1 is 500,000 changes a scenario; the default is 0.2.
#![allow(missing_docs, clippy::as_conversions, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use cdc::cluster::Cluster;
use support::arguments::Arguments;
use support::follower::{Follower, Kind};
use support::labels;
use support::proxy::Proxy;
use support::{compare, connect, latency, rate, secure, server};
use tokio_postgres::Client;

const LOADS: [(&str, labels::Kind, u64); 4] = [
    ("inserts-1", labels::Kind::Inserts(1), 500_000),
    ("inserts-100", labels::Kind::Inserts(100), 500_000),
    ("updates-100", labels::Kind::Updates(100), 500_000),
    ("one-tx", labels::Kind::Inserts(0), 500_000),
];

/// Commits whose latency is measured.
const COMMITS: u64 = 600;

/// Rows of a transaction over TLS: written by one statement, the most that are, and staged.
const TLS_ROWS: [u64; 3] = [1, 400, 5000];

/// Transactions of each size, and how many are measured before it is the other way's turn.
const TLS_ROUNDS: u64 = 200;
const TLS_TURN: u64 = 20;

/// How `cdc` reaches the servers.
struct Way {
    name: String,
    proxies: Option<(Proxy, Proxy)>,
    round_trip: Duration,
}

struct Servers {
    source: Cluster,
    target: Cluster,
    ways: Vec<Way>,
}

fn main() -> Result<()> {
    let mut names: Vec<&str> = LOADS.iter().map(|(name, ..)| *name).collect();
    names.extend(["latency", "tls"]);
    let arguments = Arguments::parse(0.2, &names, &[], &["--delay-ms"])?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let delay = arguments.number("--delay-ms").unwrap_or(5.0);
    let (source, target) = (server("delay-source", true)?, server("delay-target", true)?);
    let mut ways = vec![Way {
        name: "local".to_owned(),
        proxies: None,
        round_trip: Duration::ZERO,
    }];
    for ms in [0.0, delay] {
        let round_trip = Duration::from_secs_f64(ms / 1000.0);
        ways.push(Way {
            name: format!("proxy {ms} ms"),
            proxies: Some((
                Proxy::start(source.port(), round_trip)?,
                Proxy::start(target.port(), round_trip)?,
            )),
            round_trip,
        });
    }
    println!(
        "PostgreSQL {}, TCP, {delay} ms of round trip to source and target, scale {}",
        source.programs().major(),
        arguments.scale
    );
    let servers = Servers {
        source,
        target,
        ways,
    };
    for (name, kind, changes) in LOADS {
        if arguments.wants(name) {
            throughput(&servers, name, kind, arguments.scaled(changes, 100)).await?;
        }
    }
    if arguments.wants("latency") {
        latencies(&servers).await?;
    }
    if arguments.wants("tls") {
        tls(&servers.source).await?;
    }
    Ok(())
}

async fn throughput(servers: &Servers, name: &str, kind: labels::Kind, changes: u64) -> Result<()> {
    println!("\n{name} ({changes} changes)");
    let database = name.replace('-', "_");
    let source = master(&servers.source, &database, kind.rows_before(changes)).await?;
    let mut followers = Vec::new();
    for (number, way) in servers.ways.iter().enumerate() {
        let mut cdc = follower(servers, way, &database, number).await?;
        cdc.begin().await?;
        cdc.wait_copied().await?;
        cdc.wait_active(&source, true).await?;
        cdc.halt(&source).await?;
        cdc.target.batch_execute("VACUUM ANALYZE").await?;
        followers.push(cdc);
    }
    labels::commit_load(&source, kind, changes).await?;
    let mut local = 0.0;
    for (cdc, way) in followers.iter_mut().zip(&servers.ways) {
        source.batch_execute("CHECKPOINT").await?;
        cdc.target.batch_execute("CHECKPOINT").await?;
        cdc.go_on().await?;
        cdc.wait_active(&source, true).await?;
        let started = Instant::now();
        cdc.wait_until(&labels::marker_is_in("labels_lookup"))
            .await?;
        let seconds = started.elapsed().as_secs_f64();
        let found = (&cdc.target, "labels_lookup");
        let peak = cdc.peak_mb();
        compare(labels::COMPARED, (&source, "labels"), found).await?;
        cdc.remove(&source).await?;
        if way.proxies.is_none() {
            local = seconds;
        }
        println!(
            "  {:<12} {:>7.1} k/s, {:.2} x local, peak {peak:.1} MB",
            way.name,
            rate(changes, seconds),
            local / seconds
        );
    }
    Ok(())
}

async fn latencies(servers: &Servers) -> Result<()> {
    println!("\nlatency at 200 commits/s ({COMMITS} commits)");
    let source = master(&servers.source, "latency", 1).await?;
    for (number, way) in servers.ways.iter().enumerate() {
        let mut cdc = follower(servers, way, "latency", number).await?;
        cdc.begin().await?;
        cdc.wait_copied().await?;
        cdc.wait_active(&source, true).await?;
        let first = number as u64 * COMMITS;
        let taken =
            latency::measure(&source, (&cdc.target, "labels_lookup"), COMMITS, first).await?;
        compare(
            labels::COMPARED,
            (&source, "labels"),
            (&cdc.target, "labels_lookup"),
        )
        .await?;
        cdc.remove(&source).await?;
        let round_trips = if way.round_trip.is_zero() {
            String::new()
        } else {
            let of = |ms: f64| ms / 1000.0 / way.round_trip.as_secs_f64();
            format!(
                " (p50 {:.1}, p99 {:.1} round trips)",
                of(taken.p50),
                of(taken.p99)
            )
        };
        println!("  {:<12} {taken}{round_trips}", way.name);
    }
    Ok(())
}

async fn tls(source: &Cluster) -> Result<()> {
    println!("\ntls: from a COMMIT until it can be read, p50 of {TLS_ROUNDS}");
    let (target, with_tls) = secure::server("delay-tls", source.socket_dir())?;
    let mut ways = Vec::new();
    for (database, how) in [("plain", "sslmode=disable"), ("tls", &with_tls)] {
        let most = TLS_ROWS.into_iter().max().unwrap_or_default();
        let master = master(source, database, most).await?;
        target.create_database(database)?;
        let lookup = connect(&target.url(database)).await?;
        lookup.batch_execute(labels::LOOKUP).await?;
        let url = format!("{}?{how}", target.tcp_url(database));
        let urls = (source.tcp_url(database), url);
        let directory = source.socket_dir().to_owned();
        let kind = Kind::cdc(labels::READ_MODEL);
        let mut cdc = Follower::new(database, kind, urls, lookup, directory);
        cdc.begin().await?;
        cdc.wait_copied().await?;
        cdc.wait_active(&master, true).await?;
        ways.push((master, cdc));
    }
    for rows in TLS_ROWS {
        let mut taken = [Vec::new(), Vec::new()];
        for turn in 0..TLS_ROUNDS / TLS_TURN {
            for ((master, cdc), taken) in ways.iter().zip(&mut taken) {
                let rounds = turn * TLS_TURN..(turn + 1) * TLS_TURN;
                let lookup = (&cdc.target, "labels_lookup");
                taken.extend(latency::one_by_one(master, lookup, rows, rounds).await?);
            }
        }
        let [plain, tls] = taken.map(latency::median);
        println!(
            "  {rows:>5} rows  plain {plain:>6.2} ms, TLS {tls:>6.2} ms, {:.2} x",
            tls / plain
        );
    }
    for (master, cdc) in &mut ways {
        let found = (&cdc.target, "labels_lookup");
        compare(labels::COMPARED, (master, "labels"), found).await?;
        cdc.remove(master).await?;
    }
    Ok(())
}

/// The master table in a database of its own.
async fn master(server: &Cluster, database: &str, rows: u64) -> Result<Client> {
    server.create_database(database)?;
    let source = connect(&server.url(database)).await?;
    source.batch_execute(labels::SOURCE_TABLE).await?;
    labels::rows_before(&source, rows).await?;
    source.batch_execute("VACUUM ANALYZE labels").await?;
    Ok(source)
}

/// A `cdc` that goes this way, with a target database of its own.
async fn follower(servers: &Servers, way: &Way, database: &str, number: usize) -> Result<Follower> {
    let name = format!("{database}_{number}");
    servers.target.create_database(&name)?;
    let target = connect(&servers.target.url(&name)).await?;
    target.batch_execute(labels::LOOKUP).await?;
    let urls = match &way.proxies {
        None => (
            servers.source.tcp_url(database),
            servers.target.tcp_url(&name),
        ),
        Some((source, target)) => (source.url(database), target.url(&name)),
    };
    let directory = servers.source.socket_dir().to_owned();
    Ok(Follower::new(
        &name,
        Kind::cdc(labels::READ_MODEL),
        urls,
        target,
        directory,
    ))
}
