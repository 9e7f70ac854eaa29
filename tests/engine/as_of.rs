//! What `as_of` claims: never more than the lookups show, whatever the walsender still has to
//! decode, a copy took, or a clock says.

use tokio_postgres::Client;

use crate::support::tags::{
    ALL_IN_STEP, STATES, TAGS, TAGS_LOOKUP, TAGS_SUSPENDED, labels_and_tags,
};
use crate::support::{
    Cdc, Signal, labels_pair, rows, value, wait_equal, wait_in_step, wait_log, wait_rows,
    wait_until,
};

/// WAL that the walsender has to decode before it comes to a change of a label, in rows of about 1
/// kB.
const BACKLOG_ROWS: u32 = 150_000;

async fn now(client: &Client) -> String {
    value(client, "SELECT clock_timestamp()").await
}

/// Writes into a table that no read model is about, then changes a label; returns a time after that
/// commit.
async fn backlog(source: &Client, label: &str) -> String {
    source
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS others (n int, x text);
             INSERT INTO others SELECT n, repeat('x', 1000) FROM generate_series(1, {BACKLOG_ROWS}) n"
        ))
        .await
        .unwrap();
    let change = format!("UPDATE labels SET label = '{label}' WHERE code = 'MR'");
    source.batch_execute(&change).await.unwrap();
    now(source).await
}

/// Until the label has come the lookups are not as of a time after its commit, however often a
/// position is stored meanwhile.
async fn comes_honestly(target: &Client, label: &str, committed: &str, from: &str) {
    // One statement, so one snapshot.
    let look = format!(
        "SELECT (SELECT label = '{label}' FROM labels_lookup WHERE code = 'MR'), as_of >= '{committed}', as_of_lsn::text, as_of
         FROM cdc.freshness"
    );
    let mut positions = vec![from.to_owned()];
    wait_until(&format!("{label} has come"), async || {
        let seen = rows(target, &look).await.remove(0);
        let mut columns = seen.split('|');
        let (come, later) = (columns.next().unwrap(), columns.next().unwrap());
        assert!(
            come == "t" || later == "f",
            "{label} was committed before {committed} and is missing: {seen}"
        );
        let lsn = columns.next().unwrap().to_owned();
        if come == "t" {
            return Ok(());
        }
        if !positions.contains(&lsn) {
            positions.push(lsn);
        }
        Err(seen)
    })
    .await;
    assert!(
        positions.len() > 1,
        "no position was stored before the change came: {positions:?}"
    );
    // A quiet source again: later than any commit.
    let later = format!("SELECT as_of > '{committed}' FROM cdc.freshness");
    wait_rows(target, &later, &["t"]).await;
}

#[tokio::test]
async fn a_walsender_that_still_decodes_does_not_make_the_lookups_newer() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config = format!("status_interval = \"200ms\"\n{}", pair.config);
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let stored = "SELECT as_of_lsn FROM cdc.freshness";
    // While it runs, then while it is away.
    let from = value(&target, stored).await;
    let committed = backlog(&source, "running").await;
    comes_honestly(&target, "running", &committed, &from).await;
    cdc.stop(Signal::Term).await;
    let from = value(&target, stored).await;
    let committed = backlog(&source, "away").await;
    let _cdc = Cdc::run(&pair);
    comes_honestly(&target, "away", &committed, &from).await;
}

/// A copy shows the source as of its slot's consistent point, not as of its merge, and not by the
/// target's clock.
#[tokio::test]
async fn a_copy_is_as_of_the_making_of_its_slot() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    cdc.stop(Signal::Kill).await;
    // What a merge stores; and a time that a clock which was ahead has left.
    target
        .batch_execute(
            "UPDATE cdc.checkpoint SET commit_time = now() + interval '1 day';
             CREATE TABLE merged (as_of timestamptz, lsn pg_lsn);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO public.merged SELECT commit_time, lsn FROM cdc.checkpoint; RETURN NULL; END$$;
             CREATE TRIGGER note AFTER UPDATE ON cdc.pipeline FOR EACH ROW
                 WHEN (OLD.healing IS NOT NULL AND NEW.healing IS NULL) EXECUTE FUNCTION note()",
        )
        .await
        .unwrap();
    source
        .batch_execute(
            "INSERT INTO labels (code, label, display_name) SELECT 'L' || n, 'l', repeat('d', 40) FROM generate_series(1, 30000) n",
        )
        .await
        .unwrap();
    let slot = &pair.slot;
    crate::support::on_free_slot(
        &source,
        &format!("SELECT pg_drop_replication_slot('{slot}')"),
    )
    .await;
    let before = now(&source).await;
    let mut cdc = Cdc::run(&pair);
    let made = format!(
        "SELECT count(confirmed_flush_lsn) FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    wait_rows(&source, &made, &["1"]).await;
    cdc.kill(Signal::Stop);
    assert_eq!(
        value(&target, "SELECT count(*) FROM merged").await,
        "0",
        "stopped too late"
    );
    source
        .batch_execute("UPDATE labels SET label = 'during the copy' WHERE code = 'MR'")
        .await
        .unwrap();
    let after = now(&source).await;
    cdc.kill(Signal::Cont);
    wait_rows(
        &target,
        &format!("SELECT as_of > '{before}', as_of < '{after}' FROM merged"),
        &["t|t"],
    )
    .await;
    wait_in_step(&source, &target).await;
}

/// Beside others that go on, a read model that takes no part stays as of what its lookup shows.
#[tokio::test]
async fn a_suspended_read_model_does_not_grow_newer() {
    let (mut pair, source, target, mut cdc) = labels_and_tags("PRIMARY KEY (id)", "").await;
    cdc.stop(Signal::Term).await;
    pair.config = format!("status_interval = \"200ms\"\n{}", pair.config);
    let _cdc = Cdc::run(&pair);
    let of_tags = "SELECT as_of FROM cdc.freshness WHERE read_model = 'public.tags_lookup'";
    // The change that breaks it comes in one transaction with others, so that it leaves with a
    // batch.
    let altered = now(&source).await;
    source
        .batch_execute(
            "BEGIN; UPDATE labels SET label = 'together' WHERE code = 'MR'; ALTER TABLE tags RENAME note TO other;
             UPDATE tags SET other = 'lost' WHERE id = 1; COMMIT",
        )
        .await
        .unwrap();
    wait_rows(&target, STATES, TAGS_SUSPENDED).await;
    let held = value(&target, of_tags).await;
    let before = format!("SELECT '{held}'::timestamptz <= '{altered}'::timestamptz");
    assert_eq!(
        value(&target, &before).await,
        "t",
        "{held} is later than {altered}"
    );
    source
        .batch_execute("UPDATE labels SET label = 'later' WHERE code = 'MR'")
        .await
        .unwrap();
    let later = now(&source).await;
    let of_labels = format!(
        "SELECT as_of > '{later}' FROM cdc.freshness WHERE read_model = 'public.labels_lookup'"
    );
    wait_rows(&target, &of_labels, &["t"]).await;
    assert_eq!(value(&target, of_tags).await, held);
    source
        .batch_execute("ALTER TABLE tags RENAME other TO note")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    wait_rows(&target, &format!("SELECT ({of_tags}) > '{later}'"), &["t"]).await;
}
