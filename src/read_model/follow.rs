//! A read model bound to its source table: to follow it, or only to compare it.

use super::obstacles::{cannot_be_followed, generated, obstacles, reading};
use super::{ReadModel, Remembering};
use crate::error::Result;
use crate::facts::SourceTable;
use crate::identity::{Basis, identity};
use crate::settings::ReadModelSettings;
use crate::sql::TableName;

/// Binds a read model to its source table.
///
/// # Errors
/// [`Class::Broken`](crate::error::Class::Broken) with the first thing that the table lacks.
pub(crate) fn follow(
    settings: &ReadModelSettings,
    table: &SourceTable,
    roots: &[TableName],
    role: &str,
) -> Result<ReadModel> {
    if let Some(obstacle) = obstacles(settings, table, roots, role).into_iter().next() {
        return Err(cannot_be_followed(&table.name, obstacle));
    }
    let identity = identity(
        table,
        &settings.source_key(),
        settings.soft_delete.as_deref(),
    )?;
    let is_generated = |name: &&String| table.column(name).is_some_and(|column| column.generated);
    if let Some(name) = identity.columns.iter().find(is_generated) {
        return Err(cannot_be_followed(&table.name, generated(name)));
    }
    let remembering = match identity.basis {
        Basis::Key => Remembering::OldTuple,
        Basis::PrimaryKey | Basis::Index => Remembering::Map,
    };
    ReadModel::bind(settings, table, &identity.columns, remembering)
}

/// Binds a read model that is only compared, to a table that need not be one that can be followed.
/// If the stream could not name its rows, their primary key identifies them, else the lookup's key.
///
/// # Errors
/// [`Class::Broken`](crate::error::Class::Broken) if the table cannot be read, or lacks a column.
pub(crate) fn compare(
    settings: &ReadModelSettings,
    table: &SourceTable,
    role: &str,
) -> Result<ReadModel> {
    if let Some(obstacle) = reading(table, role).into_iter().next() {
        return Err(obstacle.context(format_args!("table \"{}\" cannot be compared", table.name)));
    }
    let key = settings.source_key();
    let identity = match identity(table, &key, settings.soft_delete.as_deref()) {
        Ok(identity) => identity.columns,
        Err(_) if table.primary_key.is_empty() => key,
        Err(_) => table.primary_key.clone(),
    };
    ReadModel::bind(settings, table, &identity, Remembering::Map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::identity::tests::{column, labels};

    fn bound(table: &SourceTable) -> Result<ReadModel> {
        follow(&ReadModelSettings::labels(), table, &[], "cdc")
    }

    #[test]
    fn generated_columns_are_not_in_the_stream_and_cannot_be_followed() {
        assert!(bound(&labels()).is_ok());
        for name in ["id", "code", "label", "deleted_at"] {
            let mut table = labels();
            let column = table.columns.iter_mut().find(|column| column.name == name);
            column.unwrap().generated = true;
            let error = bound(&table).unwrap_err();
            assert_eq!(error.class(), Class::Broken);
            let why = format!("cannot be followed: column \"{name}\" is generated");
            assert!(error.to_string().contains(&why), "{error}");
        }
        let mut table = labels();
        let mut other = column("other", "text", false);
        other.generated = true;
        table.columns.push(other);
        assert!(bound(&table).is_ok(), "nobody reads it");
    }

    #[test]
    fn each_obstacle_says_what_to_do() {
        type Alter = fn(&mut SourceTable);
        let cases: [(Alter, &str); 8] = [
            (|table| table.kind = 'v', "it is a view"),
            (|table| table.kind = 'm', "it is a materialized view"),
            (
                |table| table.persistence = 'u',
                "it is unlogged or temporary",
            ),
            (
                |table| table.has_inheritance_children = true,
                "other tables inherit from it",
            ),
            (
                |table| table.may_select = false,
                "role \"cdc\" may not read it",
            ),
            (
                |table| table.row_security_applies = true,
                "row-level security hides rows",
            ),
            (
                |table| table.columns.retain(|column| column.name != "label"),
                "column \"label\" does not exist",
            ),
            (
                |table| table.columns.retain(|column| column.name != "deleted_at"),
                "column \"deleted_at\" does not exist",
            ),
        ];
        for (alter, why) in cases {
            let mut table = labels();
            alter(&mut table);
            let settings = ReadModelSettings::labels();
            let found = obstacles(&settings, &table, &[], "cdc");
            assert_eq!(found.len(), 1, "{why}: {found:?}");
            assert!(found[0].to_string().contains(why), "{}", found[0]);
            assert!(found[0].hint().is_some(), "{why}");
            assert!(
                bound(&table).unwrap_err().to_string().contains(why),
                "{why}"
            );
            let compares = compare(&settings, &table, "cdc").is_ok();
            assert_eq!(
                compares,
                !why.contains("role") && !why.contains("hides") && !why.contains("column"),
                "{why}"
            );
        }
    }
}
