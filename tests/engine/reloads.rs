//! SIGHUP: the configuration is read again while everything goes on; what cannot change without a
//! restart is named, and no signal ends the process that should not.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use cdc::cluster::{Cluster, Options};

use crate::support::daemon::{Daemon, walsender, with_url_of_source};
use crate::support::{
    BLOCKED, Cdc, Pair, Side, Signal, count_log, goes_on, labels_pair, labels_pair_on, lock_lookup,
    pg, rows, value, wait_in_step, wait_log, wait_rows, wait_until,
};

const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";

#[tokio::test]
async fn a_reload_that_changes_nothing_disturbs_nothing() {
    let (pair, source, target) = labels_pair().await;
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let before = walsender(&source, &pair).await;
    for _ in 0..3 {
        let line = daemon.reload().await;
        assert!(
            line.contains("\"configuration reloaded; nothing changed\""),
            "{line}"
        );
    }
    for ignored in [Signal::Usr1, Signal::Usr2, Signal::Usr1] {
        daemon.cdc.kill(ignored);
    }
    goes_on("signals", &source, &target).await;
    assert_eq!(walsender(&source, &pair).await, before);
    assert_eq!(count_log(&daemon.cdc, "\"message\":\"streaming\""), 1);
    assert_eq!(daemon.reloads(), 3, "{}", daemon.cdc.log());
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}

fn with_password(side: Side, name: &str) -> Cluster {
    Cluster::start(&Options {
        name: name.to_owned(),
        pg_bin: side.programs(),
        tcp: true,
        password: Some("hunter-first".to_owned()),
        ..Options::default()
    })
    .unwrap()
}

