//! The pulse: asks the target once a second for requests of other sessions, and passes them to the
//! watch and the keeper.
//!
//! The watch learns when a session waits for a position, the keeper when there is something to
//! copy. An idle pipeline asks nothing else.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::run::shared::Shared;
use crate::target::bookkeeping::Pulse;

/// How often to look; more often for a while after a session has waited, since it may wait again.
const INTERVAL: Duration = Duration::from_secs(1);
const SHORT_INTERVAL: Duration = Duration::from_millis(250);
const ATTENTION: Duration = Duration::from_secs(60);

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until the session ends, and sends what it sees each time. If the target cannot be reached,
/// it looks later.
pub(crate) async fn run(shared: &Shared, epoch: i64, told: watch::Sender<Pulse>) {
    let mut session = None;
    let mut waited_at: Option<Instant> = None;
    while !shared.stop.is_cancelled() {
        match look(shared, epoch, &mut session).await {
            Ok(pulse) => {
                if pulse.waits {
                    waited_at = Some(Instant::now());
                }
                // Sent even if it is the same as before: the receivers count on the beat.
                told.send_replace(pulse);
            }
            Err(error) => {
                tracing::debug!(%error, "could not look for what others have left");
                session = None;
            }
        }
        let attentive = waited_at.is_some_and(|at| at.elapsed() < ATTENTION);
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = tokio::time::sleep(if attentive { SHORT_INTERVAL } else { INTERVAL }) => {}
        }
    }
}

async fn look(shared: &Shared, epoch: i64, session: &mut Option<Connection>) -> Result<Pulse> {
    let looking = async {
        let conn = match session {
            Some(conn) => conn,
            None => session.insert(shared.target_session("pulse").await?),
        };
        shared.bookkeeping.pulse(conn, epoch).await
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| Err(Error::transient("the target has not answered")))
}
