//! A standby takes the place of the source: `cdc` finds it by the list of hosts, and goes on from the slot that the standby
//! holds a copy of, or copies everything anew where it holds none, or where commits that were applied are lost.
//!
//! Standbys hold copies of logical slots from PostgreSQL 17 on: those tests need its programs, see [`programs`].

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdc::cluster::{Cluster, Options, Programs, Stop};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, Side, Signal, database_pair_on, live_labels, lookup, pg, rows, seeded, target, value,
    wait_in_step, wait_until,
};
use crate::{IN_STEP, wait_log, wait_rows};

/// First major version whose standbys hold copies of logical slots.
const SYNCHRONIZES: u32 = 17;

/// What the standby asks of its primary, besides the WAL.
const SYNCHRONIZED: [(&str, &str); 1] = [("hot_standby_feedback", "on")];

const HEALS: &str = "the stream cannot go on";

/// Server programs of version 17 or later: those that the environment names, or are installed, or were fetched.
/// Without them the test is not run, and says so even though it passes.
fn programs(test: &str) -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".postgres/18/bin");
    let named = Side::Source.programs();
    let places = match &named {
        Some(named) => vec![Some(named.as_path())],
        None => vec![None, Some(fetched.as_path())],
    };
    let found = places
        .into_iter()
        .filter_map(|place| Programs::find(place, None).ok())
        .find(|found| found.major() >= SYNCHRONIZES);
    if found.is_none() {
        // Not by a macro of the test harness, which shows nothing of a test that passes.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: {test} needs the server programs of PostgreSQL {SYNCHRONIZES} or later: make postgres-18 fetches them."
        );
    }
    found.map(|found| found.directory().to_path_buf())
}

/// A primary and its standby, with the demo's tables; `cdc` knows both.
struct Couple {
    primary: Cluster,
    standby: Cluster,
    pair: Pair,
    source: Client,
    target: Client,
}

/// Makes both, with these settings at the standby.
async fn couple(name: &str, programs: Option<PathBuf>, settings: &[(&str, &str)]) -> Couple {
    let start = |role: &str| {
        Cluster::start(&Options {
            name: format!("{name}-{role}"),
            pg_bin: programs.clone(),
            ..Options::default()
        })
        .unwrap()
    };
    let (primary, standby) = (start("primary"), start("standby"));
    let mut pair = database_pair_on(&primary, target()).await;
    let (_, target) = seeded(&pair).await;
    follow(&standby, &primary, settings);
    pair.source_url = format!(
        "host={},{} port={},{} user=postgres dbname={} target_session_attrs=read-write",
        primary.socket_dir().display(),
        standby.socket_dir().display(),
        primary.port(),
        standby.port(),
        pair.source_database
    );
    let source = pg(&primary.url(&pair.source_database)).await;
    wait_rows(
        &source,
        "SELECT active::text FROM pg_replication_slots WHERE slot_name = 'standby'",
        &["true"],
    )
    .await;
    Couple {
        primary,
        standby,
        pair,
        source,
        target,
    }
}

/// Makes a server the standby of another one, by a copy of the data that the other one left when it was stopped.
fn follow(standby: &Cluster, primary: &Cluster, settings: &[(&str, &str)]) {
    standby.stop(Stop::Immediate).unwrap();
    primary
        .execute(
            "postgres",
            "SELECT pg_create_physical_replication_slot('standby', true)",
        )
        .unwrap();
    primary.stop(Stop::Fast).unwrap();
    let mut own = std::fs::read_to_string(standby.data_dir().join("postgresql.conf")).unwrap();
    let conninfo = format!(
        "host={} port={} user=postgres dbname=postgres",
        primary.socket_dir().display(),
        primary.port()
    );
    let follows = [
        ("primary_conninfo", conninfo.as_str()),
        ("primary_slot_name", "standby"),
    ];
    for (name, value) in follows.iter().chain(settings) {
        own.push_str(&format!("{name} = '{value}'\n"));
    }
    std::fs::remove_dir_all(standby.data_dir()).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([primary.data_dir(), standby.data_dir()])
        .status()
        .unwrap();
    assert!(copied.success(), "cp: {copied}");
    // Slots belong to a server.
    std::fs::remove_dir_all(standby.data_dir().join("pg_replslot/standby")).unwrap();
    standby.add_file("postgresql.conf", &own).unwrap();
    standby.add_file("standby.signal", "").unwrap();
    primary.start_again().unwrap();
    standby.start_again().unwrap();
}

