//! Reading under a slot's snapshot.

use std::time::Duration;

use cdc::connect::Connection;
use cdc::conninfo::Conninfo;
use cdc::source::replication::Replication;
use cdc::source::slot::{self, CreatedSlot};
use cdc::source::snapshot::Snapshot;
use cdc::sql::TableName;
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::place::{client, cluster, database, on_socket, replication};
use crate::support::{Side, own_cluster, pg, target, value, wait_until};

const WITHIN: Duration = Duration::from_secs(30);

struct Scene {
    conninfo: Conninfo,
    observer: Connection,
    replication: Replication,
    slot: CreatedSlot,
}

/// Two tables with two rows each, one of them partitioned, and a slot that knows them.
async fn scene() -> Scene {
    let conninfo = database(cluster()).await;
    let observer = client(&conninfo).await;
    let tables = "CREATE TABLE public.t (id int PRIMARY KEY, name char(5)); \
         INSERT INTO public.t VALUES (1, 'a'), (2, NULL); \
         CREATE TABLE public.\"Parts\" (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE public.p1 PARTITION OF public.\"Parts\" FOR VALUES FROM (0) TO (10); \
         CREATE TABLE public.p2 PARTITION OF public.\"Parts\" FOR VALUES FROM (10) TO (20); \
         INSERT INTO public.\"Parts\" VALUES (1), (11)";
    observer.batch_execute(tables).await.unwrap();
    let mut replication = replication(&conninfo).await;
    let name = format!("slot_of_{}", conninfo.database);
    let slot = slot::create(&mut replication, &name, slot::Kind::Temporary)
        .await
        .unwrap();
    Scene {
        conninfo,
        observer,
        replication,
        slot,
    }
}

impl Scene {
    async fn open(&self) -> Snapshot {
        let reader = client(&self.conninfo).await;
        Snapshot::open(reader, &self.observer, &self.slot.snapshot_name, WITHIN)
            .await
            .unwrap()
    }
}

fn table() -> TableName {
    TableName::new("public", "t")
}

fn parts() -> TableName {
    TableName::new("public", "Parts")
}

async fn copy(snapshot: &Snapshot, sql: &str) -> String {
    let pieces: Vec<_> = snapshot
        .copy_out(sql)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    String::from_utf8(pieces.concat()).unwrap()
}

#[tokio::test]
async fn rows_are_read_as_of_the_consistent_point() {
    let scene = scene().await;
    scene
        .observer
        .batch_execute("INSERT INTO public.t VALUES (3, 'late')")
        .await
        .unwrap();
    scene
        .observer
        .batch_execute("DELETE FROM public.\"Parts\"")
        .await
        .unwrap();
    let snapshot = scene.open().await;
    snapshot.lock_table(&table()).await.unwrap();
    snapshot.lock_table(&parts()).await.unwrap();
    assert_eq!(
        copy(
            &snapshot,
            "COPY (SELECT id, name FROM public.t ORDER BY id) TO STDOUT"
        )
        .await,
        "1\ta    \n2\t\\N\n"
    );
    assert_eq!(
        copy(
            &snapshot,
            "COPY (SELECT id FROM public.\"Parts\" ORDER BY id) TO STDOUT"
        )
        .await,
        "1\n11\n"
    );
    // The transaction outlives the connection that exported its snapshot.
    scene.replication.finish().await;
    assert_eq!(
        copy(&snapshot, "COPY (SELECT count(*) FROM public.t) TO STDOUT").await,
        "2\n"
    );
    snapshot.close().await;
}

