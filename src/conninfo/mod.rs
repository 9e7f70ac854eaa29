//! A connection string as libpq understands it, read without any I/O.
//!
//! The environment, the password file and the service file come in as values (`config/` reads
//! them), so every rule here is a function. Both drivers are fed from the one [`Conninfo`], since
//! each of them knows only a part of what libpq does.

mod files;
mod foreign;
mod keywords;
mod parse;
mod require_auth;
mod resolve;
mod url;

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Result;

pub(crate) use require_auth::AuthMethod;
pub use require_auth::RequireAuth;
pub(crate) use resolve::DEFAULT_CONNECT_TIMEOUT_SECONDS;

/// Everything besides the connection string that its meaning depends on, as values: nothing is
/// looked up elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables; only PG* ones count.
    pub variables: BTreeMap<String, String>,
    /// Texts of the password file and of service files by path; of certificate files only whether
    /// they are there.
    pub files: BTreeMap<String, String>,
    /// Name of the operating system's user, the default role.
    pub user: Option<String>,
    /// Home directory, for default files.
    pub home: Option<String>,
    /// Directory of the Unix socket to use where no host is named; `localhost` if there is none.
    pub socket_directory: Option<String>,
}

impl Environment {
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }
}

/// The known word that `word` is most likely a misspelling of.
pub(crate) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        // A third of the letters may be wrong, and one in a short word.
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// A secret that never shows in `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the handshake only.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// How a connection is protected; as libpq's sslmode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// No TLS first, TLS if the server insists.
    Allow,
    /// TLS if the server offers it, unverified.
    #[default]
    Prefer,
    /// TLS, unverified (with sslrootcert: as verify-ca, like libpq).
    Require,
    /// TLS, certificate signed by a trusted authority.
    VerifyCa,
    /// TLS, certificate signed by a trusted authority and made for this host.
    VerifyFull,
}

/// Which server of several hosts will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetSessionAttrs {
    /// Any server.
    #[default]
    Any,
    /// A server that is no standby, and whose sessions may write by default.
    ReadWrite,
    /// A server that is no standby.
    Primary,
    /// A standby, or a server whose sessions may not write by default.
    ReadOnly,
    /// A standby.
    Standby,
    /// A standby if there is one, else any (prefer-standby).
    PreferStandby,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Whether SCRAM is bound to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    #[default]
    Prefer,
    /// Or no connection.
    Require,
}

/// Whether the client's certificate is shown; as libpq's sslcertmode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslCertMode {
    /// Never.
    Disable,
    /// Where the server asks for it, and there is one.
    #[default]
    Allow,
    /// Or no connection.
    Require,
}

/// In which order several servers are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalanceHosts {
    /// As they are named.
    #[default]
    Disable,
    /// At random, and the addresses of a host too.
    Random,
}

/// When a TCP connection on which nothing comes is probed, and given up (keepalives and
/// keepalives_idle, _interval, _count).
///
/// By default a server that vanishes without closing the connection is noticed within two minutes;
/// Linux alone would take more than two hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether it is probed at all.
    pub are_on: bool,
    /// Seconds of silence before the first probe.
    pub idle_seconds: u32,
    /// Seconds between two probes.
    pub interval_seconds: u32,
    /// Probes without an answer after which the connection is given up.
    pub count: u32,
}

impl Default for Keepalives {
    fn default() -> Self {
        Self {
            are_on: true,
            idle_seconds: 60,
            interval_seconds: 10,
            count: 6,
        }
    }
}

/// One server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Host name or address, or the directory of the Unix socket if it begins with `/`, or with `@`
    /// for one without a file (of Linux's abstract namespace).
    pub host: String,
    /// Address to connect to in place of resolving `host` (hostaddr).
    pub address: Option<String>,
    /// Port; for a Unix socket the number at the end of its file's name.
    pub port: u16,
}

impl Host {
    /// Whether it is reached by a Unix socket; an address, if there is one, counts more than a
    /// directory.
    pub(crate) fn is_unix(&self) -> bool {
        self.address.is_none() && self.host.starts_with(['/', '@'])
    }
}

