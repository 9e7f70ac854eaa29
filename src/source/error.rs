//! Errors of the source's driver as the crate's own.

use crate::error::{Class, Error};

/// The driver's error as the crate's.
pub fn from_postgres(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => {
            let class = match db.code().code().get(..2) {
                Some("28" | "42" | "3D" | "0A" | "22") => Class::Configuration,
                _ => Class::Transient,
            };
            Error::new(class, db.message()).with_sqlstate(db.code().code())
        }
        None => Error::transient("could not talk to the source").with_source(error),
    }
}
