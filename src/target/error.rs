//! Errors of the target's driver in our own terms.
//!
//! In comes a `tokio_postgres::Error`, out goes an [`Error`] whose class says what follows from it.
//! The SQLSTATE alone decides the class.
//!
//! No row value gets through. A row that is rejected (classes 22, 23, 44, 54, P0001, 21000) keeps
//! only its SQLSTATE and the names of objects, since the server's own words quote the row (`invalid
//! input syntax for type integer: "abc"`, `Key (code)=(MR) already exists.`). The text of a code
//! that PostgreSQL does not use is left out as well: a trigger may have put a row into it.

use std::fmt;

use tokio_postgres::error::DbError;

use crate::check::{TEMP_FILE_LIMIT, TEMP_FILE_LIMIT_HINT};
use crate::error::{Class, Error};

/// SQLSTATE that `cdc`'s own functions raise when another process has taken over the pipeline.
pub(crate) const SQLSTATE_FENCED: &str = "CDC01";

/// SQLSTATE that `cdc`'s own functions raise when nothing resolves an unchanged (TOAST) value.
pub(crate) const SQLSTATE_UNRESOLVED: &str = "CDC02";

/// SQLSTATE that `cdc`'s own functions raise when more rows are rejected than may be.
pub(crate) const SQLSTATE_TOO_MANY: &str = "CDC03";

/// What the target says about a row that it rejects: names only, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowError {
    /// The server's error code.
    pub sqlstate: String,
    /// Constraint (or unique index) that the row violates.
    pub constraint: Option<String>,
    /// Column that does not take the value.
    pub column: Option<String>,
    /// Schema of the table.
    pub schema: Option<String>,
    /// Table that rejects the row.
    pub table: Option<String>,
    /// Domain or other type that does not take the value.
    pub data_type: Option<String>,
}

impl RowError {
    /// The reason behind the error, if it is one.
    pub fn of(error: &tokio_postgres::Error) -> Option<Self> {
        let error = error.as_db_error()?;
        (class_of(error.code().code()) == Class::Rejected).then(|| Self::from_database(error))
    }

    fn from_database(error: &DbError) -> Self {
        let owned = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
        Self {
            sqlstate: error.code().code().to_owned(),
            constraint: owned(error.constraint()),
            column: owned(error.column()),
            schema: owned(error.schema()),
            table: owned(error.table()),
            data_type: owned(error.datatype()),
        }
    }

    /// The names of the objects as a sentence; `None` if the server named none.
    pub(crate) fn objects(&self) -> Option<String> {
        let table = match (&self.schema, &self.table) {
            (Some(schema), Some(table)) => Some(format!("{schema}.{table}")),
            (None, table) => table.clone(),
            (_, None) => None,
        };
        let named = [
            ("constraint", &self.constraint),
            ("column", &self.column),
            ("table", &table),
            ("type", &self.data_type),
        ];
        let parts: Vec<String> = named
            .iter()
            .filter_map(|(kind, name)| name.as_ref().map(|name| format!("{kind} \"{name}\"")))
            .collect();
        (!parts.is_empty()).then(|| format!("The server names {}.", parts.join(", ")))
    }
}

impl From<RowError> for Error {
    fn from(reason: RowError) -> Self {
        let message = format!(
            "the target rejected a row (SQLSTATE {}: {})",
            reason.sqlstate,
            condition(&reason.sqlstate)
        );
        let error = Error::new(Class::Rejected, message).with_sqlstate(reason.sqlstate.clone());
        match reason.objects() {
            Some(objects) => error.with_detail(objects),
            None => error,
        }
    }
}

