//! The ways to one server: with sslmode allow and prefer there are two.

use std::time::Duration;

use super::error::from_handshake;
use super::side::Side;
use super::tls::client_config;
use super::wire::{Address, Liveness, Protection, Refusal, Wire};
use crate::conninfo::{Conninfo, SslMode};
use crate::error::{Error, Result};

/// One server to try.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: Address,
    /// Protections in the order in which they are tried.
    pub(super) protections: Vec<Protection>,
    pub(super) liveness: Liveness,
    /// How long it may take to make a session of it; `None`: as long as it likes.
    pub(super) timeout: Option<Duration>,
}

impl Server {
    /// The same server with only the protection that it turned out to want.
    pub(crate) fn settled_on(&self, is_tls: bool) -> Self {
        let mut server = self.clone();
        if is_tls {
            server
                .protections
                .retain(|protection| !matches!(protection, Protection::Plain));
        } else {
            server.protections = vec![Protection::Plain];
        }
        server
    }

    /// Opens a wire with the first protection, for a request that needs no authentication.
    pub(crate) async fn open(&self) -> Result<Wire> {
        let protection = self.protections.first().unwrap_or(&Protection::Plain);
        Wire::open(&self.address, protection, self.liveness)
            .await
            .map_err(|refusal| match refusal {
                Refusal::Unreachable(error) | Refusal::Tls(error) => error,
            })
    }

    /// Bounds the time that connecting may take.
    pub(crate) async fn limit<T>(&self, connecting: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(timeout) = self.timeout else {
            return connecting.await;
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(result) => result,
            Err(_) => Err(
                Error::transient(format!("no session within {} s", timeout.as_secs()))
                    .with_detail("The server, or a firewall before it, does not answer.")
                    .with_hint("Check host and port; connect_timeout allows it more time."),
            ),
        }
    }
}

/// The ways to one server: with sslmode allow and prefer there are two.
///
/// A loop of [`Self::open`], the handshake, and [`Self::judge`], until the handshake is through or
/// an error ends it.
pub(crate) struct Ways<'a> {
    server: &'a Server,
    side: Side,
    protections: std::slice::Iter<'a, Protection>,
    first_error: Option<Error>,
}

impl<'a> Ways<'a> {
    pub(crate) fn to(server: &'a Server, side: Side) -> Self {
        Self {
            server,
            side,
            protections: server.protections.iter(),
            first_error: None,
        }
    }

    /// Opens a wire the next way.
    ///
    /// # Errors
    /// What went wrong the first way, if no other is left or worth a try.
    pub(crate) async fn open(&mut self) -> Result<Wire> {
        while let Some(protection) = self.protections.next() {
            match Wire::open(&self.server.address, protection, self.server.liveness).await {
                Ok(wire) => return Ok(wire),
                Err(Refusal::Tls(error)) => self.note(error),
                Err(Refusal::Unreachable(error)) => {
                    self.note(error);
                    break;
                }
            }
        }
        let none = || Error::configuration("no way to connect is left");
        Err(self.first_error.take().unwrap_or_else(none))
    }

    /// Takes the result of the handshake; `None` tries the next way.
    ///
    /// # Errors
    /// One that another way would not help against.
    pub(crate) fn judge<T>(
        &mut self,
        outcome: Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>> {
        match outcome.map_err(|error| from_handshake(error, self.side)) {
            Ok(session) => Ok(Some(session)),
            // pg_hba.conf may take this role the other way only. A password that was refused is not
            // sent again.
            Err(error) if error.sqlstate() == Some("28000") => {
                self.note(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, error: Error) {
        tracing::debug!(error = %error, "one way to connect is closed");
        self.first_error.get_or_insert(error);
    }
}

/// How a connection may be protected, in the order in which it is tried.
pub(super) fn protections(conninfo: &Conninfo, has_tcp: bool) -> Result<Vec<Protection>> {
    if !has_tcp || conninfo.ssl_mode == SslMode::Disable {
        return Ok(vec![Protection::Plain]);
    }
    let config = client_config(conninfo)?;
    Ok(match conninfo.ssl_mode {
        SslMode::Disable => vec![Protection::Plain],
        SslMode::Allow => vec![Protection::Plain, Protection::Demanded(config)],
        SslMode::Prefer => vec![Protection::Offered(config), Protection::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            vec![Protection::Demanded(config)]
        }
    })
}
