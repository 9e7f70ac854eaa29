//! Whoever alters the lookup in two steps, an index first and then the table, meets a batch in
//! between: one of them waits, and neither is ended as part of a deadlock.

use crate::isolate::{TABLES, model, start};
use crate::rig::{FIRST, Rig};
use crate::support::{pg, rows, wait_until};

/// Writes these lines while somebody has the lookup locked as CREATE INDEX does, and then locks it
/// as ALTER TABLE does.
async fn beside_a_migration(lines: &[&str]) {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    let (migration, looker) = (pg(&rig.url).await, pg(&rig.url).await);
    migration
        .batch_execute("BEGIN; LOCK TABLE lookup IN SHARE MODE")
        .await
        .unwrap();
    let migrate = async {
        let waits =
            "SELECT count(*) FROM pg_locks WHERE relation = 'lookup'::regclass AND NOT granted";
        wait_until("the batch waits for the lookup", async || {
            let seen = rows(&looker, waits).await;
            if seen == ["1"] {
                Ok(())
            } else {
                Err(seen.concat())
            }
        })
        .await;
        migration
            .batch_execute("LOCK TABLE lookup IN ACCESS EXCLUSIVE MODE; COMMIT")
            .await
            .unwrap();
    };
    let (written, ()) = tokio::join!(rig.write(FIRST, lines), migrate);
    written.unwrap();
}

#[tokio::test]
async fn a_batch_and_a_migration_of_the_lookup_wait_for_each_other() {
    // One row, several, and some that are rejected.
    beside_a_migration(&["=1|A|a|8|-"]).await;
    beside_a_migration(&["=1|A|a|8|-", "+4|D|d|4|-", "-2"]).await;
    beside_a_migration(&["=1|A|a|8|-", "+4|D|far too long for it|4|-", "-2"]).await;
}
