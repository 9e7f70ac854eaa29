//! What people and accidents do to slot, publication, bookkeeping and lookup: whatever it is, the
//! lookup is exact again by itself, or after one resync where only a comparison can see the damage.

use std::path::{Path, PathBuf};

use cdc::cluster::{Cluster, Options, Programs};

use crate::support::{
    Cdc, Pair, Side, Signal, count_log, goes_on, labels_pair, labels_pair_on, missing,
    on_free_slot, pg, rows, server_version, target, value, wait_in_step, wait_log, wait_rows,
    wait_until,
};

async fn resync(pair: &Pair) {
    let pair = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &["resync"]));
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A change that comes by the stream where that is intact.
const CHANGE: &str = "UPDATE labels SET label = 'changed ' || clock_timestamp() WHERE code = 'MR'; DELETE FROM labels WHERE code = 'NEW'";

/// Each damage is done to a running process before a change at the source, which may hide it, and
/// to a stopped one without any.
async fn heals_by_itself(damages: &[&str]) {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    for damage in damages {
        for stopped in [false, true] {
            if stopped {
                cdc.stop(Signal::Term).await;
            }
            target.batch_execute(damage).await.unwrap();
            if stopped {
                cdc = Cdc::run(&pair);
            } else {
                source.batch_execute(CHANGE).await.unwrap();
            }
            let case = format!("{damage}, stopped {stopped}");
            wait_until(&case, async || {
                // What is damaged may not be seen to be right before it is mended.
                let whole =
                    "SELECT (SELECT count(*) FROM cdc.map_1 WHERE state = 's') = (SELECT count(*) FROM labels_lookup)";
                match target.simple_query(whole).await {
                    Ok(_) if value(&target, whole).await == "t" => Ok(()),
                    other => Err(format!("{:?}", other.err())),
                }
            })
            .await;
            goes_on(&case, &source, &target).await;
        }
    }
    assert!(cdc.is_running());
}

#[tokio::test]
async fn bookkeeping_that_is_dropped() {
    heals_by_itself(&["DROP SCHEMA cdc CASCADE"]).await;
}

#[tokio::test]
async fn checkpoint_that_is_missing() {
    heals_by_itself(&[
        "DELETE FROM cdc.pipeline",
        "DELETE FROM cdc.checkpoint",
        "UPDATE cdc.checkpoint SET lsn = NULL",
    ])
    .await;
}

#[tokio::test]
async fn map_that_is_emptied_or_dropped() {
    heals_by_itself(&[
        "TRUNCATE cdc.map_1",
        "DELETE FROM cdc.map_1",
        "DROP TABLE cdc.map_1",
    ])
    .await;
}

#[tokio::test]
async fn lookup_that_is_emptied_or_has_other_rows() {
    heals_by_itself(&[
        "TRUNCATE labels_lookup",
        "DELETE FROM labels_lookup",
        "DELETE FROM labels_lookup WHERE code = 'DR'",
        "INSERT INTO labels_lookup (code, label, display_name) VALUES ('HAND', 'h', 'h')",
    ])
    .await;
}

/// Rows that somebody changed can only be seen by a comparison: the next resync repairs them,
/// whatever the stream has made of them meanwhile.
#[tokio::test]
async fn rows_of_map_and_lookup_that_somebody_changed() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    for damage in [
        "DELETE FROM cdc.map_1 WHERE k1 = 'MR'",
        "UPDATE cdc.map_1 SET k1 = 'OTHER' WHERE k1 = 'MR'",
        "UPDATE cdc.map_1 SET state = 'd' WHERE k1 = 'MR'",
        "INSERT INTO cdc.map_1 (i1, k1, state) VALUES (gen_random_uuid(), 'GHOST', 's'), (gen_random_uuid(), 'NEW', 's')",
        "DELETE FROM labels_lookup WHERE code IN ('MR', 'NEW')",
        "UPDATE labels_lookup SET label = 'by hand'",
        "INSERT INTO labels_lookup (code, label, display_name) VALUES ('HAND', 'h', 'h')",
        "UPDATE labels_lookup SET code = 'BY HAND' WHERE code = 'NEW'",
    ] {
        for change in [
            "SELECT",
            "UPDATE labels SET code = 'MOVED', label = 'later' WHERE code = 'NEW'",
            "DELETE FROM labels WHERE code IN ('NEW', 'MOVED'); UPDATE labels SET deleted_at = now() WHERE code = 'MR'",
            "UPDATE labels SET deleted_at = NULL WHERE code = 'MR'",
        ] {
            target.batch_execute(damage).await.unwrap();
            source.batch_execute(change).await.unwrap();
            resync(&pair).await;
            goes_on(&format!("{damage}; {change}"), &source, &target).await;
        }
    }
    assert_eq!(count_log(&cdc, "the stream cannot continue"), 0);
    let repaired = "SELECT sum((v ->> 'inserted')::int) > 0 AND sum((v ->> 'updated')::int) > 0 AND sum((v ->> 'deleted')::int) > 0
                    FROM cdc.resync, jsonb_each(result) r (k, v) WHERE origin = 'request'";
    assert_eq!(
        value(&target, repaired).await,
        "t",
        "drift is counted by kind"
    );
}

