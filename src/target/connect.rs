//! Opens a session of the target. The lookups are written, so a standby is never asked for, and to
//! write one passes it over.

use crate::connect::{Connection, Side, Wanted};
use crate::conninfo::{Conninfo, TargetSessionAttrs};
use crate::error::{Error, Result};

/// Connects to the first host that will do.
///
/// `application_name` is used unless the connection string has one.
///
/// # Errors
/// As [`Connection::open`]; configuration also if the connection string asks for a standby.
pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<Connection> {
    connect_to(conninfo, application_name, Wanted::Any).await
}

/// Connects to the first primary.
///
/// # Errors
/// As [`connect`]; transient if there are standbys alone, since one may be promoted.
pub(crate) async fn connect_to_primary(
    conninfo: &Conninfo,
    application_name: &str,
) -> Result<Connection> {
    connect_to(conninfo, application_name, Wanted::Primary).await
}

async fn connect_to(
    conninfo: &Conninfo,
    application_name: &str,
    wanted: Wanted,
) -> Result<Connection> {
    if matches!(
        conninfo.target_session_attrs,
        TargetSessionAttrs::ReadOnly
            | TargetSessionAttrs::Standby
            | TargetSessionAttrs::PreferStandby
    ) {
        return Err(Error::configuration(
            "a target_session_attrs that asks for a standby is not supported for the target",
        )
        .with_hint("The lookup tables are written: use target_session_attrs=read-write."));
    }
    Connection::open(Side::Target, conninfo, application_name, wanted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_standby_cannot_be_asked_for() {
        for attrs in [
            TargetSessionAttrs::ReadOnly,
            TargetSessionAttrs::Standby,
            TargetSessionAttrs::PreferStandby,
        ] {
            let conninfo = Conninfo {
                target_session_attrs: attrs,
                ..Conninfo::default()
            };
            let error = connect(&conninfo, "cdc").await.unwrap_err();
            assert!(error.message().contains("not supported for the target"));
        }
    }
}
