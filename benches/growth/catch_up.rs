//! Long catch-ups, and a catch-up over a large lookup.

use anyhow::Result;
use tokio_postgres::Client;

use crate::support::follower::{Follower, Kind};
use crate::support::{compare, labels, rate};
use crate::{Bench, catch_up, first_copies, print};

/// Changes of the catch-ups at scale 1.
const LENGTHS: [u64; 3] = [1_000_000, 10_000_000, 50_000_000];

/// Rows that stand before and are updated by all lengths alike, at scale 1.
const ROWS: u64 = 500_000;

/// Rows of the large lookup, and updates over it, at scale 1.
const LARGE: u64 = 10_000_000;
const LARGE_UPDATES: u64 = 1_000_000;

/// Half of the changes are inserts, half are updates of rows that stood before; 100 changes a
/// transaction.
pub async fn lengths(bench: &Bench) -> Result<()> {
    println!("\ncatch-up: 50 inserts and 50 updates a transaction");
    let rows = bench.arguments.scaled(ROWS, 100);
    let mut rates = Vec::new();
    for (number, length) in LENGTHS.iter().enumerate() {
        let changes = bench.arguments.scaled(*length, 100);
        let database = format!("catch_up_{number}");
        let (source, mut followers) = followers(bench, &database, rows).await?;
        first_copies(&mut followers, &source, 0).await?;
        // 7919 is prime to the number of rows, which is a multiple of 100: all of them have their
        // turn.
        let load = format!(
            "INSERT INTO labels (id, code, label, display_name)
             SELECT row_id({rows} + n), 'C' || {rows} + n, 'label ' || n, 'display name ' || n
             FROM generate_series(t * 50 + 1, (t + 1) * 50) n;
             UPDATE labels SET label = 'new ' || t, updated_at = now() WHERE id IN
             (SELECT row_id(n::bigint * 7919 % {rows} + 1) FROM generate_series(t * 50 + 1, (t + 1) * 50) n)"
        );
        labels::commit(&source, &labels::loop_of(changes / 100, &load)).await?;
        labels::commit_marker(&source).await?;
        rates.push(finish(bench, (&source, &database), followers, changes).await?);
    }
    let (Some(first), Some(last)) = (rates.first(), rates.last()) else {
        return Ok(());
    };
    let ratios: Vec<String> = first
        .iter()
        .zip(last)
        .zip(["cdc", "native"])
        .map(|((first, last), name)| format!("{name} {:.2}", last / first))
        .collect();
    println!(
        "  rate of the longest / rate of the shortest: {}",
        ratios.join(", ")
    );
    Ok(())
}

/// Updates of distinct rows in no order, 100 a transaction.
pub async fn large_lookup(bench: &Bench) -> Result<()> {
    let rows = bench.arguments.scaled(LARGE, 100);
    let updates = bench.arguments.scaled(LARGE_UPDATES, 100);
    println!("\nlarge-lookup: {rows} rows, 100 updates a transaction");
    let database = "large_lookup";
    let (source, mut followers) = followers(bench, database, rows).await?;
    first_copies(&mut followers, &source, rows).await?;
    let load = format!(
        "UPDATE labels SET label = 'new ' || t, updated_at = now() WHERE id IN
         (SELECT row_id(n::bigint * 7919 % {rows} + 1) FROM generate_series(t * 100 + 1, (t + 1) * 100) n)"
    );
    labels::commit(&source, &labels::loop_of(updates / 100, &load)).await?;
    labels::commit_marker(&source).await?;
    finish(bench, (&source, database), followers, updates).await?;
    Ok(())
}

/// The source with so many rows, and the consumers: `cdc`, and native if it takes part.
pub async fn followers(
    bench: &Bench,
    database: &str,
    rows: u64,
) -> Result<(Client, Vec<Follower>)> {
    let source = bench.source(database).await?;
    source.batch_execute(labels::SOURCE_TABLE).await?;
    labels::rows_before(&source, rows).await?;
    source.batch_execute("VACUUM ANALYZE labels").await?;
    let cdc = bench
        .follower(
            &format!("cdc_{database}"),
            Kind::cdc(labels::READ_MODEL),
            database,
        )
        .await?;
    cdc.target.batch_execute(labels::LOOKUP).await?;
    let mut followers = vec![cdc];
    if bench.with_native() {
        let name = format!("native_{database}");
        let native = bench.follower(&name, Kind::Subscription, database).await?;
        native.target.batch_execute(labels::PLAIN).await?;
        source
            .batch_execute(&format!(
                "CREATE PUBLICATION {name} FOR TABLE labels ({})",
                labels::PLAIN_COLUMNS
            ))
            .await?;
        followers.push(native);
    }
    Ok((source, followers))
}

/// Lets one after the other catch up, compares, and removes everything. Returns their rates.
async fn finish(
    bench: &Bench,
    (source, database): (&Client, &str),
    mut followers: Vec<Follower>,
    changes: u64,
) -> Result<Vec<f64>> {
    let mut runs = Vec::new();
    for (follower, table) in followers.iter_mut().zip(["labels_lookup", "labels"]) {
        runs.push(catch_up(follower, source, &labels::marker_is_in(table)).await?);
        compare(
            labels::COMPARED,
            (source, "labels"),
            (&follower.target, table),
        )
        .await?;
    }
    print(&followers, changes, &runs);
    bench.remove(followers, source, database).await?;
    Ok(runs.iter().map(|run| rate(changes, run.seconds)).collect())
}
