//! Binds the configured read models to the tables of both sides, and the stored ones to the configured ones.
//!
//! A read model that was never copied and cannot be bound is an error of the configuration, as long as none was: one that is added to
//! others must not stop them. One that was copied before is suspended: it serves its last good state until it can be bound and
//! copied again.

use std::sync::Arc;

use futures_util::future::try_join_all;
use sqlx::PgConnection;
use tokio_postgres::Client;

use crate::error::{Class, Error, Result};
use crate::facts::{LookupTable, SourceTable, roots};
use crate::identity::{Basis, identity};
use crate::read_model::{ReadModel, Remembering};
use crate::settings::{ReadModelSettings, Settings};
use crate::source;
use crate::sql::TableName;
use crate::target::bookkeeping::{Bookkeeping, Definition, ModelState, StoredModel};
use crate::target::model::TargetModel;
use crate::target::{facts, lookup};

/// A configured read model with its place in the bookkeeping.
#[derive(Debug)]
pub struct Bound {
    /// The rule.
    pub settings: ReadModelSettings,
    /// Number in the bookkeeping.
    pub id: i32,
    /// Whether it takes part in the stream.
    pub state: ModelState,
    /// Bound to both tables, or why not.
    pub model: Result<TargetModel>,
}

impl Bound {
    /// The read model, if it can take part.
    pub fn in_step(&self) -> Option<&TargetModel> {
        self.model
            .as_ref()
            .ok()
            .filter(|_| self.state == ModelState::InStep)
    }
}

/// Binds every configured read model, stores what is new or changed, and forgets what is configured no more.
pub async fn bind_all(
    settings: &Settings,
    client: &Client,
    target: &mut PgConnection,
    bookkeeping: &Bookkeeping,
    epoch: i64,
) -> Result<Vec<Bound>> {
    let lookups: Vec<String> = settings.read_models.iter().map(ReadModelSettings::name).collect();
    bookkeeping.refuse_second_owner(target, &lookups).await?;
    let binder = Binder::new(settings, client, bookkeeping, epoch).await?;
    let stored = bookkeeping.models(target).await?;
    for model in stored.iter().filter(|model| !lookups.contains(&model.name)) {
        tracing::info!(
            read_model = model.name,
            "forgot a read model that is configured no more"
        );
        bookkeeping.remove_model(target, epoch, model).await?;
    }
    let copied = stored.iter().any(|stored| stored.state != ModelState::New);
    for read_model in &settings.read_models {
        let name = read_model.name();
        if !stored.iter().any(|stored| stored.name == name) {
            let source = read_model.source.to_string();
            bookkeeping.add_model(target, epoch, &name, &source).await?;
        }
    }
    let seen = binder.look(&settings.read_models, target).await?;
    let mut bound = Vec::with_capacity(settings.read_models.len());
    for (read_model, seen) in settings.read_models.iter().zip(seen) {
        let (id, mut state) = (seen.stored.id, seen.stored.state);
        let model = binder.bind(read_model, seen, target, false).await;
        if let Err(error) = &model {
            if !matches!(error.class(), Class::Broken | Class::Configuration) {
                return Err(error.clone());
            }
            if state == ModelState::New && !copied {
                return Err(error
                    .clone()
                    .with_class(Class::Configuration)
                    .context(format!("read model \"{}\"", read_model.name())));
            }
            // One that was never copied stays new: the others go on.
            if state != ModelState::New {
                state = ModelState::Suspended;
            }
            bookkeeping
                .set_model_state(target, epoch, id, state, Some(error))
                .await?;
            tracing::warn!(read_model = read_model.name(), %error, hint = error.hint(), "read model is suspended and serves its last good state");
        }
        bound.push(Bound {
            settings: read_model.clone(),
            id,
            state,
            model,
        });
    }
    // One that has another definition is in step no more.
    let stored = bookkeeping.models(target).await?;
    for bound in bound.iter_mut().filter(|bound| bound.model.is_ok()) {
        if let Some(stored) = stored.iter().find(|stored| stored.id == bound.id) {
            bound.state = stored.state;
        }
    }
    Ok(bound)
}

/// What both sides show of a read model before it is bound.
#[derive(Debug)]
pub struct Seen {
    stored: StoredModel,
    has_map: bool,
    source: Option<SourceTable>,
    lookup: Option<LookupTable>,
}

/// What every read model is bound with.
#[derive(Debug)]
pub struct Binder<'a> {
    client: &'a Client,
    bookkeeping: &'a Bookkeeping,
    epoch: i64,
    /// Tables that take the changes of all their partitions under their own name.
    roots: Vec<TableName>,
}

impl<'a> Binder<'a> {
    /// Looks at the publication.
    ///
    /// # Errors
    /// As any query.
    pub async fn new(
        settings: &Settings,
        client: &'a Client,
        bookkeeping: &'a Bookkeeping,
        epoch: i64,
    ) -> Result<Self> {
        let publication = source::facts::publication(client, &settings.source.publication).await?;
        Ok(Self {
            client,
            bookkeeping,
            epoch,
            roots: roots(settings, publication.as_ref()),
        })
    }