fn write_secret(file: &Path, password: &str) {
    std::fs::write(file, password).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// From then on they count: also where their files cannot be read any more.
#[tokio::test]
async fn secrets_of_a_reload_count_from_the_next_connection_on() {
    let on_source = with_password(Side::Source, "reload-source");
    let on_target = with_password(Side::Target, "reload-target");
    let (mut pair, source, target) = labels_pair_on(&on_source, &on_target).await;
    let file = on_source.data_dir().with_file_name("reloaded-password");
    write_secret(&file, "hunter-first");
    pair.source_url = on_source.tcp_url(&pair.source_database);
    pair.target_url = on_target.tcp_url(&pair.target_database);
    pair.config += &format!(
        "password_file = '{0}'\n[target]\npassword_file = '{0}'\n",
        file.display()
    );
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let before = walsender(&source, &pair).await;
    for side in [&source, &target] {
        side.batch_execute(
            "SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'hunter-second'",
        )
        .await
        .unwrap();
    }
    write_secret(&file, "hunter-second");
    let line = daemon.reload().await;
    assert!(
        line.contains("\"changed\":\"source password, target password\"")
            && line.contains("\"session\":\"continues\""),
        "{line}"
    );
    goes_on("the session stays", &source, &target).await;
    assert_eq!(walsender(&source, &pair).await, before);
    std::fs::remove_file(&file).unwrap();
    // A connection beside the stream, while the session lasts.
    let pulse = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'cdc % pulse'";
    let old = wait_until("the pulse has a connection", async || {
        let seen = rows(&target, pulse).await.pop();
        seen.ok_or_else(|| "it has none".to_owned())
    })
    .await;
    target
        .batch_execute(&format!("SELECT pg_terminate_backend({old})"))
        .await
        .unwrap();
    wait_until("the pulse has another connection", async || {
        let seen = rows(&target, pulse).await;
        if seen.len() == 1 && seen[0] != old {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    assert_eq!(walsender(&source, &pair).await, before);
    for side in [&source, &target] {
        side.batch_execute(END_SESSIONS).await.unwrap();
    }
    goes_on("another session", &source, &target).await;
    assert_ne!(walsender(&source, &pair).await, before);
    assert!(!daemon.cdc.log().contains("hunter"), "{}", daemon.cdc.log());
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}

#[tokio::test]
async fn the_log_level_changes_while_it_streams() {
    let (mut pair, source, target) = labels_pair().await;
    let mut command = Cdc::command(&pair, &["run"]);
    command.env_remove("CDC_LOG");
    let mut daemon = Daemon::start(command);
    wait_in_step(&source, &target).await;
    wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
    goes_on("info", &source, &target).await;
    assert_eq!(count_log(&daemon.cdc, "DEBUG"), 0);
    let line = daemon
        .reload_with(&format!("log_level = 'debug'\n{}", pair.config))
        .await;
    assert!(
        line.contains(r#"log_level \"info\" -> \"debug\""#),
        "{line}"
    );
    source
        .batch_execute("UPDATE labels SET label = 'at debug' WHERE code = 'MR'")
        .await
        .unwrap();
    // The keys of a batch, too, whose session began before.
    wait_log(&daemon.cdc, "\"message\":\"applied a row\"").await;
    let line = daemon.reload_with(&pair.config).await;
    goes_on("info again", &source, &target).await;
    let log = daemon.cdc.log();
    let (_, after) = log.split_once(&line).unwrap();
    assert_eq!(after.matches("DEBUG").count(), 0, "{after}");
    assert_eq!(count_log(&daemon.cdc, "\"message\":\"streaming\""), 1);
    // The file's level counts at the start, too.
    daemon.cdc.stop(Signal::Term).await;
    pair.config = format!("log_level = 'debug'\n{}", pair.config);
    let mut command = Cdc::command(&pair, &["run"]);
    command.env_remove("CDC_LOG");
    let daemon = Daemon::start(command);
    wait_log(&daemon.cdc, "\"level\":\"DEBUG\"").await;
}

#[tokio::test]
async fn a_limit_of_the_wal_counts_while_the_target_takes_nothing() {
    let (pair, source, target) = labels_pair().await;
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let holder = lock_lookup(&pair).await;
    source
        .batch_execute(
            "UPDATE labels SET label = 'waits' WHERE code = 'MR'; CREATE TABLE busy (x text);
             INSERT INTO busy SELECT repeat('x', 500) FROM generate_series(1, 8000)",
        )
        .await
        .unwrap();
    wait_rows(&target, BLOCKED, &["1"]).await;
    let line = daemon
        .reload_with(&format!("{}max_retained_wal = '1MB'\n", pair.config))
        .await;
    assert!(line.contains("\"session\":\"continues\""), "{line}");
    wait_log(&daemon.cdc, "dropped the slot to free WAL").await;
    let line = daemon.reload_with(&pair.config).await;
    assert!(line.contains("source.max_retained_wal"), "{line}");
    drop(holder);
    goes_on("healed", &source, &target).await;
}

#[tokio::test]
async fn a_schedule_that_is_changed_is_followed() {
    let (mut pair, source, target) = labels_pair().await;
    let config = pair.config.clone();
    pair.config = format!("{config}[resync]\nschedule = 'off'\n");
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    daemon.cdc.stop(Signal::Term).await;
    target
        .batch_execute("UPDATE cdc.resync SET started_at = now() - interval '2 days'")
        .await
        .unwrap();
    let mut daemon = Daemon::run(&pair);
    wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
    goes_on("off", &source, &target).await;
    let scheduled = "SELECT count(*) FROM cdc.resync WHERE origin = 'schedule' AND state = 'done'";
    assert_eq!(value(&target, scheduled).await, "0");
    let on = format!("{config}[resync]\nschedule = '30 3 * * *'\n");
    let line = daemon.reload_with(&on).await;
    assert!(
        line.contains(r#"resync.schedule \"off\" -> \"30 3 * * *\""#),
        "{line}"
    );
    // A turn was missed.
    wait_rows(&target, scheduled, &["1"]).await;
    pair.config = on;
    let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["status", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&output.await.unwrap().stdout).unwrap();
    let next = json["resync_schedule"]["next_at"].as_str().unwrap();
    assert!(next.contains("T03:30:00"), "{json}");
    assert_eq!(count_log(&daemon.cdc, "\"message\":\"streaming\""), 1);
}

/// Files with a mistake, and what the log says of them: the texts of the start.
fn mistakes(pair: &Pair) -> Vec<(String, Vec<&'static str>)> {
    let config = &pair.config;
    vec![
        (
            "[source\n".to_owned(),
            vec!["cdc.toml:1: ", "cdc config --example"],
        ),
        (
            format!("{config}publicaton = 'cdc'\n"),
            vec!["publicaton", "publication"],
        ),
        (
            format!("{config}[resync]\nschedule = '61 * * * *'\n"),
            vec!["resync.schedule", "61 * * * *", "Write five fields"],
        ),
        (
            format!("{config}password_file = '/nowhere/password'\n"),
            vec!["source.password_file", "/nowhere/password"],
        ),
        (
            format!("log_level = 'cdc=loud'\n{config}"),
            vec!["log_level", "cdc=loud", "error, warn, info"],
        ),
        (
            format!("status_interval = '1'\n{config}failover = 'yes'\n"),
            vec![
                "the configuration has 2 mistakes",
                "status_interval: expected a time",
                r#"source.failover: expected \"on\""#,
            ],
        ),
    ]
}

#[tokio::test]
async fn a_configuration_with_a_mistake_changes_nothing() {
    let (pair, source, target) = labels_pair().await;
    let mut command = Cdc::command(&pair, &["run"]);
    command.env_remove("CDC_LOG");
    let mut daemon = Daemon::start_in_directory(&command);
    wait_in_step(&source, &target).await;
    wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
    let before = walsender(&source, &pair).await;
    for (config, texts) in mistakes(&pair) {
        // Before the mistake there is a change, which must not count either.
        let line = daemon
            .reload_with(&format!("{config}[[read_model]]\nsource = 'x'\n"))
            .await;
        assert!(line.contains("\"level\":\"ERROR\""), "{line}");
        assert!(line.contains("the old one stays in force"), "{line}");
        let line = daemon.reload_with(&config).await;
        for text in texts {
            assert!(line.contains(text), "{text} is not in {line}");
        }
    }
    // Without its file it would be another configuration.
    std::fs::remove_file(&daemon.file).unwrap();
    let line = daemon.reload().await;
    assert!(line.contains("cannot read configuration file"), "{line}");
    goes_on("mistakes", &source, &target).await;
    assert_eq!(walsender(&source, &pair).await, before);
    let line = daemon.reload_with(&pair.config).await;
    assert!(line.contains("nothing changed"), "{line}");
    assert_eq!(count_log(&daemon.cdc, "\"message\":\"streaming\""), 1);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_taken() {
    let (mut pair, source, target) = labels_pair().await;
    let config = pair.config.clone();
    let url = format!("{}&password=hunter-one", pair.source_url);
    pair.config = with_url_of_source(&config, &url);
    let mut command = Cdc::command(&pair, &["run"]);
    command.env_remove("CDC_SOURCE_URL");
    let mut daemon = Daemon::start(command);
    wait_in_step(&source, &target).await;
    wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
    let before = walsender(&source, &pair).await;
    let elsewhere = "postgresql://postgres:hunter-two@elsewhere.example/app";
    let other = with_url_of_source(&config, elsewhere).replace(&pair.slot, "another_slot")
        + "publication = 'another'\n[target]\nschema = 'another'\n";
    for _ in 0..2 {
        let line = daemon.reload_with(&other).await;
        assert!(line.contains("what changed needs a restart"), "{line}");
    }
    let line = daemon
        .reload_with(&format!("{other}[resync]\nschedule = 'off'\n"))
        .await;
    assert!(
        line.contains(r#""changed":"resync.schedule \"0 2 * * *\" -> \"off\"""#),
        "{line}"
    );
    let log = daemon.cdc.log();
    for (key, old, new) in [
        ("source.url", ":****@", ":****@elsewhere.example:5432/app"),
        ("source.slot", pair.slot.as_str(), "another_slot"),
        ("source.publication", "cdc", "another"),
        ("target.schema", "cdc", "another"),
    ] {
        let named = log.lines().filter(|line| {
            line.contains("\"level\":\"WARN\"")
                && line.contains("restart cdc to change it")
                && line.contains(&format!("\"key\":\"{key}\""))
                && line.contains(old)
                && line.contains(new)
        });
        assert_eq!(named.count(), 3, "{key}: {log}");
    }
    assert!(!log.contains("hunter"), "{log}");
    goes_on("the old place", &source, &target).await;
    assert_eq!(walsender(&source, &pair).await, before);
    // The next session goes there, too.
    source
        .batch_execute(END_SESSIONS_OF_SLOT_OWNER)
        .await
        .unwrap();
    goes_on("another session", &source, &target).await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'another_slot'";
    assert_eq!(value(&source, slots).await, "0");
}

/// The sessions of this database alone: other tests use the server.
const END_SESSIONS_OF_SLOT_OWNER: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE application_name LIKE 'cdc %' AND datname = current_database()";

/// Before the first connection there is nothing to lose, and the process must not be lost either.
#[tokio::test]
async fn a_reload_ends_no_process_that_waits_for_its_server() {
    let (mut pair, source, target) = labels_pair().await;
    let config = pair.config.clone();
    let right = pair.source_url.clone();
    // Nothing listens there.
    pair.source_url = "postgresql://postgres@127.0.0.1:1/app".to_owned();
    let mut daemon = Daemon::run(&pair);
    wait_log(&daemon.cdc, "trying again").await;
    assert!(daemon.reload().await.contains("nothing changed"));
    let line = daemon.reload_with("[source\n").await;
    assert!(line.contains("could not reload"), "{line}");
    let limited = format!("{config}max_retained_wal = '10GB'\n");
    let line = daemon.reload_with(&limited).await;
    assert!(line.contains("source.max_retained_wal"), "{line}");
    assert!(daemon.cdc.is_running());
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
    // It is the server that was missing.
    pair.source_url = right;
    pair.config = limited;
    let _daemon = Daemon::streaming(&pair, &source, &target).await;
}

#[tokio::test]
async fn a_reload_does_not_end_a_process_that_leaves() {
    let (pair, source, target) = labels_pair().await;
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    let holder = lock_lookup(&pair).await;
    source
        .batch_execute("UPDATE labels SET label = 'in hand' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_rows(&target, BLOCKED, &["1"]).await;
    daemon.cdc.kill(Signal::Term);
    wait_log(&daemon.cdc, "stopping").await;
    for signal in [Signal::Hup, Signal::Usr1, Signal::Hup, Signal::Usr2] {
        daemon.cdc.kill(signal);
    }
    drop(holder);
    assert_eq!(daemon.cdc.wait().await.code(), Some(0));
    let mut daemon = Daemon::streaming(&pair, &source, &target).await;
    // The second request counts as before, whatever comes between the two.
    let _holder = lock_lookup(&pair).await;
    source
        .batch_execute("UPDATE labels SET label = 'in hand again' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_rows(&target, BLOCKED, &["1"]).await;
    daemon.cdc.kill(Signal::Term);
    wait_log(&daemon.cdc, "stopping").await;
    daemon.cdc.kill(Signal::Hup);
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(143));
}

/// A command that a person waits for goes with its terminal.
#[tokio::test]
async fn other_commands_end_by_the_signal() {
    let (pair, _source, _target) = labels_pair().await;
    let mut status = Cdc::start(&mut Cdc::command(&pair, &["status", "--watch"]));
    wait_until("the status is shown", async || {
        let shown = status.log();
        if shown.is_empty() { Err(shown) } else { Ok(()) }
    })
    .await;
    let ended = status.stop(Signal::Hup).await;
    assert_eq!(ended.signal(), Some(1), "{ended:?}");
}

/// The number of the pipeline's lock: FNV-1a over the name of its slot.
pub(super) fn lock_of(slot: &str) -> i64 {
    let hash = format!("cdc pipeline {slot}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    i64::from_ne_bytes(hash.to_ne_bytes())
}

/// An error of the configuration ends a process before its first stream, unless a reload has
/// brought it.
#[tokio::test]
async fn what_a_reload_has_brought_ends_no_process_before_its_first_stream() {
    let (pair, source, target) = labels_pair().await;
    let owner = pg(&pair.source_url).await;
    let lock = lock_of(&pair.slot);
    owner
        .batch_execute(&format!("SELECT pg_advisory_lock({lock})"))
        .await
        .unwrap();
    let mut daemon = Daemon::run(&pair);
    wait_log(&daemon.cdc, "another cdc owns this pipeline").await;
    let missing = format!(
        "{}[[read_model]]\nsource = 'public.missing'\ntarget = 'public.labels_lookup'\nkey = ['code']\ncolumns = ['code']\n",
        pair.config
    );
    let line = daemon.reload_with(&missing).await;
    assert!(line.contains("\"session\":\"begins again\""), "{line}");
    drop(owner);
    wait_until("the error is there", async || {
        let log = daemon.cdc.log();
        let tries = log.lines().filter(|line| {
            line.contains("trying again")
                && line.contains("table \\\"public.missing\\\" does not exist at the source")
        });
        if tries.count() > 1 { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(daemon.cdc.is_running());
    daemon.reload_with(&pair.config).await;
    goes_on("corrected", &source, &target).await;
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}
