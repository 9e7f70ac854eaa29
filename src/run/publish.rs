//! Ensures that the publication serves the read models. A read model that it does not serve takes
//! no part, and the others continue.

use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::facts::SourceTable;
use crate::ownership::Ownership;
use crate::publication::plan;
use crate::read_model::ModelIndex;
use crate::run::bind::Bound;
use crate::run::owner::Owner;
use crate::run::shared::Shared;
use crate::settings::{ReadModelSettings, Settings};
use crate::source;
use crate::source::publication::Outcome;
use crate::sql::TableName;
use crate::target::bookkeeping::ModelState;

/// Creates or extends the publication for the bound read models. A read model that it still does
/// not serve is unbound.
///
/// # Errors
/// Configuration if no read model can be followed and none was ever copied; transient if there is
/// no publication at all.
pub(crate) async fn ensure(
    shared: &Shared,
    client: &Client,
    owner: &mut Owner<'_>,
    ownership: &Ownership,
    bound: &mut [Bound],
) -> Result<()> {
    // A table that was dropped, or has lost its identity, suspends its read models; the others are
    // published all the same.
    let served: Vec<ModelIndex> = ModelIndex::number(&*bound)
        .filter(|(_, bound)| bound.model.is_ok())
        .map(|(index, _)| index)
        .collect();
    let read_models = served.iter().filter_map(|index| index.of(bound));
    let settings = Settings {
        read_models: read_models.map(|bound| bound.settings.clone()).collect(),
        ..shared.settings.clone()
    };
    if settings.read_models.is_empty() {
        return Ok(());
    }
    let outcome = carry_out(client, &settings, ownership).await?;
    let mark = ownership.pipeline.mark();
    if outcome.is_marked && ownership.known.mark.as_ref() != Some(&mark) {
        owner
            .bookkeeping
            .set_publication_mark(owner.conn, owner.epoch, &mark)
            .await?;
    }
    refuse(&outcome, bound, settings.read_models.len())?;
    // By their places among those that it is to serve.
    for (place, error) in outcome.lacking {
        let Some(bound) = served.get(place).and_then(|index| index.of_mut(bound)) else {
            continue;
        };
        tracing::warn!(
            read_model = bound.settings.name(),
            %error,
            detail = error.detail(),
            hint = error.hint(),
            "the publication does not serve the read model, which takes no part until it does"
        );
        bound.unbind(owner, error).await?;
    }
    Ok(())
}

/// The error if nothing can continue: a stream needs a publication, and a process that never copied
/// anything needs a read model.
fn refuse(outcome: &Outcome, bound: &[Bound], served: usize) -> Result<()> {
    let Some(refusal) = &outcome.refusal else {
        return Ok(());
    };
    let copied = bound.iter().any(|bound| bound.state != ModelState::New);
    if outcome.exists && (copied || outcome.lacking.len() < served) {
        return Ok(());
    }
    let refusal = refusal.clone();
    Err(if copied || refusal.is_transient() {
        refusal.with_class(Class::Transient)
    } else {
        refusal.with_class(Class::Configuration)
    })
}

async fn carry_out(client: &Client, settings: &Settings, ownership: &Ownership) -> Result<Outcome> {
    let tables = tables(client, &settings.read_models).await?;
    let outcome = source::publication::ensure(client, settings, &tables, ownership).await?;
    for done in &outcome.executed {
        tracing::info!(sql = done, "set up the publication");
    }
    Ok(outcome)
}

/// The tables of these read models, each once, as far as they exist. The driver sends all queries
/// before the first answer arrives.
async fn tables(client: &Client, read_models: &[ReadModelSettings]) -> Result<Vec<SourceTable>> {
    let mut names: Vec<&TableName> = Vec::with_capacity(read_models.len());
    for model in read_models {
        if !names.contains(&&model.source) {
            names.push(&model.source);
        }
    }
    let asked = names
        .into_iter()
        .map(|name| source::facts::table(client, name));
    let tables = try_join_all(asked).await?;
    Ok(tables.into_iter().flatten().collect())
}

