//! The keywords of a connection string: which count, which are ignored, and which are refused
//! because to ignore them would weaken what somebody demands.

use std::collections::BTreeMap;

use super::Environment;
use super::parse::Pairs;
use crate::error::{Error, Result};

/// Keywords that count, with the variable that fills the gap.
pub(super) const KEYWORDS: [(&str, Option<&str>); 32] = [
    ("service", Some("PGSERVICE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("dbname", Some("PGDATABASE")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslpassword", None),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslcrl", Some("PGSSLCRL")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("require_auth", Some("PGREQUIREAUTH")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
    ("application_name", Some("PGAPPNAME")),
    ("options", Some("PGOPTIONS")),
    // Checked: values that match what `cdc` does are accepted.
    ("client_encoding", None),
    ("fallback_application_name", None),
    ("replication", None),
];

/// Keywords of libpq that change nothing about safety here, with any value: Kerberos is never used,
/// compression is not done.
const IGNORED: [&str; 5] = [
    "sslcompression",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "max_protocol_version",
];

/// Keywords of libpq that are accepted only with values that match what `cdc` does, each with its
/// variable. What somebody demands counts wherever it stands.
const ONLY_WITH: [(&str, Option<&str>, &[&str]); 8] = [
    ("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"]),
    ("sslnegotiation", Some("PGSSLNEGOTIATION"), &["postgres"]),
    ("sslsni", Some("PGSSLSNI"), &["1"]),
    (
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        &["3.0"],
    ),
    ("requirepeer", Some("PGREQUIREPEER"), &[]),
    ("sslcrldir", Some("PGSSLCRLDIR"), &[]),
    ("scram_client_key", None, &[]),
    ("scram_server_key", None, &[]),
];

/// Refuses unknown keywords, and those of libpq that cannot be honoured.
pub(super) fn check_keywords(pairs: &Pairs) -> Result<()> {
    for (key, value) in &pairs.values {
        let key = key.as_str();
        if KEYWORDS.iter().any(|(known, _)| *known == key) || IGNORED.contains(&key) {
            continue;
        }
        if let Some((_, _, allowed)) = ONLY_WITH.iter().find(|(known, _, _)| *known == key) {
            check_value(&format!("connection keyword \"{key}\""), value, allowed)?;
            continue;
        }
        return Err(unknown_keyword(
            key,
            pairs.doubtful.iter().any(|doubtful| doubtful == key),
        ));
    }
    Ok(())
}

/// Whether `cdc` does what this keyword, or this variable, asks for.
fn check_value(what: &str, value: &str, allowed: &[&str]) -> Result<()> {
    // As in libpq, a choice may not be empty; a name that is empty demands nothing.
    let demands_nothing = value.is_empty() && allowed.is_empty();
    if demands_nothing || allowed.contains(&value) {
        return Ok(());
    }
    let (with, hint) = match allowed {
        [] => ("", "Leave it out.".to_owned()),
        allowed => (
            " with this value",
            format!("Leave it out, or use {}.", allowed.join(" or ")),
        ),
    };
    Err(Error::configuration(format!("the {what} is not supported{with}")).with_hint(hint))
}

/// Refuses variables that ask for what cannot be honoured, where the connection string does not say
/// otherwise.
pub(super) fn check_variables(
    values: &BTreeMap<String, String>,
    environment: &Environment,
) -> Result<()> {
    for (key, variable, allowed) in ONLY_WITH {
        if let Some(variable) = variable.filter(|_| !values.contains_key(key))
            && let Some(value) = environment.variable(variable)
        {
            check_value(&format!("variable {variable}"), value, allowed)?;
        }
    }
    Ok(())
}

fn unknown_keyword(key: &str, doubtful: bool) -> Error {
    let spelled_like_one = !key.is_empty()
        && key.len() <= 40
        && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if doubtful || !spelled_like_one {
        // It may be a piece of a password that was not quoted.
        return Error::configuration("the connection string has an unrecognized keyword").with_hint(
            "Put a password with special characters in single quotes, or percent-encode it in a URL.",
        );
    }
    let error = Error::configuration(format!("unrecognized connection keyword \"{key}\""));
    let known = KEYWORDS.iter().map(|(known, _)| *known).chain(IGNORED);
    match super::closest(key, known) {
        Some(known) => error.with_hint(format!("Did you mean \"{known}\"?")),
        None => error.with_hint(
            "The keywords are those of libpq: host, port, dbname, user, password, sslmode and so on.",
        ),
    }
}
