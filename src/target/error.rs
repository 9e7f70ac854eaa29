//! Errors of the target's driver in our own terms.
//!
//! Comes in: a `sqlx::Error`. Goes out: an [`Error`] whose class says what follows from it. The
//! SQLSTATE alone decides the class.
//!
//! No row value gets through. A row that is rejected (classes 22, 23, 44, 54, P0001, 21000) keeps
//! only its SQLSTATE and the names of objects, since the server's own words quote the row (`invalid
//! input syntax for type integer: "abc"`, `Key (code)=(MR) already exists.`). The text of a code
//! that PostgreSQL does not use is left out as well: a trigger may have put a row into it.

use std::fmt;

use sqlx::postgres::PgDatabaseError;

use crate::check::{TEMP_FILE_LIMIT, TEMP_FILE_LIMIT_HINT};
use crate::error::{Class, Error, Result};

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
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        let error = database_error(error)?;
        (class_of(error.code()) == Class::Rejected).then(|| Self::from_database(error))
    }

    fn from_database(error: &PgDatabaseError) -> Self {
        let owned = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
        Self {
            sqlstate: error.code().to_owned(),
            constraint: owned(error.constraint()),
            column: owned(error.column()),
            schema: owned(error.schema()),
            table: owned(error.table()),
            data_type: owned(error.data_type()),
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
pub(crate) fn from_sqlx(error: sqlx::Error) -> Error {
    if let Some(database) = database_error(&error) {
        return from_database(database);
    }
    match error {
        sqlx::Error::Io(error) => {
            Error::transient("the connection to the target failed").with_source(error)
        }
        sqlx::Error::Tls(error) => {
            Error::transient("TLS with the target failed").with_source(BoxedError(error))
        }
        sqlx::Error::Configuration(error) => {
            Error::configuration("cannot use the target's connection settings")
                .with_source(BoxedError(error))
        }
        sqlx::Error::Protocol(text) => {
            Error::protocol(format!("the target's answer was not understood: {text}"))
        }
        // The text of a decoding error may have a value of a row.
        sqlx::Error::ColumnDecode { index, .. } => Error::transient(format!(
            "column {index} of the target's answer has an unexpected type or value"
        )),
        sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => {
            Error::transient("a value sent to or received from the target could not be converted")
        }
        other => Error::transient(other.to_string()),
    }
}

/// An error met while connecting: no row is involved yet, so the server's words are kept whole, and
/// a setting that the server does not take (class 22) is a matter of configuration.
pub(crate) fn from_connecting(error: sqlx::Error) -> Error {
    match database_error(&error) {
        Some(database) if class_of(database.code()) == Class::Rejected => {
            with_server_words(Class::Configuration, database)
        }
        Some(_) => from_sqlx(error),
        None => match error {
            // rustls's errors come as this kind; the others say enough by themselves.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Error::transient(
                "TLS with the target failed",
            )
            .with_source(error)
            .with_hint(
                "Check sslmode and sslrootcert, and the name for which the server's certificate is made.",
            ),
            sqlx::Error::Io(error) => Error::transient(error.to_string()),
            error => from_sqlx(error),
        },
    }
}

/// Says what was being done when the driver failed.
pub trait Doing<T> {
    /// The error in our own terms, as `could not {doing}: ...`; a rejected row keeps its message as
    /// it is.
    ///
    /// # Errors
    ///
    /// Whatever [`from_sqlx`] makes of the driver's error.
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| {
            let error = from_sqlx(error);
            if error.class() == Class::Rejected {
                error
            } else {
                error.context(format!("could not {doing}"))
            }
        })
    }
}

/// sqlx's boxed causes are not `Sized`, so they are carried in this.
#[derive(Debug)]
struct BoxedError(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for BoxedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BoxedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn database_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

fn from_database(error: &PgDatabaseError) -> Error {
    let sqlstate = error.code();
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
pub(crate) fn copied_column(error: &sqlx::Error) -> Option<String> {
    // COPY stage_1, line 1, column p2: "..."; the text behind the colon is the value.
    let context = database_error(error)?.r#where()?;
    let (names, _) = context.split_once(": ")?;
    let (_, column) = names.rsplit_once(' ')?;
    Some(column.to_owned())
}

fn with_server_words(class: Class, error: &PgDatabaseError) -> Error {
    let mut converted = Error::new(
        class,
        format!("{} (SQLSTATE {})", error.message(), error.code()),
    )
    .with_sqlstate(error.code());
    if let Some(detail) = error.detail() {
        converted = converted.with_detail(detail);
    }
    match error
        .hint()
        .or_else(|| hint_for(error.code(), error.message()))
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
        "28P01" => Some(
            "Check the password in the target's URL, CDC_TARGET_PASSWORD(_FILE), PGPASSWORD or the password file.",
        ),
        "28000" => Some(
            "Check the role's name and the server's pg_hba.conf; it may ask for TLS (sslmode=require).",
        ),
        "3D000" => Some("Check the database's name in the target's URL."),
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

    #[test]
    fn doing_puts_the_deed_before_the_cause() {
        let failed: Result<(), sqlx::Error> = Err(sqlx::Error::Io(std::io::Error::other("reset")));
        let error = failed.doing("read the checkpoint").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not read the checkpoint: the connection to the target failed: reset"
        );
        assert!(error.is_transient());
    }
}
