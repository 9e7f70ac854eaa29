//! One owner a pipeline: an advisory lock at the source, an epoch at the target.
//!
//! The lock is the first act on the replication connection, before any slot command: it lasts through CREATE and streaming
//! and goes with the connection. A slot that was just created is not active, so without the lock another connection
//! could start or drop it (measured on 15 and 18).

use std::time::Duration;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::settings::pipeline_hash;
use crate::source::replication::Replication;

/// How long to wait between two tries of the lock.
const RETRY: Duration = Duration::from_millis(500);

/// Every how many tries the holder is named again.
const SAY_AGAIN: u32 = 120;

/// The lock's key.
fn key(slot: &str) -> i64 {
    i64::from_ne_bytes(pipeline_hash(slot).to_ne_bytes())
}

/// Waits until this connection is the pipeline's owner.
pub async fn lock(
    replication: &mut Replication,
    client: &Client,
    slot: &str,
    stop: &CancellationToken,
) -> Result<()> {
    for attempt in 0_u32.. {
        if try_lock(replication, slot).await? {
            return Ok(());
        }
        if attempt.is_multiple_of(SAY_AGAIN) {
            let holder = holder(client, key(slot))
                .await
                .unwrap_or_else(|error| error.to_string());
            tracing::warn!(
                slot,
                holder,
                "another cdc owns this pipeline; waiting for it to leave"
            );
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    Err(Error::new(
        Class::Interrupted,
        "stopped while waiting for the pipeline",
    ))
}

/// Whether this connection is the pipeline's owner now.
pub async fn try_lock(replication: &mut Replication, slot: &str) -> Result<bool> {
    let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({})", key(slot));
    let rows = replication.simple_query(&sql).await?;
    let got = rows.first().and_then(|row| row.first());
    Ok(got.and_then(Option::as_deref) == Some("t"))
}

/// Who holds the lock, in words.
async fn holder(client: &Client, key: i64) -> Result<String> {
    let sql = "SELECT a.pid::text || coalesce(' (' || a.application_name || ', ' || coalesce(a.client_addr::text, 'local') || ', since ' || a.backend_start || ')', '') \
               FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
               WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 LIMIT 1";
    let row = client
        .query_opt(sql, &[&key])
        .await
        .map_err(crate::source::error::from_driver)?;
    Ok(row
        .and_then(|row| row.try_get(0).ok())
        .unwrap_or_else(|| "nobody any more".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_the_slot_alone() {
        assert_eq!(key("cdc"), key("cdc"));
        assert_ne!(key("cdc"), key("cdc2"));
    }
}
