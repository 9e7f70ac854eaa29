//! A source of 1,000 columns of which 3 are projected.

use anyhow::Result;

use crate::support::follower::Kind;
use crate::support::{compare, labels};
use crate::{Bench, catch_up, first_copies, print};

/// Columns besides id, code and label.
const OTHERS: usize = 997;

/// Rows and updates at scale 1.
const ROWS: u64 = 20_000;
const UPDATES: u64 = 200_000;

/// Updates of distinct rows, 100 a transaction.
pub async fn wide(bench: &Bench) -> Result<()> {
    let rows = bench.arguments.scaled(ROWS, 100);
    let updates = bench.arguments.scaled(UPDATES, 100);
    println!(
        "\nwide: {} columns, 3 projected, 100 updates a transaction",
        OTHERS + 3
    );
    let database = "wide";
    let source = bench.source(database).await?;
    let others: String = (1..=OTHERS)
        .map(|n| format!(", c{n} integer NOT NULL DEFAULT {n}"))
        .collect();
    let table = format!(
        "CREATE TABLE wide (id bigint PRIMARY KEY, code text NOT NULL UNIQUE, label text NOT NULL{others})"
    );
    source.batch_execute(&table).await?;
    source
        .batch_execute(&format!(
            "INSERT INTO wide (id, code, label) SELECT n, 'C' || n, 'label ' || n FROM generate_series(1, {rows}) n"
        ))
        .await?;
    source.batch_execute("VACUUM ANALYZE wide").await?;
    let read_model = "[[read_model]]\nsource = \"public.wide\"\ntarget = \"public.wide_lookup\"\nkey = [\"code\"]\n\
                      columns = [\"code\", \"label\", \"c997\"]\n";
    let cdc = bench
        .follower("cdc_wide", Kind::cdc(read_model), database)
        .await?;
    cdc.target
        .batch_execute(
            "CREATE TABLE wide_lookup (code text PRIMARY KEY, label text NOT NULL, c997 integer)",
        )
        .await?;
    let mut followers = vec![cdc];
    if bench.with_native() {
        let native = bench
            .follower("native_wide", Kind::Subscription, database)
            .await?;
        native.target.batch_execute(&table).await?;
        source
            .batch_execute("CREATE PUBLICATION native_wide FOR TABLE wide")
            .await?;
        followers.push(native);
    }
    first_copies(&mut followers, &source, rows).await?;
    let load = format!(
        "UPDATE wide SET label = 'new ' || t, c997 = t WHERE id IN
         (SELECT n * 7919 % {rows} + 1 FROM generate_series(t * 100 + 1, (t + 1) * 100) n)"
    );
    labels::commit(&source, &labels::loop_of(updates / 100, &load)).await?;
    source
        .batch_execute("UPDATE wide SET label = 'end' WHERE id = 1")
        .await?;
    let mut runs = Vec::new();
    for (follower, table) in followers.iter_mut().zip(["wide_lookup", "wide"]) {
        let arrived =
            format!("SELECT count(*) > 0 FROM {table} WHERE code = 'C1' AND label = 'end'");
        runs.push(catch_up(follower, &source, &arrived).await?);
        compare(
            "code, label, c997",
            (&source, "wide"),
            (&follower.target, table),
        )
        .await?;
    }
    print(&followers, updates, &runs);
    bench.remove(followers, &source, database).await
}
