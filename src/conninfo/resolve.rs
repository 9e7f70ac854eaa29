//! From keywords and values to a [`Conninfo`]: the second step of [`Conninfo::parse`].
//!
//! Gaps are filled in libpq's order: connection string, service, PG* variables, defaults. Then the
//! values are judged. A keyword of libpq's that `cdc` cannot honour is an error unless leaving it
//! out is harmless.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

use super::files;
use super::keywords::{KEYWORDS, check_keywords, check_variables};
use super::parse::{Pairs, parse};
use super::{
    ChannelBinding, Conninfo, Environment, Host, Keepalives, LoadBalanceHosts, RequireAuth, Secret,
    SslCertMode, SslMode, TargetSessionAttrs, TlsVersion,
};
use crate::error::{Error, Result};

/// Seconds that one server may take where nothing else is said. libpq sets no limit, and so waits
/// for minutes where the system gives up; a daemon has other servers to try.
pub(crate) const DEFAULT_CONNECT_TIMEOUT_SECONDS: u32 = 10;

/// The values, all gaps filled but those of the defaults.
struct Values(BTreeMap<String, String>);

impl Values {
    /// The value, if it is there and not empty: an empty name means the default, as in libpq.
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The value of a choice or a number, of which libpq takes no empty one.
    fn even_empty(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn owned(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }
}

/// Reads the text and fills the gaps.
pub(super) fn resolve(text: &str, environment: &Environment) -> Result<Conninfo> {
    let values = values(text, environment)?;
    check_client_encoding_and_replication(&values)?;
    let hosts = hosts(&values, environment)?;
    let user = values
        .owned("user")
        .or_else(|| environment.user.clone())
        .ok_or_else(|| {
            Error::configuration(
                "the connection string names no user, and the system does not name one",
            )
            .with_hint("Add user=... or write postgresql://user@host/database.")
        })?;
    let database = values.owned("dbname").unwrap_or_else(|| user.clone());
    let password = match values.get("password") {
        Some(password) => Some(Secret::new(password)),
        None => password_from_file(&values, environment, &hosts, &database, &user)?,
    };
    let conninfo = Conninfo {
        password,
        hosts,
        database,
        user,
        ssl_mode: ssl_mode(&values)?,
        ssl_root_cert: certificate_file(&values, environment, "sslrootcert", 0),
        ssl_cert: certificate_file(&values, environment, "sslcert", 1),
        ssl_key: certificate_file(&values, environment, "sslkey", 2),
        ssl_password: values.get("sslpassword").map(Secret::new),
        ssl_cert_mode: one_of(
            &values,
            "sslcertmode",
            &[
                ("disable", SslCertMode::Disable),
                ("allow", SslCertMode::Allow),
                ("require", SslCertMode::Require),
            ],
        )?,
        ssl_crl: certificate_file(&values, environment, "sslcrl", 3),
        least_tls: tls_version(&values, "ssl_min_protocol_version")?.unwrap_or(TlsVersion::V1_2),
        most_tls: tls_version(&values, "ssl_max_protocol_version")?.unwrap_or(TlsVersion::V1_3),
        channel_binding: one_of(
            &values,
            "channel_binding",
            &[
                ("prefer", ChannelBinding::Prefer),
                ("disable", ChannelBinding::Disable),
                ("require", ChannelBinding::Require),
            ],
        )?,
        require_auth: values
            .get("require_auth")
            .map(RequireAuth::parse)
            .transpose()?,
        load_balance_hosts: one_of(
            &values,
            "load_balance_hosts",
            &[
                ("disable", LoadBalanceHosts::Disable),
                ("random", LoadBalanceHosts::Random),
            ],
        )?,
        target_session_attrs: one_of(
            &values,
            "target_session_attrs",
            &[
                ("any", TargetSessionAttrs::Any),
                ("read-write", TargetSessionAttrs::ReadWrite),
                ("primary", TargetSessionAttrs::Primary),
                ("read-only", TargetSessionAttrs::ReadOnly),
                ("standby", TargetSessionAttrs::Standby),
                ("prefer-standby", TargetSessionAttrs::PreferStandby),
            ],
        )?,
        connect_timeout_seconds: connect_timeout(&values)?,
        keepalives: keepalives(&values)?,
        tcp_user_timeout_ms: positive(&values, "tcp_user_timeout")?,
        application_name: values.owned("application_name"),
        options: values.owned("options"),
    };
    check_certificates(&conninfo)?;
    Ok(conninfo)
}

/// The password file that the text, the environment or libpq's default names.
pub(super) fn password_file(text: &str, environment: &Environment) -> Result<Option<String>> {
    Ok(file_of_passwords(&values(text, environment)?, environment))
}

fn file_of_passwords(values: &Values, environment: &Environment) -> Option<String> {
    values
        .owned("passfile")
        .or_else(|| environment.default_password_file())
}

fn values(text: &str, environment: &Environment) -> Result<Values> {
    let pairs = parse(text)?;
    check_keywords(&pairs)?;
    let mut values = pairs.values;
    let service = match values.get("service") {
        Some(name) => Some(name.clone()),
        None => environment.variable("PGSERVICE").map(str::to_owned),
    };
    if let Some(name) = service {
        let settings = Pairs {
            values: files::service(environment, &name)?,
            doubtful: Vec::new(),
        };
        check_keywords(&settings).map_err(|error| error.context(format!("service \"{name}\"")))?;
        for (key, value) in settings.values {
            values.entry(key).or_insert(value);
        }
    }
    check_variables(&values, environment)?;
    for (key, variable) in KEYWORDS {
        if let Some(value) = variable.and_then(|variable| environment.variable(variable)) {
            values
                .entry(key.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    // Older than PGSSLMODE, and weaker.
    let requires_ssl = environment.variable("PGREQUIRESSL");
    if requires_ssl.is_some_and(|value| value.starts_with('1')) {
        values
            .entry("sslmode".to_owned())
            .or_insert_with(|| "require".to_owned());
    }
    Ok(Values(values))
}

fn check_client_encoding_and_replication(values: &Values) -> Result<()> {
    if let Some(encoding) = values.get("client_encoding") {
        let plain: String = encoding
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        if !["utf8", "unicode", "auto"].contains(&plain.as_str()) {
            return Err(Error::configuration(
                "client_encoding of the connection string must be UTF8",
            )
            .with_hint("Leave it out: the server converts from its own encoding."));
        }
    }
    match values.get("replication") {
        None | Some("false" | "off" | "no" | "0") => Ok(()),
        Some(_) => Err(Error::configuration(
            "\"replication\" is not allowed in the connection string",
        )
        .with_hint(
            "Leave it out: cdc opens replication connections and ordinary ones as it needs them.",
        )),
    }
}

/// The value's meaning; the type's default if there is no value.
fn one_of<T: Copy + Default>(values: &Values, key: &str, choices: &[(&str, T)]) -> Result<T> {
    let Some(value) = values.even_empty(key) else {
        return Ok(T::default());
    };
    match choices.iter().find(|(name, _)| *name == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Err(Error::configuration(format!(
                "{key} of the connection string must be one of {}",
                names.join(", ")
            )))
        }
    }
}

fn ssl_mode(values: &Values) -> Result<SslMode> {
    if values.even_empty("sslmode").is_none() && values.get("sslrootcert") == Some("system") {
        return Ok(SslMode::VerifyFull);
    }
    one_of(
        values,
        "sslmode",
        &[
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ],
    )
}

fn connect_timeout(values: &Values) -> Result<Option<u32>> {
    if values.even_empty("connect_timeout").is_none() {
        return Ok(Some(DEFAULT_CONNECT_TIMEOUT_SECONDS));
    }
    // As in libpq: zero and negative numbers mean no limit. From 17 on it takes 1 for 1, too.
    positive(values, "connect_timeout")
}

/// A version of TLS; those before 1.2 are not spoken.
fn tls_version(values: &Values, key: &str) -> Result<Option<TlsVersion>> {
    let is_least = key == "ssl_min_protocol_version";
    let value = values.get(key).map(str::to_ascii_lowercase);
    match value.as_deref() {
        None => Ok(None),
        Some("tlsv1.2") => Ok(Some(TlsVersion::V1_2)),
        Some("tlsv1.3") => Ok(Some(TlsVersion::V1_3)),
        // cdc speaks later versions alone.
        Some("tlsv1" | "tlsv1.1") if is_least => Ok(Some(TlsVersion::V1_2)),
        Some(_) => Err(Error::configuration(format!(
            "{key} of the connection string must be TLSv1.2 or TLSv1.3"
        ))
        .with_hint("Earlier versions of TLS are not safe, and cdc does not speak them.")),
    }
}

fn keepalives(values: &Values) -> Result<Keepalives> {
    let default = Keepalives::default();
    let or = |key, default| Ok::<_, Error>(positive(values, key)?.unwrap_or(default));
    Ok(Keepalives {
        are_on: number(values, "keepalives")?.is_none_or(|number| number != 0),
        idle_seconds: or("keepalives_idle", default.idle_seconds)?,
        interval_seconds: or("keepalives_interval", default.interval_seconds)?,
        count: or("keepalives_count", default.count)?,
    })
}

/// A whole number; zero and negative numbers stand for the default, as libpq's manual has it.
fn positive(values: &Values, key: &str) -> Result<Option<u32>> {
    let number = number(values, key)?.and_then(|number| u32::try_from(number).ok());
    Ok(number.filter(|number| *number > 0))
}

/// A whole number of 32 bits, as libpq takes them.
fn number(values: &Values, key: &str) -> Result<Option<i32>> {
    let Some(text) = values.even_empty(key) else {
        return Ok(None);
    };
    text.trim().parse().map(Some).map_err(|_| {
        Error::configuration(format!(
            "{key} of the connection string must be a whole number"
        ))
        .with_hint("Leave it out for the default.")
    })
}

/// The file named, else libpq's default one if it exists.
fn certificate_file(
    values: &Values,
    environment: &Environment,
    key: &str,
    index: usize,
) -> Option<String> {
    if values.0.contains_key(key) {
        return values.owned(key);
    }
    let file = environment
        .default_certificate_files()?
        .into_iter()
        .nth(index)?;
    environment.files.contains_key(&file).then_some(file)
}

fn check_certificates(conninfo: &Conninfo) -> Result<()> {
    let system = conninfo.ssl_root_cert.as_deref() == Some("system");
    if system && conninfo.ssl_mode != SslMode::VerifyFull {
        return Err(
            Error::configuration("sslrootcert=system needs sslmode=verify-full").with_detail(
                "Anybody can have a certificate that the system trusts, so the host's name must be verified.",
            ),
        );
    }
    if conninfo.least_tls > conninfo.most_tls {
        return Err(Error::configuration(
            "ssl_min_protocol_version of the connection string is above ssl_max_protocol_version",
        ));
    }
    let has_tls = conninfo.hosts.iter().any(|host| !host.is_unix());
    if has_tls && conninfo.ssl_mode == SslMode::VerifyCa && conninfo.ssl_root_cert.is_none() {
        return Err(
            Error::configuration("sslmode=verify-ca needs sslrootcert")
                .with_hint("Name the file of the authority's certificate, or use sslmode=verify-full, which then trusts the system's authorities."),
        );
    }
    Ok(())
}

/// Hosts, addresses and ports, each a list separated by commas.
fn hosts(values: &Values, environment: &Environment) -> Result<Vec<Host>> {
    let list = |key: &str| -> Vec<&str> {
        values
            .get(key)
            .map_or_else(Vec::new, |text| text.split(',').collect())
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(Error::configuration(format!(
            "the connection string has {} hosts and {} addresses (hostaddr)",
            names.len(),
            addresses.len()
        )));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::configuration(format!(
            "the connection string has {count} hosts and {} ports",
            ports.len()
        ))
        .with_hint("Give one port for all hosts, or one for each."));
    }
    let default = environment
        .socket_directory
        .as_deref()
        .unwrap_or("localhost");
    (0..count)
        .map(|index| {
            let address = entry(&addresses, index).map(address).transpose()?;
            let port = if ports.len() == 1 {
                ports.first().copied()
            } else {
                entry(&ports, index)
            };
            Ok(Host {
                host: entry(&names, index)
                    .or(address)
                    .unwrap_or(default)
                    .to_owned(),
                address: address.map(str::to_owned),
                port: port_number(port.unwrap_or_default())?,
            })
        })
        .collect()
}

/// The entry of a list, if it is there and not empty.
fn entry<'a>(list: &[&'a str], index: usize) -> Option<&'a str> {
    list.get(index).copied().filter(|entry| !entry.is_empty())
}

