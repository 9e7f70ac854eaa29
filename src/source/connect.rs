//! Connects to the source: servers in order, protection as sslmode says, and one set of session
//! settings.
//!
//! Both kinds of connection go this way; `source/replication.rs` takes its socket back afterwards.
//! Nothing here reads PG* variables: all of that is in the [`Conninfo`] already.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::task::AbortHandle;
use tokio_postgres::config::{
    ChannelBinding as DriverBinding, SslMode as DriverSslMode, SslNegotiation,
};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage};

use super::error::from_driver;
use super::server::{LOOK_AROUND, Session, Wanted};
use super::tls::client_config;
use super::wire::{Address, Protection, Refusal, Secured, Wire};
use crate::conninfo::{ChannelBinding, Conninfo, Host, SslMode, TargetSessionAttrs};
use crate::error::{Class, Error, Result};

/// How long one server may take to accept a connection where the user gives no connect_timeout.
///
/// libpq would wait for as long as the system does, minutes; a daemon has other servers to try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings that every connection to the source has. Values come as text, so everything that shapes
/// text is fixed. Names are qualified, so the search_path is empty. No timeout of a role or
/// database ends a stream or a copy. Row-level security is an error, since rows would be missing
/// without notice.
const SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("search_path", ""),
    ("client_encoding", "UTF8"),
    ("row_security", "off"),
    ("default_transaction_isolation", "read committed"),
    // The server would compile a query over the catalogs of thousands of partitions for seconds,
    // and run it for a third of one.
    ("jit", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// Connects for ordinary SQL. The connection runs in a task of its own and ends when the client is
/// dropped.
///
/// # Errors
/// Transient: no server could be reached. Configuration: role, password, database, TLS or channel
/// binding.
pub async fn client(conninfo: &Conninfo, application_name: &str) -> Result<Client> {
    client_of(conninfo, application_name, Wanted::Any).await
}

/// As [`client`], with a server that is wanted.
///
/// # Errors
/// As [`client`].
pub(crate) async fn client_of(
    conninfo: &Conninfo,
    application_name: &str,
    wanted: Wanted,
) -> Result<Client> {
    let (client, _) = connected(conninfo, application_name, wanted).await?;
    Ok(client)
}

/// As [`client`], with the first primary that is accepted; where there is none with the first
/// server that answers, so that it can be said what is found there.
///
/// # Errors
/// As [`client`].
pub(crate) async fn client_preferring(
    conninfo: &Conninfo,
    application_name: &str,
    accept: impl AsyncFn(&Client) -> bool,
) -> Result<Client> {
    let mut search = Search::new(conninfo, Wanted::Any)?;
    let mut other = None;
    while let Some(server) = search.next().await {
        let connecting = async {
            let ((client, _), session) = ordinary(conninfo, &server, application_name).await?;
            let is_accepted = !session.in_recovery && accept(&client).await;
            Ok(((client, is_accepted), session))
        };
        let outcome = server.limit(connecting).await;
        match search.judge(&server, outcome) {
            Ok(Some((client, true))) => return Ok(client),
            Ok(Some((client, false))) => other = other.or(Some(client)),
            Ok(None) => {}
            Err(error) => return other.ok_or(error),
        }
    }
    other.ok_or_else(|| search.into_error())
}

/// As [`client_of`], with what ends the connection at once.
pub(super) async fn connected(
    conninfo: &Conninfo,
    application_name: &str,
    wanted: Wanted,
) -> Result<(Client, AbortHandle)> {
    let mut search = Search::new(conninfo, wanted)?;
    while let Some(server) = search.next().await {
        let outcome = server
            .limit(ordinary(conninfo, &server, application_name))
            .await;
        if let Some(connected) = search.judge(&server, outcome)? {
            return Ok(connected);
        }
    }
    Err(search.into_error())
}

async fn ordinary(
    conninfo: &Conninfo,
    server: &Server,
    application_name: &str,
) -> Result<((Client, AbortHandle), Session)> {
    let config = driver_config(conninfo, application_name);
    let mut ways = Ways::to(server);
    let (client, connection) = loop {
        let wire = ways.open().await?;
        if let Some(made) = ways.judge(config.connect_raw(wire, Secured).await)? {
            break made;
        }
    };
    let task = run(connection);
    let answer = client
        .simple_query(LOOK_AROUND)
        .await
        .map_err(from_driver)?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let values = row.map(|row| (0..row.len()).map(|at| row.try_get(at).ok().flatten()));
    let session = Session::read(values.into_iter().flatten())?;
    Ok(((client, task), session))
}

/// Drives the connection until its client is dropped. Its error shows at the client's next
/// statement.
fn run<S, T>(connection: Connection<S, T>) -> AbortHandle
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsStream + Unpin + Send + 'static,
{
    let driven = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %from_driver(error), "connection to the source ended");
        }
    });
    driven.abort_handle()
}

