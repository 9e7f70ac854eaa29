//! `target.synchronous_commit = "off"`: what a session starts from is durable, since only what is
//! durable may be acknowledged.

use cdc::cluster::{Cluster, Options};

use crate::support::{
    Cdc, Side, Signal, labels_pair_on, on_free_slot, pg, rows, source, value, wait_in_step,
    wait_log, wait_rows,
};

/// A server of which nobody flushes an asynchronous commit for ten seconds.
fn lazy_target() -> Cluster {
    Cluster::start(&Options {
        name: "lazy".to_owned(),
        pg_bin: Side::Target.programs(),
        tcp: true,
        settings: vec![("wal_writer_delay".to_owned(), "10s".to_owned())],
        ..Options::default()
    })
    .unwrap()
}

/// What the durability of a claim rests on: WAL is one sequence, and a synchronous commit flushes
/// it up to its own record, so everything that was visible when it began is durable
/// (`RecordTransactionCommit` calls `XLogFlush`; PostgreSQL 13 to 18).
#[tokio::test]
async fn a_synchronous_commit_makes_the_asynchronous_ones_before_it_durable() {
    let cluster = lazy_target();
    let first = pg(&cluster.url("postgres")).await;
    let second = pg(&cluster.url("postgres")).await;
    first
        .batch_execute(
            "CREATE TABLE t (n int); INSERT INTO t VALUES (0); SET synchronous_commit = off",
        )
        .await
        .unwrap();
    first.batch_execute("UPDATE t SET n = 1").await.unwrap();
    let written = value(&first, "SELECT pg_current_wal_insert_lsn()").await;
    let flushed = format!("SELECT pg_current_wal_flush_lsn() >= '{written}'");
    assert_eq!(value(&second, &flushed).await, "f");
    // Reads only: nothing to flush.
    assert_eq!(value(&second, "SELECT n FROM t").await, "1");
    assert_eq!(value(&second, &flushed).await, "f");
    second.batch_execute("UPDATE t SET n = 2").await.unwrap();
    assert_eq!(value(&second, &flushed).await, "t");
}

#[tokio::test]
async fn claims_and_healings_are_durable_where_batches_need_not_be() {
    let cluster = lazy_target();
    let (mut pair, source, target) = labels_pair_on(source(), &cluster).await;
    pair.config = format!("{}[target]\nsynchronous_commit = \"off\"\n", pair.config);
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    cdc.stop(Signal::Term).await;
    target
        .batch_execute(
            "CREATE TABLE noted (what text, setting text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 INSERT INTO public.noted VALUES (
                     CASE WHEN TG_RELNAME = 'checkpoint' AND NEW.epoch <> OLD.epoch THEN 'claim'
                          WHEN TG_RELNAME = 'pipeline' AND to_jsonb(NEW) ->> 'healing' IS DISTINCT FROM to_jsonb(OLD) ->> 'healing' THEN 'healing'
                          WHEN TG_RELNAME = 'checkpoint' AND to_jsonb(NEW) ->> 'last_commit_lsn' IS DISTINCT FROM to_jsonb(OLD) ->> 'last_commit_lsn' THEN 'batch'
                          ELSE 'other' END,
                     pg_catalog.current_setting('synchronous_commit'));
                 RETURN NULL; END$$;
             CREATE TRIGGER note AFTER UPDATE ON cdc.pipeline FOR EACH ROW EXECUTE FUNCTION note();
             CREATE TRIGGER note AFTER UPDATE ON cdc.checkpoint FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await
        .unwrap();
    on_free_slot(
        &source,
        &format!("SELECT pg_drop_replication_slot('{}')", pair.slot),
    )
    .await;
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    source
        .batch_execute("UPDATE labels SET label = 'after it' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(
        &target,
        "SELECT what, setting, count(*) > 0 FROM noted WHERE what <> 'other' GROUP BY 1, 2 ORDER BY 1, 2",
        &["batch|off|t", "claim|on|t", "healing|on|t"],
    )
    .await;
    assert_eq!(
        rows(&target, "SELECT count(*) FROM noted WHERE what = 'claim'").await,
        ["1"]
    );
}