/// Everything needed to connect; all defaults are filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Conninfo {
    /// Servers in the order in which they are named; never empty.
    pub hosts: Vec<Host>,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Password, if one is known.
    pub password: Option<Secret>,
    /// Protection of the connection.
    pub ssl_mode: SslMode,
    /// File of trusted certificates, or `system`.
    pub ssl_root_cert: Option<String>,
    /// File of the client's certificate.
    pub ssl_cert: Option<String>,
    /// File of the client's key.
    pub ssl_key: Option<String>,
    /// Password of the client's key, if that is encrypted.
    pub ssl_password: Option<Secret>,
    /// Whether the client's certificate is shown.
    pub ssl_cert_mode: SslCertMode,
    /// File of certificates that their authority has revoked.
    pub ssl_crl: Option<String>,
    /// Versions of TLS: the least and the most one.
    pub least_tls: TlsVersion,
    /// See [`Self::least_tls`].
    pub most_tls: TlsVersion,
    /// SCRAM channel binding.
    pub channel_binding: ChannelBinding,
    /// Methods by which a server may ask who connects; `None` allows all.
    pub require_auth: Option<RequireAuth>,
    /// Which of several servers will do.
    pub target_session_attrs: TargetSessionAttrs,
    /// In which order several servers are tried.
    pub load_balance_hosts: LoadBalanceHosts,
    /// Seconds that one server may take, never 0; `None` sets no limit, so whoever connects must be
    /// able to give up.
    pub connect_timeout_seconds: Option<u32>,
    /// Signs of life on a TCP connection.
    pub keepalives: Keepalives,
    /// Milliseconds for which sent data may stay without an answer (tcp_user_timeout); `None`
    /// waits as long as the system does.
    pub tcp_user_timeout_ms: Option<u32>,
    /// application_name, if the user gave one; `cdc` uses its own otherwise.
    pub application_name: Option<String>,
    /// Command-line options for the session (`-c name=value`).
    pub options: Option<String>,
}

impl Default for Conninfo {
    fn default() -> Self {
        Self {
            hosts: vec![Host {
                host: "localhost".to_owned(),
                address: None,
                port: 5432,
            }],
            database: String::new(),
            user: String::new(),
            password: None,
            ssl_mode: SslMode::default(),
            ssl_root_cert: None,
            ssl_cert: None,
            ssl_key: None,
            ssl_password: None,
            ssl_cert_mode: SslCertMode::default(),
            ssl_crl: None,
            least_tls: TlsVersion::V1_2,
            most_tls: TlsVersion::V1_3,
            channel_binding: ChannelBinding::default(),
            require_auth: None,
            target_session_attrs: TargetSessionAttrs::default(),
            load_balance_hosts: LoadBalanceHosts::default(),
            connect_timeout_seconds: Some(DEFAULT_CONNECT_TIMEOUT_SECONDS),
            keepalives: Keepalives::default(),
            tcp_user_timeout_ms: None,
            application_name: None,
            options: None,
        }
    }
}

impl Conninfo {
    /// `newer`, if it is the same place: the same hosts and database. A password may be changed, or
    /// a token expire, while a process runs; another place is not taken over.
    #[must_use]
    pub(crate) fn with_secrets_of(self, newer: Self) -> Self {
        let is_same = newer.hosts == self.hosts && newer.database == self.database;
        if is_same { newer } else { self }
    }

    /// Reads a URL (`postgresql://`, `postgres://`) or `key=value` pairs as libpq does; gaps are
    /// filled from the service, PG* variables, the password file and defaults.
    ///
    /// Differences from libpq: `connect_timeout` is 10 s by default; `sslmode=verify-full` without
    /// `sslrootcert` trusts the system's authorities; several hosts share one password;
    /// Kerberos keywords are accepted and ignored; what would weaken a promise if ignored
    /// (`requirepeer`, `sslnegotiation=direct` and others) is refused, in the string and in the
    /// environment.
    ///
    /// # Errors
    ///
    /// Configuration; no message repeats the password or a piece of it.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self> {
        resolve::resolve(text, environment)
    }

    /// The password file that [`Conninfo::parse`] would read; service files must be in
    /// `environment` already.
    ///
    /// # Errors
    ///
    /// As [`Conninfo::parse`].
    pub(crate) fn password_file(text: &str, environment: &Environment) -> Result<Option<String>> {
        resolve::password_file(text, environment)
    }

    /// The URL that gives this, with the password as `****`; defaults are left out.
    pub(crate) fn masked_url(&self) -> String {
        url::masked(self)
    }
}

/// For people and logs: `host:port/database` and the role, never the password.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.hosts.iter().enumerate() {
            write!(
                f,
                "{}{}:{}",
                if index == 0 { "" } else { "," },
                host.host,
                host.port
            )?;
        }
        write!(f, "/{} as {}", self.database, self.user)
    }
}

#[cfg(test)]
mod tests;
