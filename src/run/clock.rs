//! Asks the source for its clock, by which the stream and the copies tell as of which time the lookups are.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::as_of::{AsOf, Reading};
use crate::run::stream::Command;
use crate::source;

/// How often the clock is read at most: between two positions of a quiet source that are stored, some five times.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// What cannot be read is left out: the lookups are as of an earlier time then.
async fn read(client: &Client) -> Option<Reading> {
    match source::facts::clock(client).await {
        Ok(reading) => reading,
        Err(error) => {
            tracing::debug!(%error, "could not read the source's clock");
            None
        }
    }
}

/// Tells the stream the source's clock for as long as the session lasts.
pub async fn tell(client: &Client, status_interval: Duration, commands: mpsc::Sender<Command>) -> Infallible {
    loop {
        if let Some(reading) = read(client).await {
            // A stream that has ended hears nothing.
            let _ = commands.send(Command::Clock(reading)).await;
        }
        tokio::time::sleep(READ_INTERVAL.min(status_interval)).await;
    }
}

/// Reads the clock before and during the work; what comes of the work says which position is asked for.
pub async fn beside<T>(client: &Client, work: impl Future<Output = T>) -> (T, AsOf) {
    let mut as_of = AsOf::default();
    if let Some(reading) = read(client).await {
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
            reading = later => if let Some(reading) = reading {
                as_of.read(reading);
            },
        }
    }
}
