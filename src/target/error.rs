//! Errors of the target's driver as the crate's own.

use crate::error::{Class, Error};

/// The driver's error as the crate's.
pub fn from_sqlx(error: sqlx::Error) -> Error {
    match error.as_database_error() {
        Some(db) => {
            let code = db.code().unwrap_or_default().into_owned();
            let class = match code.get(..2) {
                Some("28" | "42" | "3D" | "0A" | "22") => Class::Configuration,
                _ => Class::Transient,
            };
            Error::new(class, db.message()).with_sqlstate(code)
        }
        None => Error::transient("could not talk to the target").with_source(error),
    }
}
