//! End to end: the built `cdc` between two real servers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod alter;
mod another_server;
mod as_of;
mod asked;
mod at_rest;
mod between_looks;
mod budget;
mod causes;
mod comes_again;
mod comments;
mod compared;
mod copy_faults;
mod couple;
mod crowd;
mod ddl;
mod death;
mod doubled;
mod drift;
mod dumps;
mod durable;
mod encodings;
mod failed_copy;
mod failover;
mod gives_way;
mod heal;
mod heals_again;
mod held;
mod identities;
mod idle;
mod lacking;
mod leaves;
mod life;
mod mixtures;
mod names;
mod namesakes;
mod neighbours;
mod opening;
mod ownership;
mod partitions;
mod plain;
mod refused;
mod restarts;
mod resync;
mod roles;
mod row_security;
mod set_back;
mod shapes;
mod slow_link;
mod slow_target;
mod stale_owner;
mod start;
mod stream;
mod sync_standby;
mod tags;
mod temp_files;
mod timelines;
mod toast;
mod two;
mod types;
mod unread_log;
mod unsaid;
mod values;
mod watch;
mod window;
mod without_identity;

use support::{Cdc, Pair, wait_in_step, wait_until};
use tokio_postgres::Client;

/// Waits until the query shows these rows.
pub async fn wait_rows(client: &Client, query: &str, expected: &[&str]) {
    wait_until(query, async || {
        let seen = support::rows(client, query).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

/// Takes away what a `cdc` that has just ended had made; the servers may take some milliseconds to notice that it has.
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

/// Waits until the log has this text.
pub async fn wait_log(cdc: &Cdc, text: &str) {
    wait_until(&format!("the log has {text:?}"), async || {
        if cdc.log().contains(text) {
            Ok(())
        } else {
            Err("it has not".to_owned())
        }
    })
    .await;
}

/// The number that the log has of this text.
pub fn count_log(cdc: &Cdc, text: &str) -> usize {
    cdc.log().matches(text).count()
}

/// Waits until the target's query shows what the source's shows by now.
pub async fn wait_equal(source: &Client, of_source: &str, target: &Client, of_target: &str) {
    wait_until(of_target, async || {
        let expected = support::rows(source, of_source).await;
        let seen = support::rows(target, of_target).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

/// What turns a bookkeeping of version 5 into one of version 4, with a shadow that a process of then has left.
pub const TO_VERSION_4: &str = "
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

const IN_STEP: &str = "SELECT state || ' ' || (SELECT state FROM cdc.pipeline) FROM cdc.read_model";

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
