//! The throw-away servers themselves: they start, stop, come back with their data, and leave
//! nothing behind.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{DEADLINE, Side, database_pair, labels_pair, own_cluster, pg, rows, value};
use cdc::cluster::{Cluster, Options, Programs, Stop};

#[tokio::test]
async fn pair_of_databases_on_two_servers_can_be_used_at_once() {
    let (pair, source, target) = labels_pair().await;
    assert_eq!(
        value(&source, "SELECT current_database()").await,
        pair.source_database
    );
    assert_eq!(
        rows(&target, "SELECT reference_number FROM resources ORDER BY 1").await,
        ["REF001", "REF002"]
    );
    assert_eq!(value(&source, "SHOW wal_level").await, "logical");
    let system = "SELECT system_identifier FROM pg_control_system()";
    assert_ne!(value(&source, system).await, value(&target, system).await);
    let other = database_pair().await;
    assert_ne!(other.source_url, pair.source_url);
}

#[tokio::test]
async fn server_comes_back_with_its_data_at_the_same_address() {
    let cluster = own_cluster(Side::Source, "restart");
    cluster.create_database("Odd name").unwrap();
    cluster
        .execute("Odd name", "CREATE TABLE t AS SELECT 1 AS a")
        .unwrap();
    let url = cluster.url("Odd name");
    for how in [Stop::Fast, Stop::Immediate] {
        cluster.stop(how).unwrap();
        assert_eq!(cluster.pid(), None);
        assert!(
            tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .is_err()
        );
        cluster.start_again().unwrap();
        assert_eq!(value(&pg(&url).await, "SELECT a FROM t").await, "1");
    }
    cluster.kill().unwrap();
    cluster.start_again().unwrap();
    assert_eq!(value(&pg(&url).await, "SELECT a FROM t").await, "1");
    cluster.restart(Stop::Fast).unwrap();
    assert_eq!(
        value(&pg(&cluster.tcp_url("Odd name")).await, "SELECT a FROM t").await,
        "1"
    );
}

#[tokio::test]
async fn password_is_demanded_on_tcp_and_not_on_the_socket() {
    let cluster = Cluster::start(&Options {
        name: "scram".to_owned(),
        pg_bin: Side::Source.programs(),
        tcp: true,
        password: Some("p@ss word/%".to_owned()),
        settings: vec![("work_mem".to_owned(), "5MB".to_owned())],
        ..Options::default()
    })
    .unwrap();
    let client = pg(&cluster.tcp_url("postgres")).await;
    assert_eq!(value(&client, "SHOW work_mem").await, "5MB");
    pg(&cluster.url("postgres")).await;
    let without = cluster
        .tcp_url("postgres")
        .replace(":p%40ss%20word%2F%25@", "@");
    assert!(
        tokio_postgres::connect(&without, tokio_postgres::NoTls)
            .await
            .is_err()
    );
}

#[test]
fn dropped_server_leaves_neither_process_nor_file() {
    let (directory, pid) = {
        let cluster = own_cluster(Side::Source, "dropped");
        (cluster.socket_dir().to_path_buf(), cluster.pid().unwrap())
    };
    assert!(!directory.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn server_that_cannot_start_tells_why_and_leaves_nothing() {
    let name = format!("refused{}", std::process::id());
    let error = Cluster::start(&Options {
        name: name.clone(),
        pg_bin: Side::Source.programs(),
        settings: vec![("shared_buffers".to_owned(), "a lot".to_owned())],
        ..Options::default()
    })
    .unwrap_err();
    assert!(
        error.detail().unwrap().contains("shared_buffers"),
        "{error:?}"
    );
    assert_eq!(directories_named(&name), Vec::<PathBuf>::new());
}

/// Name of the server that [`owner_that_is_killed`] makes.
const OWNER: &str = "CDC_TEST_OWNER";

/// Runs this very test binary as the process that is killed.
#[test]
fn killed_owner_leaves_neither_process_nor_file() {
    let name = format!("killed{}", std::process::id());
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster::owner_that_is_killed"])
        .env(OWNER, &name)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    let postmaster = loop {
        let pids = directories_named(&name)
            .into_iter()
            .find_map(|directory| ready_postmaster(&directory));
        match pids {
            Some(pid) => break pid,
            None => assert!(
                Instant::now() < deadline,
                "the owner's server does not start"
            ),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    owner.kill().unwrap();
    owner.wait().unwrap();
    let process = PathBuf::from(format!("/proc/{postmaster}/cmdline"));
    // A zombie that nobody waits for has an empty command line.
    while !directories_named(&name).is_empty()
        || std::fs::read(&process).is_ok_and(|line| !line.is_empty())
    {
        assert!(Instant::now() < deadline, "something is left behind");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the test above starts and kills; as a test of its own it does nothing.
#[test]
fn owner_that_is_killed() {
    if let Ok(name) = std::env::var(OWNER) {
        let _cluster = own_cluster(Side::Source, &name);
        std::thread::sleep(DEADLINE);
    }
}

fn directories_named(name: &str) -> Vec<PathBuf> {
    let prefix = format!("cdc-{name}-");
    let parents = [std::env::temp_dir(), PathBuf::from("/tmp")];
    let entries = parents
        .iter()
        .flat_map(|parent| std::fs::read_dir(parent).into_iter().flatten().flatten());
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

fn ready_postmaster(directory: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(directory.join("data/postmaster.pid")).ok()?;
    let ready = text
        .lines()
        .nth(7)
        .is_some_and(|line| line.trim() == "ready");
    ready
        .then(|| text.lines().next()?.trim().parse().ok())
        .flatten()
}

/// Whether the servers of this process run under another account than its own.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn programs_in_a_folder_that_others_cannot_enter_are_refused_with_the_remedy() {
    if !is_root() {
        return; // The servers run as this user, who can enter it.
    }
    let closed = Scratch::new("closed");
    let bin = closed.0.join("bin");
    std::fs::create_dir(&bin).unwrap();
    for program in ["initdb", "pg_ctl", "postgres"] {
        let path = bin.join(program);
        std::fs::write(&path, "#!/bin/sh\necho 'postgres (PostgreSQL) 15.0'\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&closed.0, Permissions::from_mode(0o700)).unwrap();
    let start = |bin: &Path| {
        Cluster::start(&Options {
            name: "closed".to_owned(),
            pg_bin: Some(bin.to_path_buf()),
            ..Options::default()
        })
    };
    let error = start(&bin).unwrap_err();
    assert!(
        error.hint().unwrap().contains("enter every folder"),
        "{error:?}"
    );
    // A link from there to a place that others can enter is followed: scripts/postgres-versions
    // makes one.
    std::fs::remove_dir_all(&bin).unwrap();
    let real = Programs::find(Side::Source.programs().as_deref(), None).unwrap();
    std::os::unix::fs::symlink(real.directory(), &bin).unwrap();
    start(&bin).unwrap();
}

/// A directory that goes away when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cdc-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
