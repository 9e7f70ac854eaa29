//! Binds a read model to its lookup table, to be written or only to be compared.

use std::sync::Arc;

use super::{KeyPart, TargetColumn, TargetModel};
use crate::error::{Error, Result};
use crate::facts::LookupTable;
use crate::read_model::lookup_obstacles::{cannot_be_written, names};
use crate::read_model::{BoundColumn, ModelId, ReadModel};
use crate::settings::ReadModelSettings;
use crate::sql::ident;

impl TargetModel {
    /// Binds the read model to its lookup table. Whether that can be written is another question
    /// ([`lookup_obstacles`](crate::read_model::lookup_obstacles::lookup_obstacles)): one that is
    /// only read may be without an index on its key, and two of its rows may have one key.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if the lookup lacks a column.
    pub fn bind(
        id: ModelId,
        schema: &str,
        model: Arc<ReadModel>,
        lookup: &LookupTable,
    ) -> Result<Self> {
        if let Some(error) = names(&model.settings, lookup, schema) {
            return Err(cannot_be_written(&lookup.name, error));
        }
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
