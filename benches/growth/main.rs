//! Whether the rate of `cdc` stays as it is when something grows, beside PostgreSQL's own
//! subscription on the same load.
//!
//! `cargo bench --bench growth -- [--scale F] [--scenario NAME]... [--without-native]`
//!
//! Two throw-away servers with fsync on, TCP, synchronous_commit off for both consumers. At scale 1
//! (the default is 0.02, a few minutes; 1 takes hours and some 60 GB of disk):
//!
//! - `catch-up`: catch-ups of 1, 10 and 50 million changes, each on a database of its own;
//! - `large-lookup`: 1 million updates over a lookup of 10 million rows;
//! - `read-models`: 200 read models on one slot: first copy, then 1 million changes all over them;
//! - `wide`: 200,000 updates in a table of 1,000 columns of which 3 are projected (a subscription
//!   takes all of them);
//! - `resync`: 1 million rows with 100 differences: comparing, repairing, and what native needs to
//!   copy the table again.
//!
//! Every result is compared with the source by a hash. Ratios of one run count, not its figures.
#![allow(missing_docs, clippy::as_conversions, clippy::indexing_slicing)]

mod catch_up;
mod many;
mod resync;
#[path = "../support/mod.rs"]
mod support;
mod wide;

use std::time::Instant;

use anyhow::Result;
use cdc::cluster::Cluster;
use support::arguments::Arguments;
use support::follower::{Follower, Kind};
use support::{connect, drop_database, rate, server};
use tokio_postgres::Client;

const SCENARIOS: [&str; 5] = ["catch-up", "large-lookup", "read-models", "wide", "resync"];

/// What all scenarios have at hand.
struct Bench {
    source: Cluster,
    target: Cluster,
    arguments: Arguments,
}

/// What one consumer needed.
#[derive(Debug, Clone, Copy)]
struct Run {
    seconds: f64,
    peak_mb: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(0.02, &SCENARIOS, &["--without-native"], &[])?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let bench = Bench {
        source: server("growth-source", true)?,
        target: server("growth-target", true)?,
        arguments,
    };
    println!(
        "PostgreSQL {}, TCP, scale {}",
        bench.source.programs().major(),
        bench.arguments.scale
    );
    if bench.arguments.wants("catch-up") {
        catch_up::lengths(&bench).await?;
    }
    if bench.arguments.wants("large-lookup") {
        catch_up::large_lookup(&bench).await?;
    }
    if bench.arguments.wants("read-models") {
        many::read_models(&bench).await?;
    }
    if bench.arguments.wants("wide") {
        wide::wide(&bench).await?;
    }
    if bench.arguments.wants("resync") {
        resync::resync(&bench).await?;
    }
    Ok(())
}

impl Bench {
    /// An empty database at the source.
    async fn source(&self, database: &str) -> Result<Client> {
        self.source.create_database(database)?;
        connect(&self.source.url(database)).await
    }

    /// A consumer with an empty target database, both of this name.
    async fn follower(&self, name: &str, kind: Kind, source: &str) -> Result<Follower> {
        self.target.create_database(name)?;
        let target = connect(&self.target.url(name)).await?;
        let urls = (self.source.tcp_url(source), self.target.tcp_url(name));
        let directory = self.source.socket_dir().to_owned();
        Ok(Follower::new(name, kind, urls, target, directory))
    }

    fn with_native(&self) -> bool {
        !self.arguments.flag("--without-native")
    }

    /// Frees what a scenario took.
    async fn remove(
        &self,
        mut followers: Vec<Follower>,
        source: &Client,
        database: &str,
    ) -> Result<()> {
        for follower in &mut followers {
            follower.remove(source).await?;
            drop_database(&self.target, &follower.name)?;
        }
        drop_database(&self.source, database)
    }
}

/// Makes the first copies, which are told, and halts the consumers.
async fn first_copies(followers: &mut [Follower], source: &Client, rows: u64) -> Result<()> {
    for follower in followers {
        let started = Instant::now();
        follower.begin().await?;
        follower.wait_copied().await?;
        let seconds = started.elapsed().as_secs_f64();
        if rows > 0 {
            println!(
                "  {:<8} first copy of {rows} rows {seconds:.2} s, {:.1} k/s{}",
                name_of(follower),
                rate(rows, seconds),
                peak(follower.peak_mb())
            );
        }
        follower.wait_active(source, true).await?;
        follower.halt(source).await?;
        follower.target.batch_execute("VACUUM ANALYZE").await?;
    }
    Ok(())
}

/// From the moment at which the slot is read until this query of the target tells true.
async fn catch_up(follower: &mut Follower, source: &Client, arrived: &str) -> Result<Run> {
    source.batch_execute("CHECKPOINT").await?;
    follower.target.batch_execute("CHECKPOINT").await?;
    follower.go_on().await?;
    follower.wait_active(source, true).await?;
    let started = Instant::now();
    follower.wait_until(arrived).await?;
    let run = Run {
        seconds: started.elapsed().as_secs_f64(),
        peak_mb: follower.peak_mb(),
    };
    follower.halt(source).await?;
    Ok(run)
}

/// A line for each consumer; the first one is `cdc`, the second, if there is one, native.
fn print(followers: &[Follower], changes: u64, runs: &[Run]) {
    for (follower, run) in followers.iter().zip(runs) {
        let ratio = match runs {
            [cdc, native] if run.seconds == cdc.seconds => {
                format!(", {:.2} x native", native.seconds / cdc.seconds)
            }
            _ => String::new(),
        };
        println!(
            "  {:<8} {changes} changes {:.2} s, {:.1} k/s{ratio}{}",
            name_of(follower),
            run.seconds,
            rate(changes, run.seconds),
            peak(run.peak_mb)
        );
    }
}

fn name_of(follower: &Follower) -> &str {
    follower.name.split('_').next().unwrap_or_default()
}

fn peak(mb: f64) -> String {
    if mb > 0.0 {
        format!(", peak {mb:.1} MB")
    } else {
        String::new()
    }
}
