//! How long it takes to find and repair 100 differences in a large lookup, beside a new copy by
//! native replication.

use std::time::Instant;

use anyhow::{Result, bail};
use tokio_postgres::Client;

use crate::catch_up::followers;
use crate::support::{compare, labels};
use crate::{Bench, name_of};

/// Rows at scale 1.
const ROWS: u64 = 1_000_000;

/// What somebody does to the lookup: 40 rows changed, 30 gone, 30 that nobody knows.
const DAMAGE: &str = "
UPDATE labels_lookup SET label = 'damaged' WHERE code IN (SELECT 'C' || n FROM generate_series(1, 40) n);
DELETE FROM labels_lookup WHERE code IN (SELECT 'C' || n FROM generate_series(41, 70) n);
INSERT INTO labels_lookup SELECT 'X' || n, 'nobody', 'nobody' FROM generate_series(1, 30) n;";

/// With `cdc run` following all the time.
pub async fn resync(bench: &Bench) -> Result<()> {
    let rows = bench.arguments.scaled(ROWS, 100);
    println!("\nresync: {rows} rows, 100 differences");
    let database = "resync";
    let (source, mut followers) = followers(bench, database, rows).await?;
    let cdc = &mut followers[0];
    cdc.begin().await?;
    cdc.wait_copied().await?;
    cdc.wait_active(&source, true).await?;
    cdc.target.batch_execute("VACUUM ANALYZE").await?;
    cdc.target.batch_execute(DAMAGE).await?;
    let mut seconds = Vec::new();
    // The comparison changes nothing, and ends with 1: there are differences.
    for (what, arguments, code) in [
        ("resync --dry-run", &["resync", "--dry-run"][..], 1),
        ("resync", &["resync"][..], 0),
    ] {
        cdc.target.batch_execute("CHECKPOINT").await?;
        let before = wal(&cdc.target).await?;
        let started = Instant::now();
        let output = cdc.command(arguments).await?;
        seconds.push(started.elapsed().as_secs_f64());
        if output.status.code() != Some(code) {
            bail!("cdc {what}: {output:?}");
        }
        told(
            &format!("cdc {what}"),
            started,
            wal(&cdc.target).await? - before,
            cdc.peak_mb(),
        );
    }
    compare(
        labels::COMPARED,
        (&source, "labels"),
        (&cdc.target, "labels_lookup"),
    )
    .await?;
    for native in followers.iter_mut().skip(1) {
        native.begin().await?;
        native.wait_copied().await?;
        native.remove(&source).await?;
        native
            .target
            .batch_execute("TRUNCATE labels; CHECKPOINT")
            .await?;
        let before = wal(&native.target).await?;
        let started = Instant::now();
        native.begin().await?;
        native.wait_copied().await?;
        let again = started.elapsed().as_secs_f64();
        let written = wal(&native.target).await? - before;
        told(
            &format!("{} copy again", name_of(native)),
            started,
            written,
            0.0,
        );
        compare(
            labels::COMPARED,
            (&source, "labels"),
            (&native.target, "labels"),
        )
        .await?;
        println!(
            "  resync / copy again {:.2} (goal 1.2), dry run / copy again {:.2}",
            seconds[1] / again,
            seconds[0] / again
        );
    }
    bench.remove(followers, &source, database).await
}

/// Bytes of WAL that the server has written so far.
async fn wal(client: &Client) -> Result<i64> {
    let query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    Ok(client.query_one(query, &[]).await?.get(0))
}

fn told(what: &str, started: Instant, wal: i64, peak: f64) {
    println!(
        "  {what:<20} {:.2} s, {:.2} MB of WAL at the target{}",
        started.elapsed().as_secs_f64(),
        wal as f64 / 1e6,
        crate::peak(peak)
    );
}
