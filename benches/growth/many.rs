//! 200 read models on one slot.

use std::fmt::Write as _;

use anyhow::Result;

use crate::support::follower::Kind;
use crate::support::{compare, labels};
use crate::{Bench, catch_up, first_copies, print};

/// Read models, and rows in each of their tables.
const TABLES: u64 = 200;
const ROWS: u64 = 100;

/// Changes at scale 1.
const CHANGES: u64 = 1_000_000;

/// Changes of a transaction; each transaction changes one table, the next one the next table.
const EACH: u64 = 10;

/// First copy of all, then a catch-up with changes all over them.
pub async fn read_models(bench: &Bench) -> Result<()> {
    println!(
        "\nread-models: {TABLES} tables of {ROWS} rows, {EACH} updates of one table a transaction"
    );
    let database = "read_models";
    let source = bench.source(database).await?;
    let (mut sources, mut plain, mut lookups, mut config) =
        (String::new(), String::new(), String::new(), String::new());
    for n in 1..=TABLES {
        write!(
            sources,
            "CREATE TABLE t{n} (id bigint PRIMARY KEY, code text NOT NULL UNIQUE, label text NOT NULL);
             INSERT INTO t{n} SELECT n, 'C' || n, 'label ' || n FROM generate_series(1, {ROWS}) n;"
        )?;
        write!(
            plain,
            "CREATE TABLE t{n} (id bigint PRIMARY KEY, code text NOT NULL UNIQUE, label text NOT NULL);"
        )?;
        write!(
            lookups,
            "CREATE TABLE t{n}_lookup (code text PRIMARY KEY, label text NOT NULL);"
        )?;
        write!(
            config,
            "[[read_model]]\nsource = \"public.t{n}\"\ntarget = \"public.t{n}_lookup\"\nkey = [\"code\"]\ncolumns = [\"code\", \"label\"]\n"
        )?;
    }
    source.batch_execute(&sources).await?;
    source.batch_execute("VACUUM ANALYZE").await?;
    let cdc = bench
        .follower("cdc_read_models", Kind::cdc(config), database)
        .await?;
    cdc.target.batch_execute(&lookups).await?;
    let mut followers = vec![cdc];
    if bench.with_native() {
        let native = bench
            .follower("native_read_models", Kind::Subscription, database)
            .await?;
        native.target.batch_execute(&plain).await?;
        source
            .batch_execute("CREATE PUBLICATION native_read_models FOR TABLES IN SCHEMA public")
            .await?;
        followers.push(native);
    }
    first_copies(&mut followers, &source, TABLES * ROWS).await?;
    let changes = bench.arguments.scaled(CHANGES, TABLES * EACH);
    let load = format!(
        "EXECUTE format('UPDATE t%s SET label = $1 WHERE id > $2 AND id <= $2 + {EACH}', t % {TABLES} + 1)
         USING 'new ' || t, t / {TABLES} * {EACH} % {ROWS}"
    );
    labels::commit(&source, &labels::loop_of(changes / EACH, &load)).await?;
    source
        .batch_execute(&format!("UPDATE t{TABLES} SET label = 'end' WHERE id = 1"))
        .await?;
    let mut runs = Vec::new();
    for (follower, suffix) in followers.iter_mut().zip(["_lookup", ""]) {
        let arrived = format!("SELECT count(*) > 0 FROM t{TABLES}{suffix} WHERE label = 'end'");
        runs.push(catch_up(follower, &source, &arrived).await?);
        for n in 1..=TABLES {
            let found = format!("t{n}{suffix}");
            compare(
                "code, label",
                (&source, &format!("t{n}")),
                (&follower.target, &found),
            )
            .await?;
        }
    }
    print(&followers, changes, &runs);
    bench.remove(followers, &source, database).await
}
