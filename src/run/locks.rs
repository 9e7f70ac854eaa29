//! How long a session waits for a lock.

use tokio_postgres::Client;

use crate::error::{Error, LOCKED_HINT, Result};
use crate::{source, target};

/// How long a statement may wait for a lock, in milliseconds. The limit is `lock_timeout`, so that
/// the server gives up: a client that only disconnects leaves its backend waiting.
const PATIENCE_MS: u32 = 30_000;

/// The same of a session that asks while another session of ours has a table locked, or while the
/// stream is paused: a migration that waits for our lock is ahead of it in the queue, and would
/// wait for us for ever.
const OBSERVER_PATIENCE_MS: u32 = 500;

/// From here on this session of the source waits for no lock for longer than that.
pub(crate) async fn of_source(client: &Client) -> Result<()> {
    let set = set(client, PATIENCE_MS).await;
    set.map_err(source::error::from_driver)
}

/// From here on this session of the target waits for no lock for longer than that.
pub(crate) async fn of_target(client: &Client) -> Result<()> {
    let set = set(client, PATIENCE_MS).await;
    set.map_err(target::error::from_driver)
}

/// The same for an observer, which waits for a moment only.
pub(crate) async fn of_observer(client: &Client) -> Result<()> {
    let set = set(client, OBSERVER_PATIENCE_MS).await;
    set.map_err(source::error::from_driver)
}

/// The error of a session, with what a lock that is not free means for it.
pub(crate) fn explained(error: Error) -> Error {
    if error.is_lock_timeout() && error.hint().is_none() {
        error.with_hint(LOCKED_HINT)
    } else {
        error
    }
}

async fn set(client: &Client, milliseconds: u32) -> Result<(), tokio_postgres::Error> {
    let sql = format!("SET lock_timeout = {milliseconds}");
    client.batch_execute(&sql).await
}
