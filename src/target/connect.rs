//! Opens a connection to the target with the settings that every session of ours needs.
//!
//! Comes in: a [`Conninfo`]. Goes out: a `PgConnection`. sqlx knows one host and reads PG*
//! variables by itself; this module does what libpq does beyond that: hosts in order,
//! target_session_attrs, sslmode `allow` and the second try of `prefer`, no TLS over Unix sockets.
//!
//! Invariant: nothing but the [`Conninfo`] decides about the connection. Every field that sqlx
//! fills from the environment is overridden; the two that it has no way to clear (PGOPTIONS,
//! PGSSLCERT with PGSSLKEY) are refused where they would count (`refuse_what_cannot_be_cleared`).
//!
//! Limits of sqlx, all met with a clear error or documented for users: no channel binding
//! (channel_binding=require is refused), no hostaddr with verify-full, no abstract sockets, and
//! authorities of `sslrootcert` are added to the system's, and do not replace them.

use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use super::error::{Doing, from_connecting, from_sqlx};
use crate::conninfo::{ChannelBinding, Conninfo, Host, SslMode, TargetSessionAttrs};
use crate::error::{Class, Error, Result};

/// Settings of every session, whatever role or database say (`ALTER ROLE ... SET`).
///
/// The first group fixes how values are read and written as text. The second keeps a session from
/// being ended, from missing rows, and from being forgotten by a firewall while a copy takes hours
/// (the server asks for a sign of life; on a Unix socket it ignores that). The last keeps a
/// trigger's notice, which may quote a row, out of our log. DateStyle, TimeZone, client_encoding
/// and extra_float_digits are sent by sqlx in the start-up packet.
const SESSION_SETTINGS: [(&str, &str); 16] = [
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("search_path", ""),
    ("default_transaction_isolation", "read committed"),
    ("row_security", "off"),
    ("transform_null_equals", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("client_min_messages", "error"),
    // The applying session turns it off when it begins to stream, where the user wants that.
    ("synchronous_commit", "on"),
];

/// Connects to the first host that will do.
///
/// `application_name` is used unless the connection string has one.
///
/// # Errors
///
/// Transient if a server cannot be reached or is not ready; configuration if it refuses us, or if
/// the connection string asks for what the target's driver cannot do.
pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<PgConnection> {
    refuse_what_sqlx_lacks(conninfo)?;
    let mut failures: Vec<Error> = Vec::new();
    for host in &conninfo.hosts {
        match connect_to_host(conninfo, host, application_name).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                // As libpq: a server that refuses the role is not asked again elsewhere.
                let final_word = matches!(error.sqlstate(), Some(state) if state.starts_with("28"));
                failures.push(error.context(format!(
                    "could not connect to the target at {}:{}",
                    host.host, host.port
                )));
                if final_word {
                    break;
                }
            }
        }
    }
    Err(summary(failures))
}

/// One error of several hosts' errors: the last one, with the others as its detail.
fn summary(mut failures: Vec<Error>) -> Error {
    let Some(last) = failures.pop() else {
        return Error::configuration("the target's connection string names no host");
    };
    if failures.is_empty() {
        return last;
    }
    let transient = last.is_transient() || failures.iter().any(Error::is_transient);
    let others: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let last = last.with_detail(format!("Tried before: {}.", others.join("; ")));
    if transient {
        last.with_class(Class::Transient)
    } else {
        last
    }
}

async fn connect_to_host(
    conninfo: &Conninfo,
    host: &Host,
    application_name: &str,
) -> Result<PgConnection> {
    let attempt = async {
        let mut connection = open(conninfo, host, application_name).await?;
        check_session_attrs(conninfo.target_session_attrs, &mut connection).await?;
        finish_settings(&mut connection).await?;
        Ok(connection)
    };
    match conninfo.connect_timeout_seconds {
        None => attempt.await,
        Some(seconds) => tokio::time::timeout(Duration::from_secs(u64::from(seconds)), attempt)
            .await
            .unwrap_or_else(|_| Err(Error::transient(format!("no answer within {seconds} s")))),
    }
}

/// Most statements that a session keeps prepared: some three for each of many read models. With the
/// library's own limit of 100, from some forty read models on, each statement would be prepared
/// again, with one more round trip.
const KEPT_STATEMENTS: usize = 2000;