    /// Looks at both sides, for all of these read models at once: a session with many begins as soon as one with few.
    ///
    /// # Errors
    /// As any query.
    pub async fn look(
        &self,
        read_models: &[ReadModelSettings],
        target: &mut PgConnection,
    ) -> Result<Vec<Seen>> {
        let stored = self.bookkeeping.models(target).await?;
        let stored = read_models.iter().map(|read_model| {
            let name = read_model.name();
            let found = stored.iter().find(|stored| stored.name == name);
            found
                .cloned()
                .ok_or_else(|| Error::transient(format!("read model \"{name}\" is not in the bookkeeping")))
        });
        let stored: Vec<StoredModel> = stored.collect::<Result<_>>()?;
        let maps: Vec<(i32, i32)> = stored
            .iter()
            .map(|stored| (stored.id, stored.generation))
            .collect();
        let maps = self.bookkeeping.with_map(target, &maps).await?;
        let names: Vec<TableName> = read_models.iter().map(|model| model.target.clone()).collect();
        let lookups = facts::tables(target, &names).await?;
        // The driver sends them all before the first answer is there.
        let sources = read_models
            .iter()
            .map(|model| source::facts::table(self.client, &model.source));
        let sources = try_join_all(sources).await?;
        let seen = stored.into_iter().zip(lookups).zip(sources);
        Ok(seen
            .map(|((stored, lookup), source)| Seen {
                has_map: maps.contains(&stored.id),
                stored,
                source,
                lookup,
            })
            .collect())
    }

    /// Binds one read model; its lookup and map are made where there are none.
    ///
    /// A definition that is not the stored one means another, empty map: only a read model that takes no part in a running stream
    /// may get one.
    ///
    /// # Errors
    /// [`Class::Gap`] with `in_stream` if the definition is another one: the session must begin again.
    pub async fn bind(
        &self,
        settings: &ReadModelSettings,
        seen: Seen,
        target: &mut PgConnection,
        in_stream: bool,
    ) -> Result<TargetModel> {
        let Self {
            bookkeeping, epoch, ..
        } = *self;
        let table = seen.source.ok_or_else(|| no_source(settings))?;
        refuse_partition(&table, &self.roots)?;
        let model = Arc::new(bind_source(settings, &table)?);
        let found = match seen.lookup {
            Some(found) => found,
            None => {
                lookup::create(target, settings, &table).await?;
                tracing::info!(read_model = settings.name(), "made the lookup table");
                facts::table(target, &settings.target).await?.ok_or_else(|| {
                    Error::broken(format!("lookup table \"{}\" does not exist", settings.target))
                })?
            }
        };
        refuse_without_privileges(&found)?;
        let stored = seen.stored;
        let model = TargetModel::bind(stored.id, bookkeeping.schema_name(), model, &found)?
            .for_epoch(epoch)
            .with_map(stored.generation);
        let definition = model.definition();
        if seen.has_map && stored.definition == definition {
            return Ok(model);
        }
        if in_stream && stored.state == ModelState::InStep {
            return Err(Error::new(
                Class::Gap,
                format!("the tables of read model \"{}\" were altered", settings.name()),
            ));
        }
        // A definition has a map of its own; one that is only missing is made again.
        let replaced = !stored.definition.is_empty() && stored.definition != definition;
        let model = model.with_map(stored.generation.saturating_add(i32::from(replaced)));
        let new = Definition {
            generation: model.generation(),
            source: &settings.source.to_string(),
            definition: &definition,
            create_map: &model.create_map(),
        };
        bookkeeping.redefine_model(target, epoch, stored.id, new).await?;
        Ok(model)
    }
}

fn refuse_without_privileges(found: &LookupTable) -> Result<()> {
    if found.missing_privileges.is_empty() {
        return Ok(());
    }
    let missing = found.missing_privileges.join(", ");
    Err(
        Error::broken(format!("permission denied for lookup table \"{}\"", found.name))
            .with_detail(format!("The role of the target's URL lacks {missing}."))
            .with_hint(format!(
                "GRANT {missing} ON {} TO the role of the target's URL;",
                found.name.quoted()
            )),
    )
}

/// The changes of a partition come under the name of its root, if that is published.
fn refuse_partition(table: &SourceTable, roots: &[TableName]) -> Result<()> {
    let Some(root) = table.partition_of_any(roots) else {
        return Ok(());
    };
    Err(Error::broken(format!(
        "table \"{}\" cannot be followed: it is a partition of \"{root}\", under whose name its changes come",
        table.name
    ))
    .with_hint("Follow the partitioned table, or the partition alone by a publication of its own."))
}

/// The read model's source table.
pub async fn source_table(settings: &ReadModelSettings, client: &Client) -> Result<SourceTable> {
    let found = source::facts::table(client, &settings.source).await?;
    found.ok_or_else(|| no_source(settings))
}