impl Couple {
    fn standby_url(&self) -> String {
        self.standby.url(&self.pair.source_database)
    }

    /// No commit is streamed before the standby has it.
    async fn hold_back(&self) {
        self.source
            .batch_execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
            .await
            .unwrap();
        self.source
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
        let setting = "SELECT setting FROM pg_settings WHERE name = 'synchronized_standby_slots'";
        wait_rows(&self.source, setting, &["standby"]).await;
    }

    /// Waits until the standby holds a copy of the slot that survives a promotion.
    ///
    /// The first copy is made by hand: the worker naps for up to 30 s once it has found nothing for a while. It is kept only if
    /// the primary's slot has seen that every transaction the standby knows is over.
    async fn copy_slot(&self) {
        let standby = pg(&self.standby_url()).await;
        let query = format!(
            "SELECT synced AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots WHERE slot_name = '{}'",
            self.pair.slot
        );
        wait_until("the standby holds the slot", async || {
            let end = "SELECT greatest(pg_log_standby_snapshot(), pg_current_wal_insert_lsn())";
            let end = value(&self.source, end).await;
            let confirmed = format!("SELECT cdc.wait_for('{end}', '5 s')");
            let confirmed = value(&self.target, &confirmed).await;
            standby
                .batch_execute("SELECT pg_sync_replication_slots()")
                .await
                .unwrap();
            let found = rows(&standby, &query).await;
            if found == ["t"] {
                return Ok(());
            }
            let log = self.standby.log();
            let about = log.lines().rev().filter(|line| line.contains("slot")).take(6);
            let about: Vec<_> = about.collect();
            Err(format!("{found:?}, confirmed {end}: {confirmed}, {about:#?}"))
        })
        .await;
    }

    /// The standby keeps its copy of the slot up to date from now on.
    async fn keep_synchronized(&self) {
        let standby = pg(&self.standby_url()).await;
        for sql in [
            "ALTER SYSTEM SET sync_replication_slots = on",
            "SELECT pg_reload_conf()",
        ] {
            standby.batch_execute(sql).await.unwrap();
        }
    }

    /// The primary crashes, once the standby has received all of its WAL, and the standby takes its place.
    async fn stop_and_promote(&self) -> Client {
        let standby = pg(&self.standby_url()).await;
        let end = value(&self.source, "SELECT pg_current_wal_flush_lsn()").await;
        wait_rows(
            &standby,
            &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"),
            &["t"],
        )
        .await;
        self.primary.stop(Stop::Immediate).unwrap();
        self.promote().await
    }

    /// Makes the standby the new primary.
    async fn promote(&self) -> Client {
        let standby = pg(&self.standby_url()).await;
        assert_eq!(value(&standby, "SELECT pg_promote()").await, "t");
        standby
    }

    /// The stream goes on at the new primary.
    async fn follows(&self, source: &Client) {
        wait_in_step(source, &self.target).await;
        for change in [
            "UPDATE labels SET label = 'promoted' WHERE code = 'MR'",
            "INSERT INTO labels (code, label, display_name) VALUES ('NEW', 'n', 'n')",
            "DELETE FROM labels WHERE code = 'MRS'",
        ] {
            source.batch_execute(change).await.unwrap();
            wait_in_step(source, &self.target).await;
        }
    }

    /// Kinds of the copies that there were, oldest first.
    async fn copies(&self) -> Vec<String> {
        rows(
            &self.target,
            "SELECT origin FROM cdc.resync WHERE NOT dry_run ORDER BY id",
        )
        .await
    }

