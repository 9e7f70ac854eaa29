//! DDL at the source in the middle of a resync: what the copy has read is of no use then, or of an
//! older shape, and the lookup is exact all the same.

use tokio_postgres::Client;

use crate::support::held::{self, CATCH_UP, FILL};
use crate::support::{Cdc, DEADLINE, goes_on, labels_pair, pg, wait_in_step, wait_log, wait_rows};

const REQUESTED: &str =
    "SELECT state FROM cdc.resync WHERE origin = 'request' ORDER BY id DESC LIMIT 1";

const TRUNCATE: &str = "BEGIN; TRUNCATE labels; INSERT INTO labels (code, label, display_name) VALUES ('AFTER', 'a', 'a'); COMMIT";

/// Values that no stream tells.
const REWRITE: &str = "ALTER TABLE labels ALTER label TYPE varchar(60) USING upper(label) || '!'";

const IDENTITY: &str = "ALTER TABLE labels REPLICA IDENTITY USING INDEX other_id; UPDATE labels SET label = 'by another name' WHERE code = 'MR'";

const FULL: &str =
    "ALTER TABLE labels REPLICA IDENTITY FULL; UPDATE labels SET code = 'FULL' WHERE code = 'MR'";

const RENAME: &str =
    "ALTER TABLE labels RENAME TO other; CREATE TABLE labels (LIKE other INCLUDING ALL);
     INSERT INTO labels (code, label, display_name) VALUES ('OTHER', 'o', 'o')";

/// A resync is held at a step; the statements are run there, and it is let go.
async fn in_the_middle(step: u8, ddl: &str) {
    let (pair, source, target) = labels_pair().await;
    // Another identity to change to.
    source
        .batch_execute(
            "ALTER TABLE labels ADD other uuid NOT NULL DEFAULT gen_random_uuid(); CREATE UNIQUE INDEX other_id ON labels (other)",
        )
        .await
        .unwrap();
    held::install(&target).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    let filled = held::hold(&pair, FILL).await;
    let caught_up = held::hold(&pair, CATCH_UP).await;
    target
        .batch_execute("INSERT INTO cdc.resync (origin) VALUES ('request')")
        .await
        .unwrap();
    held::wait_held(&target, FILL).await;
    let application = pg(&pair.source_url).await;
    if step == FILL {
        // It waits for the copy's lock, and gets it before the copy can go on.
        run(&application, ddl).await;
        held::let_go(filled, FILL).await;
    } else {
        // Something to catch up with, which the stream has passed: the copy has given its lock back
        // by then.
        source
            .batch_execute("UPDATE labels SET display_name = 'later' WHERE code = 'MRS'")
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        held::let_go(filled, FILL).await;
        held::wait_held(&target, CATCH_UP).await;
        run(&application, ddl).await;
    }
    held::let_go(caught_up, CATCH_UP).await;
    wait_rows(&target, REQUESTED, &["done"]).await;
    goes_on(ddl, &source, &target).await;
    wait_rows(
        &target,
        "SELECT count(*) FROM cdc.resync WHERE state IN ('queued', 'running')",
        &["0"],
    )
    .await;
    goes_on("after what the watch asked for", &source, &target).await;
    held::wait_nothing_left(&pair, &source, &target).await;
    assert!(
        !cdc.log().contains("the stream cannot continue"),
        "{}",
        cdc.log()
    );
}

/// A hang is told.
async fn run(application: &Client, ddl: &str) {
    let done = tokio::time::timeout(DEADLINE, application.batch_execute(ddl)).await;
    done.unwrap_or_else(|_| panic!("the copy is in the way: {ddl}"))
        .unwrap();
}

#[tokio::test]
async fn truncate_while_a_resync_reads() {
    in_the_middle(FILL, TRUNCATE).await;
}

#[tokio::test]
async fn truncate_while_a_resync_catches_up() {
    in_the_middle(CATCH_UP, TRUNCATE).await;
}

#[tokio::test]
async fn rewrite_while_a_resync_reads() {
    in_the_middle(FILL, REWRITE).await;
}

#[tokio::test]
async fn rewrite_while_a_resync_catches_up() {
    in_the_middle(CATCH_UP, REWRITE).await;
}

#[tokio::test]
async fn another_identity_while_a_resync_reads() {
    in_the_middle(FILL, IDENTITY).await;
}

#[tokio::test]
async fn another_identity_while_a_resync_catches_up() {
    in_the_middle(CATCH_UP, IDENTITY).await;
}

#[tokio::test]
async fn identity_full_while_a_resync_catches_up() {
    in_the_middle(CATCH_UP, FULL).await;
}

#[tokio::test]
async fn table_of_the_same_name_while_a_resync_catches_up() {
    in_the_middle(CATCH_UP, RENAME).await;
}
