//! Releases commits of the source that have waited for a walsender which no longer counts.

use tokio_postgres::Client;

use super::error::from_driver;
use crate::error::Result;

/// An empty transaction: no consumer sees it, it waits for no standby, and its commit record is in
/// the WAL all the same.
const EMPTY_TRANSACTION: &str =
    "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_catalog.pg_current_xact_id(); COMMIT";

/// Gives the other standbys something to acknowledge: only then does the server look whether
/// commits have waited long enough, and where nothing is written that may take as long as their
/// wal_receiver_status_interval.
///
/// # Errors
/// As any query.
pub(crate) async fn stir(client: &Client) -> Result<()> {
    client
        .batch_execute(EMPTY_TRANSACTION)
        .await
        .map_err(from_driver)
}
