//! What `cdc run` says when something must be changed by a person: what, why, what to do, and exit
//! code 2; or a retry that says so for what may heal by itself. Never a panic, never a password.

use std::time::{Duration, Instant};

use crate::support::{
    self, Cdc, Pair, Side, Signal, labels_pair, labels_pair_on, target, wait_in_step, wait_until,
};
use cdc::cluster::{Cluster, Options};

/// Runs to the end, which must come with exit code 2 and these texts in the output.
async fn refused(case: &str, pair: &Pair, texts: &[&str]) {
    let mut cdc = Cdc::run(pair);
    let started = Instant::now();
    let status = loop {
        if !cdc.is_running() {
            break Some(cdc.wait().await);
        }
        if started.elapsed() > Duration::from_secs(15) {
            break None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let log = cdc.log();
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(2),
        "{case}: {log}"
    );
    assert_said(case, &log, texts);
    // What to do: a hint, or what is allowed in place of what was found.
    assert!(
        ["hint: ", "expected", "must be one of"]
            .iter()
            .any(|text| log.contains(text)),
        "{case}: no hint: {log}"
    );
}

/// Goes on trying, with these texts in the log.
async fn retried(case: &str, pair: &Pair, texts: &[&str]) -> Cdc {
    let mut cdc = Cdc::run(pair);
    wait_until(case, async || {
        let log = cdc.log();
        if log.contains("trying again") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert!(cdc.is_running(), "{case}: {}", cdc.log());
    assert_said(case, &cdc.log(), texts);
    cdc
}

fn assert_said(case: &str, log: &str, texts: &[&str]) {
    for text in texts {
        assert!(log.contains(text), "{case}: {text:?} is not in {log}");
    }
    for bad in ["panicked", "RUST_BACKTRACE", "geheim"] {
        assert!(!log.contains(bad), "{case}: {bad:?} is in {log}");
    }
}

fn with(pair: &Pair, change: impl FnOnce(&mut Pair)) -> Pair {
    let mut pair = pair.clone();
    change(&mut pair);
    pair
}

/// The built-in read model with another setting.
fn read_model(from: &str, to: &str) -> String {
    let text = "[[read_model]]\nsource = \"public.labels\"\ntarget = \"public.labels_lookup\"\nkey = [\"code\"]\n\
        columns = [\"code\", \"label\", \"display_name\"]\nsoft_delete = \"deleted_at\"\nsynced_at = \"updated_at\"\n";
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

#[tokio::test]
async fn wrong_connection_strings() {
    let (pair, ..) = labels_pair().await;
    let source = |url: &str| with(&pair, |pair| pair.source_url = url.to_owned());
    let target = |url: &str| with(&pair, |pair| pair.target_url = url.to_owned());
    for (case, pair, texts) in [
        ("nonsense", source("nonsense"), &["CDC_SOURCE_URL"][..]),
        (
            "another program's",
            target("mysql://root:geheim@h/d"),
            &["CDC_TARGET_URL"],
        ),
        (
            "misspelled option",
            source("postgresql://h/d?sslmod=require"),
            &["sslmod", "sslmode"],
        ),
        (
            "bad value",
            source("postgresql://u:geheim@h/d?sslmode=sometimes"),
            &["sslmode", "verify-full"],
        ),
        (
            "bad port",
            target("postgresql://h:99999/d"),
            &["port", "65535"],
        ),
        (
            "missing certificate",
            source("postgresql://h/d?sslmode=verify-ca&sslrootcert=/nonexistent/ca"),
            &["/nonexistent/ca"],
        ),
    ] {
        refused(case, &pair, texts).await;
    }
    let database = with(&pair, |pair| {
        pair.source_url = support::source().url("no_such_db")
    });
    let role = with(&pair, |pair| {
        pair.target_url = pair.target_url.replace("postgres@", "no_such_role@")
    });
    refused("no such database", &database, &["no_such_db", "source"]).await;
    refused("no such role", &role, &["no_such_role", "target"]).await;
    let host = source("postgresql://127.0.0.1:1/d?connect_timeout=2");
    retried("nobody listens", &host, &["source", "127.0.0.1:1"]).await;
}

#[tokio::test]
async fn wrong_settings() {
    let (pair, ..) = labels_pair().await;
    let config = |more: &str| with(&pair, |pair| pair.config += more);
    let slot = with(&pair, |pair| {
        pair.config = "[source]\nslot = \"Bad-Slot\"\n".to_owned()
    });
    for (case, pair, texts) in [
        (
            "unknown key",
            config("publicaton = \"x\"\n"),
            &["publicaton", "publication"][..],
        ),
        ("no TOML", config("[target\n"), &["toml"]),
        ("slot name", slot, &["Bad-Slot", "source.slot"]),
        (
            "key is no column",
            config(&read_model("key = [\"code\"]", "key = [\"kode\"]")),
            &["kode", "columns"],
        ),
        (
            "no columns",
            config(&read_model("[\"code\", \"label\", \"display_name\"]", "[]")),
            &["columns"],
        ),
        (
            "schedule",
            config("[resync]\nschedule = \"every day\"\n"),
            &["every day", "schedule"],
        ),
        (
            "time zone",
            config("[resync]\ntimezone = \"Mars\"\n"),
            &["Mars", "timezone"],
        ),
        (
            "two for one lookup",
            config(
                &(read_model("public.labels\"", "public.labels\"") + &read_model("code", "code")),
            ),
            &["labels_lookup"],
        ),
    ] {
        refused(case, &pair, texts).await;
    }
}

#[tokio::test]
async fn read_models_that_never_fitted() {
    let (pair, source, target) = labels_pair().await;
    let model = |from: &str, to: &str| with(&pair, |pair| pair.config += &read_model(from, to));
    source
        .batch_execute(
            "CREATE VIEW v AS SELECT * FROM labels;
             CREATE TABLE no_key (code text, label text, display_name text, deleted_at timestamptz);
             CREATE UNLOGGED TABLE fast (LIKE labels INCLUDING ALL);
             CREATE TABLE parent (LIKE labels INCLUDING ALL); CREATE TABLE child () INHERITS (parent);",
        )
        .await
        .unwrap();
    target
        .batch_execute(
            "CREATE TABLE no_index (code varchar(10), label text, display_name text, updated_at timestamptz);
             CREATE TABLE partial (LIKE no_index); CREATE UNIQUE INDEX ON partial (code) WHERE code <> '';
             CREATE TABLE deferred (LIKE no_index, UNIQUE (code) DEFERRABLE);
             CREATE UNLOGGED TABLE unlogged (LIKE no_index, UNIQUE (code));
             CREATE TABLE narrow (code text PRIMARY KEY, label text);
             CREATE VIEW view AS SELECT * FROM labels_lookup;",
        )
        .await
        .unwrap();
    let (table, lookup) = ("public.labels\"", "public.labels_lookup");
    for (case, pair, texts) in [
        (
            "no such table",
            model(table, "public.labls\""),
            &["table \"public.labls\" does not exist"][..],
        ),
        (
            "no such schema",
            model(table, "publik.labels\""),
            &["\"publik.labels\" does not exist"],
        ),
        (
            "no such column",
            model("\"display_name\"]", "\"displayname\"]"),
            &["column \"displayname\"", "public.labels"],
        ),
        (
            "no soft delete",
            model("deleted_at", "removed_at"),
            &["column \"removed_at\"", "public.labels"],
        ),
        (
            "view",
            model(table, "public.v\""),
            &["public.v", "it is a view"],
        ),
        (
            "no identity",
            model(table, "public.no_key\""),
            &["public.no_key", "primary key"],
        ),
        (
            "unlogged source",
            model(table, "public.fast\""),
            &["public.fast", "unlogged"],
        ),
        (
            "inheritance",
            model(table, "public.parent\""),
            &["public.parent", "inherit"],
        ),
        (
            "lookup without index",
            model(lookup, "public.no_index"),
            &["public.no_index", "unique index", "CREATE UNIQUE INDEX"],
        ),
        (
            "partial index",
            model(lookup, "public.partial"),
            &["public.partial", "unique index"],
        ),
        (
            "deferrable index",
            model(lookup, "public.deferred"),
            &["public.deferred", "unique index"],
        ),
        (
            "unlogged lookup",
            model(lookup, "public.unlogged"),
            &["public.unlogged", "it is unlogged", "SET LOGGED"],
        ),
        (
            "narrow lookup",
            model(lookup, "public.narrow"),
            &["public.narrow", "column \"display_name\""],
        ),
        (
            "lookup is a view",
            model(lookup, "public.view"),
            &["public.view", "it is not a table"],
        ),
        (
            "synced_at",
            model("updated_at", "synced"),
            &["column \"synced\"", "public.labels_lookup"],
        ),
    ] {
        refused(case, &pair, texts).await;
    }
    // Nothing of it is left at the source: no slot that would hold its WAL.
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    assert_eq!(support::value(&source, &slots).await, "0");
    // After all that, the right configuration works.
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
}

#[tokio::test]
async fn privileges_that_are_missing() {
    let (pair, source, target) = labels_pair().await;
    for side in [&source, &target] {
        let role = format!("plain_{}", pair.slot);
        side.batch_execute(&format!("CREATE ROLE {role} LOGIN"))
            .await
            .unwrap();
    }
    let role = format!("plain_{}", pair.slot);
    let as_role = |url: &str| url.replace("postgres@", &format!("{role}@"));
    let poor_source = with(&pair, |pair| pair.source_url = as_role(&pair.source_url));
    refused(
        "no REPLICATION",
        &poor_source,
        &["may not replicate", "REPLICATION"],
    )
    .await;
    source
        .batch_execute(&format!("ALTER ROLE {role} REPLICATION"))
        .await
        .unwrap();
    refused(
        "no SELECT",
        &poor_source,
        &["public.labels", "permission denied", "GRANT SELECT"],
    )
    .await;
    source
        .batch_execute(&format!("GRANT SELECT ON labels TO {role}"))
        .await
        .unwrap();
    refused(
        "no publication",
        &poor_source,
        &["publication", "CREATE PUBLICATION"],
    )
    .await;
    let poor_target = with(&pair, |pair| pair.target_url = as_role(&pair.target_url));
    refused(
        "bookkeeping of another role",
        &poor_target,
        &["schema", "cdc", "permission denied"],
    )
    .await;
    let fresh = with(&poor_target, |pair| {
        pair.config += "[target]\nschema = \"fresh\"\n";
    });
    refused(
        "no CREATE",
        &fresh,
        &[
            "create schema",
            "fresh",
            "permission denied",
            "GRANT CREATE",
        ],
    )
    .await;
    let database = &pair.target_database;
    target
        .batch_execute(&format!(
            "GRANT CREATE, TEMPORARY ON DATABASE {database} TO {role}"
        ))
        .await
        .unwrap();
    refused(
        "no rights on the lookup",
        &fresh,
        &["public.labels_lookup", "permission denied", "GRANT"],
    )
    .await;
}

#[tokio::test]
async fn what_belongs_to_somebody_else() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let other_slot = with(&pair, |pair| {
        pair.config = format!("[source]\nslot = \"other_{}\"\n", pair.slot)
    });
    refused(
        "another slot",
        &other_slot,
        &["another slot", "target.schema"],
    )
    .await;
    let other_schema = with(&other_slot, |pair| {
        pair.config += "[target]\nschema = \"other\"\n"
    });
    refused(
        "lookup of another pipeline",
        &other_schema,
        &["public.labels_lookup", "another pipeline", "\"cdc\""],
    )
    .await;
    cdc.stop(Signal::Term).await;
    let foreign = format!("foreign_{}", pair.slot);
    source
        .batch_execute(&format!(
            "SELECT pg_create_logical_replication_slot('{foreign}', 'test_decoding')"
        ))
        .await
        .unwrap();
    let foreign_slot = with(&pair, |pair| {
        pair.config = format!("[source]\nslot = \"{foreign}\"\n[target]\nschema = \"third\"\n")
    });
    target
        .batch_execute("DROP SCHEMA cdc CASCADE")
        .await
        .unwrap();
    refused(
        "slot of another plugin",
        &foreign_slot,
        &[&foreign, "test_decoding"],
    )
    .await;
    // A newer cdc was here.
    target
        .batch_execute("CREATE SCHEMA newer; CREATE TABLE newer.version (version int); INSERT INTO newer.version VALUES (99)")
        .await
        .unwrap();
    let newer = with(&pair, |pair| {
        pair.config += "[target]\nschema = \"newer\"\n"
    });
    refused("newer bookkeeping", &newer, &["version 99"]).await;
}

#[tokio::test]
async fn servers_that_are_not_set_up() {
    let start = |name: &str, settings: &[(&str, &str)], password: Option<&str>| {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Cluster::start(&Options {
            name: name.to_owned(),
            pg_bin: Side::Source.programs(),
            tcp: true,
            password: password.map(str::to_owned),
            settings: settings.collect(),
            ..Options::default()
        })
        .unwrap()
    };
    let (full, replica) = std::thread::scope(|scope| {
        let replica = scope.spawn(|| start("replica", &[("wal_level", "replica")], Some("right")));
        (
            start("full", &[("max_replication_slots", "1")], None),
            replica.join().unwrap(),
        )
    });
    let (pair, ..) = labels_pair_on(&replica, target()).await;
    refused(
        "wal_level",
        &pair,
        &["wal_level", "\"replica\"", "ALTER SYSTEM"],
    )
    .await;
    let tcp = |password: &str| {
        with(&pair, |pair| {
            pair.source_url = replica
                .tcp_url(&pair.source_database)
                .replace("right", password)
        })
    };
    refused(
        "wrong password",
        &tcp("geheim"),
        &["password authentication failed", "source"],
    )
    .await;
    let none = with(&pair, |pair| {
        pair.source_url = replica.tcp_url(&pair.source_database).replace(":right", "");
    });
    refused("no password", &none, &["password", "source"]).await;
    // Somebody else has the only slot; it may be dropped any time.
    let (pair, source, target) = labels_pair_on(&full, target()).await;
    source
        .batch_execute("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
        .await
        .unwrap();
    let cdc = retried("no slot free", &pair, &["all replication slots are in use"]).await;
    source
        .batch_execute("SELECT pg_drop_replication_slot('theirs')")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    drop(cdc);
}
