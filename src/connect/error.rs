//! Errors of connecting, the same for both sides.
//!
//! No row is involved yet, so the server's words are kept whole. What only a person can fix (role,
//! password, database, a setting that the server does not take) is a matter of configuration.

use std::io;

use tokio_postgres::error::DbError;

use super::side::Side;
use crate::error::{Class, Error};

const CLOSED: &str = "the server closed the connection";

/// An error of the handshake: the other end may be another program.
pub(super) fn from_handshake(error: tokio_postgres::Error, side: Side) -> Error {
    if error.is_closed() {
        return closed(CLOSED);
    }
    let text = error.to_string();
    match text.as_str() {
        "unexpected message from server" | "error parsing response from server" => {
            not_postgres(format!("Its answer cannot be read: {text}."))
        }
        "error communicating with the server" => broken_off(error, &text),
        _ => from_connecting(error, side),
    }
}

/// The connection broke, or what came over it is no message.
fn broken_off(error: tokio_postgres::Error, text: &str) -> Error {
    let Some(source) = error.into_source() else {
        return closed(text);
    };
    let kind = source.downcast_ref().map(io::Error::kind);
    if kind == Some(io::ErrorKind::InvalidInput) {
        return not_postgres(format!("Its answer cannot be read: {source}."));
    }
    closed(text).with_source(source)
}

/// An error of the handshake, or of the first question of a session.
pub(crate) fn from_connecting(error: tokio_postgres::Error, side: Side) -> Error {
    if let Some(server) = error.as_db_error() {
        return from_server(server, side);
    }
    if error.is_closed() {
        return Error::transient(CLOSED);
    }
    // The driver does not show its kinds; these two are the user's to fix ("password missing",
    // "server did not use channel binding").
    let text = error.to_string();
    let ours = match text.as_str() {
        "invalid configuration" | "authentication error" => {
            Error::configuration(text).with_hint(password_hint(side))
        }
        _ => Error::transient(text),
    };
    match error.into_source() {
        Some(source) => ours.with_source(source),
        None => ours,
    }
}

fn from_server(server: &DbError, side: Side) -> Error {
    let sqlstate = server.code().code();
    let class = match sqlstate {
        // No privilege; an option that is no setting.
        "42501" | "42704" => Class::Configuration,
        _ if ["22", "28", "3D", "3F"]
            .iter()
            .any(|class| sqlstate.starts_with(class)) =>
        {
            Class::Configuration
        }
        _ if is_startup_parameter(server) => Class::Configuration,
        _ => Class::Transient,
    };
    let mut error = Error::new(class, server.message()).with_sqlstate(sqlstate);
    if let Some(detail) = server.detail() {
        error = error.with_detail(detail);
    }
    let own = server.hint().map(str::to_owned);
    match own.or_else(|| hint_for(server, side)) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Whether a pooler does not take what a session is set to.
fn is_startup_parameter(server: &DbError) -> bool {
    server.code().code() == "08P01" && server.message().contains("startup parameter")
}

/// Advice for errors for which the server has none.
fn hint_for(server: &DbError, side: Side) -> Option<String> {
    let hint = match server.code().code() {
        "28P01" => password_hint(side),
        "28000" => "Check the role's name and the server's pg_hba.conf; it may ask for TLS \
                    (sslmode=require)."
            .to_owned(),
        "57P03" => "It passes by itself, and cdc tries again.".to_owned(),
        "53300" => format!(
            "Raise max_connections, or the CONNECTION LIMIT of the {side}'s role or database, or close \
             sessions of others. cdc tries again by itself."
        ),
        "3D000" => format!("Check the database's name in the {side}'s URL."),
        _ if is_startup_parameter(server) => format!(
            "A connection pooler such as PgBouncer does not pass session settings on. Give the \
             address of the server itself in the {side}'s URL."
        ),
        _ => return None,
    };
    Some(hint)
}

/// Nobody listens at a port, or the network does not lead there.
pub(super) fn no_connection(error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "Nobody listens there: check host and port, that the server runs, and its listen_addresses."
        }
        io::ErrorKind::InvalidInput => {
            "Check keepalives_idle, keepalives_interval, keepalives_count and tcp_user_timeout."
        }
        _ => "Check host and port, and what stands between: network, firewall, proxy.",
    };
    Error::transient(error.to_string()).with_hint(hint)
}

/// Nobody listens at a Unix socket.
pub(super) fn no_socket(error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "There is no such file: check the directory (the server's unix_socket_directories), the port at \
             the end of the name, and that the server runs; a container sees only its own files."
        }
        io::ErrorKind::PermissionDenied => {
            "This process may not use the socket: check its unix_socket_permissions and the directory's."
        }
        _ => "Nobody listens there: check that the server runs.",
    };
    Error::transient(error.to_string()).with_hint(hint)
}

/// A host's name has no address.
pub(super) fn no_such_host(host: &str, side: Side) -> Error {
    Error::transient(format!("could not find the address of host \"{host}\"")).with_hint(format!(
        "Check the host's name in the {side}'s URL, and that this machine's DNS knows it."
    ))
}

/// The other end hung up before there was a session.
pub(super) fn closed(what: &str) -> Error {
    Error::transient(what).with_hint(
        "If it stays so, check that PostgreSQL listens at that port: a proxy without a server behind it, or \
         another program, hangs up like this.",
    )
}

/// Another program than PostgreSQL answers.
pub(super) fn not_postgres(detail: String) -> Error {
    Error::transient("what answers there is not PostgreSQL")
        .with_detail(detail)
        .with_hint("Check host and port: PostgreSQL's port is 5432 unless its configuration says otherwise.")
}

/// Where to look after a password.
pub(crate) fn password_hint(side: Side) -> String {
    format!("Check the password in {}.", side.password_places())
}