/// The target is set back to an earlier state, checkpoint and all.
#[tokio::test]
async fn target_that_is_restored_from_a_backup() {
    let (pair, source, target_before) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target_before).await;
    cdc.stop(Signal::Term).await;
    drop(target_before);
    let admin = pg(&target().url("postgres")).await;
    let database = &pair.target_database;
    let backup = format!("CREATE DATABASE {database}_backup TEMPLATE {database}");
    wait_until("a backup is made", async || {
        admin
            .batch_execute(&backup)
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    for running in [true, false] {
        let mut cdc = Cdc::run(&pair);
        let target = pg(&pair.target_url).await;
        goes_on("before", &source, &target).await;
        drop(target);
        if !running {
            cdc.stop(Signal::Term).await;
        }
        let restore = format!(
            "ALTER DATABASE {database} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}';
             DROP DATABASE {database} (FORCE);
             CREATE DATABASE {database} TEMPLATE {database}_backup"
        );
        for statement in restore.split(';') {
            admin.batch_execute(statement).await.unwrap();
        }
        let cdc = if running { cdc } else { Cdc::run(&pair) };
        let target = pg(&pair.target_url).await;
        goes_on("restored", &source, &target).await;
        assert!(
            cdc.log().contains("ahead of the checkpoint"),
            "{}",
            cdc.log()
        );
    }
}

/// On 18 a slot that waits for a publication which is made again drops the changes in between in
/// silence.
#[tokio::test]
async fn publication_that_is_made_again() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let made = "CREATE PUBLICATION cdc FOR TABLE labels";
    let mut copies = 0;
    for stopped in [false, true] {
        for between in [CHANGE, "SELECT"] {
            if stopped {
                cdc.stop(Signal::Term).await;
            }
            for statement in ["DROP PUBLICATION cdc", between, made] {
                source.batch_execute(statement).await.unwrap();
            }
            if stopped {
                cdc = Cdc::run(&pair);
            }
            copies += 1;
            let healed = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal' AND state = 'done'";
            wait_rows(&target, healed, &[&copies.to_string()]).await;
            goes_on(&format!("stopped {stopped}, {between}"), &source, &target).await;
        }
    }
}

/// While nobody looks.
#[tokio::test]
async fn publication_that_was_changed_while_stopped() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    for [before, after] in [
        [
            "ALTER PUBLICATION cdc DROP TABLE labels",
            "ALTER PUBLICATION cdc ADD TABLE labels",
        ],
        [
            "ALTER PUBLICATION cdc SET (publish = 'insert')",
            "ALTER PUBLICATION cdc SET (publish = 'insert, update, delete, truncate')",
        ],
    ] {
        cdc.stop(Signal::Term).await;
        for statement in [before, CHANGE, after] {
            source.batch_execute(statement).await.unwrap();
        }
        cdc = Cdc::run(&pair);
        goes_on(before, &source, &target).await;
        assert!(
            cdc.log().contains("publication was changed"),
            "{}",
            cdc.log()
        );
    }
}

