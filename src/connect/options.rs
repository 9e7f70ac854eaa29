//! What every session is set to, whatever role or database say (`ALTER ROLE ... SET`), and how that
//! is asked for.
//!
//! Values come and go as text, so all that shapes text is fixed; names are qualified, so nothing is
//! searched; no timeout of a role or database ends a session; row-level security is an error rather
//! than rows that are silently missing.

use tokio_postgres::Config;
use tokio_postgres::config::{
    ChannelBinding as DriverBinding, SslMode as DriverSslMode, SslNegotiation,
};

use super::side::Side;
use crate::conninfo::{ChannelBinding, Conninfo};

/// A setting, the value that is asked for, and the beginning of what `current_setting` says then;
/// `None` where it depends on the server or the kind of connection.
type Setting = (&'static str, &'static str, Option<&'static str>);

/// Settings of both sides.
const SETTINGS: [Setting; 13] = [
    ("DateStyle", "ISO", Some("ISO")),
    ("IntervalStyle", "postgres", Some("postgres")),
    ("extra_float_digits", "3", Some("3")),
    ("TimeZone", "UTC", Some("UTC")),
    ("bytea_output", "hex", Some("hex")),
    ("lc_monetary", "C", Some("C")),
    ("search_path", "", Some("")),
    ("client_encoding", "UTF8", Some("UTF8")),
    ("row_security", "off", Some("off")),
    (
        "default_transaction_isolation",
        "read committed",
        Some("read committed"),
    ),
    ("statement_timeout", "0", Some("0")),
    ("lock_timeout", "0", Some("0")),
    ("idle_in_transaction_session_timeout", "0", Some("0")),
];

/// A look at the catalogs of thousands of partitions would be compiled for seconds, and run for a
/// third of one.
const SOURCE: [Setting; 1] = [("jit", "off", None)];

/// The server asks for a sign of life, so that no firewall forgets the connection while a copy
/// takes hours. A trigger's notice, which may quote a row, stays out of the log. The applying
/// session turns synchronous_commit off when it begins to stream, where the user wants that.
const TARGET: [Setting; 7] = [
    ("array_nulls", "on", Some("on")),
    ("xmloption", "content", Some("content")),
    ("transform_null_equals", "off", Some("off")),
    ("tcp_keepalives_idle", "60", None),
    ("tcp_keepalives_interval", "10", None),
    ("client_min_messages", "error", Some("error")),
    ("synchronous_commit", "on", Some("on")),
];

/// The settings of a session of this side.
fn settings(side: Side) -> impl Iterator<Item = Setting> {
    let own: &'static [Setting] = match side {
        Side::Source => &SOURCE,
        Side::Target => &TARGET,
    };
    SETTINGS.into_iter().chain(own.iter().copied())
}

/// The driver's configuration: everything but where and how.
pub(crate) fn driver_config(conninfo: &Conninfo, side: Side, application_name: &str) -> Config {
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
        .options(startup_options(side, conninfo.options.as_deref()))
        // The wire is as secure as it will be (wire.rs, Secured).
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
fn startup_options(side: Side, users: Option<&str>) -> String {
    let mut options = users.unwrap_or_default().trim_end().to_owned();
    for (name, value, _) in settings(side) {
        if !options.is_empty() {
            options.push(' ');
        }
        // The server splits at blanks and takes the character after a backslash as it is.
        let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
        options.push_str(&format!("-c {name}={value}"));
    }
    options
}

/// An SQL expression of the settings that are not in force, as `name is value` with commas between
/// them; empty if all are.
pub(crate) fn not_in_force(side: Side) -> String {
    let cases = settings(side).filter_map(|(name, _, shown)| {
        let shown = shown?;
        let is_not = if shown.is_empty() {
            format!("pg_catalog.current_setting('{name}') NOT IN ('', '\"\"')")
        } else {
            format!("NOT pg_catalog.starts_with(pg_catalog.current_setting('{name}'), '{shown}')")
        };
        Some(format!(
            "CASE WHEN {is_not} THEN '{name} is \"' || pg_catalog.current_setting('{name}') || '\"' END"
        ))
    });
    format!(
        "pg_catalog.concat_ws(', ', {})",
        cases.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_into_the_startup_options_after_the_users() {
        let options = startup_options(Side::Source, Some("-c wal_sender_timeout=5s "));
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
        assert!(startup_options(Side::Target, None).starts_with("-c DateStyle=ISO "));
        assert!(startup_options(Side::Target, None).ends_with("-c synchronous_commit=on"));
    }

    #[test]
    fn what_is_read_back_names_no_setting_that_a_server_may_show_otherwise() {
        let sql = not_in_force(Side::Target);
        assert!(sql.contains("'client_min_messages is \"'"), "{sql}");
        assert!(!sql.contains("tcp_keepalives"), "{sql}");
        assert!(!not_in_force(Side::Source).contains("synchronous_commit"));
    }
}
