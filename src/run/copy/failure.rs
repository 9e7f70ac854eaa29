//! What follows for a copy of many tables from the error of one.

use crate::error::{Class, Error};

/// Why a table was not copied, by the consequence.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may be read later under the same snapshot: its lock is not free, or a connection was
    /// lost.
    PutOff(Error),
    /// It cannot be copied under this snapshot, or not at all. The others can.
    LeftOut(Error),
    /// Nothing can be copied any more: the target's session or the snapshot is lost, or the process
    /// is to stop.
    Ends(Error),
}

/// Classes of SQLSTATE that one table causes: a value or a type of it (22, 38, 39, P0), its
/// definition or a privilege (42, 0A), a size (54), its file (58), its pages (XX).
const OF_THE_TABLE: [&str; 9] = ["0A", "22", "38", "39", "42", "54", "58", "P0", "XX"];

impl Failure {
    /// The source reported this while the table was read.
    pub(super) fn of_source(error: Error) -> Self {
        let of_the_table = error
            .sqlstate()
            .is_some_and(|sqlstate| OF_THE_TABLE.iter().any(|class| sqlstate.starts_with(class)));
        match error.class() {
            Class::Interrupted => Self::Ends(error),
            Class::Broken | Class::Rejected => Self::LeftOut(error),
            _ if of_the_table => Self::LeftOut(with_hint(error).with_class(Class::Broken)),
            _ => Self::PutOff(error),
        }
    }

    /// The target reported this while the shadow was written.
    pub(super) fn of_target(error: Error) -> Self {
        match error.class() {
            Class::Broken | Class::Rejected => Self::LeftOut(error),
            _ => Self::Ends(error),
        }
    }
}

fn with_hint(error: Error) -> Error {
    let hint = match error.sqlstate() {
        _ if error.hint().is_some() => return error,
        Some("42501") => {
            "Let the role of the source's URL SELECT from the table; it is copied again then."
        }
        Some(sqlstate) if sqlstate.starts_with("XX") => {
            "Repair the table at the source, for example from a backup; it is copied again then."
        }
        _ => return error,
    };
    error.with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(failure: &Failure) -> (&'static str, Class) {
        match failure {
            Failure::PutOff(error) => ("put off", error.class()),
            Failure::LeftOut(error) => ("left out", error.class()),
            Failure::Ends(error) => ("ends", error.class()),
        }
    }

    #[test]
    fn what_one_table_lacks_concerns_it_alone_and_what_may_pass_only_delays_it() {
        for (sqlstate, expected) in [
            ("42501", "left out"),
            ("42703", "left out"),
            ("XX001", "left out"),
            ("XX002", "left out"),
            ("22021", "left out"),
            ("54000", "left out"),
            ("58030", "left out"),
            ("55P03", "put off"),
            ("40P01", "put off"),
            ("53300", "put off"),
            ("57P01", "put off"),
            ("08006", "put off"),
        ] {
            let error = Error::new(crate::source::error::class(sqlstate), "it failed")
                .with_sqlstate(sqlstate);
            let (found, class) = kind(&Failure::of_source(error));
            assert_eq!(found, expected, "{sqlstate}");
            assert_eq!(class == Class::Broken, expected == "left out", "{sqlstate}");
        }
        for (error, expected) in [
            (
                Error::transient("the server closed the connection"),
                ["put off", "ends"],
            ),
            (Error::broken("it is a view"), ["left out", "left out"]),
            (
                Error::new(Class::Rejected, "too long"),
                ["left out", "left out"],
            ),
            (Error::new(Class::Interrupted, "stopped"), ["ends", "ends"]),
        ] {
            let found = [
                kind(&Failure::of_source(error.clone())).0,
                kind(&Failure::of_target(error)).0,
            ];
            assert_eq!(found, expected);
        }
    }
}
