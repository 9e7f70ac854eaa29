//! Asks the source for its clock, which gives the lookups' time (`as of`), and whether its commits
//! wait for the stream.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_postgres::Client;

use crate::as_of::{AsOf, Reading};
use crate::run::messages::Command;
use crate::settings::{STREAM, Settings};
use crate::{source, standbys};

/// How often the clock is read at most: between two positions of a quiet source that are stored,
/// some five times.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// How long it may take to let commits go.
const STIR_PATIENCE: Duration = Duration::from_secs(1);

/// A clock that cannot be read is left out: the lookups are then as of an earlier time.
async fn read(client: &Client) -> Option<(Reading, String)> {
    match source::facts::clock(client).await {
        Ok(reading) => reading,
        Err(error) => {
            tracing::debug!(%error, "could not read the source's clock");
            None
        }
    }
}

/// As long as the session lasts, reports to the stream the source's clock, and whether commits wait
/// for a walsender of its name. Commits that have waited continue after `let_go`.
pub(crate) async fn tell(
    client: &Client,
    settings: &Settings,
    commands: mpsc::Sender<Command>,
    let_go: &Notify,
) -> Infallible {
    let name = settings.source.application_name(STREAM);
    loop {
        if let Some((reading, standbys)) = read(client).await {
            let waited_for = standbys::names(&standbys, &name);
            // A stream that has ended hears nothing.
            let _ = commands.send(Command::Clock(reading, waited_for)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(READ_INTERVAL.min(settings.status_interval)) => {}
            () = let_go.notified() => stir(client).await,
        }
    }
}

/// The stream has ended. If commits wait for it, by the setting as it is now, they continue as soon
/// as another standby acknowledges something.
pub(crate) async fn let_go(client: &Client, settings: &Settings) {
    let letting_go = async {
        let name = settings.source.application_name(STREAM);
        if read(client)
            .await
            .is_some_and(|(_, standbys)| standbys::names(&standbys, &name))
        {
            stir(client).await;
        }
    };
    // No commit waits on a server that is down.
    let _ = tokio::time::timeout(STIR_PATIENCE, letting_go).await;
}

async fn stir(client: &Client) {
    if let Err(error) = source::standbys::stir(client).await {
        tracing::debug!(%error, "commits that have waited continue a little later");
    }
}

/// Reads the clock before and during the work; the result of the work says which position is asked
/// for.
pub(crate) async fn beside<T>(client: &Client, work: impl Future<Output = T>) -> (T, AsOf) {
    let mut as_of = AsOf::default();
    if let Some((reading, _)) = read(client).await {
        as_of.read(reading);
    }
    let mut work = std::pin::pin!(work);
    loop {
        let later = async {
            tokio::time::sleep(READ_INTERVAL).await;
            read(client).await
        };
        tokio::select! {
            biased;
            done = &mut work => return (done, as_of),
            reading = later => if let Some((reading, _)) = reading {
                as_of.read(reading);
            },
        }
    }
}
