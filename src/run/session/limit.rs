//! How long a session may take to open. If another session has locked a catalog, or a server does
//! not answer, opening ends in an error that says so, and is tried again.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::Settings;

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
pub(super) async fn within<T>(
    limit: Duration,
    opening: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::transient(format!(
            "the session did not open within {} s",
            limit.as_secs()
        ))
        .with_hint(
            "Look in pg_stat_activity of both servers for what application_name cdc waits for.",
        )),
    }
}
