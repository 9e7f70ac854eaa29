//! What the benchmarks with real servers share: servers, those who follow the stream, loads,
//! measures.
#![allow(
    dead_code,
    missing_docs,
    clippy::as_conversions,
    clippy::indexing_slicing
)]

pub mod arguments;
pub mod follower;
pub mod labels;
pub mod latency;
pub mod measure;
pub mod proxy;
pub mod secure;

use anyhow::{Result, bail};
use cdc::cluster::{Cluster, Options};
use tokio_postgres::{Client, NoTls};

/// A throw-away server on TCP and a Unix socket. Without `fsync` only memory is worth measuring.
pub fn server(name: &str, fsync: bool) -> Result<Cluster> {
    Ok(Cluster::start(&options(name, fsync, &[]))?)
}

/// What it is, with more settings.
fn options(name: &str, fsync: bool, more: &[(&str, &str)]) -> Options {
    let settings = [
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "30min"),
        ("autovacuum_naptime", "10s"),
    ];
    let settings = settings.iter().chain(more);
    Options {
        name: name.to_owned(),
        tcp: true,
        fsync,
        settings: settings
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Options::default()
    }
}

/// A session that lives as long as its client.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Whoever uses the client sees the error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Removes a database and whoever is still in it: a session with many temporary tables takes its
/// time to leave.
pub fn drop_database(server: &Cluster, name: &str) -> Result<()> {
    let sql = format!("DROP DATABASE {name} WITH (FORCE)");
    let mut tries = 0;
    while let Err(error) = server.execute("postgres", &sql) {
        tries += 1;
        if tries == 12 {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Number of rows, and a hash of these columns that knows no order. `rows` is a table, and a
/// condition if there is one.
pub async fn hash(client: &Client, columns: &str, rows: &str) -> Result<(i64, String)> {
    let query = format!(
        "SELECT count(*), coalesce(sum(hashtextextended(concat_ws('|', {columns}), 0)), 0)::text FROM {rows}"
    );
    let row = client.query_one(&query, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Fails unless the rows at the target are those at the source.
pub async fn compare(
    columns: &str,
    (source, at_source): (&Client, &str),
    (target, at_target): (&Client, &str),
) -> Result<()> {
    let expected = hash(source, columns, at_source).await?;
    let found = hash(target, columns, at_target).await?;
    if expected != found {
        bail!("{at_target}: expected (rows, hash) {expected:?}, found {found:?}");
    }
    Ok(())
}

/// Thousands a second.
pub fn rate(changes: u64, seconds: f64) -> f64 {
    changes as f64 / seconds / 1000.0
}
