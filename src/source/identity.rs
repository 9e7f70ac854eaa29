//! Which source a session of ordinary SQL is with.

use tokio_postgres::Client;

use super::error::from_driver;
use super::facts::system;
use crate::error::{Error, Result};
use crate::progress::SourceIdentity;

/// Which source this is, as IDENTIFY_SYSTEM says it, if it is a primary.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn identity(client: &Client) -> Result<SourceIdentity> {
    // The name of a WAL file begins with its timeline, in hexadecimal.
    let sql =
        "SELECT pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)";
    let row = client.query_one(sql, &[]).await.map_err(from_driver)?;
    let timeline: &str = row.try_get(0).map_err(from_driver)?;
    let (system_identifier, database) = system(client).await?;
    Ok(SourceIdentity {
        system_identifier,
        timeline: i32::from_str_radix(timeline, 16)
            .map_err(|_| Error::protocol("could not read the server's timeline"))?,
        database,
    })
}
