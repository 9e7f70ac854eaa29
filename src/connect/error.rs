//! Errors of connecting, the same for both sides.
//!
//! No row is involved yet, so the server's words are kept whole. What only a person can fix (role,
//! password, database, a setting that the server does not take) is a matter of configuration.

use tokio_postgres::error::DbError;

use super::side::Side;
use crate::error::{Class, Error};

/// An error of the handshake, or of the first question of a session.
pub(crate) fn from_connecting(error: tokio_postgres::Error, side: Side) -> Error {
    if let Some(server) = error.as_db_error() {
        return from_server(server, side);
    }
    if error.is_closed() {
        return Error::transient("the server closed the connection");
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
        "3D000" => format!("Check the database's name in the {side}'s URL."),
        _ if is_startup_parameter(server) => format!(
            "A connection pooler such as PgBouncer does not pass session settings on. Give the \
             address of the server itself in the {side}'s URL."
        ),
        _ => return None,
    };
    Some(hint)
}

/// Where to look after a password.
pub(crate) fn password_hint(side: Side) -> String {
    format!("Check the password in {}.", side.password_places())
}
