//! A connection string as libpq understands it, read without any I/O.
//!
//! The environment, the password file and the service file come in as values (`config/` reads them), so
//! every rule here is a function. Both drivers are fed from the one [`Conninfo`], since each of them knows
//! only a part of what libpq does.

use std::fmt;

/// A secret that never shows in `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the handshake only.
    pub fn expose(&self) -> &str {
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
    /// A server that accepts writes (read-write, primary).
    ReadWrite,
    /// A server that does not accept writes (read-only, standby).
    ReadOnly,
    /// A standby if there is one, else any (prefer-standby).
    PreferStandby,
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

/// One server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Host name or address, or the directory of the Unix socket if it begins with `/` (or `@`).
    pub host: String,
    /// Address to connect to in place of resolving `host` (hostaddr).
    pub address: Option<String>,
    /// Port; for a Unix socket the number at the end of its file's name.
    pub port: u16,
}

impl Host {
    /// Whether this is the directory of a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// Everything needed to connect; all defaults are filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Conninfo {
    /// Servers in the order in which they are tried; never empty.
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
    /// SCRAM channel binding.
    pub channel_binding: ChannelBinding,
    /// Which of several servers will do.
    pub target_session_attrs: TargetSessionAttrs,
    /// Seconds to wait for one server; `None` waits as long as the system does.
    pub connect_timeout_seconds: Option<u32>,
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
            channel_binding: ChannelBinding::default(),
            target_session_attrs: TargetSessionAttrs::default(),
            connect_timeout_seconds: None,
            application_name: None,
            options: None,
        }
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
