//! How long a session may take to open: catalogs that somebody has locked, or a server that does not answer, end in an error
//! that names what happens, and the next try.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::source;
use crate::target::error::from_sqlx;

/// How long a statement may wait for a lock while the session opens, in milliseconds. By `lock_timeout`, so that it is the
/// server that gives up: a client that only goes away leaves its backend waiting.
const LOCK_PATIENCE_MS: u32 = 30_000;

/// How long each half of the opening may take, and what each read model adds to that.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_A_READ_MODEL: Duration = Duration::from_secs(1);

/// The limit for so many read models.
pub(super) fn of(settings: &Settings) -> Duration {
    let read_models = u32::try_from(settings.read_models.len()).unwrap_or(u32::MAX);
    PATIENCE.saturating_add(PATIENCE_A_READ_MODEL.saturating_mul(read_models))
}

/// Carries out one half of the opening.
///
/// # Errors
/// Transient if it takes longer than `limit`.
pub(super) async fn within<T>(limit: Duration, opening: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, opening).await {
        Ok(opened) => opened.map_err(explained),
        Err(_) => Err(
            Error::transient(format!("the session did not open within {} s", limit.as_secs())).with_hint(
                "Look in pg_stat_activity of both servers for what application_name cdc waits for.",
            ),
        ),
    }
}

/// What a lock that is not free means here.
fn explained(error: Error) -> Error {
    if error.is_lock_timeout() && error.hint().is_none() {
        error.with_hint(
            "Another session has locked a table for longer than 30 s; cdc tries again until it is free.",
        )
    } else {
        error
    }
}

/// From here on this session of the source waits for no lock without a limit.
pub(super) async fn locks_of_source(client: &Client) -> Result<()> {
    let set = client.batch_execute(&set_patience()).await;
    set.map_err(source::error::from_driver)
}

/// From here on this session of the target waits for no lock without a limit.
pub async fn locks_of_target(conn: &mut PgConnection) -> Result<()> {
    set(conn, set_patience()).await
}

fn set_patience() -> String {
    format!("SET lock_timeout = {LOCK_PATIENCE_MS}")
}

/// Takes the limit away: a batch waits until its lookup is free, and lets go of the source meanwhile. To begin again would not help.
pub(super) async fn wait_for_lookups(conn: &mut PgConnection) -> Result<()> {
    set(conn, "SET lock_timeout = 0".to_owned()).await
}

async fn set(conn: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(conn)
        .await
        .map_err(from_sqlx)?;
    Ok(())
}
