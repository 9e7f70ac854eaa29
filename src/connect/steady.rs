//! Whether a session stays with one session of the server.
//!
//! A pooler may pass all settings on and still give each transaction another session of the server.
//! Temporary tables, prepared statements and locks would then be somebody else's. Such a pooler is
//! found by a setting of the session's own: it is gone once another client has taken the server's
//! session.

use std::time::Duration;

use super::connection::Connection;
use super::error::from_connecting;
use super::query::query;
use super::side::Side;
use crate::error::{Error, Result};

/// How often the setting is read while no other client has a transaction: a pooler that goes
/// through its sessions in turn shows another one by then.
const READS: usize = 3;

/// For how long a session may wait while another client has a transaction: a pool of one session
/// would let it wait until that ends.
const LONGEST: Duration = Duration::from_secs(10);

/// too_many_connections.
const TOO_MANY: &str = "53300";

/// Refuses a pooler that gives each transaction another session of the server.
///
/// `open` opens a session with the server; two are opened and ended.
///
/// # Errors
/// Configuration: there is such a pooler. Transient: the connection is lost, or the server does not
/// answer. Those of `open`.
pub(crate) async fn check_steady(
    side: Side,
    open: impl AsyncFn() -> Result<Connection>,
) -> Result<()> {
    let both = async { Ok::<_, Error>((open().await?, open().await?)) };
    let (session, other) = match both.await {
        // Two sessions more than work needs are not worth a failure.
        Err(error) if error.sqlstate() == Some(TOO_MANY) => {
            tracing::debug!(%error, "did not look for a pooler");
            return Ok(());
        }
        both => both?,
    };
    let token = fastrand::u64(..).to_string();
    let asked = tokio::time::timeout(LONGEST, is_steady(&session, &other, &token)).await;
    let answer = asked.map_err(|_| {
        Error::transient(format!(
            "a session of the {side} does not answer while another one has a transaction"
        ))
        .with_hint(hint(side))
    })?;
    if answer.map_err(|error| from_connecting(error, side))? {
        session.close();
        other.close();
        return Ok(());
    }
    Err(
        Error::configuration(format!("the {side} gives each transaction another session"))
            .with_detail("A setting that cdc made in its session was gone in the next transaction.")
            .with_hint(hint(side)),
    )
}

async fn is_steady(
    session: &Connection,
    other: &Connection,
    token: &str,
) -> Result<bool, tokio_postgres::Error> {
    query("SELECT pg_catalog.set_config('cdc.session', $1, false)")
        .bind(token)
        .execute(session)
        .await?;
    for _ in 0..READS {
        if seen_by(session).await?.as_deref() != Some(token) {
            return Ok(false);
        }
    }
    other.batch_execute("BEGIN").await?;
    let others = seen_by(other).await?;
    let own = seen_by(session).await?;
    other.batch_execute("ROLLBACK").await?;
    Ok(others.as_deref() != Some(token) && own.as_deref() == Some(token))
}

async fn seen_by(session: &Connection) -> Result<Option<String>, tokio_postgres::Error> {
    query("SELECT pg_catalog.current_setting('cdc.session', true)")
        .value(session)
        .await
}

fn hint(side: Side) -> String {
    format!(
        "A connection pooler stands in between. Let it pool sessions, not transactions, or give the \
         address of the server itself in the {side}'s URL."
    )
}