/// Before a copy: which of these read models the publication does not serve, by their places. A
/// copy without a stream behind it would always look right. `None`: it did not serve one of them
/// and was extended, so the session has to begin again.
pub(crate) async fn lacking(
    shared: &Shared,
    client: &Client,
    target: &mut Connection,
    read_models: Vec<ReadModelSettings>,
    compare_only: bool,
) -> Result<Option<Vec<(usize, Error)>>> {
    let name = &shared.settings.source.publication;
    let ownership = shared
        .bookkeeping
        .ownership(target, &shared.settings.source.slot)
        .await?;
    let asked = Settings {
        read_models,
        ..shared.settings.clone()
    };
    let tables = tables(client, &asked.read_models).await?;
    let version = source::facts::server(client).await?.version;
    let existing = source::facts::publication(client, name).await?;
    let plan = plan(&asked, &tables, existing.as_ref(), &ownership, version)?;
    let to_extend = plan.unserved();
    let mut lacking: Vec<(usize, Error)> = plan
        .lacking
        .into_iter()
        .map(|lack| (lack.model, lack.error))
        .collect();
    if to_extend.is_empty() {
        return Ok(Some(lacking));
    }
    if compare_only {
        let error = Error::broken(format!(
            "publication \"{name}\" does not publish what is needed of its table"
        ));
        lacking.extend(to_extend.into_iter().map(|place| (place, error.clone())));
        return Ok(Some(lacking));
    }
    // Uses the needs of all read models: two of one table may need different columns.
    let all = published_together(shared, target, &asked).await?;
    let outcome = carry_out(client, &all, &ownership).await?;
    for place in to_extend {
        let settings = asked.read_models.get(place);
        let all = &all.read_models;
        let place_of_all =
            settings.and_then(|settings| all.iter().position(|other| other == settings));
        match outcome
            .lacking
            .iter()
            .find(|(of, _)| Some(*of) == place_of_all)
        {
            Some((_, error)) => lacking.push((place, error.clone())),
            None => return Ok(None),
        }
    }
    Ok(Some(lacking))
}

/// The settings with the read models by which the publication is to be.
async fn published_together(
    shared: &Shared,
    target: &mut Connection,
    asked: &Settings,
) -> Result<Settings> {
    let unreadable = shared.bookkeeping.unreadable(target).await?;
    let stored = shared.bookkeeping.models(target).await?;
    let unreadable: Vec<&str> = stored
        .iter()
        .filter(|stored| unreadable.contains(&stored.id))
        .map(|stored| stored.name.as_str())
        .collect();
    let all = &shared.settings.read_models;
    Ok(Settings {
        read_models: together(all, &asked.read_models, &unreadable),
        ..shared.settings.clone()
    })
}

/// The read models whose tables the publication is to hold besides those that are asked for: not
/// one with a value that the source cannot read out, whose next update would end the stream for
/// all.
fn together(
    all: &[ReadModelSettings],
    asked: &[ReadModelSettings],
    unreadable: &[&str],
) -> Vec<ReadModelSettings> {
    let stays = |model: &&ReadModelSettings| {
        !unreadable.contains(&model.name().as_str()) || asked.contains(model)
    };
    all.iter().filter(stays).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ReadModelSettings {
        let mut model = ReadModelSettings::labels();
        model.target.name = name.to_owned();
        model
    }

    /// The publication's list of columns is made of what all read models of a table need, so those
    /// that were not asked for count too.
    #[test]
    fn one_that_cannot_be_read_is_published_only_if_it_is_asked_for() {
        let all = ["a", "b", "c", "d"].map(named);
        let names = |asked: &[&str], unreadable: &[&str]| -> Vec<String> {
            let asked: Vec<ReadModelSettings> = asked.iter().map(|name| named(name)).collect();
            let found = together(&all, &asked, unreadable);
            found.into_iter().map(|model| model.target.name).collect()
        };
        assert_eq!(names(&["a"], &[]), ["a", "b", "c", "d"]);
        assert_eq!(names(&["a"], &["public.b"]), ["a", "c", "d"]);
        assert_eq!(names(&["b"], &["public.b"]), ["a", "b", "c", "d"]);
        assert_eq!(names(&["b"], &["public.b", "public.d"]), ["a", "b", "c"]);
        // Of another one of the same source that the settings do not have any more.
        assert_eq!(names(&["a"], &["public.gone"]), ["a", "b", "c", "d"]);
    }
}