/// Tries the modes that sslmode allows, in libpq's order.
async fn open(conninfo: &Conninfo, host: &Host, application_name: &str) -> Result<PgConnection> {
    let (first, second) = ssl_attempts(conninfo, host);
    let options = options(conninfo, host, application_name)?;
    let error = match options.clone().ssl_mode(first).connect().await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    match second {
        Some(second) if another_mode_may_help(&error) => options
            .ssl_mode(second)
            .connect()
            .await
            .map_err(from_connecting),
        _ => Err(from_connecting(error)),
    }
}

/// The mode to try first, and the one to try if the server does not want it so.
fn ssl_attempts(conninfo: &Conninfo, host: &Host) -> (PgSslMode, Option<PgSslMode>) {
    if host.is_unix() {
        return (PgSslMode::Disable, None);
    }
    match conninfo.ssl_mode {
        SslMode::Disable => (PgSslMode::Disable, None),
        // sqlx takes `allow` for `disable`.
        SslMode::Allow => (PgSslMode::Disable, Some(PgSslMode::Require)),
        // sqlx falls back only if the server offers no TLS, not if the handshake or pg_hba.conf
        // says no.
        SslMode::Prefer => (PgSslMode::Prefer, Some(PgSslMode::Disable)),
        // As libpq, for compatibility with its old versions.
        SslMode::Require if conninfo.ssl_root_cert.is_some() => (PgSslMode::VerifyCa, None),
        SslMode::Require => (PgSslMode::Require, None),
        SslMode::VerifyCa => (PgSslMode::VerifyCa, None),
        SslMode::VerifyFull => (PgSslMode::VerifyFull, None),
    }
}

/// Whether the failure may be about TLS or its lack: pg_hba.conf's refusal (28000) or a broken
/// handshake.
fn another_mode_may_help(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
        ),
        sqlx::Error::Database(error) => error.code().as_deref() == Some("28000"),
        _ => false,
    }
}

/// sqlx's options for one host, without its sslmode; every field that it fills from the environment
/// is set.
fn options(conninfo: &Conninfo, host: &Host, application_name: &str) -> Result<PgConnectOptions> {
    let mut options = PgConnectOptions::new_without_pgpass();
    refuse_what_cannot_be_cleared(conninfo, host, options.get_options())?;
    options = options
        .host(host.address.as_deref().unwrap_or(&host.host))
        .port(host.port)
        .username(&conninfo.user)
        .database(&conninfo.database)
        // An empty password is what sqlx sends where there is none; it takes the place of
        // PGPASSWORD.
        .password(
            conninfo
                .password
                .as_ref()
                .map_or("", |secret| secret.expose()),
        )
        .application_name(
            conninfo
                .application_name
                .as_deref()
                .unwrap_or(application_name),
        )
        .extra_float_digits(3)
        .statement_cache_capacity(KEPT_STATEMENTS)
        .disable_statement_logging();
    options = match conninfo.ssl_root_cert.as_deref() {
        // No authorities but the system's; also takes the place of PGSSLROOTCERT.
        None | Some("system") => options.ssl_root_cert_from_pem(Vec::new()),
        Some(file) => options.ssl_root_cert(readable("sslrootcert", file)?),
    };
    if let (Some(cert), Some(key)) = (&conninfo.ssl_cert, &conninfo.ssl_key) {
        options = options
            .ssl_client_cert(readable("sslcert", cert)?)
            .ssl_client_key(readable("sslkey", key)?);
    }
    // Ours come last, so they win over the user's.
    if options.get_options().is_none() {
        options = options.options(user_options(conninfo.options.as_deref())?);
    }
    Ok(options.options(SESSION_SETTINGS))
}

/// The file's name, if the file can be read: sqlx's own error does not name it.
fn readable<'a>(key: &str, file: &'a str) -> Result<&'a str> {
    match std::fs::File::open(file) {
        Ok(_) => Ok(file),
        Err(error) => Err(Error::configuration(format!(
            "cannot read {key} file \"{file}\" of the target"
        ))
        .with_source(error)),
    }
}

