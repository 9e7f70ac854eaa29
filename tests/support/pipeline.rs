//! What `cdc` keeps in the target, for tests that look at it or change it.

use tokio_postgres::Client;

use super::{Cdc, Pair, pg, wait_in_step, wait_rows, wait_until};

/// Takes away what a `cdc` that has just ended had made; the servers may take some milliseconds to
/// notice that it has.
pub async fn tear_down(pair: &Pair) {
    wait_until("what cdc made is taken away", async || {
        let output = Cdc::output(pair, &["teardown", "--yes"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    })
    .await;
}

/// The next copy of everything does not wait because of those before it.
pub async fn forget_healings(target: &Client) {
    target
        .batch_execute("UPDATE cdc.pipeline SET healings = 0, healing_after = NULL")
        .await
        .unwrap();
}

/// What turns a bookkeeping of this version into one of version 5.
pub const TO_VERSION_5: &str = "
    ALTER TABLE cdc.rejection RENAME rejected_at TO refused_at;
    ALTER VIEW cdc.rejected RENAME COLUMN rejected_at TO refused_at;
    UPDATE cdc.version SET version = 5;";

/// What turns a bookkeeping of this version into one of version 4, with a shadow that a process of
/// then has left.
pub const TO_VERSION_4: &str = "
    ALTER TABLE cdc.rejection RENAME rejected_at TO refused_at;
    ALTER VIEW cdc.rejected RENAME COLUMN rejected_at TO refused_at;
    ALTER TABLE cdc.pipeline ADD lsn pg_lsn, ADD commit_time timestamptz, ADD last_commit_lsn pg_lsn, ADD last_commit_xid bigint,
        ADD last_commit_time timestamptz, ADD applied_at timestamptz, DROP read_system_identifier, DROP read_database;
    UPDATE cdc.pipeline SET (lsn, commit_time, last_commit_lsn, last_commit_xid, last_commit_time, applied_at) =
        (SELECT lsn, commit_time, last_commit_lsn, last_commit_xid, last_commit_time, applied_at FROM cdc.checkpoint);
    ALTER TABLE cdc.read_model ADD rows bigint, ADD last_change_at timestamptz, DROP generation;
    UPDATE cdc.read_model m SET (rows, last_change_at) = (SELECT rows, last_change_at FROM cdc.counted WHERE read_model = m.id);
    DROP VIEW IF EXISTS cdc.freshness;
    CREATE VIEW cdc.freshness AS SELECT m.name AS read_model, p.state, p.commit_time AS as_of, p.lsn AS as_of_lsn,
        p.applied_at, m.rows, m.last_change_at, m.last_resync_at, m.last_resync_repaired, m.reason
        FROM cdc.read_model m CROSS JOIN cdc.pipeline p;
    ALTER TABLE cdc.version DROP CONSTRAINT version_pkey;
    DROP TABLE cdc.checkpoint, cdc.counted, cdc.shadow, cdc.discarded;
    ALTER TABLE IF EXISTS cdc.shadow_1_1 RENAME TO shadow_1_7;
    UPDATE cdc.version SET version = 4;";

/// How many sessions wait for the lookup that is [locked](lock_lookup).
pub const BLOCKED: &str =
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'labels_lookup'::regclass";

/// A session of the target that has the lookup locked until its transaction ends.
pub async fn lock_lookup(pair: &Pair) -> Client {
    let holder = pg(&pair.target_url).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE labels_lookup IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    holder
}

pub const IN_STEP: &str =
    "SELECT state || ' ' || (SELECT state FROM cdc.pipeline) FROM cdc.read_model";

/// Everything is exact, and each kind of change arrives by the stream from here on.
pub async fn goes_on(case: &str, source: &Client, target: &Client) {
    eprintln!("{case}");
    wait_in_step(source, target).await;
    wait_rows(target, IN_STEP, &["in_step streaming"]).await;
    let new = "INSERT INTO labels (code, label, display_name) VALUES ('NEW', 'n', 'n')";
    for change in [
        "DELETE FROM labels WHERE code = 'NEW'",
        new,
        "UPDATE labels SET code = 'RENAMED' WHERE code = 'NEW'",
        "UPDATE labels SET label = label || '.'",
        "DELETE FROM labels WHERE code = 'RENAMED'",
        new,
    ] {
        source.batch_execute(change).await.unwrap();
        wait_in_step(source, target).await;
    }
}