/// The error in our own terms, with its class.
pub fn from_driver(error: tokio_postgres::Error) -> Error {
    if let Some(database) = error.as_db_error() {
        return from_database(database);
    }
    if error.is_closed() {
        return Error::transient("the connection to the target is closed");
    }
    // The driver does not show its kinds. A value of a row may stand in the cause of a conversion's
    // error, and in no other.
    let text = error.to_string();
    if text.starts_with("error serializing") || text.starts_with("error deserializing") {
        return Error::transient(format!(
            "a value sent to or received from the target could not be converted ({text})"
        ));
    }
    let ours = Error::transient(format!("the connection to the target failed: {text}"));
    match error.into_source() {
        Some(source) => ours.with_source(source),
        None => ours,
    }
}

fn from_database(error: &DbError) -> Error {
    let sqlstate = error.code().code();
    match class_of(sqlstate) {
        Class::Rejected if sqlstate == SQLSTATE_TOO_MANY => too_many(error.message()),
        Class::Rejected => RowError::from_database(error).into(),
        class if words_are_the_servers(sqlstate) => with_server_words(class, error),
        class => Error::new(class, format!("the target reported SQLSTATE {sqlstate}"))
            .with_sqlstate(sqlstate),
    }
}

/// More rows are rejected than may be; `what` names no value.
pub(crate) fn too_many(what: impl fmt::Display) -> Error {
    Error::new(
        Class::Rejected,
        format!("the target rejected too many rows: {what}"),
    )
    .with_sqlstate(SQLSTATE_TOO_MANY)
    .with_hint("Compare the lookup's types, constraints and triggers with the source's rows.")
}

/// The column into which COPY could not put a value, as it is named in the table that was copied
/// into.
pub(crate) fn copied_column(error: &tokio_postgres::Error) -> Option<String> {
    // COPY stage_1, line 1, column p2: "..."; the text behind the colon is the value.
    let context = error.as_db_error()?.where_()?;
    let (names, _) = context.split_once(": ")?;
    let (_, column) = names.rsplit_once(' ')?;
    Some(column.to_owned())
}

fn with_server_words(class: Class, error: &DbError) -> Error {
    let mut converted = Error::new(
        class,
        format!("{} (SQLSTATE {})", error.message(), error.code().code()),
    )
    .with_sqlstate(error.code().code());
    if let Some(detail) = error.detail() {
        converted = converted.with_detail(detail);
    }
    match error
        .hint()
        .or_else(|| hint_for(error.code().code(), error.message()))
    {
        Some(hint) => converted.with_hint(hint),
        None => converted,
    }
}

/// Advice for errors for which the server has none.
fn hint_for(sqlstate: &str, message: &str) -> Option<&'static str> {
    match sqlstate {
        // In any language the message names the setting.
        "53400" if message.contains(TEMP_FILE_LIMIT) => Some(TEMP_FILE_LIMIT_HINT),
        "25006" => Some(
            "Name the server that accepts writes, or list all servers with target_session_attrs=read-write.",
        ),
        _ => None,
    }
}

/// What an SQLSTATE means for the process.
pub(crate) fn class_of(sqlstate: &str) -> Class {
    match sqlstate {
        SQLSTATE_FENCED => return Class::Fenced,
        SQLSTATE_UNRESOLVED => return Class::Broken,
        SQLSTATE_TOO_MANY => return Class::Rejected,
        "P0001" | "21000" => return Class::Rejected,
        _ => {}
    }
    match sqlstate.get(..2) {
        // 54 is a limit of the server: of a page, an index entry, the stack.
        Some("22" | "23" | "44" | "54") => Class::Rejected,
        Some("28" | "3D" | "3F" | "0A" | "42") => Class::Configuration,
        _ => Class::Transient,
    }
}

/// Whether the text of such an error is the server's own and not about a row.
pub(crate) fn words_are_the_servers(sqlstate: &str) -> bool {
    matches!(sqlstate, SQLSTATE_FENCED | SQLSTATE_UNRESOLVED)
        || matches!(
            sqlstate.get(..2),
            Some(
                "08" | "0A"
                    | "25"
                    | "28"
                    | "2B"
                    | "3D"
                    | "3F"
                    | "40"
                    | "42"
                    | "53"
                    | "54"
                    | "55"
                    | "57"
                    | "58"
                    | "72"
                    | "F0"
                    | "XX"
            )
        )
}

