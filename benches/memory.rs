//! Peak resident memory of `cdc` while it takes what should not fit: `cargo bench --bench memory -- [--scale F] [--case NAME]...`
//!
//! Each case has a process of its own on two throw-away servers. At scale 1: 10 million new rows in one transaction, then all of
//! them changed in one; 1 million transactions of one row, committed before the consumer starts; rows of 50 MB, by the
//! first copy and by the stream. The result is compared with the source by a hash.
#![allow(missing_docs, clippy::as_conversions, clippy::indexing_slicing)]

#[path = "versus/measure.rs"]
#[allow(dead_code)]
mod measure;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cdc::cluster::{Cluster, Options};
use tokio_postgres::{Client, NoTls};

/// The master table, and a lookup with the same columns.
const TABLE: &str =
    "CREATE TABLE docs (id bigint PRIMARY KEY, code text NOT NULL, body text, deleted_at timestamptz);
    CREATE UNIQUE INDEX ON docs (code) WHERE deleted_at IS NULL;
    ALTER TABLE docs ALTER body SET STORAGE external;";
const LOOKUP: &str = "CREATE TABLE docs_lookup (code text PRIMARY KEY, body text)";

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
    let mut scale = 1.0;
    let mut wanted = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--scale" => scale = words.next().unwrap_or_default().parse()?,
            "--case" => wanted.extend(words.next()),
            "--bench" => {}
            _ => bail!("cannot understand {word}"),
        }
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure_all(scale, &wanted))
}

async fn measure_all(scale: f64, wanted: &[String]) -> Result<()> {
    let cluster = |name: &str| {
        Cluster::start(&Options {
            name: name.to_owned(),
            tcp: true,
            settings: [
                ("shared_buffers", "256MB"),
                ("max_wal_size", "4GB"),
                ("synchronous_commit", "off"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            ..Options::default()
        })
    };
    let (source, target) = (cluster("memory-source")?, cluster("memory-target")?);
    println!("PostgreSQL {}, scale {scale}", source.programs().major());
    for case in CASES {
        if wanted.is_empty() || wanted.iter().any(|name| name == case.name) {
            run(&source, &target, case, scale).await?;
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
    let mut cdc = Consumer::start(&urls, &database)?;
    read_by(&at_source, &database, 1).await?;
    in_step(&at_source, &at_target).await?;
    println!("  {:<44} {:6.1} MB", "first copy", cdc.peak());
    if !case.away.is_empty() {
        cdc.stop()?;
        at_source.batch_execute(&sql(case.away)).await?;
        let started = Instant::now();
        cdc = Consumer::start(&urls, &database)?;
        in_step(&at_source, &at_target).await?;
        told("committed while it was away", &cdc, started);
    }
    for step in case.steps {
        let started = Instant::now();
        at_source.batch_execute(&sql(step)).await?;
        in_step(&at_source, &at_target).await?;
        told(step.split(" FROM ").next().unwrap_or(step), &cdc, started);
    }
    cdc.stop()?;
    read_by(&at_source, &database, 0).await?;
    at_source
        .execute("SELECT pg_drop_replication_slot($1::text)", &[&database])
        .await?;
    Ok(())
}

fn told(what: &str, cdc: &Consumer, started: Instant) {
    let what: String = what.chars().take(44).collect();
    println!(
        "  {what:<44} {:6.1} MB {:6.1} s",
        cdc.peak(),
        started.elapsed().as_secs_f64()
    );
}

/// Waits until so many sessions read the slot; one does once the first copy is done.
async fn read_by(source: &Client, slot: &str, readers: i64) -> Result<()> {
    let query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
    while source.query_one(query, &[&slot]).await?.get::<_, i64>(0) != readers {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until the lookup is what the source has live.
async fn in_step(source: &Client, target: &Client) -> Result<()> {
    let hash = |table: &str| {
        format!(
            "SELECT count(*), coalesce(sum(hashtextextended(concat_ws('|', code, body), 0)), 0)::text FROM {table}"
        )
    };
    let read = |row: tokio_postgres::Row| (row.get::<_, i64>(0), row.get::<_, String>(1));
    let live = hash("docs WHERE deleted_at IS NULL");
    let expected = read(source.query_one(&live, &[]).await?);
    loop {
        if read(target.query_one(&hash("docs_lookup"), &[]).await?) == expected {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A `cdc run` of its own.
struct Consumer(Child);

impl Consumer {
    fn start((source, target): &(String, String), slot: &str) -> Result<Self> {
        let config = std::env::temp_dir().join(format!("cdc-memory-{}-{slot}.toml", std::process::id()));
        std::fs::write(
            &config,
            format!(
                "[source]\nurl = \"{source}\"\nslot = \"{slot}\"\n[target]\nurl = \"{target}\"\n\
                 [[read_model]]\nsource = \"public.docs\"\ntarget = \"public.docs_lookup\"\nkey = [\"code\"]\n\
                 columns = [\"code\", \"body\"]\nsoft_delete = \"deleted_at\"\n"
            ),
        )?;
        let child = Command::new(env!("CARGO_BIN_EXE_cdc"))
            .arg("--config")
            .arg(&config)
            .arg("run")
            .env("CDC_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    fn peak(&self) -> f64 {
        measure::peak_mb(self.0.id())
    }

    fn stop(mut self) -> Result<()> {
        let pid = self.0.id().to_string();
        Command::new("/bin/sh")
            .args(["-c", "kill -s TERM \"$0\"", &pid])
            .status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
