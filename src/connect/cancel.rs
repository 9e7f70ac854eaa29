//! A request, by a connection of its own, that the server end what another connection waits for.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::CancelToken;

use super::error::from_connecting;
use super::side::Side;
use super::ways::Server;
use super::wire::Secured;
use crate::error::{Error, Result};

/// How long a CancelRequest may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the command that a connection waits for. The connection itself stays.
#[derive(Clone)]
pub(crate) struct CancelRequest {
    side: Side,
    server: Server,
    token: CancelToken,
}

impl std::fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CancelRequest")
    }
}

impl CancelRequest {
    pub(crate) fn new(side: Side, server: Server, token: CancelToken) -> Self {
        Self {
            side,
            server,
            token,
        }
    }

    /// Sends the request to the server that the connection is with. Whether it came in time shows
    /// in the command's own answer.
    ///
    /// # Errors
    /// Transient: the request could not be sent within 10 s.
    pub(crate) async fn cancel(&self) -> Result<()> {
        let doing = "could not send a cancel request";
        let send = async {
            let wire = self.server.open().await?;
            self.token
                .cancel_query_raw(wire, Secured)
                .await
                .map_err(|error| from_connecting(error, self.side))
        };
        match timeout(CANCEL_TIMEOUT, send).await {
            Ok(result) => result.map_err(|error| error.context(doing)),
            Err(_) => Err(Error::transient(format!(
                "{doing} within {} s",
                CANCEL_TIMEOUT.as_secs()
            ))),
        }
    }
}
