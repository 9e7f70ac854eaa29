//! Binds a read model to its lookup table: to be written, or only to be compared.

use std::sync::Arc;

use super::{KeyPart, TargetColumn, TargetModel};
use crate::error::{Error, Result};
use crate::facts::LookupTable;
use crate::read_model::{BoundColumn, ModelId, ReadModel};
use crate::settings::ReadModelSettings;
use crate::sql::{ident, idents};

impl TargetModel {
    /// Binds the read model to its lookup table.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if the lookup lacks a column or a fitting key
    /// index, or cannot be written.
    pub fn bind(
        id: ModelId,
        schema: &str,
        model: Arc<ReadModel>,
        lookup: &LookupTable,
    ) -> Result<Self> {
        if lookup.persistence == 'u' {
            return Err(
                Error::broken(format!("lookup table \"{}\" is UNLOGGED", lookup.name))
                    .with_detail(
                        "A crash of the target would empty it without a trace in the checkpoint.",
                    )
                    .with_hint(format!("ALTER TABLE {} SET LOGGED;", lookup.name.quoted())),
            );
        }
        let bound = Self::to_compare(id, schema, model, lookup)?;
        let settings = &bound.model.settings;
        refuse_generated(settings, lookup)?;
        refuse_synced_at(settings, lookup)?;
        if lookup.key_index(&settings.key).is_none() {
            let key = idents(&settings.key);
            return Err(Error::broken(format!(
                "lookup table \"{}\" has no unique index on its key ({key})",
                lookup.name
            ))
            .with_detail("The index must be immediate, not partial, and on exactly these columns.")
            .with_hint(format!(
                "ALTER TABLE {} ADD PRIMARY KEY ({key});",
                lookup.name.quoted()
            )));
        }
        Ok(bound)
    }

    /// The same for a lookup that is only read: without an index on its key two rows may have one
    /// key.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if the lookup lacks a column.
    pub(crate) fn to_compare(
        id: ModelId,
        schema: &str,
        model: Arc<ReadModel>,
        lookup: &LookupTable,
    ) -> Result<Self> {
        let settings = &model.settings;
        let mut columns = Vec::new();
        for (mapping, bound) in settings.columns.iter().zip(&model.columns) {
            let column = lookup.column(&mapping.target).ok_or_else(|| {
                Error::broken(format!(
                    "column \"{}\" of lookup table \"{}\" does not exist",
                    mapping.target, lookup.name
                ))
                .with_hint(
                    "Create the column, or change the read model's columns in the configuration.",
                )
            })?;
            columns.push(TargetColumn {
                name: column.name.clone(),
                type_name: column.type_name.clone(),
                bare_type_name: column.bare_type_name.clone(),
                domain: column.is_domain(),
                collation: column.collation.clone(),
                toastable: bound.toastable,
            });
        }
        let key = key_parts(settings, lookup);
        let identity_types = model.identity.iter().map(identity_type).collect();
        refuse_names_that_break_templates(schema, &model, &columns, &key)?;
        Ok(Self {
            id,
            model,
            epoch: 0,
            generation: 0,
            shadow: 0,
            copy: None,
            lookup_oid: lookup.oid,
            lookup_has_parts: lookup.has_parts,
            schema: ident(schema),
            columns,
            key,
            identity_types,
        })
    }

    /// Whether the lookup has an index that keeps two rows from having one key.
    pub(super) fn has_key_index(&self) -> bool {
        self.key.iter().all(|part| part.equality.is_some())
    }
}

/// The key in the order of its index, else in that of the configuration.
fn key_parts(settings: &ReadModelSettings, lookup: &LookupTable) -> Vec<KeyPart> {
    let names: Vec<(&String, Option<String>)> = match lookup.key_index(&settings.key) {
        Some(index) => index
            .columns
            .iter()
            .map(|part| (&part.name, Some(part.equality.clone())))
            .collect(),
        None => settings.key.iter().map(|name| (name, None)).collect(),
    };
    names
        .into_iter()
        .filter_map(|(name, equality)| {
            let column = settings
                .columns
                .iter()
                .position(|mapping| &mapping.target == name)?;
            Some(KeyPart { column, equality })
        })
        .collect()
}

fn refuse_generated(settings: &ReadModelSettings, lookup: &LookupTable) -> Result<()> {
    let columns = settings
        .columns
        .iter()
        .filter_map(|mapping| lookup.column(&mapping.target));
    match columns.into_iter().find(|column| column.generated) {
        None => Ok(()),
        Some(column) => Err(Error::broken(format!(
            "column \"{}\" of lookup table \"{}\" is generated and cannot be written",
            column.name, lookup.name
        ))
        .with_hint(
            "Leave the column out of the read model's columns, or drop its expression or identity.",
        )),
    }
}

fn refuse_synced_at(settings: &ReadModelSettings, lookup: &LookupTable) -> Result<()> {
    let Some(name) = &settings.synced_at else {
        return Ok(());
    };
    let wrong = match lookup.column(name) {
        None => "does not exist",
        Some(column) if column.generated => "is generated and cannot be written",
        Some(_) => return Ok(()),
    };
    Err(Error::broken(format!(
        "column \"{name}\" of lookup table \"{}\" {wrong}",
        lookup.name
    ))
    .with_hint("Create it as timestamptz, or take synced_at out of the configuration."))
}

/// What ends the body of a function, and what begins a placeholder: quoting does not help against
/// either.
const BREAKS_TEMPLATES: [&str; 2] = ["$cdc$", "{{"];

fn refuse_names_that_break_templates(
    schema: &str,
    model: &ReadModel,
    columns: &[TargetColumn],
    key: &[KeyPart],
) -> Result<()> {
    let settings = &model.settings;
    let of_columns = columns.iter().flat_map(|column| {
        let types = [&column.name, &column.type_name, &column.bare_type_name];
        types.into_iter().chain(&column.collation)
    });
    let mut names = [schema, &settings.target.schema, &settings.target.name]
        .into_iter()
        .chain(of_columns.map(String::as_str))
        .chain(settings.synced_at.as_deref())
        .chain(key.iter().filter_map(|part| part.equality.as_deref()));
    let broken = names.find_map(|name| {
        let part = BREAKS_TEMPLATES
            .into_iter()
            .find(|part| name.contains(part))?;
        Some((name, part))
    });
    match broken {
        None => Ok(()),
        Some((name, part)) => Err(Error::broken(format!(
            "lookup table \"{}\" cannot be written: the name {name} holds {part}",
            settings.target
        ))
        .with_detail("The functions that write the lookup are made from templates that use this themselves.")
        .with_hint(
            "Rename the schema, table, column, type, collation or operator of this name at the target.",
        )),
    }
}

/// The identity's type in the map: the source's own where the target has it too, text otherwise.
/// Text compares by bytes.
fn identity_type(column: &BoundColumn) -> String {
    let same = column.builtin && !column.bare_type_name.starts_with("reg");
    match (same, column.collatable) {
        (true, true) => format!("{} COLLATE \"C\"", column.bare_type_name),
        (true, false) => column.bare_type_name.clone(),
        (false, _) => "text COLLATE \"C\"".to_owned(),
    }
}