/// Session options as the server reads them (`-c name=value`, `-cname=value`, `--name=value`; a
/// backslash takes the next character as it is), as pairs for sqlx, which quotes them again.
fn user_options(text: Option<&str>) -> Result<Vec<(String, String)>> {
    let mut words = split_options(text.unwrap_or_default()).into_iter();
    let mut pairs = Vec::new();
    while let Some(word) = words.next() {
        let pair = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--")
                .or_else(|| word.strip_prefix("-c"))
                .map(str::to_owned)
        };
        let Some((name, value)) = pair.as_deref().and_then(|pair| pair.split_once('=')) else {
            return Err(Error::configuration(
                "cannot read \"options\" of the target's connection string",
            )
            .with_hint("Write -c name=value, and put a backslash before blanks in a value."));
        };
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

fn split_options(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_word = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            if in_word {
                words.push(std::mem::take(&mut word));
            }
            in_word = false;
        } else {
            word.push(if c == '\\' {
                chars.next().unwrap_or(c)
            } else {
                c
            });
            in_word = true;
        }
    }
    if in_word {
        words.push(word);
    }
    words
}

/// Refuses what the connection string asks for and sqlx cannot do.
fn refuse_what_sqlx_lacks(conninfo: &Conninfo) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        Err(Error::configuration(format!("{what} is not supported for the target")).with_hint(hint))
    };
    if conninfo.channel_binding == ChannelBinding::Require {
        return refuse(
            "channel_binding=require",
            "Use sslmode=verify-full, which proves the server's identity by its certificate.",
        );
    }
    if matches!(
        conninfo.target_session_attrs,
        TargetSessionAttrs::ReadOnly | TargetSessionAttrs::PreferStandby
    ) {
        return refuse(
            "a target_session_attrs that asks for a standby",
            "The lookup tables are written: use target_session_attrs=read-write.",
        );
    }
    if conninfo.hosts.iter().any(|host| host.host.starts_with('@')) {
        return refuse(
            "a Unix socket in the abstract namespace",
            "Name the socket's directory instead.",
        );
    }
    let verifies_name = conninfo.ssl_mode == SslMode::VerifyFull;
    let differs = |host: &Host| {
        host.address
            .as_ref()
            .is_some_and(|address| *address != host.host)
    };
    if verifies_name && conninfo.hosts.iter().any(differs) {
        return refuse(
            "hostaddr together with sslmode=verify-full",
            "Leave hostaddr out, so that the host's name is resolved and verified.",
        );
    }
    if conninfo.ssl_cert.is_some() != conninfo.ssl_key.is_some() {
        return refuse(
            "sslcert without sslkey, or sslkey without sslcert,",
            "Give both.",
        );
    }
    Ok(())
}

/// Refuses variables that sqlx reads by itself and that no setter of its takes back, where they
/// would count.
///
/// PGOPTIONS that is also the conninfo's (the usual case: PG* variables fill its gaps) is no
/// conflict.
fn refuse_what_cannot_be_cleared(
    conninfo: &Conninfo,
    host: &Host,
    pgoptions: Option<&str>,
) -> Result<()> {
    let refuse = |name: &str, key: &str| {
        Err(Error::configuration(format!(
            "{name} conflicts with {key} of the target's connection string"
        ))
        .with_detail(
            "The target's driver reads the variable by itself, and no setting keeps it from that.",
        )
        .with_hint(format!("Unset {name}.")))
    };
    if pgoptions.is_some() && pgoptions != conninfo.options.as_deref() {
        return refuse("PGOPTIONS", "options");
    }
    let tls = conninfo.ssl_mode != SslMode::Disable && !host.is_unix();
    if tls && conninfo.ssl_cert.is_none() {
        for name in ["PGSSLCERT", "PGSSLKEY"] {
            if std::env::var_os(name).is_some() {
                return refuse(name, "sslcert");
            }
        }
    }
    Ok(())
}

/// Asks the server whether it accepts writes, where that was asked for.
async fn check_session_attrs(
    wanted: TargetSessionAttrs,
    connection: &mut PgConnection,
) -> Result<()> {
    if wanted != TargetSessionAttrs::ReadWrite {
        return Ok(());
    }
    let read_only: bool = sqlx::query_scalar(
        "SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('default_transaction_read_only')::pg_catalog.bool",
    )
    .fetch_one(&mut *connection)
    .await
    .doing("ask whether the server accepts writes")?;
    if read_only {
        return Err(Error::transient("the server does not accept writes")
            .with_detail("The connection string asks for target_session_attrs=read-write."));
    }
    Ok(())
}