/// PostgreSQL's name of the condition (manual, appendix "PostgreSQL Error Codes"), or of its class.
fn condition(sqlstate: &str) -> &'static str {
    match sqlstate {
        "21000" => "cardinality violation",
        "22000" => "data exception",
        "22001" => "string data right truncation",
        "22003" => "numeric value out of range",
        "22004" => "null value not allowed",
        "22007" => "invalid datetime format",
        "22008" => "datetime field overflow",
        "22012" => "division by zero",
        "22021" => "character not in repertoire",
        "22023" => "invalid parameter value",
        "22026" => "string data length mismatch",
        "2202E" => "array subscript error",
        "22P02" => "invalid text representation",
        "22P03" => "invalid binary representation",
        "22P05" => "untranslatable character",
        "2200M" => "invalid XML document",
        "2200N" => "invalid XML content",
        "23000" => "integrity constraint violation",
        "23001" => "restrict violation",
        "23502" => "not null violation",
        "23503" => "foreign key violation",
        "23505" => "unique violation",
        "23514" => "check violation",
        "23P01" => "exclusion violation",
        "44000" => "with check option violation",
        "54000" => "program limit exceeded",
        "P0001" => "exception raised by a function or trigger",
        _ => match sqlstate.get(..2) {
            Some("22") => "data exception",
            Some("23") => "integrity constraint violation",
            Some("44") => "with check option violation",
            Some("54") => "program limit exceeded",
            _ => "error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_decides_what_follows() {
        for (sqlstate, class) in [
            ("08006", Class::Transient),
            ("57P01", Class::Transient),
            ("53100", Class::Transient),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("55P03", Class::Transient),
            ("58030", Class::Transient),
            ("XX000", Class::Transient),
            ("25006", Class::Transient),
            ("HV000", Class::Transient),
            ("", Class::Transient),
            ("é", Class::Transient),
            ("22001", Class::Rejected),
            ("23505", Class::Rejected),
            ("44000", Class::Rejected),
            ("P0001", Class::Rejected),
            ("21000", Class::Rejected),
            ("54000", Class::Rejected),
            ("54001", Class::Rejected),
            ("28P01", Class::Configuration),
            ("3D000", Class::Configuration),
            ("3F000", Class::Configuration),
            ("42501", Class::Configuration),
            ("42P01", Class::Configuration),
            ("42703", Class::Configuration),
            ("0A000", Class::Configuration),
            ("CDC01", Class::Fenced),
            ("CDC02", Class::Broken),
            ("CDC03", Class::Rejected),
        ] {
            assert_eq!(class_of(sqlstate), class, "{sqlstate}");
        }
    }

    #[test]
    fn refused_row_names_objects_and_no_values() {
        let error = Error::from(RowError {
            sqlstate: "23505".to_owned(),
            constraint: Some("labels_lookup_pkey".to_owned()),
            schema: Some("public".to_owned()),
            table: Some("labels_lookup".to_owned()),
            ..RowError::default()
        });
        assert_eq!(
            error.message(),
            "the target rejected a row (SQLSTATE 23505: unique violation)"
        );
        assert_eq!(
            error.detail(),
            Some(
                "The server names constraint \"labels_lookup_pkey\", table \"public.labels_lookup\"."
            )
        );
        assert_eq!(error.sqlstate(), Some("23505"));
        assert_eq!(error.class(), Class::Rejected);
    }

    #[test]
    fn text_of_a_code_that_postgresql_does_not_use_is_left_out() {
        for sqlstate in ["P0004", "MY001", "22001", "23514"] {
            assert!(!words_are_the_servers(sqlstate), "{sqlstate}");
        }
    }
}
