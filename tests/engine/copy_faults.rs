//! What one table lacks in a copy concerns its read model alone; what only delays it does not undo
//! the copies of others.

use cdc::cluster::Stop;
use tokio_postgres::Client;

use crate::support::held::{self, FILL};
use crate::support::tags::{
    ALL_IN_STEP, STATES, TAGS, TAGS_LOOKUP, TAGS_MODEL, TAGS_SUSPENDED, wait_told,
};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, Side, Signal, count_log, labels_pair, labels_pair_on, on_free_slot,
    own_cluster, pg, rows, value, wait_equal, wait_in_step, wait_log, wait_rows, wait_until,
};

const TAGS_TABLE: &str = "CREATE TABLE tags (id int PRIMARY KEY, tag text NOT NULL, note text);
     INSERT INTO tags VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')";

/// Labels and tags, in this order, with the lookup of the tags.
async fn seeded((mut pair, source, target): (Pair, Client, Client)) -> (Pair, Client, Client) {
    source.batch_execute(TAGS_TABLE).await.unwrap();
    target
        .batch_execute("CREATE TABLE tags_lookup (tag text PRIMARY KEY, note text)")
        .await
        .unwrap();
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    (pair, source, target)
}

/// Both were copied, the process has left, and the slot is gone: everything is to be healed.
async fn slot_is_lost(pair: &Pair, source: &Client, target: &Client) {
    let mut cdc = Cdc::run(pair);
    wait_in_step(source, target).await;
    wait_equal(source, TAGS, target, TAGS_LOOKUP).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    cdc.stop(Signal::Term).await;
    let drop = format!("SELECT pg_drop_replication_slot('{}')", pair.slot);
    on_free_slot(source, &drop).await;
}

fn copies_of(cdc: &Cdc, lookup: &str) -> usize {
    count_log(
        cdc,
        &format!("\"message\":\"copied\",\"read_model\":\"public.{lookup}\""),
    )
}

const PERMISSION: &str = "CREATE ROLE reader_NAME LOGIN SUPERUSER; ALTER ROLE reader_NAME NOSUPERUSER REPLICATION;
     ALTER TABLE labels OWNER TO reader_NAME; GRANT CREATE ON DATABASE DATABASE_NAME TO reader_NAME;
     GRANT USAGE ON SCHEMA public TO reader_NAME; CREATE PUBLICATION cdc FOR TABLE labels, tags; GRANT SELECT ON tags TO reader_NAME";

/// The table was readable when it was bound, and is not when its turn comes.
#[tokio::test]
async fn permission_that_is_lost_in_a_copy_suspends_that_read_model_alone() {
    for healing in [false, true] {
        let (mut pair, source, target) = seeded(labels_pair().await).await;
        let role = format!("reader_{}", pair.source_database);
        let setup = PERMISSION
            .replace("reader_NAME", &role)
            .replace("DATABASE_NAME", &pair.source_database);
        source.batch_execute(&setup).await.unwrap();
        pair.source_url = pair
            .source_url
            .replace("postgres@", &format!("{role}@"))
            .replace("user=postgres", &format!("user={role}"));
        assert!(pair.source_url.contains(&role), "{}", pair.source_url);
        if healing {
            slot_is_lost(&pair, &source, &target).await;
        }
        held::install(&target).await;
        let holder = held::hold(&pair, FILL).await;
        let mut cdc = Cdc::run(&pair);
        held::wait_held(&target, FILL).await;
        source
            .batch_execute(&format!("REVOKE SELECT ON tags FROM {role}"))
            .await
            .unwrap();
        held::let_go(holder, FILL).await;
        let state = if healing { "suspended" } else { "new" };
        let tags = format!("public.tags_lookup {state}");
        wait_rows(&target, STATES, &["public.labels_lookup in_step", &tags]).await;
        wait_told(&target, &["permission denied"]).await;
        source
            .batch_execute(
                "UPDATE labels SET label = 'goes on'; INSERT INTO tags VALUES (4, 'd', 'd')",
            )
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        assert_eq!(copies_of(&cdc, "labels_lookup"), 1, "{}", cdc.log());
        source
            .batch_execute(&format!("GRANT SELECT ON tags TO {role}"))
            .await
            .unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        wait_rows(&target, STATES, ALL_IN_STEP).await;
        assert!(cdc.is_running());
    }
}

/// A page of the table that no checksum and no header fits.
fn damage(data: &std::path::Path, file: &str) {
    let path = data.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.iter_mut().take(24).for_each(|byte| *byte = 0xa5);
    std::fs::write(path, bytes).unwrap();
}