/// Settings that cannot go into the start-up packet: old servers do not know them, or
/// [`check_session_attrs`] must see the server's own value first.
async fn finish_settings(connection: &mut PgConnection) -> Result<()> {
    let version = connection.server_version_num().unwrap_or_default();
    let statement = match version {
        170_000.. => {
            "SET default_transaction_read_only = off; SET idle_session_timeout = 0; SET transaction_timeout = 0"
        }
        140_000.. => "SET default_transaction_read_only = off; SET idle_session_timeout = 0",
        _ => "SET default_transaction_read_only = off",
    };
    sqlx::raw_sql(statement)
        .execute(&mut *connection)
        .await
        .map_err(from_sqlx)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::Secret;

    fn conninfo() -> Conninfo {
        Conninfo {
            database: "core".to_owned(),
            user: "writer".to_owned(),
            ..Conninfo::default()
        }
    }

    fn only_host(conninfo: &Conninfo) -> &Host {
        &conninfo.hosts[0]
    }

    fn host(name: &str, address: Option<&str>) -> Host {
        Host {
            host: name.to_owned(),
            address: address.map(str::to_owned),
            port: 5433,
        }
    }

    #[test]
    fn session_settings_follow_the_users_options_and_so_win() {
        let mut conninfo = conninfo();
        conninfo.options = Some(r"-c search_path=a\ b --geqo=off -cjit=off".to_owned());
        let options = options(&conninfo, only_host(&conninfo), "cdc").unwrap();
        let text = options.get_options().unwrap();
        assert!(
            text.starts_with(
                r"-c search_path=a\ b -c geqo=off -c jit=off -c IntervalStyle=postgres"
            ),
            "{text}"
        );
        assert!(
            text.contains(r"-c default_transaction_isolation=read\ committed "),
            "{text}"
        );
        assert!(text.contains("-c search_path= "), "{text}");
        assert!(text.ends_with("-c synchronous_commit=on"), "{text}");
    }

    #[test]
    fn options_that_are_no_settings_are_refused_without_repeating_them() {
        for text in ["geqo=off", "-c", "-c geqo", "-B 5", "--"] {
            let error = user_options(Some(text)).unwrap_err();
            assert_eq!(error.class(), Class::Configuration, "{text}");
        }
        assert!(user_options(None).unwrap().is_empty());
    }

    #[test]
    fn every_sslmode_is_tried_as_libpq_tries_it() {
        use PgSslMode as Pg;
        use SslMode as Ours;
        let attempts = |mode, root: Option<&str>, host: &Host| {
            let conninfo = Conninfo {
                ssl_mode: mode,
                ssl_root_cert: root.map(str::to_owned),
                ..conninfo()
            };
            let (first, second) = ssl_attempts(&conninfo, host);
            format!("{first:?} {second:?}")
        };
        let shown = |first: Pg, second: Option<Pg>| format!("{first:?} {second:?}");
        let tcp = host("db", None);
        for (mode, root, first, second) in [
            (Ours::Disable, None, Pg::Disable, None),
            (Ours::Allow, None, Pg::Disable, Some(Pg::Require)),
            (Ours::Prefer, None, Pg::Prefer, Some(Pg::Disable)),
            (Ours::Require, None, Pg::Require, None),
            (Ours::Require, Some("ca.pem"), Pg::VerifyCa, None),
            (Ours::VerifyCa, Some("ca.pem"), Pg::VerifyCa, None),
            (Ours::VerifyFull, Some("ca.pem"), Pg::VerifyFull, None),
        ] {
            assert_eq!(attempts(mode, root, &tcp), shown(first, second), "{mode:?}");
        }
        let socket = host("/run/postgresql", None);
        assert_eq!(
            attempts(Ours::VerifyFull, None, &socket),
            shown(Pg::Disable, None)
        );
    }

    #[test]
    fn what_sqlx_lacks_is_refused() {
        let mut cases = vec![conninfo(); 6];
        cases[0].channel_binding = ChannelBinding::Require;
        cases[1].target_session_attrs = TargetSessionAttrs::PreferStandby;
        cases[2].hosts = vec![host("@abstract", None)];
        cases[3].hosts = vec![host("db", Some("10.0.0.1"))];
        cases[3].ssl_mode = SslMode::VerifyFull;
        cases[4].ssl_cert = Some("cert.pem".to_owned());
        cases[5].ssl_key = Some("key.pem".to_owned());
        for case in cases {
            let error = refuse_what_sqlx_lacks(&case).unwrap_err();
            assert_eq!(error.class(), Class::Configuration);
            assert!(error.hint().is_some());
        }
        refuse_what_sqlx_lacks(&conninfo()).unwrap();
    }

    #[test]
    fn missing_certificate_file_is_named() {
        let mut conninfo = conninfo();
        conninfo.ssl_root_cert = Some("/nowhere/ca.pem".to_owned());
        let error = options(&conninfo, only_host(&conninfo), "cdc").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read sslrootcert file \"/nowhere/ca.pem\"")
        );
    }

    #[tokio::test]
    async fn every_host_is_tried_and_named() {
        let mut conninfo = conninfo();
        conninfo.hosts = vec![host("/nowhere", None), host("/nowhere/else", None)];
        conninfo.password = Some(Secret::new("hunter2"));
        let error = connect(&conninfo, "cdc").await.unwrap_err();
        let text = format!("{error:?}");
        assert!(
            text.contains("at /nowhere:5433") && text.contains("at /nowhere/else:5433"),
            "{text}"
        );
        assert!(!text.contains("hunter2"));
        assert!(error.is_transient());
    }

    /// sqlx fills its options from the environment, which a test cannot set in its own process.
    #[test]
    fn environment_does_not_get_past_the_conninfo() {
        let child = |test: &str| {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "--ignored", test, "--quiet"]);
            for (name, value) in [
                ("PGHOST", "elsewhere"),
                ("PGHOSTADDR", "192.0.2.1"),
                ("PGPORT", "1"),
                ("PGUSER", "nobody"),
                ("PGDATABASE", "other"),
                ("PGPASSWORD", "env-password"),
                ("PGSSLMODE", "verify-full"),
                ("PGSSLROOTCERT", "/env/root.crt"),
                ("PGSSLCERT", "/env/client.crt"),
                ("PGSSLKEY", "/env/client.key"),
                ("PGAPPNAME", "env-app"),
                ("PGOPTIONS", "-c geqo=off"),
                ("PGPASSFILE", "/env/pgpass"),
            ] {
                command.env(name, value);
            }
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{text}"
            );
        };
        child("target::connect::tests::child_sees_only_the_conninfo");
        child("target::connect::tests::child_refuses_what_cannot_be_cleared");
    }

    #[test]
    #[ignore = "run by environment_does_not_get_past_the_conninfo"]
    fn child_sees_only_the_conninfo() {
        let conninfo = Conninfo {
            ssl_mode: SslMode::Disable,
            options: Some("-c geqo=off".to_owned()),
            ..conninfo()
        };
        let built = options(&conninfo, only_host(&conninfo), "cdc")
            .unwrap()
            .ssl_mode(PgSslMode::Disable);
        let shown = format!("{built:?}");
        for leaked in [
            "elsewhere",
            "192.0.2.1",
            "nobody",
            "other",
            "env-password",
            "root.crt",
            "env-app",
            "pgpass",
        ] {
            assert!(!shown.contains(leaked), "{leaked} in {shown}");
        }
        assert_eq!(built.get_host(), "localhost");
        assert_eq!(built.get_port(), 5432);
        assert_eq!(built.get_username(), "writer");
        assert_eq!(built.get_database(), Some("core"));
        assert_eq!(built.get_application_name(), Some("cdc"));
        assert!(
            built
                .get_options()
                .unwrap()
                .starts_with("-c geqo=off -c IntervalStyle=postgres")
        );
    }

    #[test]
    #[ignore = "run by environment_does_not_get_past_the_conninfo"]
    fn child_refuses_what_cannot_be_cleared() {
        let mut conninfo = conninfo();
        let error = options(&conninfo, only_host(&conninfo), "cdc").unwrap_err();
        assert!(
            error.message().starts_with("PGOPTIONS conflicts"),
            "{error}"
        );
        conninfo.options = Some("-c geqo=off".to_owned());
        let error = options(&conninfo, only_host(&conninfo), "cdc").unwrap_err();
        assert!(
            error.message().starts_with("PGSSLCERT conflicts"),
            "{error}"
        );
        conninfo.hosts = vec![host("/run/postgresql", None)];
        options(&conninfo, only_host(&conninfo), "cdc").unwrap();
    }
}
