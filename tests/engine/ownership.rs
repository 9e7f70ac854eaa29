//! Whose slot and publication it is: what another consumer of the source has made is neither
//! altered nor dropped.

use tokio_postgres::Client;

use crate::support::{
    Cdc, IN_STEP, Pair, Signal, count_log, goes_on, labels_pair, lookup, pg, rows, seed_reports,
    target_database, value, wait_in_step, wait_log, wait_rows, wait_until,
};

const PUBLICATIONS: &str = "SELECT count(*) FROM pg_publication";
const COMMENT: &str =
    "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = 'cdc'";

/// What does not change as long as nobody drops, makes, reads or advances the slot.
fn slot_of(pair: &Pair) -> String {
    format!(
        "SELECT plugin, confirmed_flush_lsn, restart_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    )
}

async fn output(pair: &Pair, arguments: &'static [&'static str]) -> (String, Option<i32>) {
    let pair = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, arguments))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code())
}

/// It ends with code 2, and its log has all of this.
async fn refused(pair: &Pair, told: &[&str]) {
    let mut cdc = Cdc::run(pair);
    assert_eq!(cdc.wait().await.code(), Some(2), "{}", cdc.log());
    for text in told {
        assert!(cdc.log().contains(text), "{text}: {}", cdc.log());
    }
}

/// Another target of the same source, with the same names of slot, publication and bookkeeping.
async fn second_service(pair: &Pair) -> (Pair, Client) {
    let second = Pair {
        target_url: target_database().await,
        ..pair.clone()
    };
    let target = pg(&second.target_url).await;
    seed_reports(&target).await;
    (second, target)
}

#[tokio::test]
async fn slot_of_another_consumer_is_never_dropped() {
    let (pair, source, target) = labels_pair().await;
    let make = format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
        pair.slot
    );
    source.batch_execute(&make).await.unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'for the other consumer' WHERE code = 'MR'")
        .await
        .unwrap();
    let slot = rows(&source, &slot_of(&pair)).await;
    let drop = format!("SELECT pg_drop_replication_slot('{}');", pair.slot);
    let told = [
        "is not known to be this pipeline's",
        &drop,
        "cdc run --take-slot",
        "source.slot",
    ];
    refused(&pair, &told).await;
    assert_eq!(rows(&source, &slot_of(&pair)).await, slot);
    assert_eq!(value(&source, PUBLICATIONS).await, "0", "nothing was made");
    let (findings, code) = output(&pair, &["check"]).await;
    assert_eq!(code, Some(1), "{findings}");
    assert!(
        told.iter().all(|text| findings.contains(text)),
        "{findings}"
    );
    let (left, code) = output(&pair, &["teardown", "--yes"]).await;
    assert!(left.contains(&drop), "{left}");
    assert_eq!(code, Some(1), "{left}");
    assert_eq!(rows(&source, &slot_of(&pair)).await, slot);
    // A person who knows better says so, once.
    let mut cdc = Cdc::start(&mut Cdc::command(&pair, &["run", "--take-slot"]));
    goes_on("taken", &source, &target).await;
    assert_eq!(count_log(&cdc, "taken all the same"), 1, "{}", cdc.log());
    cdc.stop(Signal::Kill).await;
    let cdc = Cdc::run(&pair);
    goes_on("it is ours from now on", &source, &target).await;
    assert_eq!(count_log(&cdc, "first copy"), 0, "{}", cdc.log());
}

