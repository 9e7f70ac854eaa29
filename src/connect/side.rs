//! The two sides that a connection may be with.

use std::fmt;

/// Which of the two databases a connection is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The database with the master tables.
    Source,
    /// The database with the lookup tables.
    Target,
}

impl Side {
    /// Where the user gives its password, for hints.
    pub(crate) fn password_places(self) -> &'static str {
        match self {
            Self::Source => {
                "the source's URL, CDC_SOURCE_PASSWORD(_FILE), PGPASSWORD or the password file"
            }
            Self::Target => {
                "the target's URL, CDC_TARGET_PASSWORD(_FILE), PGPASSWORD or the password file"
            }
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}
