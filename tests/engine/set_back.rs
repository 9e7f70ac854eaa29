//! The source is set back to an earlier state: to a snapshot of its storage (the same timeline), or
//! by a restored base backup (a new one). Commits that were applied never happened, and the lookup
//! is exact again by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use cdc::cluster::{Cluster, Stop};
use tokio_postgres::Client;

use crate::support::{
    Cdc, Side, Signal, goes_on, labels_pair_on, lookup, own_cluster, pg, rows, target, value,
    wait_in_step, wait_until,
};

/// What the source is set back to.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// All files as they were when the server was stopped.
    Snapshot,
    /// A base backup as pg_basebackup makes it: without the slots.
    Backup,
    /// A base backup by a tool that copies the slots too.
    BackupWithSlots,
}

/// A state to go back to.
struct State {
    place: PathBuf,
    /// Files that a restore adds.
    files: Vec<(&'static str, String)>,
}

/// Copies a directory; of a running server, files may go away meanwhile.
fn copy(from: &Path, to: &Path, running: bool) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(running || copied.success(), "cp: {copied}");
}

/// Keeps the state of now in a directory beside the server's; the server runs afterwards.
async fn keep(kept: Kept, cluster: &Cluster) -> State {
    let place = cluster.data_dir().with_extension("kept");
    if kept == Kept::Snapshot {
        cluster.stop(Stop::Fast).unwrap();
        copy(&cluster.data_dir(), &place, false);
        cluster.start_again().unwrap();
        return State {
            place,
            files: Vec::new(),
        };
    }
    let server = pg(&cluster.url("postgres")).await;
    let [start, stop] = if cluster.programs().major() >= 15 {
        ["pg_backup_start('kept', true)", "pg_backup_stop(false)"]
    } else {
        [
            "pg_start_backup('kept', true, false)",
            "pg_stop_backup(false, false)",
        ]
    };
    rows(&server, &format!("SELECT {start}")).await;
    copy(&cluster.data_dir(), &place, true);
    let label = value(&server, &format!("SELECT labelfile FROM {stop}")).await;
    // The backup is whole with the WAL up to its end.
    copy(
        &cluster.data_dir().join("pg_wal"),
        &place.join("pg_wal"),
        true,
    );
    std::fs::remove_file(place.join("postmaster.pid")).unwrap();
    if kept == Kept::Backup {
        for slot in std::fs::read_dir(place.join("pg_replslot")).unwrap() {
            std::fs::remove_dir_all(slot.unwrap().path()).unwrap();
        }
    }
    let settings = std::fs::read_to_string(place.join("postgresql.conf")).unwrap();
    State {
        place,
        files: vec![
            ("backup_label", label),
            ("recovery.signal", String::new()),
            (
                "postgresql.conf",
                format!("{settings}restore_command = 'false'\n"),
            ),
        ],
    }
}

/// Starts the server with what was kept, and connects as soon as it takes writes.
async fn restore(state: &State, cluster: &Cluster, url: &str) -> Client {
    cluster.stop(Stop::Immediate).unwrap();
    copy(&state.place, &cluster.data_dir(), false);
    for (name, contents) in &state.files {
        cluster.add_file(name, contents).unwrap();
    }
    cluster.start_again().unwrap();
    let source = pg(url).await;
    wait_until("recovery ends", async || {
        match value(&source, "SELECT pg_is_in_recovery()").await.as_str() {
            "f" => Ok(()),
            recovers => Err(recovers.to_owned()),
        }
    })
    .await;
    source
}

async fn set_back(name: &str, kept: Kept, grows: bool) {
    let cluster = own_cluster(Side::Source, name);
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    cdc.stop(Signal::Term).await;
    drop(source);
    let state = keep(kept, &cluster).await;
    let source = pg(&pair.source_url).await;
    let mut cdc = Cdc::run(&pair);
    goes_on("never happened", &source, &target).await;
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'lost', 'lost' FROM generate_series(1, 500) n")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    let checkpoint = value(&target, "SELECT lsn FROM cdc.checkpoint").await;
    drop(source);
    let source = restore(&state, &cluster, &pair.source_url).await;
    if grows {
        grow_past(&checkpoint, &source).await;
    }
    assert!(lookup(&target).await.len() > 500, "the last good state");
    let cdc = Cdc::run(&pair);
    goes_on("set back", &source, &target).await;
    let why = match (kept, grows) {
        (Kept::Backup, _) => "the slot is missing",
        (_, true) => "the source's history is not the one that was applied",
        (_, false) => "behind the checkpoint",
    };
    assert!(cdc.log().contains(why), "{}", cdc.log());
    assert!(lookup(&target).await.len() < 10);
}

async fn grow_past(checkpoint: &str, source: &Client) {
    wait_until("the source has grown past the checkpoint", async || {
        source
            .batch_execute("UPDATE labels SET label = 'other' WHERE code = 'DR'")
            .await
            .unwrap();
        let past = format!("SELECT pg_current_wal_flush_lsn() > '{checkpoint}'");
        let past = value(source, &past).await;
        if past == "t" { Ok(()) } else { Err(past) }
    })
    .await;
}

#[tokio::test]
async fn source_that_is_set_back_to_a_snapshot_of_its_storage() {
    set_back("set-back", Kept::Snapshot, false).await;
}

#[tokio::test]
async fn source_that_is_set_back_and_has_grown_past_the_checkpoint() {
    set_back("set-back-grown", Kept::Snapshot, true).await;
}

#[tokio::test]
async fn source_that_is_restored_from_a_base_backup() {
    set_back("base-backup", Kept::Backup, false).await;
}

#[tokio::test]
async fn source_that_is_restored_from_a_base_backup_with_its_slots() {
    set_back("base-backup-slots", Kept::BackupWithSlots, false).await;
}

#[tokio::test]
async fn source_that_is_restored_with_its_slots_and_has_grown_past_the_checkpoint() {
    set_back("base-backup-grown", Kept::BackupWithSlots, true).await;
}