/// The usual mistake: two services with the default names on one master.
#[tokio::test]
async fn second_service_with_the_same_names_is_told_which_to_change() {
    let (pair, source, target) = labels_pair().await;
    let mut first = Cdc::run(&pair);
    goes_on("first", &source, &target).await;
    let (second, reports) = second_service(&pair).await;
    let told = [
        "belongs to another pipeline",
        &pair.target_database,
        "source.slot",
        "source.publication",
    ];
    refused(&second, &told).await;
    let (findings, code) = output(&second, &["check"]).await;
    assert_eq!(code, Some(1), "{findings}");
    assert!(
        told.iter().all(|text| findings.contains(text)),
        "{findings}"
    );
    goes_on("beside it", &source, &target).await;
    assert_eq!(count_log(&first, "trying again"), 0, "{}", first.log());
    // While the first one is away.
    first.stop(Signal::Kill).await;
    wait_rows(
        &source,
        "SELECT active::text FROM pg_replication_slots WHERE database = current_database()",
        &["false"],
    )
    .await;
    let slot = rows(&source, &slot_of(&pair)).await;
    let comment = value(&source, COMMENT).await;
    refused(&second, &told).await;
    let (left, code) = output(&second, &["teardown", "--yes"]).await;
    assert!(left.contains("belongs to another pipeline"), "{left}");
    assert_eq!(code, Some(0), "nothing of this pipeline is left: {left}");
    assert_eq!(rows(&source, &slot_of(&pair)).await, slot);
    assert_eq!(value(&source, COMMENT).await, comment);
    assert_eq!(lookup(&reports).await, Vec::<String>::new());
    let first = Cdc::run(&pair);
    goes_on("back again", &source, &target).await;
    assert_eq!(
        count_log(&first, "the stream cannot continue"),
        0,
        "{}",
        first.log()
    );
}

/// What another pipeline has made is used as it is if it has what is needed, else it stays as it
/// is.
#[tokio::test]
async fn publication_of_another_pipeline_is_not_altered() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("CREATE TABLE tags (tag text PRIMARY KEY); INSERT INTO tags VALUES ('a')")
        .await
        .unwrap();
    let mut first = Cdc::run(&pair);
    goes_on("first", &source, &target).await;
    let (mut second, reports) = second_service(&pair).await;
    second.slot = format!("{}_second", pair.slot);
    second.config = format!("[source]\nslot = '{}'\n", second.slot);
    let made = "SELECT p.xmin, r.xmin, d.description FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
                JOIN pg_description d ON d.objoid = p.oid";
    let publication = rows(&source, made).await;
    let mut cdc = Cdc::run(&second);
    wait_until("the second one follows too", async || {
        let (seen, expected) = (lookup(&reports).await, lookup(&target).await);
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
    cdc.stop(Signal::Term).await;
    assert_eq!(rows(&source, made).await, publication);
    let (findings, _) = output(&second, &["check"]).await;
    assert!(findings.contains("source.publication"), "{findings}");
    // It is not there to be extended, though this role might.
    second.config.push_str(
        "[[read_model]]\nsource = 'tags'\ntarget = 'tags_lookup'\nkey = ['tag']\ncolumns = ['tag']\n",
    );
    second.target_url = target_database().await;
    second.slot = format!("{}_third", pair.slot);
    second.config = second.config.replace("_second'", "_third'");
    refused(
        &second,
        &["belongs to another pipeline", "source.publication"],
    )
    .await;
    assert_eq!(rows(&source, made).await, publication);
    assert!(first.is_running());
}

/// The bookkeeping was dropped by hand, or the target restored from before it was there: the
/// publication tells.
#[tokio::test]
async fn publication_names_the_pipeline_whose_bookkeeping_is_gone() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let comment = value(&source, COMMENT).await;
    let system = value(&target, "SELECT system_identifier FROM pg_control_system()").await;
    for part in ["made by cdc", &system, &pair.target_database, "\"cdc\""] {
        assert!(comment.contains(part), "{part}: {comment}");
    }
    cdc.stop(Signal::Term).await;
    target
        .batch_execute("DROP SCHEMA cdc CASCADE")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    goes_on("without its bookkeeping", &source, &target).await;
    cdc.stop(Signal::Term).await;
    // Made by an earlier version, or for a database that was called otherwise: the bookkeeping
    // knows it, and names it as it is now.
    source
        .batch_execute("COMMENT ON PUBLICATION cdc IS 'made by cdc'")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_rows(&source, COMMENT, &[&comment]).await;
    goes_on("named", &source, &target).await;
    cdc.stop(Signal::Term).await;
    drop(target);
    let renamed = format!("{}_renamed", pair.target_database);
    let admin = pg(&crate::support::target().url("postgres")).await;
    let rename = format!(
        "ALTER DATABASE {} RENAME TO {renamed}",
        pair.target_database
    );
    wait_until("nobody uses the target", async || {
        admin
            .batch_execute(&rename)
            .await
            .map_err(|error| format!("{error:?}"))
    })
    .await;
    let pair = Pair {
        target_url: crate::support::target().url(&renamed),
        ..pair
    };
    let target = pg(&pair.target_url).await;
    let cdc = Cdc::run(&pair);
    wait_rows(
        &source,
        COMMENT,
        &[&comment.replace(&pair.target_database, &renamed)],
    )
    .await;
    goes_on("renamed", &source, &target).await;
    assert_eq!(
        count_log(&cdc, "the stream cannot continue"),
        0,
        "{}",
        cdc.log()
    );
}