fn no_source(settings: &ReadModelSettings) -> Error {
    Error::broken(format!("table \"{}\" does not exist at the source", settings.source))
        .with_hint("Create the table, correct the read model's source, or let the role of the source's URL use its schema.")
}

/// Binds a read model to its source table, or says what the table lacks.
pub fn bind_source(settings: &ReadModelSettings, table: &SourceTable) -> Result<ReadModel> {
    let refuse = |why: &str, hint: &str| {
        Err(Error::broken(format!("table \"{}\" cannot be followed: {why}", table.name)).with_hint(hint))
    };
    if !matches!(table.kind, 'r' | 'p') {
        return refuse(
            "it is not a table",
            "Follow the table that the view is made from.",
        );
    }
    if table.persistence != 'p' {
        return refuse(
            "it is not logged",
            "UNLOGGED and temporary tables are not in the WAL; make it a logged one.",
        );
    }
    if let Some(leaf) = table.unlogged_leaf() {
        return refuse(
            &format!("partition \"{}\" is not logged", leaf.name),
            &format!("ALTER TABLE {} SET LOGGED;", leaf.name.quoted()),
        );
    }
    if let Some(leaf) = table.foreign_leaf() {
        return refuse(
            &format!("partition \"{}\" is a foreign table", leaf.name),
            "Its rows are on another server, and not in this one's WAL; detach it.",
        );
    }
    if table.has_inheritance_children {
        return refuse(
            "other tables inherit from it",
            "Their rows come under their own names in the stream but under its name in a copy; use partitions.",
        );
    }
    refuse_unreadable(table)?;
    let key = source_key(settings);
    let identity = identity(table, &key, settings.soft_delete.as_deref())?;
    let read = settings.columns.iter().map(|mapping| &mapping.source);
    let read = read.chain(&settings.soft_delete).chain(&identity.columns);
    let generated = |name: &&String| table.column(name).is_some_and(|column| column.generated);
    if let Some(name) = read.into_iter().find(generated) {
        return refuse(
            &format!("column \"{name}\" is generated, so it is not in the stream"),
            "Leave the column out and compute it in the report or in the lookup table; as key, identity or soft delete use a column that is stored as written.",
        );
    }
    let remembering = match identity.basis {
        Basis::Key => Remembering::OldTuple,
        Basis::PrimaryKey | Basis::Index => Remembering::Map,
    };
    ReadModel::bind(settings, table, &identity.columns, remembering)
}

/// Binds a read model that is only compared, to a table that need not be one that can be followed. Where the stream could not name its
/// rows, their primary key does, else the lookup's key.
pub fn bind_to_compare(settings: &ReadModelSettings, table: &SourceTable) -> Result<ReadModel> {
    refuse_unreadable(table)?;
    let key = source_key(settings);
    let identity = match identity(table, &key, settings.soft_delete.as_deref()) {
        Ok(identity) => identity.columns,
        Err(_) if table.primary_key.is_empty() => key,
        Err(_) => table.primary_key.clone(),
    };
    ReadModel::bind(settings, table, &identity, Remembering::Map)
}

/// The key by its names at the source.
fn source_key(settings: &ReadModelSettings) -> Vec<String> {
    settings
        .key
        .iter()
        .filter_map(|name| settings.columns.iter().find(|mapping| &mapping.target == name))
        .map(|mapping| mapping.source.clone())
        .collect()
}

fn refuse_unreadable(table: &SourceTable) -> Result<()> {
    let refuse = |why: &str, hint: &str| {
        Err(Error::broken(format!("table \"{}\" cannot be read: {why}", table.name)).with_hint(hint))
    };
    if !table.may_select {
        return refuse(
            "permission denied",
            &format!(
                "GRANT SELECT ON {} TO the role of the source's URL, and USAGE on its schema.",
                table.name.quoted()
            ),
        );
    }
    if table.row_security_applies {
        return refuse(
            "row-level security hides rows",
            "Use a role with BYPASSRLS, or the table's owner.",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::labels;

    #[test]
    fn generated_columns_are_not_in_the_stream_and_refused() {
        let settings = ReadModelSettings::labels();
        assert!(bind_source(&settings, &labels()).is_ok());
        for name in ["id", "code", "label", "deleted_at"] {
            let mut table = labels();
            let column = table.columns.iter_mut().find(|column| column.name == name);
            column.unwrap().generated = true;
            let error = bind_source(&settings, &table).unwrap_err();
            assert_eq!(error.class(), Class::Broken);
            assert!(
                error
                    .to_string()
                    .contains(&format!("column \"{name}\" is generated")),
                "{error}"
            );
        }
        let mut table = labels();
        let mut other = crate::identity::tests::column("other", "text", false);
        other.generated = true;
        table.columns.push(other);
        assert!(bind_source(&settings, &table).is_ok(), "nobody reads it");
    }
}
