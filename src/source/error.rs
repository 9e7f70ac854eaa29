//! From the driver's and the server's errors to ours.
//!
//! The consequence follows from the SQLSTATE; what is not known to be final is transient. Of an
//! error on row data (classes 21, 22, 23, 44 and P0001) only the SQLSTATE and the names of objects
//! are kept, since its message and detail quote the row.

use tokio_postgres::error::DbError;

use crate::connect::Side;
use crate::connect::error::from_connecting;
use crate::error::{Class, Error};
use crate::protocol::frame::Report;

/// The consequence of a server's error.
///
/// Configuration means that a person has to change something: role, password, privilege, a missing
/// database, schema, table or column. The caller decides whether to stop or to wait for that
/// person.
pub(crate) fn class(sqlstate: &str) -> Class {
    match sqlstate {
        // Invalid authorization, missing database or schema, missing privilege, missing table or
        // column, a statement or value that the server's version does not know.
        "3D000" | "3F000" | "42501" | "42P01" | "42703" | "42883" | "42809" => Class::Configuration,
        _ if sqlstate.starts_with("28") => Class::Configuration,
        _ => Class::Transient,
    }
}

/// Whether message and detail of such an error may quote a row.
fn is_about_rows(sqlstate: &str) -> bool {
    // 22023 is about a setting's or a function's parameter: "invalid snapshot identifier".
    sqlstate != "22023"
        && (["21", "22", "23", "44"]
            .iter()
            .any(|class| sqlstate.starts_with(class))
            || sqlstate == "P0001")
}

/// An error of tokio-postgres as ours.
pub(crate) fn from_driver(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(server) => from_database(server),
        None => from_connecting(error, Side::Source),
    }
}

fn from_database(server: &DbError) -> Error {
    let sqlstate = server.code().code();
    if is_about_rows(sqlstate) {
        let names = [
            ("table", server.table()),
            ("column", server.column()),
            ("type", server.datatype()),
            ("constraint", server.constraint()),
        ];
        return about_rows(sqlstate, &names);
    }
    with_texts(sqlstate, server.message(), server.detail(), server.hint())
}

/// An error that the server reported on the replication connection as ours.
pub(crate) fn from_report(report: &Report) -> Error {
    if is_about_rows(&report.sqlstate) {
        return about_rows(&report.sqlstate, &[]);
    }
    with_texts(
        &report.sqlstate,
        &report.message,
        report.detail.as_deref(),
        report.hint.as_deref(),
    )
}

fn with_texts(sqlstate: &str, message: &str, detail: Option<&str>, hint: Option<&str>) -> Error {
    let mut error = Error::new(class(sqlstate), message).with_sqlstate(sqlstate);
    if let Some(detail) = detail {
        error = error.with_detail(detail);
    }
    if let Some(hint) = hint {
        error = error.with_hint(hint);
    }
    error
}

fn about_rows(sqlstate: &str, names: &[(&str, Option<&str>)]) -> Error {
    let mut message = format!("the server reported SQLSTATE {sqlstate} on row data");
    for (kind, name) in names {
        if let Some(name) = name {
            message.push_str(&format!(", {kind} \"{name}\""));
        }
    }
    Error::new(class(sqlstate), message).with_sqlstate(sqlstate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sqlstate: &str, message: &str) -> Report {
        Report {
            severity: "ERROR".to_owned(),
            sqlstate: sqlstate.to_owned(),
            message: message.to_owned(),
            detail: Some("Key (code)=(secret).".to_owned()),
            hint: Some("Do it.".to_owned()),
        }
    }

    #[test]
    fn consequence_follows_from_the_sqlstate() {
        for (sqlstate, expected) in [
            ("08006", Class::Transient),
            ("57P01", Class::Transient),
            ("57P03", Class::Transient),
            ("53300", Class::Transient),
            ("40001", Class::Transient),
            ("55006", Class::Transient),
            ("55P03", Class::Transient),
            ("57014", Class::Transient),
            ("42704", Class::Transient),
            ("XX000", Class::Transient),
            ("", Class::Transient),
            ("28000", Class::Configuration),
            ("28P01", Class::Configuration),
            ("3D000", Class::Configuration),
            ("42501", Class::Configuration),
            ("42P01", Class::Configuration),
            ("42703", Class::Configuration),
        ] {
            assert_eq!(class(sqlstate), expected, "{sqlstate}");
        }
    }

    #[test]
    fn message_detail_and_hint_of_the_server_are_kept() {
        let error = from_report(&report(
            "55006",
            "replication slot \"cdc\" is active for PID 7",
        ));
        assert_eq!(
            error.to_string(),
            "replication slot \"cdc\" is active for PID 7"
        );
        assert_eq!(error.sqlstate(), Some("55006"));
        assert!(error.detail().is_some());
        assert_eq!(error.hint(), Some("Do it."));
    }

    #[test]
    fn an_error_on_row_data_tells_no_value() {
        for sqlstate in ["22P02", "23505", "P0001", "21000", "44000"] {
            let error = from_report(&report(sqlstate, "invalid input: \"secret\""));
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            assert_eq!(error.sqlstate(), Some(sqlstate));
        }
    }
}