/// A table may be published because its schema is.
#[tokio::test]
async fn schema_that_is_taken_out_of_the_publication() {
    let (pair, source, target) = labels_pair().await;
    if server_version(&source).await < 150_000 {
        eprintln!("NOT RUN: publications of schemas need PostgreSQL 15.");
        return;
    }
    source
        .batch_execute("CREATE SCHEMA away; CREATE PUBLICATION cdc FOR TABLES IN SCHEMA public")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let out = "ALTER PUBLICATION cdc DROP TABLES IN SCHEMA public";
    let back = "ALTER PUBLICATION cdc ADD TABLES IN SCHEMA public";
    // For so long that it is noticed.
    for statement in [out, CHANGE] {
        source.batch_execute(statement).await.unwrap();
    }
    wait_until("it says what is missing", async || {
        let told = rows(
            &target,
            "SELECT coalesce(reason, '') || ' / ' || coalesce(hint, '') FROM cdc.read_model",
        )
        .await;
        let hint = r#"ALTER PUBLICATION "cdc" ADD TABLE "public"."labels""#;
        if told.iter().all(|told| told.contains(hint)) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    source.batch_execute(back).await.unwrap();
    goes_on("out and back", &source, &target).await;
    let moves = [
        "ALTER TABLE labels SET SCHEMA away",
        "UPDATE away.labels SET label = 'away' || clock_timestamp() WHERE code = 'MR'",
        "ALTER TABLE away.labels SET SCHEMA public",
    ];
    for stopped in [false, true] {
        for statements in [[out, CHANGE, back], moves] {
            if stopped {
                cdc.stop(Signal::Term).await;
            }
            for statement in statements {
                source.batch_execute(statement).await.unwrap();
            }
            if stopped {
                cdc = Cdc::run(&pair);
            }
            goes_on(
                &format!("{statements:?}, stopped {stopped}"),
                &source,
                &target,
            )
            .await;
        }
    }
}

/// Without publish_via_partition_root changes come under the names of the partitions, which nobody
/// follows.
#[tokio::test]
async fn partitions_that_are_published_under_their_own_names() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE parts (LIKE labels INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY HASH (id);
             CREATE TABLE part_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE part_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO parts SELECT * FROM labels; DROP TABLE labels; ALTER TABLE parts RENAME TO labels",
        )
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    for stopped in [false, true] {
        if stopped {
            cdc.stop(Signal::Term).await;
        }
        for statement in [
            "ALTER PUBLICATION cdc SET (publish_via_partition_root = false)",
            CHANGE,
            "SELECT",
        ] {
            source.batch_execute(statement).await.unwrap();
        }
        if stopped {
            cdc = Cdc::run(&pair);
        }
        goes_on(&format!("stopped {stopped}"), &source, &target).await;
        let root = "SELECT pubviaroot FROM pg_publication WHERE pubname = 'cdc'";
        assert_eq!(value(&source, root).await, "t");
    }
}

#[tokio::test]
async fn slot_that_somebody_made_again() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let slot = &pair.slot;
    let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
    let make = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    for running in [false, true] {
        if running {
            // It is in use as long as its session lives.
            let end = format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}';
                 SELECT pg_drop_replication_slot('{slot}')"
            );
            wait_until("the slot is dropped", async || {
                source
                    .batch_execute(&end)
                    .await
                    .map_err(|error| format!("{error:?}"))
            })
            .await;
        } else {
            cdc.stop(Signal::Term).await;
            on_free_slot(&source, &drop).await;
        }
        source.batch_execute(CHANGE).await.unwrap();
        // Unless the running process was faster.
        let _ = source.batch_execute(&make).await;
        if !running {
            cdc = Cdc::run(&pair);
            wait_log(&cdc, "ahead of the checkpoint").await;
        }
        goes_on(&format!("running {running}"), &source, &target).await;
        assert!(
            count_log(&cdc, "the stream cannot continue") > 0,
            "{}",
            cdc.log()
        );
    }
}

/// Server programs of 18 or later, which know idle_replication_slot_timeout.
fn programs_18() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".postgres/18/bin");
    let places = [Side::Source.programs(), Some(fetched)];
    let found = places
        .iter()
        .flatten()
        .filter_map(|place| Programs::find(Some(place), None).ok())
        .find(|found| found.major() >= 18);
    Some(found?.directory().to_path_buf())
}

