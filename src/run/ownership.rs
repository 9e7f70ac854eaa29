//! Whether the slot may be used, dropped and created again: it is this pipeline's.

use tokio_postgres::Client;

use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::facts::Slot;
use crate::ownership::Ownership;
use crate::progress::SourceIdentity;
use crate::run::lessons::Lessons;
use crate::run::shared::Shared;
use crate::source;

/// Checks that a slot of this pipeline's name is its own, and returns the ownership by which it
/// judged.
///
/// The check reads the slot first and the bookkeeping second: a process stores its intent before it
/// creates a slot. So the check works without owning the pipeline.
///
/// # Errors
/// Configuration: the slot is another pipeline's, unless `--take-slot` was given.
pub(crate) async fn check_slot(
    shared: &Shared,
    lessons: &mut Lessons,
    (client, target): (&Client, &mut Connection),
    source: &SourceIdentity,
) -> Result<Ownership> {
    let name = &shared.settings.source.slot;
    let slot = source::facts::slot(client, name).await?;
    let ownership = shared.bookkeeping.ownership(target, name).await?;
    let place = (source.system_identifier.as_str(), source.database.as_str());
    let models = &shared.settings.read_models;
    if let Some(error) = ownership.pipeline.own_master(place, models) {
        return Err(error);
    }
    // Another pipeline in the same schema loses neither its session nor its epoch. Its own last
    // session may not have ended yet.
    if lessons.epoch.is_none() {
        ownership.check_reader((&source.system_identifier, &source.database))?;
    }
    let Some(slot) = slot else {
        return Ok(ownership);
    };
    check_kind(&slot, source)?;
    // If the bookkeeping is dropped while the process runs, only the process still knows.
    let here = |owned: &SourceIdentity| {
        owned.system_identifier == source.system_identifier && owned.database == source.database
    };
    if !lessons.owned.as_ref().is_some_and(here) {
        let comments = source::facts::publication_comments(client).await?;
        let found = ownership.check_slot((&source.system_identifier, &source.database), &comments);
        match found {
            Ok(()) => lessons.owned = Some(source.clone()),
            Err(error) if shared.take_slot => {
                tracing::warn!(
                    slot = name,
                    reason = error.message(),
                    "the slot is taken all the same, since --take-slot says so"
                );
                lessons.owned = Some(source.clone());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ownership)
}

fn check_kind(slot: &Slot, source: &SourceIdentity) -> Result<()> {
    if slot.plugin.as_deref() == Some("pgoutput")
        && slot.database.as_deref() == Some(source.database.as_str())
    {
        return Ok(());
    }
    Err(
        Error::configuration(format!("slot \"{}\" belongs to something else", slot.name))
            .with_detail(format!(
                "Its plugin is {:?}, its database {:?}.",
                slot.plugin, slot.database
            ))
            .with_hint("Choose another name for source.slot."),
    )
}