    /// Whether `cdc check` has something to say of standbys.
    async fn told_of_standbys(&self) -> bool {
        let pair = self.pair.clone();
        let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["check"]))
            .await
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("synchronized_standby_slots")
    }

    async fn no_difference(&self) {
        let pair = self.pair.clone();
        let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["resync", "--dry-run"]))
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// The standby's slot is far behind: what was applied comes again there, in the layout that the table had then.
#[tokio::test]
async fn what_comes_again_at_a_promoted_standby_in_another_layout_breaks_nothing() {
    let name = "what_comes_again_at_a_promoted_standby_in_another_layout_breaks_nothing";
    let Some(programs) = programs(name) else { return };
    let couple = couple("layouts", Some(programs), &SYNCHRONIZED).await;
    let cdc = Cdc::run(&couple.pair);
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    couple.copy_slot().await;
    for change in [
        "UPDATE labels SET label = 'before' WHERE code = 'MR'",
        "ALTER TABLE labels ALTER label TYPE text",
        "UPDATE labels SET label = 'between' WHERE code = 'MR'",
    ] {
        couple.source.batch_execute(change).await.unwrap();
        wait_in_step(&couple.source, &couple.target).await;
    }
    wait_rows(&couple.target, IN_STEP, &["in_step streaming"]).await;
    let source = couple.stop_and_promote().await;
    source
        .batch_execute(
            "UPDATE labels SET label = 'after' WHERE code = 'MR'; \
             INSERT INTO labels (code, label, display_name) VALUES ('LATE', 'l', 'l')",
        )
        .await
        .unwrap();
    couple.follows(&source).await;
    assert!(!cdc.log().contains(HEALS), "{}", cdc.log());
    couple.no_difference().await;
}

/// Writes one row after the other until its server goes away; tells how many were committed.
fn writer(url: String) -> JoinHandle<u32> {
    tokio::spawn(async move {
        let client = pg(&url).await;
        for number in 1.. {
            let write = format!(
                "INSERT INTO labels (code, label, display_name) VALUES ('W{number}', 'w', 'w'); \
                 UPDATE labels SET label = '{number}' WHERE code = 'MR'"
            );
            if client.batch_execute(&write).await.is_err() {
                return number - 1;
            }
        }
        0
    })
}