/// It could not be healed while one table's page was damaged, and no other read model either.
#[tokio::test]
async fn table_with_a_damaged_page_suspends_its_read_model_alone() {
    let server = own_cluster(Side::Source, "damaged");
    let (pair, source, target) =
        seeded(labels_pair_on(&server, crate::support::target()).await).await;
    slot_is_lost(&pair, &source, &target).await;
    source.batch_execute("CHECKPOINT").await.unwrap();
    let file = value(&source, "SELECT pg_relation_filepath('tags')").await;
    drop(source);
    server.stop(Stop::Fast).unwrap();
    damage(&server.data_dir(), &file);
    server.start_again().unwrap();
    let source = pg(&pair.source_url).await;
    let mut cdc = Cdc::run(&pair);
    wait_rows(&target, STATES, TAGS_SUSPENDED).await;
    wait_told(&target, &["invalid page"]).await;
    assert_eq!(
        rows(&target, TAGS_LOOKUP).await,
        ["a|x", "b|y", "c|z"],
        "the last good state"
    );
    source
        .batch_execute("UPDATE labels SET label = 'goes on'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(copies_of(&cdc, "labels_lookup"), 1, "{}", cdc.log());
    // A resync does what it can.
    target
        .batch_execute("UPDATE labels_lookup SET label = 'edited'")
        .await
        .unwrap();
    let resync = Cdc::output(&pair, &["resync"]);
    wait_in_step(&source, &target).await;
    let told = format!("{resync:?}");
    assert!(
        !resync.status.success() && told.contains("tags_lookup"),
        "{told}"
    );
    source
        .batch_execute("TRUNCATE tags; INSERT INTO tags VALUES (9, 'i', 'repaired')")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert!(cdc.is_running());
}

/// Whoever holds the table delays its own copy; what was copied before it is not copied again.
#[tokio::test]
async fn lock_that_is_not_free_delays_that_table_alone() {
    let (pair, source, target) = seeded(labels_pair().await).await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let mut cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let application = pg(&pair.source_url).await;
    application
        .batch_execute(
            "BEGIN; LOCK TABLE tags IN ACCESS EXCLUSIVE MODE; INSERT INTO tags VALUES (4, 'd', 'd')",
        )
        .await
        .unwrap();
    held::let_go(holder, FILL).await;
    wait_log(&cdc, "could not lock table").await;
    application.batch_execute("COMMIT").await.unwrap();
    wait_in_step(&source, &target).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert_eq!(copies_of(&cdc, "labels_lookup"), 1, "{}", cdc.log());
    assert_eq!(
        count_log(&cdc, "\"message\":\"made a slot\""),
        1,
        "{}",
        cdc.log()
    );
    assert!(cdc.is_running());
}

/// A lock that is held for long does not keep the others from being shown.
#[tokio::test]
async fn lock_that_is_held_for_long_does_not_hold_up_the_others() {
    let (pair, source, target) = seeded(labels_pair().await).await;
    slot_is_lost(&pair, &source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = 'later'")
        .await
        .unwrap();
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let application = pg(&pair.source_url).await;
    application
        .batch_execute("BEGIN; LOCK TABLE tags IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    held::let_go(holder, FILL).await;
    wait_in_step(&source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = 'streamed'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, STATES, TAGS_SUSPENDED).await;
    application.batch_execute("COMMIT").await.unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert_eq!(copies_of(&cdc, "labels_lookup"), 1, "{}", cdc.log());
}

/// The connection that reads one table is not the one that holds the snapshot.
#[tokio::test]
async fn connection_that_is_lost_while_a_table_is_read_costs_that_table_alone() {
    let (pair, source, target) = seeded(labels_pair().await).await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let mut cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    // The rows of the tags are being read when their session ends.
    let ended = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'cdc {} copy' AND query LIKE 'COPY%'",
        pair.slot
    );
    source
        .batch_execute(
            "INSERT INTO tags SELECT n, 't' || n, repeat('x', 1000) FROM generate_series(10, 40000) n",
        )
        .await
        .unwrap();
    wait_until("the session that reads the labels is ended", async || {
        let count = value(&source, &ended).await;
        if count == "1" { Ok(()) } else { Err(count) }
    })
    .await;
    held::let_go(holder, FILL).await;
    wait_in_step(&source, &target).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert_eq!(
        count_log(&cdc, "\"message\":\"made a slot\""),
        1,
        "{}",
        cdc.log()
    );
    assert!(cdc.is_running());
}
