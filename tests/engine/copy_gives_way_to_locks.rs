//! A copy stands in nobody's way: an application that waits for its table gets it, and the copy is
//! done later.

use std::future::Future;

use tokio_postgres::Client;

use crate::support::held::{self, FILL};
use crate::support::{
    Cdc, DEADLINE, Pair, goes_on, labels_pair, pg, value, wait_in_step, wait_log, wait_rows,
};

const GAVE_WAY: &str = "gave way to a session that waits for table";

/// Something that waits for `ACCESS EXCLUSIVE`: it has the table before the copy can go on.
async fn migrate(pair: &Pair, lock: &str) -> Client {
    let application = pg(&pair.source_url).await;
    let begun = format!(
        "BEGIN; {lock}; UPDATE labels SET label = 'migrated' WHERE code = 'MR';
         INSERT INTO labels (code, label, display_name) VALUES ('MIGRATED', 'm', 'm')"
    );
    soon(application.batch_execute(&begun)).await.unwrap();
    application
}

/// A hang is told.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("the copy did not give way"))
}

#[tokio::test]
async fn first_copy_gives_way_to_a_lock() {
    let (pair, source, target) = labels_pair().await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let mut cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let application = migrate(&pair, "LOCK TABLE labels IN ACCESS EXCLUSIVE MODE").await;
    wait_log(&cdc, GAVE_WAY).await;
    held::let_go(holder, FILL).await;
    // Whatever it tries meanwhile, the application goes on.
    let commit = "ALTER TABLE labels ADD note text; COMMIT";
    soon(application.batch_execute(commit)).await.unwrap();
    goes_on("first copy", &source, &target).await;
    held::wait_nothing_left(&pair, &source, &target).await;
    let copies = "SELECT origin || ' ' || state FROM cdc.resync";
    wait_rows(&target, copies, &["first copy done"]).await;
    assert!(cdc.is_running());
}

#[tokio::test]
async fn resync_gives_way_to_a_lock_and_the_stream_goes_on_meanwhile() {
    let (pair, source, target) = labels_pair().await;
    held::install(&target).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    target
        .batch_execute("UPDATE labels_lookup SET label = 'edited' WHERE code = 'MRS'")
        .await
        .unwrap();
    let holder = held::hold(&pair, FILL).await;
    let mut resync = Cdc::start(&mut Cdc::command(&pair, &["resync"]));
    held::wait_held(&target, FILL).await;
    let application = migrate(&pair, "LOCK TABLE labels IN ACCESS EXCLUSIVE MODE").await;
    let commit = "ALTER TABLE labels ADD note text; COMMIT";
    soon(application.batch_execute(commit)).await.unwrap();
    // The stream is not held up by a copy that is; the copy ends with its session, which waits for
    // our lock.
    let migrated = "SELECT label FROM labels_lookup WHERE code IN ('MIGRATED', 'MR') ORDER BY code";
    wait_rows(&target, migrated, &["m", "migrated"]).await;
    assert!(resync.is_running(), "{}", resync.log());
    held::let_go(holder, FILL).await;
    wait_log(&cdc, GAVE_WAY).await;
    assert!(resync.wait().await.success(), "{}", resync.log());
    wait_in_step(&source, &target).await;
    let repaired = "SELECT state, result -> 'public.labels_lookup' ->> 'updated' FROM cdc.resync WHERE origin = 'request'";
    wait_rows(&target, repaired, &["done|1"]).await;
    held::wait_nothing_left(&pair, &source, &target).await;
    goes_on("resync", &source, &target).await;
}

/// The lock that is waited for may be that of one partition, which the copy holds as well.
#[tokio::test]
async fn copy_of_a_partitioned_table_gives_way_to_a_lock_of_one_partition() {
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
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let application = migrate(&pair, "LOCK TABLE ONLY part_1 IN ACCESS EXCLUSIVE MODE").await;
    wait_log(&cdc, GAVE_WAY).await;
    held::let_go(holder, FILL).await;
    soon(application.batch_execute("COMMIT")).await.unwrap();
    goes_on("partition", &source, &target).await;
    held::wait_nothing_left(&pair, &source, &target).await;
    assert_eq!(
        value(
            &source,
            "SELECT count(*) FROM labels WHERE code = 'MIGRATED'"
        )
        .await,
        "1"
    );
}

/// A migration may come between the copy's lock and its questions about the table: then the copy
/// waits for the answer, the question waits behind the migration, and that for the copy. No server
/// sees such a ring.
#[tokio::test]
async fn migrations_beside_copies_never_wait_for_long() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let ask = "INSERT INTO cdc.resync (origin) VALUES ('request')";
    let open = "SELECT count(*) FROM cdc.resync WHERE state IN ('queued', 'running')";
    let mut resyncs = 0;
    for migration in 0..150 {
        if value(&target, open).await == "0" {
            resyncs += 1;
            target.batch_execute(ask).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(..150))).await;
        let migrate = format!("ALTER TABLE labels ALTER display_name SET DEFAULT '{migration}'");
        soon(source.batch_execute(&migrate)).await.unwrap();
    }
    eprintln!("{resyncs} resyncs beside 150 migrations");
    assert!(resyncs > 3, "{resyncs}");
    wait_rows(&target, open, &["0"]).await;
    goes_on("after the migrations", &source, &target).await;
}