/// The driver's configuration: everything but where and how.
pub(super) fn driver_config(conninfo: &Conninfo, application_name: &str) -> Config {
    let mut config = Config::new();
    config
        .user(&conninfo.user)
        .dbname(&conninfo.database)
        .application_name(
            conninfo
                .application_name
                .as_deref()
                .unwrap_or(application_name),
        )
        .options(startup_options(conninfo.options.as_deref()))
        .ssl_mode(DriverSslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct)
        .channel_binding(match conninfo.channel_binding {
            ChannelBinding::Disable => DriverBinding::Disable,
            ChannelBinding::Prefer => DriverBinding::Prefer,
            ChannelBinding::Require => DriverBinding::Require,
        });
    if let Some(password) = &conninfo.password {
        config.password(password.expose());
    }
    config
}

/// The startup parameter `options`: the user's, then ours, which win.
fn startup_options(users: Option<&str>) -> String {
    let mut options = users.unwrap_or_default().trim_end().to_owned();
    for (name, value) in SETTINGS {
        if !options.is_empty() {
            options.push(' ');
        }
        // The server splits at blanks and takes the character after a backslash as it is.
        let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
        options.push_str(&format!("-c {name}={value}"));
    }
    options
}

/// One server to try.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: Address,
    /// Protections in the order in which they are tried.
    protections: Vec<Protection>,
    timeout: Duration,
}

impl Server {
    /// The same server with only the protection that it turned out to want.
    pub(super) fn settled_on(&self, is_tls: bool) -> Self {
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
    pub(super) async fn open(&self) -> Result<Wire> {
        let protection = self.protections.first().unwrap_or(&Protection::Plain);
        Wire::open(&self.address, protection)
            .await
            .map_err(|refusal| match refusal {
                Refusal::Unreachable(error) | Refusal::Tls(error) => error,
            })
    }

    /// Bounds the time that connecting may take.
    pub(super) async fn limit<T>(&self, connecting: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(result) => result,
            Err(_) => Err(Error::transient(format!(
                "no session within {} s",
                self.timeout.as_secs()
            ))),
        }
    }
}

/// The ways to one server: with sslmode allow and prefer there are two.
///
/// A loop of [`Self::open`], the handshake, and [`Self::judge`], until the handshake is through or
/// an error ends it.
pub(super) struct Ways<'a> {
    server: &'a Server,
    protections: std::slice::Iter<'a, Protection>,
    first_error: Option<Error>,
}

impl<'a> Ways<'a> {
    pub(super) fn to(server: &'a Server) -> Self {
        Self {
            server,
            protections: server.protections.iter(),
            first_error: None,
        }
    }