/// A table that has given way, or whose connection is lost, is read again by another transaction,
/// whatever the replication connection does by then.
#[tokio::test]
async fn snapshot_that_is_exported_again_serves_one_transaction_after_the_other() {
    let mut scene = scene().await;
    let holder = scene.open().await;
    let name = holder.export().await.unwrap();
    scene.replication.identify_system().await.unwrap();
    scene
        .observer
        .batch_execute("DELETE FROM public.t")
        .await
        .unwrap();
    let count = "COPY (SELECT count(*) FROM public.t) TO STDOUT";
    let first = Snapshot::import(client(&scene.conninfo).await, &name)
        .await
        .unwrap();
    first.lock_table(&table()).await.unwrap();
    assert_eq!(copy(&first, count).await, "2\n");
    // Its lock goes with it, and not before.
    let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'public.t'::regclass";
    assert_eq!(value(&scene.observer, locked).await, "1");
    first.give_way(&scene.observer).await.unwrap();
    wait_until("the lock is free", async || {
        let seen = value(&scene.observer, locked).await;
        if seen == "0" { Ok(()) } else { Err(seen) }
    })
    .await;
    assert!(first.copy_out(count).await.is_err());
    let second = Snapshot::import(client(&scene.conninfo).await, &name)
        .await
        .unwrap();
    assert_eq!(copy(&second, count).await, "2\n");
    let same = second.end().await.unwrap();
    holder.keep_alive().await.unwrap();
    let third = Snapshot::import(same, &name).await.unwrap();
    assert_eq!(copy(&third, count).await, "2\n");
    third.close().await;
    holder.close().await;
    let error = Snapshot::import(client(&scene.conninfo).await, &name)
        .await
        .unwrap_err();
    assert!(
        matches!(error.sqlstate(), Some("22023" | "42704")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_table_that_was_truncated_or_rewritten_since_is_noticed() {
    let scene = scene().await;
    let snapshot = scene.open().await;
    scene
        .observer
        .batch_execute("ALTER TABLE public.t ALTER id TYPE bigint")
        .await
        .unwrap();
    let error = snapshot.lock_table(&table()).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(
        error.to_string(),
        "table \"public.t\" was truncated or rewritten after the snapshot was taken"
    );
    let fresh = self::scene().await;
    let snapshot = fresh.open().await;
    fresh
        .observer
        .batch_execute("TRUNCATE public.p2")
        .await
        .unwrap();
    snapshot.lock_table(&table()).await.unwrap();
    assert!(snapshot.lock_table(&parts()).await.is_err());
}

#[tokio::test]
async fn a_new_partition_is_noticed() {
    let scene = scene().await;
    let snapshot = scene.open().await;
    let attach =
        "CREATE TABLE public.p3 PARTITION OF public.\"Parts\" FOR VALUES FROM (20) TO (30)";
    scene.observer.batch_execute(attach).await.unwrap();
    assert!(snapshot.lock_table(&parts()).await.is_err());
}

#[tokio::test]
async fn a_lock_that_is_not_free_is_not_waited_for() {
    let scene = scene().await;
    let snapshot = scene.open().await;
    let migration = client(&scene.conninfo).await;
    migration
        .batch_execute("BEGIN; LOCK TABLE public.t")
        .await
        .unwrap();
    let error = snapshot.lock_table(&table()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("55P03"));
    assert!(error.is_transient());
}

#[tokio::test]
async fn who_waits_for_our_lock_is_noticed() {
    let scene = scene().await;
    let snapshot = scene.open().await;
    snapshot.lock_table(&table()).await.unwrap();
    assert!(
        !snapshot
            .anybody_waits_for_us(&scene.observer)
            .await
            .unwrap()
    );
    let migration = client(&scene.conninfo).await;
    let waiting = tokio::spawn(async move {
        migration
            .batch_execute("ALTER TABLE public.t ADD more text")
            .await
            .unwrap();
    });
    wait_until("the migration waits", async || {
        match snapshot
            .anybody_waits_for_us(&scene.observer)
            .await
            .unwrap()
        {
            true => Ok(()),
            false => Err("nobody waits".to_owned()),
        }
    })
    .await;
    snapshot.close().await;
    waiting.await.unwrap();
}

/// Other transactions run there, or none: every snapshot would look settled, and reading too early
/// harms the source.
#[tokio::test]
async fn an_observer_at_another_server_is_refused() {
    let scene = scene().await;
    let elsewhere = pg(&target().url("postgres")).await;
    let reader = client(&scene.conninfo).await;
    let error = Snapshot::open(reader, &elsewhere, &scene.slot.snapshot_name, WITHIN)
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("different servers"), "{error}");
    scene.open().await.close().await;
}

#[tokio::test]
async fn a_snapshot_that_is_gone_is_transient() {
    let mut scene = scene().await;
    scene.replication.identify_system().await.unwrap();
    let reader = client(&scene.conninfo).await;
    let name = &scene.slot.snapshot_name;
    let error = Snapshot::open(reader, &scene.observer, name, WITHIN)
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert!(
        error
            .to_string()
            .starts_with(&format!("could not import snapshot \"{name}\": ")),
        "{error}"
    );
}

/// Turns the wait for a synchronous standby on or off, and waits until new sessions see it.
async fn set_standby(conninfo: &Conninfo, observer: &Client, name: &str) {
    let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
    observer.batch_execute(&set).await.unwrap();
    observer
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    wait_until("the setting is there", async || {
        let found = value(&*client(conninfo).await, "SHOW synchronous_standby_names").await;
        if found == name { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Opens a transaction that has written something; returns its id too.
async fn writing(conninfo: &Conninfo) -> (Connection, String) {
    let client = client(conninfo).await;
    client.batch_execute("BEGIN").await.unwrap();
    let xid = value(&client, "SELECT pg_current_xact_id()").await;
    (client, xid)
}

async fn until_waited_for(observer: &Client, xid: &str) {
    wait_until("the new slot waits for the transaction", async || {
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND transactionid = '{xid}'"
        );
        let count = value(observer, &waits).await;
        if count == "1" { Ok(()) } else { Err(count) }
    })
    .await;
}

/// The server before the fix of 2026 exports a snapshot with a commit that is in the WAL and
/// nowhere else yet. A synchronous standby that does not answer holds the commit in this state for
/// as long as the test needs.
#[tokio::test]
async fn a_commit_that_is_seen_but_not_finished_is_waited_for() {
    let cluster = own_cluster(Side::Source, "unsettled");
    let conninfo = on_socket(&cluster);
    let observer = client(&conninfo).await;
    observer
        .batch_execute("CREATE TABLE public.t (id int PRIMARY KEY)")
        .await
        .unwrap();
    set_standby(&conninfo, &observer, "nobody").await;

    // A slot goes through two rounds of waiting. What begins in the second round is not waited for,
    // and what commits in it is in the snapshot.
    let (first, first_xid) = writing(&conninfo).await;
    let mut replication = replication(&conninfo).await;
    let creation = tokio::spawn(async move {
        let slot = slot::create(&mut replication, "unsettled", slot::Kind::Temporary)
            .await
            .unwrap();
        (slot, replication)
    });
    until_waited_for(&observer, &first_xid).await;
    let (second, second_xid) = writing(&conninfo).await;
    first.batch_execute("ROLLBACK").await.unwrap();
    until_waited_for(&observer, &second_xid).await;
    let writer = client(&conninfo).await;
    let hanging = tokio::spawn(async move {
        writer
            .batch_execute("INSERT INTO public.t VALUES (1)")
            .await
            .unwrap();
    });
    wait_until("the commit hangs", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let count = value(&observer, waits).await;
        if count == "1" { Ok(()) } else { Err(count) }
    })
    .await;
    second.batch_execute("ROLLBACK").await.unwrap();
    let (slot, _exporter) = creation.await.unwrap();
    let name = &slot.snapshot_name;

    let short = Duration::from_millis(200);
    let reader = client(&conninfo).await;
    let error = Snapshot::open(reader, &observer, name, short)
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert!(
        error
            .message()
            .starts_with("could not read under the slot's snapshot"),
        "{error:?}"
    );
    assert!(
        error
            .detail()
            .unwrap()
            .contains("the server still runs: from "),
        "{error:?}"
    );

    let reader = client(&conninfo).await;
    let (snapshot, ()) = tokio::join!(Snapshot::open(reader, &observer, name, WITHIN), async {
        tokio::time::sleep(short).await;
        set_standby(&conninfo, &*client(&conninfo).await, "").await;
    });
    let snapshot = snapshot.unwrap();
    hanging.await.unwrap();
    assert_eq!(copy(&snapshot, "COPY public.t TO STDOUT").await, "1\n");
}
