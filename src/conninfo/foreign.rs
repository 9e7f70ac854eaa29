//! Texts that are no connection string of PostgreSQL's, but what people give in its place: a URL of
//! another tool, a value with its quotes, a file with a byte order mark.
//!
//! libpq refuses them as well, with words that lead nowhere: it looks for keywords in them. No
//! message repeats anything of the text but a scheme that is known.

use crate::error::{Error, Result};

const SCHEMES: [&str; 2] = ["postgresql", "postgres"];

const FORMS: &str = "Write postgresql://user@host:5432/database, or key=value pairs.";

/// Refuses what is known to be something else.
pub(super) fn check(text: &str) -> Result<()> {
    match mistake(text) {
        Some((what, hint)) => Err(Error::configuration(what).with_hint(hint)),
        None => Ok(()),
    }
}

fn mistake(text: &str) -> Option<(String, String)> {
    if text.starts_with('\u{feff}') {
        return Some((
            "the connection string begins with a byte order mark".to_owned(),
            "Save the file as UTF-8 without a byte order mark (BOM).".to_owned(),
        ));
    }
    let trimmed = text.trim_start();
    if trimmed.len() < text.len() && scheme(trimmed).is_some() {
        return Some((
            "the URL has a blank before it".to_owned(),
            "Remove it. A URL has no blanks, and no line breaks.".to_owned(),
        ));
    }
    let is_quoted = ['"', '\'', '`', '\u{201c}', '\u{2018}']
        .iter()
        .any(|quote| trimmed.starts_with(*quote));
    if is_quoted {
        return Some((
            "the connection string begins with a quote".to_owned(),
            "Remove the quotes around it: an --env-file, or a value that is quoted twice, keeps them."
                .to_owned(),
        ));
    }
    of_another_tool(scheme(text)?)
}

/// What stands before `://`, or `jdbc:` with it; only letters that a scheme may have, so that it is
/// no piece of a password.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = (1..=40).contains(&scheme.len())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.:".contains(c));
    is_scheme.then_some(scheme)
}

fn of_another_tool(scheme: &str) -> Option<(String, String)> {
    if SCHEMES.contains(&scheme) {
        return None;
    }
    let lower = scheme.to_ascii_lowercase();
    let base = lower.split('+').next().unwrap_or_default();
    Some(if lower.starts_with("jdbc:") {
        (
            "a JDBC URL is no connection string of libpq".to_owned(),
            "Leave out jdbc:, and write the user before the host: postgresql://user@host:5432/database. A JDBC \
             driver's own parameters do not count here."
                .to_owned(),
        )
    } else if SCHEMES.contains(&lower.as_str()) {
        (
            "the URL begins with capital letters".to_owned(),
            format!("Write {lower}:// as libpq does."),
        )
    } else if SCHEMES.contains(&base) {
        (
            "the URL names the driver of another tool".to_owned(),
            "Begin it with postgresql://, without + and the driver's name, as in SQLAlchemy's URLs."
                .to_owned(),
        )
    } else {
        let of = match base {
            "mysql" | "mariadb" | "sqlite" | "sqlserver" | "mssql" | "oracle" | "mongodb"
            | "redis" | "http" | "https" => format!("a {base}:// URL"),
            _ => "this URL".to_owned(),
        };
        (
            format!("{of} is none of PostgreSQL's"),
            format!("Source and target are PostgreSQL databases. {FORMS}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_connection_string_is_named() {
        for (text, expected, advice) in [
            (
                "\u{feff}postgresql://db",
                "byte order mark",
                "Save the file",
            ),
            ("\u{feff}host=db", "byte order mark", "Save the file"),
            (" postgresql://db", "a blank before it", "Remove it"),
            ("\n\tpostgres://db", "a blank before it", "Remove it"),
            ("\u{a0}postgres://db", "a blank before it", "Remove it"),
            (
                "\"postgresql://db\"",
                "begins with a quote",
                "Remove the quotes",
            ),
            ("'host=db'", "begins with a quote", "Remove the quotes"),
            ("\"host=db", "begins with a quote", "Remove the quotes"),
            (
                " 'postgres://db'",
                "begins with a quote",
                "Remove the quotes",
            ),
            (
                "\u{201c}host=db\u{201d}",
                "begins with a quote",
                "Remove the quotes",
            ),
            ("jdbc:postgresql://db/app", "a JDBC URL", "Leave out jdbc:"),
            ("JDBC:postgresql://db/app", "a JDBC URL", "Leave out jdbc:"),
            ("jdbc:mysql://db/app", "a JDBC URL", "Leave out jdbc:"),
            (
                "postgresql+asyncpg://db/app",
                "of another tool",
                "without +",
            ),
            ("postgres+psycopg2://db/app", "of another tool", "without +"),
            ("POSTGRESQL://db", "capital letters", "postgresql://"),
            ("Postgres://db", "capital letters", "postgres://"),
            (
                "mysql://db",
                "a mysql:// URL is none of",
                "PostgreSQL databases",
            ),
            (
                "mysql+pymysql://db",
                "a mysql:// URL is none of",
                "postgresql://user",
            ),
            (
                "https://db",
                "a https:// URL is none of",
                "postgresql://user",
            ),
            ("hunter2://db", "this URL is none of", "postgresql://user"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.message().contains(expected), "{text}: {error}");
            assert!(error.hint().unwrap().contains(advice), "{text}: {error:?}");
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
        }
    }

    #[test]
    fn what_may_be_a_connection_string_is_read_on() {
        for text in [
            "",
            " ",
            "postgres://db",
            "postgresql://db",
            " host=db",
            "password='a' host=db",
            "password=a://b",
            "application_name=jdbc:postgresql://x",
            "ann:hunter2://x@db",
        ] {
            // The last one may be anything, and what it is called repeats nothing of it.
            if let Err(error) = check(text) {
                assert!(
                    !format!("{error:?}").contains("hunter"),
                    "{text}: {error:?}"
                );
                assert!(text.starts_with("ann"), "{text}: {error:?}");
            }
        }
    }
}
