//! Peak resident memory of `cdc` while it takes what should not fit: `cargo bench --bench memory --
//! [--scale F] [--case NAME]...`
//!
//! Each case has a process of its own on two throw-away servers. At scale 1: 10 million new rows in
//! one transaction, then all of them changed in one; 1 million transactions of one row, committed
//! before the consumer starts; rows of 50 MB, by the first copy and by the stream. The result is
//! compared with the source by a hash.
#![allow(missing_docs, clippy::as_conversions, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use cdc::cluster::Cluster;
use support::arguments::Arguments;
use support::follower::{Follower, Kind};
use support::{connect, hash, server};
use tokio_postgres::Client;

/// The master table, and a lookup with the same columns.
const TABLE: &str =
    "CREATE TABLE docs (id bigint PRIMARY KEY, code text NOT NULL, body text, deleted_at timestamptz);
    CREATE UNIQUE INDEX ON docs (code) WHERE deleted_at IS NULL;
    ALTER TABLE docs ALTER body SET STORAGE external;";
const LOOKUP: &str = "CREATE TABLE docs_lookup (code text PRIMARY KEY, body text)";

const READ_MODEL: &str = "
[[read_model]]
source = \"public.docs\"
target = \"public.docs_lookup\"
key = [\"code\"]
columns = [\"code\", \"body\"]
soft_delete = \"deleted_at\"
";

/// Bytes of the large rows.
const LARGE: usize = 50_000_000;

struct Case {
    name: &'static str,
    /// Before the consumer starts, with the number of rows in place of `{n}`.
    before: &'static str,
    /// While it is away, after its first copy.
    away: &'static str,
    /// Once it runs.
    steps: &'static [&'static str],
    rows: f64,
}

const CASES: &[Case] = &[
    Case {
        name: "one-transaction",
        before: "",
        away: "",
        steps: &[
            "INSERT INTO docs SELECT n, 'C' || n, 'some text of a row' FROM generate_series(1, {n}) n",
            "UPDATE docs SET body = 'other text of a row'",
        ],
        rows: 10_000_000.0,
    },
    Case {
        name: "many-transactions",
        before: "",
        away: "DO $$ BEGIN FOR n IN 1..{n} LOOP INSERT INTO docs VALUES (n, 'C' || n, 'some text of a row'); COMMIT; END LOOP; END $$",
        steps: &[],
        rows: 1_000_000.0,
    },
    Case {
        name: "large-rows",
        before: "INSERT INTO docs SELECT n, 'C' || n, repeat(n::text, {large}) FROM generate_series(1, 4) n",
        away: "INSERT INTO docs SELECT n, 'C' || n, repeat(n::text, {large}) FROM generate_series(5, 8) n",
        steps: &[
            "UPDATE docs SET body = repeat('x', {large}) WHERE id = 1",
            "UPDATE docs SET code = 'D' || id",
            "UPDATE docs SET deleted_at = now() WHERE id < 3",
        ],
        rows: 1.0,
    },
];

fn main() -> Result<()> {
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    let arguments = Arguments::parse(1.0, &names, &[], &[])?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure_all(&arguments))
}

async fn measure_all(arguments: &Arguments) -> Result<()> {
    let (source, target) = (
        server("memory-source", false)?,
        server("memory-target", false)?,
    );
    println!(
        "PostgreSQL {}, scale {}",
        source.programs().major(),
        arguments.scale
    );
    for case in CASES {
        if arguments.wants(case.name) {
            run(&source, &target, case, arguments.scale).await?;
        }
    }
    Ok(())
}

async fn run(source: &Cluster, target: &Cluster, case: &Case, scale: f64) -> Result<()> {
    let database = case.name.replace('-', "_");
    source.create_database(&database)?;
    target.create_database(&database)?;
    let at_source = connect(&source.url(&database)).await?;
    let at_target = connect(&target.url(&database)).await?;
    let rows = (case.rows * scale).max(1.0) as u64;
    let sql = |text: &str| {
        text.replace("{n}", &rows.to_string())
            .replace("{large}", &LARGE.to_string())
    };
    at_source.batch_execute(TABLE).await?;
    at_target.batch_execute(LOOKUP).await?;
    at_source.batch_execute(&sql(case.before)).await?;
    println!("\n{} ({rows} rows)", case.name);
    let urls = (source.tcp_url(&database), target.tcp_url(&database));
    let directory = source.socket_dir().to_owned();
    let mut cdc = Follower::new(&database, Kind::cdc(READ_MODEL), urls, at_target, directory);
    cdc.begin().await?;
    cdc.wait_active(&at_source, true).await?;
    in_step(&at_source, &cdc.target).await?;
    println!("  {:<44} {:6.1} MB", "first copy", cdc.peak_mb());
    if !case.away.is_empty() {
        cdc.halt(&at_source).await?;
        at_source.batch_execute(&sql(case.away)).await?;
        let started = Instant::now();
        cdc.go_on().await?;
        in_step(&at_source, &cdc.target).await?;
        told("committed while it was away", &cdc, started);
    }
    for step in case.steps {
        let started = Instant::now();
        at_source.batch_execute(&sql(step)).await?;
        in_step(&at_source, &cdc.target).await?;
        told(step.split(" FROM ").next().unwrap_or(step), &cdc, started);
    }
    cdc.remove(&at_source).await
}

fn told(what: &str, cdc: &Follower, started: Instant) {
    let what: String = what.chars().take(44).collect();
    println!(
        "  {what:<44} {:6.1} MB {:6.1} s",
        cdc.peak_mb(),
        started.elapsed().as_secs_f64()
    );
}

/// Waits until the lookup is what the source has live.
async fn in_step(source: &Client, target: &Client) -> Result<()> {
    let columns = "code, body";
    let expected = hash(source, columns, "docs WHERE deleted_at IS NULL").await?;
    loop {
        if hash(target, columns, "docs_lookup").await? == expected {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
