//! What several commands need: connections, the source's tables, and words on standard output.

use tokio_postgres::Client;

use super::output;
use crate::connect::{Connection, Side};
use crate::error::{Error, Result};
use crate::facts::SourceTable;
use crate::ownership::Ownership;
use crate::progress::SourceIdentity;
use crate::run::preflight::check_same_source;
use crate::settings::{ReadModelSettings, Settings};
use crate::source::facts;
use crate::source::identity::identity;
use crate::sql::TableName;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::presence::{Presence, presence};

/// Prints a text and a line feed.
pub(super) fn say(text: &str) -> Result<()> {
    output::print(&format!("{text}\n"))
}

/// An ordinary connection to the source for a command: of several servers to the one that `cdc run`
/// takes, the first primary that the lookups may have been `copied` from; where there is none, to
/// the first that answers.
pub(super) async fn source(
    settings: &Settings,
    command: &str,
    copied: Option<&SourceIdentity>,
) -> Result<Connection> {
    let name = format!("cdc {command}");
    Connection::open_preferring(
        Side::Source,
        &settings.source.conninfo,
        &name,
        async |client| {
            let Some(copied) = copied else {
                return true;
            };
            let found = identity(client).await;
            found.is_ok_and(|found| check_same_source(Some(copied), &found).is_ok())
        },
    )
    .await
}

/// The source that the lookups were copied from, if they were.
pub(super) async fn copied(
    conn: &mut Connection,
    settings: &Settings,
) -> Result<Option<SourceIdentity>> {
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let there = presence(conn, bookkeeping.schema_name()).await? == Presence::Ours;
    if there && bookkeeping.is_current(conn).await? {
        bookkeeping.source(conn).await
    } else {
        Ok(None)
    }
}

/// A connection to the target for a command.
pub(super) async fn target(settings: &Settings, command: &str) -> Result<Connection> {
    let name = format!("cdc {command}");
    crate::target::connect::connect(&settings.target.conninfo, &name).await
}

/// Which pipeline the settings are of, and what its bookkeeping knows of it.
pub(super) async fn ownership(conn: &mut Connection, settings: &Settings) -> Result<Ownership> {
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    bookkeeping.ownership(conn, &settings.source.slot).await
}

/// The named read models as they are called everywhere; `None` for all.
///
/// # Errors
/// `Configuration` if one of them is not configured.
pub(super) fn named(names: &[String], settings: &Settings) -> Result<Option<Vec<String>>> {
    if names.is_empty() {
        return Ok(None);
    }
    let known: Vec<String> = settings
        .read_models
        .iter()
        .map(ReadModelSettings::name)
        .collect();
    let mut found = Vec::new();
    for name in names {
        let wanted = name.parse::<TableName>()?.to_string();
        if !known.contains(&wanted) {
            return Err(
                Error::configuration(format!("read model \"{wanted}\" is not configured"))
                    .with_hint(format!("Configured are: {}.", known.join(", "))),
            );
        }
        found.push(wanted);
    }
    Ok(Some(found))
}

/// The source tables of all read models, each once.
///
/// # Errors
/// `Configuration` if one of them is missing.
pub(super) async fn source_tables(
    client: &Client,
    settings: &Settings,
) -> Result<Vec<SourceTable>> {
    let mut tables: Vec<SourceTable> = Vec::new();
    for model in &settings.read_models {
        if tables.iter().any(|table| table.name == model.source) {
            continue;
        }
        let table = facts::table(client, &model.source).await?;
        tables.push(table.ok_or_else(|| {
            Error::configuration(format!(
                "table \"{}\" does not exist at the source",
                model.source
            ))
            .with_hint("Correct read_model.source, or create the table.")
        })?);
    }
    Ok(tables)
}
