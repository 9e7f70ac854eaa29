//! The life of the process: servers that come late or go away, shutdowns, an idle slot.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use cdc::cluster::{Cluster, Options, Stop};

use crate::support::{
    self, Cdc, Side, Signal, count_log, labels_pair, labels_pair_on, own_cluster, pg, target,
    value, wait_in_step, wait_log, wait_rows, wait_until,
};

/// The time in which a server or the process has to end.
const SOON: Duration = Duration::from_secs(10);

/// A source of its own, stopped and started while the target stays.
#[tokio::test]
async fn source_that_goes_away_is_waited_for_and_never_held_up() {
    let cluster = own_cluster(Side::Source, "own-source");
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    // Not up yet when we start.
    drop(source);
    cluster.stop(Stop::Fast).unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "trying again").await;
    cluster.start_again().unwrap();
    let source = pg(&pair.source_url).await;
    wait_in_step(&source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = 'first' WHERE code = 'MR'")
        .await
        .unwrap();
    // Fast shutdown right after a commit, while streaming.
    let started = Instant::now();
    cluster.stop(Stop::Fast).unwrap();
    assert!(
        started.elapsed() < SOON,
        "shutdown took {:?}",
        started.elapsed()
    );
    cluster.start_again().unwrap();
    let source = pg(&pair.source_url).await;
    source
        .batch_execute("UPDATE labels SET label = 'second' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    // A crash.
    cluster.kill().unwrap();
    cluster.start_again().unwrap();
    let source = pg(&pair.source_url).await;
    source
        .batch_execute("UPDATE labels SET label = 'third' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(count_log(&cdc, "copied again"), 0, "no gap");
    assert!(cdc.is_running());
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
}

/// A target of its own, stopped and started while the source stays; the source's shutdown does not
/// wait meanwhile.
#[tokio::test]
async fn target_that_goes_away_is_waited_for_and_does_not_hold_the_source_up() {
    let (cluster, own_source) = std::thread::scope(|scope| {
        let source = scope.spawn(|| own_cluster(Side::Source, "own-source"));
        (
            own_cluster(Side::Target, "own-target"),
            source.join().unwrap(),
        )
    });
    let (pair, source, target) = labels_pair_on(&own_source, &cluster).await;
    drop(target);
    cluster.stop(Stop::Fast).unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "trying again").await;
    cluster.start_again().unwrap();
    let target = pg(&pair.target_url).await;
    wait_in_step(&source, &target).await;
    // Down while changes come.
    drop(target);
    cluster.stop(Stop::Immediate).unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'while the target is down' WHERE code = 'MR'")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    own_source.stop(Stop::Fast).unwrap();
    assert!(
        started.elapsed() < SOON,
        "shutdown took {:?}",
        started.elapsed()
    );
    own_source.start_again().unwrap();
    cluster.start_again().unwrap();
    let (source, target) = (pg(&pair.source_url).await, pg(&pair.target_url).await);
    wait_in_step(&source, &target).await;
    assert_eq!(count_log(&cdc, "copied again"), 0, "no gap");
    // To leave while the target is gone.
    drop(target);
    cluster.stop(Stop::Fast).unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'unheard' WHERE code = 'MR'")
        .await
        .unwrap();
    let started = Instant::now();
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    assert!(
        started.elapsed() < SOON,
        "took {:?} to leave",
        started.elapsed()
    );
}

/// A target that hangs in the middle of a batch: a lock on the lookup.
#[tokio::test]
async fn locked_lookup_holds_up_neither_shutdown_nor_leaving() {
    let cluster = own_cluster(Side::Source, "own-source");
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let locker = pg(&pair.target_url).await;
    locker
        .batch_execute("BEGIN; LOCK labels_lookup IN SHARE MODE")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'locked' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_until("the writer waits for the lock", async || {
        match value(
            &target,
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'labels_lookup'::regclass",
        )
        .await
        {
            none if none == "0" => Err(none),
            _ => Ok(()),
        }
    })
    .await;
    let started = Instant::now();
    cluster.stop(Stop::Fast).unwrap();
    assert!(
        started.elapsed() < SOON,
        "shutdown took {:?}",
        started.elapsed()
    );
    cluster.start_again().unwrap();
    let started = Instant::now();
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    assert!(
        started.elapsed() < SOON,
        "took {:?} to leave",
        started.elapsed()
    );
    locker.batch_execute("ROLLBACK").await.unwrap();
    let _cdc = Cdc::run(&pair);
    wait_in_step(&pg(&pair.source_url).await, &target).await;
}

#[tokio::test]
async fn idle_slot_follows_the_wal_of_others_and_says_nothing() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config = format!("status_interval = \"1s\"\n{}", pair.config);
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    let logged = |cdc: &Cdc| {
        let log = cdc.log();
        log.lines()
            .filter(|line| line.contains("INFO") || line.contains("WARN"))
            .count()
    };
    let before = logged(&cdc);
    // Another table of this database, and another database of this server.
    source
        .batch_execute(
            "CREATE TABLE busy AS SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n",
        )
        .await
        .unwrap();
    let other = pg(&support::source().url("postgres")).await;
    other
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS busy AS SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n",
        )
        .await
        .unwrap();
    let end = value(&source, "SELECT pg_current_wal_lsn()").await;
    let passed = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    crate::support::wait_rows(&source, &passed, &["t"]).await;
    assert_eq!(logged(&cdc), before, "{}", cdc.log());
    let ahead = format!(
        "SELECT lsn >= '{}' FROM cdc.checkpoint",
        value(
            &source,
            &format!(
                "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
                pair.slot
            )
        )
        .await
    );
    crate::support::wait_rows(&target, &ahead, &["t"]).await;
}

