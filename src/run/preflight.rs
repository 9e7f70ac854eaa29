//! What must hold at the source before anything is streamed or copied: the server, that it is the one that was copied, the publication.

use tokio_postgres::Client;

use crate::check::{SQL_ASCII_HINT, SQL_ASCII_SOURCE};
use crate::error::{Error, Result};
use crate::facts::SourceTable;
use crate::run::Shared;
use crate::run::bind::Bound;
use crate::source;
use crate::target::bookkeeping::{Claim, SourceIdentity};

/// A checkpoint of another server or database is not healed by itself.
pub fn check_same_source(claim: &Claim, source: &SourceIdentity) -> Result<()> {
    let Some(stored) = &claim.checkpoint else {
        return Ok(());
    };
    if stored.system_identifier == source.system_identifier && stored.database == source.database {
        return Ok(());
    }
    Err(Error::transient("the source is another server or database than the one that was copied")
        .with_detail(format!(
            "Stored is system {} database \"{}\", found is system {} database \"{}\".",
            stored.system_identifier, stored.database, source.system_identifier, source.database
        ))
        .with_hint(
            "If the new one is right, run `cdc resync --accept-new-source`; the lookups keep their last good state until then.",
        ))
}

/// The server's settings, its encoding and the role must allow logical decoding.
pub async fn check_server(client: &Client) -> Result<()> {
    let server = source::facts::server(client).await?;
    if server.wal_level != "logical" {
        return Err(Error::configuration(format!(
            "wal_level of the source is \"{}\", not \"logical\"",
            server.wal_level
        ))
        .with_detail("Without it the WAL does not hold what logical decoding needs.")
        .with_hint("ALTER SYSTEM SET wal_level = logical; and restart the source."));
    }
    if server.encoding == "SQL_ASCII" {
        return Err(Error::configuration(format!(
            "database \"{}\" of the source has encoding SQL_ASCII",
            server.database
        ))
        .with_detail(SQL_ASCII_SOURCE)
        .with_hint(SQL_ASCII_HINT));
    }
    if !server.may_replicate {
        return Err(
            Error::configuration(format!("role \"{}\" may not replicate", server.user)).with_hint(format!(
                "ALTER ROLE {} REPLICATION;",
                crate::sql::ident(&server.user)
            )),
        );
    }
    Ok(())
}

/// Makes or extends the publication for the read models that could be bound.
pub async fn ensure_publication(shared: &Shared, client: &Client, bound: &[Bound]) -> Result<()> {
    let mut tables: Vec<SourceTable> = Vec::new();
    for model in bound
        .iter()
        .filter(|bound| bound.model.is_ok())
        .map(|bound| &bound.settings)
    {
        if tables.iter().any(|table| table.name == model.source) {
            continue;
        }
        tables.extend(source::facts::table(client, &model.source).await?);
    }
    // A table that is gone, or has lost its identity, suspends its read models; the publication of the others goes on.
    let mut settings = shared.settings.clone();
    settings.read_models.retain(|model| {
        bound
            .iter()
            .any(|bound| bound.settings == *model && bound.model.is_ok())
    });
    for done in source::publication::ensure(client, &settings, &tables).await? {
        tracing::info!(sql = done, "set up the publication");
    }
    Ok(())
}
