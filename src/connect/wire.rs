//! A connected socket, with TLS or without: everything below the protocol.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::client_certificate::{Outcome, Watched};
use super::demands::Channel;
use super::error::{closed, no_connection, no_socket, not_postgres};
use super::tls_error::of_handshake;
use crate::conninfo::Keepalives;
use crate::error::{Error, Result};

/// When a TCP connection counts as lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Liveness {
    /// Probes of a silent connection.
    pub(crate) keepalives: Keepalives,
    /// For how long sent data may stay without an answer; `None`: as the system has it.
    pub(crate) user_timeout: Option<Duration>,
}

impl Liveness {
    fn set(self, socket: &socket2::SockRef<'_>) -> io::Result<()> {
        let keepalives = self.keepalives;
        if keepalives.are_on {
            socket.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(Duration::from_secs(keepalives.idle_seconds.into()))
                    .with_interval(Duration::from_secs(keepalives.interval_seconds.into()))
                    .with_retries(keepalives.count),
            )?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        Ok(())
    }
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// TCP, with the name that the server's certificate must have.
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// The host's name as the user gave it.
        name: String,
    },
    /// File of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address, name } if *name == address.ip().to_string() => {
                write!(f, "{address}")
            }
            Self::Tcp { address, name } => write!(f, "\"{name}\" ({address})"),
            Self::Unix(path) => write!(f, "socket \"{}\"", path.display()),
        }
    }
}

/// How one try to connect is protected.
#[derive(Debug, Clone)]
pub(crate) enum Protection {
    /// No TLS.
    Plain,
    /// TLS; if the server does not offer it, no TLS.
    Offered(ClientConfig),
    /// TLS or no connection.
    Demanded(ClientConfig),
}

impl Protection {
    /// The same TLS, or no connection; `None` of no TLS.
    pub(super) fn demanded(&self) -> Option<Self> {
        match self {
            Self::Plain => None,
            Self::Offered(config) | Self::Demanded(config) => Some(Self::Demanded(config.clone())),
        }
    }
}

/// A socket of either kind.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    async fn open(address: &Address, liveness: Liveness) -> io::Result<Self> {
        match address {
            Address::Tcp { address, .. } => {
                let socket = if address.is_ipv4() {
                    TcpSocket::new_v4()?
                } else {
                    TcpSocket::new_v6()?
                };
                liveness.set(&socket2::SockRef::from(&socket))?;
                let stream = socket.connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path_of(path)).await?)),
        }
    }
}

/// A path that begins with `@` is a name of Linux's abstract namespace, as PostgreSQL has it.
fn path_of(path: &Path) -> Cow<'_, Path> {
    match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => Cow::Owned(PathBuf::from(format!("\0{name}"))),
        None => Cow::Borrowed(path),
    }
}

/// Why there is no connection to the socket.
fn unreachable(error: io::Error, address: &Address) -> Error {
    match address {
        Address::Tcp { .. } => no_connection(error),
        Address::Unix(_) => no_socket(error),
    }
}

type TlsSocket = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A connected socket, ready for the startup message.
pub(crate) enum Wire {
    Plain(Socket),
    Tls(Box<TlsSocket>, Arc<Outcome>),
}

impl Wire {
    /// Connects, and secures the connection before anything else is sent.
    pub(crate) async fn open(
        address: &Address,
        protection: &Protection,
        liveness: Liveness,
    ) -> Result<Self, Refusal> {
        let mut socket = Socket::open(address, liveness)
            .await
            .map_err(|error| Refusal::Unreachable(unreachable(error, address)))?;
        let (config, demanded) = match (protection, address) {
            // As with libpq, sslmode does not count on a Unix socket.
            (Protection::Plain, _) | (_, Address::Unix(_)) => return Ok(Self::Plain(socket)),
            (Protection::Offered(config), _) => (config, false),
            (Protection::Demanded(config), _) => (config, true),
        };
        let Address::Tcp { name, .. } = address else {
            return Ok(Self::Plain(socket));
        };
        let lost = |error| Refusal::Unreachable(closed("could not ask for TLS").with_source(error));
        match offers_tls(&mut socket).await.map_err(lost)?? {
            true => secure(socket, config.clone(), name).await,
            false if demanded => Err(Refusal::Tls(
                Error::configuration("the server does not support TLS, but sslmode demands it")
                    .with_hint("Turn on ssl at the server, or set sslmode to prefer."),
            )),
            false => Ok(Self::Plain(socket)),
        }
    }

    /// Whether the connection is protected.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(..))
    }

    /// What protects it.
    pub(super) fn channel(&self) -> Channel {
        match self {
            Self::Plain(Socket::Tcp(_)) => Channel::Open,
            Self::Plain(Socket::Unix(_)) => Channel::Local,
            Self::Tls(_, certificate) => Channel::Tls(certificate.get()),
        }
    }
}

/// Why a try failed: this decides whether another protection is worth a try.
pub(crate) enum Refusal {
    /// The server was not reached, or lost: another protection would not help.
    Unreachable(Error),
    /// TLS could not be agreed upon.
    Tls(Error),
}

/// Sends an SSLRequest and reads the server's one byte. Not a byte more is read: what follows is
/// TLS's.
async fn offers_tls(socket: &mut Socket) -> io::Result<Result<bool, Refusal>> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    match socket.read_u8().await? {
        b'S' => Ok(Ok(true)),
        b'N' => Ok(Ok(false)),
        // The server could not even begin a session: it has no memory, or no process.
        b'E' => Err(io::Error::other("the server answered with an error")),
        byte => Ok(Err(Refusal::Unreachable(not_postgres(format!(
            "Expected S or N as answer to an SSLRequest, found 0x{byte:02X}."
        ))))),
    }
}

async fn secure(socket: Socket, mut config: ClientConfig, name: &str) -> Result<Wire, Refusal> {
    let (watched, outcome) = Watched::new(config.client_auth_cert_resolver);
    config.client_auth_cert_resolver = watched;
    let mut maker = MakeRustlsConnect::new(config);
    let connect = MakeTlsConnect::<Socket>::make_tls_connect(&mut maker, name)
        .unwrap_or_else(|never| match never {});
    match connect.connect(socket).await {
        Ok(stream) => Ok(Wire::Tls(Box::new(stream), outcome)),
        Err(error) => Err(Refusal::Tls(of_handshake(error))),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    // All that TLS has to say goes out at once. In pieces, the server could end the connection
    // because of the first one, and its reason would be lost with the failure to write the next.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::none(),
            Self::Tls(stream, _) => stream.channel_binding(),
        }
    }
}

/// Says to the driver that its stream is already as secure as it will be.
///
/// With `SslMode::Require` and direct negotiation the driver sends no SSLRequest and asks its
/// connector for TLS at once: this one hands the stream back, so that the driver sees its channel
/// binding.
pub(super) struct Secured;

impl<S: TlsStream + Unpin> TlsConnect<S> for Secured {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}