    /// Opens a wire the next way.
    ///
    /// # Errors
    /// What went wrong the first way, if no other is left or worth a try.
    pub(super) async fn open(&mut self) -> Result<Wire> {
        while let Some(protection) = self.protections.next() {
            match Wire::open(&self.server.address, protection).await {
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
    pub(super) fn judge<T>(
        &mut self,
        outcome: Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>> {
        match outcome.map_err(from_driver) {
            Ok(session) => Ok(Some(session)),
            // pg_hba.conf may accept this role only with the other protection. A password that was
            // refused is not sent again.
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

/// The servers of a connection string, one after the other, and what was learned on the way.
pub(super) struct Search<'a> {
    conninfo: &'a Conninfo,
    protections: Vec<Protection>,
    hosts: VecDeque<&'a Host>,
    addresses: VecDeque<Address>,
    wanted: Wanted,
    /// Only for prefer-standby: whether a primary is accepted in this round.
    last_round: bool,
    errors: Vec<Error>,
    /// Why a server that could be used was skipped: that says more than why others cannot be
    /// reached.
    refused: Option<Error>,
}

impl<'a> Search<'a> {
    pub(super) fn new(conninfo: &'a Conninfo, wanted: Wanted) -> Result<Self> {
        let has_tcp = conninfo.hosts.iter().any(|host| !host.is_unix());
        Ok(Self {
            conninfo,
            protections: protections(conninfo, has_tcp)?,
            hosts: conninfo.hosts.iter().collect(),
            addresses: VecDeque::new(),
            wanted,
            last_round: conninfo.target_session_attrs != TargetSessionAttrs::PreferStandby,
            errors: Vec::new(),
            refused: None,
        })
    }

    /// The next server to try.
    pub(super) async fn next(&mut self) -> Option<Server> {
        loop {
            if let Some(address) = self.addresses.pop_front() {
                return Some(self.server(address));
            }
            if let Some(host) = self.hosts.pop_front() {
                match resolve(host).await {
                    Ok(addresses) => self.addresses = addresses,
                    Err(error) => self.errors.push(error),
                }
            } else if self.last_round {
                return None;
            } else {
                self.last_round = true;
                self.hosts = self.conninfo.hosts.iter().collect();
            }
        }
    }

    fn server(&self, address: Address) -> Server {
        let protections = match address {
            Address::Tcp { .. } => self.protections.clone(),
            Address::Unix(_) => vec![Protection::Plain],
        };
        let seconds = self
            .conninfo
            .connect_timeout_seconds
            .filter(|seconds| *seconds > 0);
        Server {
            address,
            protections,
            timeout: seconds.map_or(CONNECT_TIMEOUT, |seconds| {
                Duration::from_secs(seconds.into())
            }),
        }
    }

    /// Takes the connection if it was opened and the server is acceptable; `None` means: try the
    /// next server.
    ///
    /// # Errors
    /// Configuration: another server would say the same (as libpq, which tries the next server only
    /// if it got no connection).
    pub(super) fn judge<T>(
        &mut self,
        server: &Server,
        outcome: Result<(T, Session)>,
    ) -> Result<Option<T>> {
        let error = match outcome {
            Ok((connection, session)) => {
                let attrs = self.conninfo.target_session_attrs;
                match session.mismatch(attrs, self.wanted, self.last_round) {
                    None => return Ok(Some(connection)),
                    Some(error) => error,
                }
            }
            Err(error) => error,
        };
        let error = error.context(connecting(server));
        if error.class() == Class::Configuration {
            return Err(error);
        }
        self.errors.push(error);
        Ok(None)
    }

    /// Skips a server that could be used, for this reason.
    pub(super) fn refuse(&mut self, server: &Server, why: Error) {
        let why = why.context(connecting(server));
        tracing::debug!(error = %why, "passed over a server");
        self.refused.get_or_insert(why);
    }

    /// Why there is no connection: a server was skipped, or else the error of the last one. The
    /// detail has the errors of the others.
    pub(super) fn into_error(mut self) -> Error {
        let Some(main) = self.refused.take().or_else(|| self.errors.pop()) else {
            return Error::configuration("there is no server to connect to");
        };
        if self.errors.is_empty() {
            return main;
        }
        let others: Vec<String> = self.errors.iter().map(Error::to_string).collect();
        let others = format!("Tried as well: {}.", others.join("; "));
        let detail = main
            .detail()
            .map_or_else(String::new, |detail| format!("{detail} "));
        main.with_detail(detail + &others)
    }
}

fn connecting(server: &Server) -> String {
    format!("could not connect to the source at {}", server.address)
}

fn protections(conninfo: &Conninfo, has_tcp: bool) -> Result<Vec<Protection>> {
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

async fn resolve(host: &Host) -> Result<VecDeque<Address>> {
    if host.is_unix() && host.address.is_none() {
        let file = format!("{}/.s.PGSQL.{}", host.host.trim_end_matches('/'), host.port);
        return Ok(VecDeque::from([Address::Unix(file.into())]));
    }
    let place = host.address.as_deref().unwrap_or(&host.host);
    let name = if host.host.is_empty() {
        place
    } else {
        &host.host
    };
    let found = lookup_host((place, host.port)).await.map_err(|error| {
        Error::transient(format!("could not find the address of host \"{place}\""))
            .with_source(error)
    })?;
    Ok(found
        .map(|address| Address::Tcp {
            address,
            name: name.to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_into_the_startup_options_after_the_users() {
        let options = startup_options(Some("-c wal_sender_timeout=5s "));
        assert!(
            options.starts_with("-c wal_sender_timeout=5s -c DateStyle=ISO "),
            "{options}"
        );
        assert!(
            options.contains(" -c search_path= -c client_encoding=UTF8 "),
            "{options}"
        );
        assert!(
            options.contains(" -c default_transaction_isolation=read\\ committed "),
            "{options}"
        );
        assert!(startup_options(None).starts_with("-c DateStyle=ISO "));
    }

    #[tokio::test]
    async fn servers_come_in_order_and_a_standby_is_looked_for_twice() {
        let host = |host: &str| Host {
            host: host.to_owned(),
            address: None,
            port: 5433,
        };
        let conninfo = Conninfo {
            hosts: vec![host("/run/a"), host("127.0.0.1")],
            target_session_attrs: TargetSessionAttrs::PreferStandby,
            ssl_mode: SslMode::Disable,
            ..Conninfo::default()
        };
        let mut search = Search::new(&conninfo, Wanted::Any).unwrap();
        let mut found = Vec::new();
        while let Some(server) = search.next().await {
            found.push(server.address.to_string());
        }
        let round = ["socket \"/run/a/.s.PGSQL.5433\"", "127.0.0.1:5433"];
        assert_eq!(found, [round, round].concat());
    }
}
