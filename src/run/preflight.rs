//! What must hold at the source before anything is streamed or copied: it is the server that was
//! copied, and it allows logical decoding.

use tokio_postgres::Client;

use crate::check::{SQL_ASCII_HINT, SQL_ASCII_SOURCE};
use crate::connect::Connection;
use crate::connect::Side;
use crate::error::{Class, Error, Result};
use crate::facts::SourceServer;
use crate::progress::SourceIdentity;
use crate::run::shared::Shared;
use crate::settings::STREAM;
use crate::source;
use crate::source::replication::{Replication, SystemIdentity};

/// Connects to the primary that the lookups were copied from, or one that has taken its place; any
/// primary before the first copy.
pub(crate) async fn connect(
    shared: &Shared,
    copied: Option<&SourceIdentity>,
) -> Result<(Replication, SourceIdentity)> {
    let accept = |system: &SystemIdentity| check_same_source(copied, &system.source());
    let conninfo = &shared.conninfo(Side::Source);
    let name = shared.application_name(STREAM);
    match Replication::connect_to_accepted(conninfo, &name, accept).await {
        Ok((replication, system)) => Ok((replication, system.source())),
        Err(error) if error.class() == Class::Configuration => {
            // An ordinary session may say more clearly what keeps the role from replicating.
            let client = shared.source_session("facts").await?;
            check_server(&client).await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Why there is no connection to the source that was copied: if the first source that is found is
/// another one, another pipeline may use the same names.
pub(crate) async fn or_another_pipeline(
    shared: &Shared,
    target: &mut Connection,
    error: Error,
) -> Error {
    let found = async {
        let client = shared.source_session("facts").await?;
        let (system, database) = source::facts::system(&client).await?;
        let slot = &shared.settings.source.slot;
        let ownership = shared.bookkeeping.ownership(target, slot).await?;
        Ok::<_, Error>(ownership.check_reader((&system, &database)))
    };
    match found.await {
        Ok(Err(another)) => another,
        Ok(Ok(())) | Err(_) => error,
    }
}

/// `cdc` does not follow another server or database than the one that was copied. Nor does it
/// follow an earlier timeline: a promotion begins a later one, so such a server is an old primary,
/// which kept running or has come back.
pub(crate) fn check_same_source(
    copied: Option<&SourceIdentity>,
    found: &SourceIdentity,
) -> Result<()> {
    let Some(copied) = copied else {
        return Ok(());
    };
    let another = if copied.system_identifier != found.system_identifier
        || copied.database != found.database
    {
        Error::transient("the source is another server or database than the one that was copied")
            .with_detail(format!(
                "Stored is system {} database \"{}\", found is system {} database \"{}\".",
                copied.system_identifier, copied.database, found.system_identifier, found.database
            ))
    } else if found.timeline < copied.timeline {
        Error::transient(format!(
            "the source is another server than the one that was copied: it is on timeline {}, the lookups are of timeline {}",
            found.timeline, copied.timeline
        ))
        .with_detail("It is a primary from before a failover, or a restore from before it.")
    } else {
        return Ok(());
    };
    Err(another.with_hint(
        "If the new one is right, run `cdc resync --accept-new-source`; the lookups keep their last good state until then.",
    ))
}

/// The server's settings, its encoding and the role must allow logical decoding.
pub(crate) async fn check_server(client: &Client) -> Result<()> {
    let server = source::facts::server(client).await?;
    if server.wal_level != "logical" {
        return Err(Error::configuration(format!(
            "wal_level of the source is \"{}\", not \"logical\"",
            server.wal_level
        ))
        .with_detail("Without it the WAL does not hold what logical decoding needs.")
        .with_hint("ALTER SYSTEM SET wal_level = logical; and restart the source."));
    }
    check_encoding(&server)?;
    if !server.may_replicate {
        return Err(
            Error::configuration(format!("role \"{}\" may not replicate", server.user)).with_hint(
                format!(
                    "ALTER ROLE {} REPLICATION;",
                    crate::sql::ident(&server.user)
                ),
            ),
        );
    }
    Ok(())
}

/// The source must know what its text means.
pub(crate) fn check_encoding(server: &SourceServer) -> Result<()> {
    if server.encoding != "SQL_ASCII" {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "database \"{}\" of the source has encoding SQL_ASCII",
        server.database
    ))
    .with_detail(SQL_ASCII_SOURCE)
    .with_hint(SQL_ASCII_HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_is_never_taken_by_itself() {
        let source = |system: &str, timeline, database: &str| SourceIdentity {
            system_identifier: system.to_owned(),
            timeline,
            database: database.to_owned(),
        };
        let copied = source("7", 3, "master");
        for (found, same) in [
            (source("7", 3, "master"), true),
            (source("7", 4, "master"), true),
            (source("7", 9, "master"), true),
            (source("7", 2, "master"), false),
            (source("8", 3, "master"), false),
            (source("8", 4, "master"), false),
            (source("7", 3, "other"), false),
        ] {
            let result = check_same_source(Some(&copied), &found);
            assert_eq!(result.is_ok(), same, "{found:?}");
            assert!(
                check_same_source(None, &found).is_ok(),
                "nothing was copied"
            );
            if let Err(error) = result {
                assert!(error.is_transient(), "the right one may come back");
                assert!(
                    error.hint().unwrap().contains("--accept-new-source"),
                    "{error:?}"
                );
            }
        }
    }
}