/// A publication that a person made says nothing of the pipeline.
#[tokio::test]
async fn slot_whose_bookkeeping_is_gone_is_taken_only_when_a_person_says_so() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    // While it runs it knows what it has made.
    target
        .batch_execute("DROP SCHEMA cdc CASCADE")
        .await
        .unwrap();
    wait_rows(
        &target,
        "SELECT to_regclass('cdc.pipeline') IS NOT NULL",
        &["t"],
    )
    .await;
    goes_on("without its bookkeeping", &source, &target).await;
    cdc.stop(Signal::Term).await;
    target
        .batch_execute("DROP SCHEMA cdc CASCADE")
        .await
        .unwrap();
    wait_until("the server has noticed that it left", async || {
        let active = value(
            &source,
            "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()",
        )
        .await;
        if active == "0" { Ok(()) } else { Err(active) }
    })
    .await;
    let slot = rows(&source, &slot_of(&pair)).await;
    refused(
        &pair,
        &["is not known to be this pipeline's", "--take-slot"],
    )
    .await;
    assert_eq!(rows(&source, &slot_of(&pair)).await, slot);
    let _cdc = Cdc::start(&mut Cdc::command(&pair, &["run", "--take-slot"]));
    goes_on("taken", &source, &target).await;
}

/// Above its limit a process gives up its own slot, never another's, whatever it can reach.
#[tokio::test]
async fn slot_of_another_pipeline_is_not_given_up() {
    let (pair, source, target) = labels_pair().await;
    let mut first = Cdc::run(&pair);
    goes_on("first", &source, &target).await;
    first.stop(Signal::Kill).await;
    let mut second = pair.clone();
    second.config.push_str("max_retained_wal = '1MB'\n");
    second.target_url = "postgresql://postgres@127.0.0.1:1/away".to_owned();
    source
        .batch_execute("CREATE TABLE busy (x text); INSERT INTO busy SELECT repeat('x', 500) FROM generate_series(1, 8000)")
        .await
        .unwrap();
    let second = Cdc::run(&second);
    wait_log(&second, "the slot holds more than it may").await;
    let first = Cdc::run(&pair);
    goes_on("back again", &source, &target).await;
    assert_eq!(
        count_log(&first, "the stream cannot continue"),
        0,
        "{}",
        first.log()
    );
    wait_rows(&target, IN_STEP, &["in_step streaming"]).await;
}

/// The intent is stored before a slot is made: what a killed first copy has left is known.
#[tokio::test]
async fn slot_of_a_first_copy_that_was_killed_is_known() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR TABLE labels")
        .await
        .unwrap();
    crate::support::held::install(&target).await;
    for _ in 0..2 {
        let holder = crate::support::held::hold(&pair, crate::support::held::FILL).await;
        let mut cdc = Cdc::run(&pair);
        crate::support::held::wait_held(&target, crate::support::held::FILL).await;
        cdc.stop(Signal::Kill).await;
        crate::support::held::let_go(holder, crate::support::held::FILL).await;
        assert_eq!(
            rows(&source, &slot_of(&pair)).await.len(),
            1,
            "the slot is left"
        );
    }
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    goes_on("copied", &source, &target).await;
}
