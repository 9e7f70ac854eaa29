//! A primary and its standby, for tests of what a failover does.
//!
//! Standbys hold copies of logical slots from PostgreSQL 17 on: tests of that need its programs,
//! see [`programs`].

use std::path::{Path, PathBuf};
use std::process::Command;

use cdc::cluster::{Cluster, Options, Programs, Stop};
use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, Side, database_pair_on, missing, pg, rows, seeded, target, value, wait_in_step,
    wait_rows, wait_until,
};

/// First major version whose standbys hold copies of logical slots.
const SYNCHRONIZES: u32 = 17;

/// What the standby asks of its primary, besides the WAL.
pub const SYNCHRONIZED: [(&str, &str); 1] = [("hot_standby_feedback", "on")];

/// Server programs of version 17 or later: those that the environment names, or are installed, or
/// were fetched. Without them the test is not run, and says so even though it passes.
pub fn programs(test: &str) -> Option<PathBuf> {
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
        let what = format!(
            "{test} needs PostgreSQL {SYNCHRONIZES} or later: make postgres-18 fetches it."
        );
        match named {
            // The versions of this run are chosen.
            Some(_) => eprintln!("NOT RUN: {what}"),
            None => missing(&what),
        }
    }
    found.map(|found| found.directory().to_path_buf())
}

/// A primary and its standby, with the demo's tables; `cdc` knows both.
pub struct Couple {
    pub primary: Cluster,
    pub standby: Cluster,
    pub pair: Pair,
    /// Session of the primary.
    pub source: Client,
    pub target: Client,
}

/// Makes both, with these settings at the standby.
pub async fn couple(name: &str, programs: Option<PathBuf>, settings: &[(&str, &str)]) -> Couple {
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

/// Makes a server the standby of another one, by a copy of the data that the other one left when it
/// was stopped.
pub fn follow(standby: &Cluster, primary: &Cluster, settings: &[(&str, &str)]) {
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
    pub fn standby_url(&self) -> String {
        self.standby.url(&self.pair.source_database)
    }

    /// No commit is streamed before the standby has it.
    pub async fn hold_back(&self) {
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
    /// The first copy is made by hand: the worker naps for up to 30 s once it has found nothing for
    /// a while. It is kept only if the primary's slot has seen that every transaction the standby
    /// knows is over.
    pub async fn copy_slot(&self) {
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
            let about = log
                .lines()
                .rev()
                .filter(|line| line.contains("slot"))
                .take(6);
            let about: Vec<_> = about.collect();
            Err(format!(
                "{found:?}, confirmed {end}: {confirmed}, {about:#?}"
            ))
        })
        .await;
    }

    /// The standby keeps its copy of the slot up to date from now on.
    pub async fn keep_synchronized(&self) {
        let standby = pg(&self.standby_url()).await;
        for sql in [
            "ALTER SYSTEM SET sync_replication_slots = on",
            "SELECT pg_reload_conf()",
        ] {
            standby.batch_execute(sql).await.unwrap();
        }
    }

    /// The primary crashes, once the standby has received all of its WAL, and the standby takes its
    /// place.
    pub async fn stop_and_promote(&self) -> Client {
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
    pub async fn promote(&self) -> Client {
        let standby = pg(&self.standby_url()).await;
        assert_eq!(value(&standby, "SELECT pg_promote()").await, "t");
        standby
    }

    /// The stream goes on at the new primary.
    pub async fn follows(&self, source: &Client) {
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
    pub async fn copies(&self) -> Vec<String> {
        rows(
            &self.target,
            "SELECT origin FROM cdc.resync WHERE NOT dry_run ORDER BY id",
        )
        .await
    }

    /// Whether `cdc check` has something to say of standbys.
    pub async fn told_of_standbys(&self) -> bool {
        let pair = self.pair.clone();
        let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["check"]))
            .await
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("synchronized_standby_slots")
    }

    pub async fn no_difference(&self) {
        let pair = self.pair.clone();
        let output =
            tokio::task::spawn_blocking(move || Cdc::output(&pair, &["resync", "--dry-run"]))
                .await
                .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
