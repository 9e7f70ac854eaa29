//! The ways to one server: with sslmode allow and prefer there are two.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{Client, Config};

use super::demands::{Demands, Judge, Refused, not_bound};
use super::error::from_handshake;
use super::guard::Guarded;
use super::side::Side;
use super::tls::client_config;
use super::tls_error::{is_about_our_certificate, not_taken};
use super::wire::{Address, Liveness, Protection, Refusal, Secured, Wire};
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
    pub(super) demands: Demands,
}

/// A driver's client, and its connection, on a stream that was judged.
pub(crate) type Driven<S> = (Client, tokio_postgres::Connection<Guarded<S>, Guarded<S>>);

impl Server {
    /// The same server with only the protection that it turned out to want.
    pub(crate) fn settled_on(&self, is_tls: bool) -> Self {
        let mut server = self.clone();
        if is_tls {
            let demanded = server.protections.iter().filter_map(Protection::demanded);
            server.protections = demanded.collect();
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
/// A loop of [`Self::open`] and [`Self::authenticate`], until that is through or an error ends it.
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

    /// Who judges what the server asks for on this wire.
    pub(crate) fn judge(&self, wire: &Wire) -> Judge {
        Judge::new(self.server.demands.clone(), wire.channel())
    }

    /// Authenticates on this stream, under the eyes of its wire's judge; `None` tries the next way.
    ///
    /// # Errors
    /// One that another way would not help against.
    pub(crate) async fn authenticate<S>(
        &mut self,
        config: &Config,
        stream: S,
        judge: Judge,
    ) -> Result<Option<Driven<S>>>
    where
        S: AsyncRead + AsyncWrite + TlsStream + Unpin,
    {
        let guarded = Guarded::new(stream, judge);
        let error = match config.connect_raw(guarded, Secured).await {
            Ok(driven) => return Ok(Some(driven)),
            Err(error) => error,
        };
        let (error, another_may_help) = match refusal(&error) {
            Some(refused) => (refused.error, refused.tls_may_help),
            None if is_unbound(&error) => (not_bound(NO_HASH), false),
            // With TLS 1.3 the server says so when TLS is there.
            None if stream_error(&error).is_some_and(is_about_our_certificate) => {
                (not_taken(error), false)
            }
            None => {
                let error = from_handshake(error, self.side);
                // pg_hba.conf may take this role the other way only. A password that was refused is
                // not sent again.
                let may_help = error.sqlstate() == Some("28000");
                (error, may_help)
            }
        };
        if !another_may_help {
            return Err(error);
        }
        self.note(error);
        Ok(None)
    }

    fn note(&mut self, error: Error) {
        tracing::debug!(error = %error, "one way to connect is closed");
        self.first_error.get_or_insert(error);
    }
}

/// Why SCRAM cannot be bound although the server offers it.
const NO_HASH: &str =
    "the server's certificate is signed by a method without a hash, such as Ed25519";

/// Whether the driver gave up since it has nothing to bind SCRAM to; it does not show its kinds.
fn is_unbound(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.to_string() == "server did not use channel binding")
}

/// The judge's verdict, which the driver hands through as an error of its stream.
fn refusal(error: &tokio_postgres::Error) -> Option<Refused> {
    let source = stream_error(error)?.get_ref()?;
    source.downcast_ref::<Refused>().cloned()
}

/// The error of the stream below the driver.
fn stream_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
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