#[tokio::test]
async fn slot_that_was_idle_for_too_long() {
    let Some(programs) = programs_18() else {
        missing("a slot's idle timeout needs PostgreSQL 18: make postgres-18 fetches it.");
        return;
    };
    let cluster = Cluster::start(&Options {
        name: "idle-slot".to_owned(),
        pg_bin: Some(programs),
        tcp: true,
        settings: vec![("idle_replication_slot_timeout".to_owned(), "1s".to_owned())],
        ..Options::default()
    })
    .unwrap();
    let (pair, source, target) = labels_pair_on(&cluster, target()).await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    cdc.stop(Signal::Term).await;
    source.batch_execute(CHANGE).await.unwrap();
    wait_until("the slot is invalidated", async || {
        source.batch_execute("CHECKPOINT").await.unwrap();
        let seen = rows(
            &source,
            "SELECT invalidation_reason FROM pg_replication_slots",
        )
        .await;
        if seen == ["idle_timeout"] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let cdc = Cdc::run(&pair);
    goes_on("idle", &source, &target).await;
    assert!(
        cdc.log()
            .contains("the slot was invalidated (idle_timeout)"),
        "{}",
        cdc.log()
    );
}

/// The role may not replicate any more: nothing is lost, and it goes on when it may again.
#[tokio::test]
async fn role_that_loses_the_right_to_replicate() {
    let (mut pair, source, target) = labels_pair().await;
    let role = format!("replicator_{}", pair.slot);
    source
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON labels TO {role};
             CREATE PUBLICATION cdc FOR TABLE labels"
        ))
        .await
        .unwrap();
    pair.source_url = pair.source_url.replace("postgres@", &format!("{role}@"));
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let end = format!(
        "ALTER ROLE {role} NOREPLICATION;
         SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    source.batch_execute(&end).await.unwrap();
    source.batch_execute(CHANGE).await.unwrap();
    wait_until("it says what is missing", async || {
        let told = "SELECT state || ' ' || error || ' / ' || error_hint FROM cdc.pipeline";
        let told = rows(&target, told).await;
        let hint = format!("may not replicate / ALTER ROLE \"{role}\" REPLICATION;");
        if told
            .iter()
            .all(|told| told.starts_with("retrying") && told.ends_with(&hint))
        {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    assert!(cdc.is_running());
    source
        .batch_execute(&format!("ALTER ROLE {role} REPLICATION"))
        .await
        .unwrap();
    goes_on("may again", &source, &target).await;
    assert_eq!(
        count_log(&cdc, "the stream cannot continue"),
        0,
        "nothing is copied"
    );
}

/// A code of its own is not known to be final, so it is tried for ever: it is said which read
/// model, what and since when.
#[tokio::test]
async fn trigger_with_an_error_code_of_its_own() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    target
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'secret %', NEW.label USING ERRCODE = 'ZZ123'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON labels_lookup FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    source.batch_execute(CHANGE).await.unwrap();
    let told = wait_until("it says what is in the way", async || {
        let told = rows(
            &target,
            "SELECT error FROM cdc.pipeline WHERE state = 'retrying'",
        )
        .await;
        let what = "UTC: read model \"public.labels_lookup\": the target reported SQLSTATE ZZ123";
        match told.first() {
            Some(told) if told.starts_with("since 2") && told.ends_with(what) => Ok(told.clone()),
            _ => Err(format!("{told:?}")),
        }
    })
    .await;
    wait_until("it is tried again", async || {
        match count_log(&cdc, "ZZ123") {
            0..4 => Err(cdc.log()),
            _ => Ok(()),
        }
    })
    .await;
    // The same time, however often it was tried.
    wait_rows(
        &target,
        "SELECT error FROM cdc.pipeline WHERE state = 'retrying'",
        &[&told],
    )
    .await;
    target
        .batch_execute("DROP TRIGGER refuse ON labels_lookup")
        .await
        .unwrap();
    goes_on("without the trigger", &source, &target).await;
    assert!(!cdc.log().contains("secret"), "{}", cdc.log());
    assert!(cdc.is_running());
}