/// An address of hostaddr, which is never looked up; one of IPv6 may name an interface
/// (`fe80::1%eth0`).
fn address(text: &str) -> Result<&str> {
    let is_local = |text: &str| {
        let address = text.parse::<Ipv6Addr>();
        address.is_ok_and(|address| address.is_unicast_link_local())
    };
    let is_scoped = text
        .split_once('%')
        .is_some_and(|(address, zone)| is_local(address) && !zone.is_empty());
    if text.parse::<IpAddr>().is_ok() || is_scoped {
        return Ok(text);
    }
    Err(
        Error::configuration("hostaddr of the connection string has what is no address")
            .with_hint("It takes addresses alone, written in full; names go into host."),
    )
}

fn port_number(text: &str) -> Result<u16> {
    match text.trim() {
        "" => Ok(5432),
        text => match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            // The text is not repeated: it is a piece of a password that has an unquoted `/`.
            _ => Err(Error::configuration(
                "the connection string has a port that is no number from 1 to 65535",
            )
            .with_hint(
                "In a URL, percent-encode special characters of the password: / as %2F, @ as %40.",
            )),
        },
    }
}

/// The password file's entry for the hosts; they share one password, so it must not give several.
fn password_from_file(
    values: &Values,
    environment: &Environment,
    hosts: &[Host],
    database: &str,
    user: &str,
) -> Result<Option<Secret>> {
    let file = file_of_passwords(values, environment);
    let Some((file, text)) = file.and_then(|file| environment.files.get_key_value(&file)) else {
        return Ok(None);
    };
    let socket = environment.socket_directory.as_deref();
    let of = |host: &Host| {
        let name = if host.host.starts_with('/') && Some(host.host.as_str()) == socket {
            files::DEFAULT_HOST
        } else {
            &host.host
        };
        files::password(text, (name, host.port), database, user)
    };
    let mut found = hosts.iter().map(of);
    let first = found.next().flatten();
    let Some(other) = found.find(|other| *other != first) else {
        return Ok(first);
    };
    // A server gets no password that the file has for another one.
    let what = if first.is_some() && other.is_some() {
        "different passwords for the hosts of one connection string"
    } else {
        "a password for some of the hosts of one connection string, and none for others"
    };
    Err(
        Error::configuration(format!("password file \"{file}\" has {what}")).with_hint(
            "All servers of one connection string must take the same password: give each a line.",
        ),
    )
}