/// The slot goes on at the standby: nothing is copied again, and nothing is lost.
async fn goes_on_without_a_copy(name: &str, how: Stop) {
    let Some(programs) = programs(name) else { return };
    let couple = couple(name, Some(programs), &SYNCHRONIZED).await;
    couple.hold_back().await;
    let mut cdc = Cdc::run(&couple.pair);
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    couple.copy_slot().await;
    couple.keep_synchronized().await;
    assert!(!couple.told_of_standbys().await);
    let writer = writer(couple.primary.url(&couple.pair.source_database));
    wait_until("the lookup follows the writer", async || {
        let seen = lookup(&couple.target).await.len();
        if seen > 50 {
            Ok(())
        } else {
            Err(format!("{seen} rows"))
        }
    })
    .await;
    couple.primary.stop(how).unwrap();
    let written = writer.await.unwrap();
    let source = couple.promote().await;
    couple.follows(&source).await;
    if how == Stop::Fast {
        // A crash of the primary may lose commits that the standby has not received; `cdc` has not seen those either.
        let kept = value(&source, "SELECT count(*) FROM labels WHERE code LIKE 'W%'").await;
        assert!(kept.parse::<u32>().unwrap() >= written, "{kept} of {written}");
    }
    assert!(!cdc.log().contains(HEALS), "{}", cdc.log());
    assert_eq!(couple.copies().await, ["first copy"]);
    couple.no_difference().await;
    // A restart has nothing to copy either.
    cdc.stop(Signal::Term).await;
    let cdc = Cdc::run(&couple.pair);
    source
        .batch_execute("UPDATE labels SET label = 'restarted' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &couple.target).await;
    assert!(!cdc.log().contains(HEALS), "{}", cdc.log());
}

#[tokio::test]
async fn stream_goes_on_at_a_promoted_standby_after_a_stop() {
    goes_on_without_a_copy("failover-stop", Stop::Fast).await;
}

#[tokio::test]
async fn stream_goes_on_at_a_promoted_standby_after_a_crash() {
    goes_on_without_a_copy("failover-crash", Stop::Immediate).await;
}

/// Looks at the lookup all the time and tells what it saw besides these rows, which no change touches.
fn reader(url: String, untouched: Vec<String>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let client = pg(&url).await;
        while let Ok(seen) = client
            .query(
                "SELECT code || '|' || label || '|' || display_name FROM labels_lookup",
                &[],
            )
            .await
        {
            let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
            if !untouched.iter().all(|row| seen.contains(row)) {
                return seen;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        vec!["the target went away".to_owned()]
    })
}

/// On any version: the new primary has no copy of the slot.
#[tokio::test]
async fn everything_is_copied_at_a_promoted_standby_without_the_slot() {
    let couple = couple("failover-none", Side::Source.programs(), &[]).await;
    let cdc = Cdc::run(&couple.pair);
    let before = wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    let reader = reader(couple.pair.target_url.clone(), before.clone());
    couple
        .source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('LAST', 'l', 'l')")
        .await
        .unwrap();
    let last = live_labels(&couple.source).await;
    couple.primary.stop(Stop::Fast).unwrap();
    let source = couple.promote().await;
    // Never in the stream of any slot.
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('GAP', 'g', 'g')")
        .await
        .unwrap();
    wait_in_step(&source, &couple.target).await;
    assert_eq!(lookup(&couple.target).await.len(), last.len() + 1);
    assert!(!reader.is_finished(), "rows were gone: {:?}", reader.await);
    reader.abort();
    couple.follows(&source).await;
    assert!(cdc.log().contains("the slot is missing"), "{}", cdc.log());
    assert_eq!(couple.copies().await, ["first copy", "heal"]);
    couple.no_difference().await;
}

/// Where nothing holds the stream back, `cdc` may have applied what the new primary never received.
async fn loses_commits(name: &str, grows: bool) {
    let Some(programs) = programs(name) else { return };
    let couple = couple(name, Some(programs), &SYNCHRONIZED).await;
    let mut cdc = Cdc::run(&couple.pair);
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    couple.copy_slot().await;
    couple.keep_synchronized().await;
    assert!(couple.told_of_standbys().await, "nothing holds the stream back");
    let both = wait_in_step(&couple.source, &couple.target).await;
    couple.standby.stop(Stop::Fast).unwrap();
    couple
        .source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('LOST', 'l', 'l')")
        .await
        .unwrap();
    wait_in_step(&couple.source, &couple.target).await;
    let checkpoint = value(&couple.source, "SELECT pg_current_wal_flush_lsn()").await;
    if grows {
        cdc.stop(Signal::Term).await;
    }
    couple.primary.stop(Stop::Immediate).unwrap();
    couple.standby.start_again().unwrap();
    let source = couple.promote().await;
    if grows {
        // Another history up to and past the position that `cdc` knows.
        wait_until("the new primary has grown past the checkpoint", async || {
            let write = "UPDATE labels SET updated_at = now() WHERE code = 'DR'";
            source.batch_execute(write).await.unwrap();
            let past = format!("SELECT pg_current_wal_flush_lsn() > '{checkpoint}'");
            let past = value(&source, &past).await;
            if past == "t" { Ok(()) } else { Err(past) }
        })
        .await;
        cdc = Cdc::run(&couple.pair);
    }
    assert_eq!(
        live_labels(&source).await,
        both,
        "the standby has lost the commit"
    );
    couple.follows(&source).await;
    // A promotion writes WAL of its own, so that the end may be past the checkpoint even if nobody has written.
    let log = cdc.log();
    let noticed = log.contains("the source's history is not the one that was applied")
        || (!grows && log.contains("behind the checkpoint"));
    assert!(noticed, "{log}");
    assert_eq!(couple.copies().await, ["first copy", "heal"]);
    couple.no_difference().await;
}

#[tokio::test]
async fn commits_that_a_promoted_standby_lost_are_undone() {
    loses_commits("failover-behind", false).await;
}

#[tokio::test]
async fn commits_that_a_promoted_standby_replaced_are_undone() {
    loses_commits("failover-replaced", true).await;
}
