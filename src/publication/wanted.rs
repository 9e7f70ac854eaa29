//! What the read models need of the publication: which tables, and which columns of each.

use super::Lack;
use crate::error::{Error, Result};
use crate::facts::SourceTable;
use crate::identity::identity;
use crate::settings::{ReadModelSettings, Settings};
use crate::sql::{TableName, idents};

/// A table as it is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name.
    pub(super) table: TableName,
    /// What its read models need of it: projection, soft delete and identity.
    pub(super) needed: Vec<String>,
    /// Whether all columns are published, those of the future too; else those that are needed.
    pub(super) whole: bool,
    /// Its read models, by their places in the settings.
    pub(super) models: Vec<usize>,
}

impl Wanted {
    /// The table with its columns, as SQL names it.
    pub(super) fn sql(&self) -> String {
        match self.columns() {
            Some(columns) => format!("{} ({})", self.table.quoted(), idents(columns)),
            None => self.table.quoted(),
        }
    }

    /// The column list; `None` if all are published.
    pub(super) fn columns(&self) -> Option<&[String]> {
        (!self.whole).then_some(&*self.needed)
    }

    /// Whether a publication of these columns (`None`: all) will do. In our own one a list is what
    /// the settings say; another's may publish more than that.
    pub(super) fn is_met_by(&self, published: Option<&[String]>, ours: bool) -> bool {
        match published {
            None => self.whole || !ours,
            Some(_) if self.whole && ours => false,
            Some(published) => self.needed.iter().all(|name| published.contains(name)),
        }
    }

    /// Another read model of the same table.
    fn add(&mut self, model: usize, needed: Vec<String>) {
        for name in needed {
            if !self.needed.contains(&name) {
                self.needed.push(name);
            }
        }
        self.models.push(model);
    }
}

/// The tables to publish, each once, with the columns to publish; and the read models whose table
/// is not there, or cannot be published by a list.
pub(super) fn wanted(settings: &Settings, tables: &[SourceTable]) -> (Vec<Wanted>, Vec<Lack>) {
    let projected = settings.source.publish_projected_columns;
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut lacking = Vec::new();
    for (index, model) in settings.read_models.iter().enumerate() {
        let needed = match tables.iter().find(|table| table.name == model.source) {
            Some(table) => needed_columns(model, table, projected),
            None => Err(Error::broken(format!(
                "table \"{}\" does not exist at the source",
                model.source
            ))),
        };
        let needed = match needed {
            Ok(needed) => needed,
            Err(error) => {
                lacking.push(Lack::of(index, error));
                continue;
            }
        };
        match wanted.iter_mut().find(|other| other.table == model.source) {
            None => wanted.push(Wanted {
                table: model.source.clone(),
                needed,
                whole: !projected,
                models: vec![index],
            }),
            Some(other) => other.add(index, needed),
        }
    }
    (wanted, lacking)
}

/// What a read model needs of its table, in the table's order: projection, soft delete and
/// identity. Without an identity the read model is suspended alone, but cannot be published by a
/// list.
fn needed_columns(
    model: &ReadModelSettings,
    table: &SourceTable,
    listed: bool,
) -> Result<Vec<String>> {
    let key = model.source_key();
    let identity = match identity(table, &key, model.soft_delete.as_deref()) {
        Ok(identity) => identity.columns,
        Err(error) if listed => return Err(error.context("cannot publish")),
        Err(_) => Vec::new(),
    };
    let needed = |name: &String| {
        model.columns.iter().any(|column| &column.source == name)
            || model.soft_delete.as_ref() == Some(name)
            || identity.contains(name)
    };
    let names = table.columns.iter().map(|column| &column.name);
    Ok(names.filter(|name| needed(name)).cloned().collect())
}