#[tokio::test]
async fn second_process_waits_and_takes_over() {
    let (pair, source, target) = labels_pair().await;
    let mut first = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let second = Cdc::run(&pair);
    wait_log(&second, "another cdc owns this pipeline").await;
    source
        .batch_execute("UPDATE labels SET label = 'one' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    first.stop(Signal::Kill).await;
    source
        .batch_execute("UPDATE labels SET label = 'two' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_log(&second, "streaming").await;
}

/// A halted process is overtaken; when it wakes up it writes nothing and waits.
#[tokio::test]
async fn zombie_writes_nothing() {
    let (pair, source, target) = labels_pair().await;
    let mut zombie = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&zombie, "streaming").await;
    zombie.kill(Signal::Stop);
    source
        .batch_execute("UPDATE labels SET label = 'one' WHERE code = 'MR'")
        .await
        .unwrap();
    let ended =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name LIKE '%stream%'
        AND pid IN (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '";
    source
        .batch_execute(&format!("{ended}{}')", pair.slot))
        .await
        .unwrap();
    let _second = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    zombie.kill(Signal::Cont);
    for n in 0..5 {
        source
            .batch_execute(&format!(
                "UPDATE labels SET label = 'n{n}' WHERE code = 'MR'"
            ))
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
    }
    assert_eq!(count_log(&zombie, "applied changes"), 0);
}

/// A server that asks for this password over TCP.
fn with_password(side: Side, name: &str, password: &str) -> Cluster {
    Cluster::start(&Options {
        name: name.to_owned(),
        pg_bin: side.programs(),
        tcp: true,
        password: Some(password.to_owned()),
        ..Options::default()
    })
    .unwrap()
}

/// A password that is changed under a process that runs is not its end: it says so, and comes back
/// once it is right again.
#[tokio::test]
async fn password_that_was_changed_is_waited_for() {
    let on_source = with_password(Side::Source, "password-source", "right");
    let on_target = with_password(Side::Target, "password-target", "right");
    // The test comes by the sockets, which ask for none.
    let (mut pair, source, target) = labels_pair_on(&on_source, &on_target).await;
    pair.source_url = on_source.tcp_url(&pair.source_database);
    pair.target_url = on_target.tcp_url(&pair.target_database);
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    wait_in_step(&source, &target).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
    for (side, name) in [(&source, "source"), (&target, "target")] {
        side.batch_execute("ALTER ROLE postgres PASSWORD 'other'")
            .await
            .unwrap();
        side.batch_execute(end).await.unwrap();
        let sql = format!("UPDATE labels SET label = 'missed by the {name}' WHERE code = 'MR'");
        source.batch_execute(&sql).await.unwrap();
        wait_until("the log says why", async || {
            let tries = cdc.log();
            let refused = tries.lines().filter(|line| {
                line.contains("trying again")
                    && line.contains("password authentication failed")
                    && line.contains(name)
                    && line.contains("\"hint\":")
            });
            match refused.count() {
                0 | 1 => Err("too few tries".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        assert!(cdc.is_running());
        if name == "source" {
            let told = "SELECT state, error LIKE '%password authentication failed%', error_hint IS NOT NULL FROM cdc.pipeline";
            wait_rows(&target, told, &["retrying|t|t"]).await;
            let shown = pair.clone();
            let output =
                tokio::task::spawn_blocking(move || Cdc::output(&shown, &["status"])).await;
            // Long lines are broken at blanks.
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                text.contains("password authentication failed") && text.contains("hint: "),
                "{text}"
            );
        }
        side.batch_execute(
            "SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'right'",
        )
        .await
        .unwrap();
        wait_in_step(&source, &target).await;
    }
    assert!(!cdc.log().contains("copied again"), "{}", cdc.log());
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
}

/// A password in a file is read at each connect: whoever rotates it need not restart anything.
#[tokio::test]
async fn password_that_is_rotated_in_its_file_is_taken() {
    let on_source = with_password(Side::Source, "rotated-source", "first");
    let on_target = with_password(Side::Target, "rotated-target", "first");
    let (mut pair, source, target) = labels_pair_on(&on_source, &on_target).await;
    let file = on_source.data_dir().with_file_name("rotated-password");
    let rotate = |password: &str| {
        std::fs::write(&file, password).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    rotate("first");
    pair.source_url = on_source.tcp_url(&pair.source_database);
    pair.target_url = on_target.tcp_url(&pair.target_database);
    pair.config += &format!(
        "password_file = '{0}'\n[target]\npassword_file = '{0}'\n",
        file.display()
    );
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    rotate("second");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
    for side in [&source, &target] {
        side.batch_execute(
            "SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'second'",
        )
        .await
        .unwrap();
    }
    for side in [&source, &target] {
        side.batch_execute(end).await.unwrap();
    }
    source
        .batch_execute("UPDATE labels SET label = 'after the rotation' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    // A connection that was made between the two steps may have been refused.
    assert!(cdc.is_running());
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    std::fs::remove_file(&file).unwrap();
}
