//! What a source table must be to be followed: the one rule, for binding, for `cdc check` and for
//! plain comparisons.

use crate::error::Error;
use crate::facts::SourceTable;
use crate::settings::ReadModelSettings;
use crate::sql::{TableName, ident};

/// Why the table cannot be followed, each with what to do about it; empty if it can, as far as its
/// replica identity allows.
///
/// `roots` are published tables that take the changes of all their partitions under their own name;
/// `role` is the one that reads.
pub(crate) fn obstacles(
    settings: &ReadModelSettings,
    table: &SourceTable,
    roots: &[TableName],
    role: &str,
) -> Vec<Error> {
    let mut all = Vec::new();
    all.extend(kind(table));
    all.extend(persistence(table));
    all.extend(partitions(table, roots));
    all.extend(reading(table, role));
    all.extend(columns(settings, table));
    all
}

/// Why the table cannot be read by this role, with every row.
pub(crate) fn reading(table: &SourceTable, role: &str) -> Vec<Error> {
    let mut all = Vec::new();
    let to = ident(role);
    if !table.may_select {
        all.push(
            Error::broken(format!(
                "permission denied: role \"{role}\" may not read it"
            ))
            .with_hint(format!(
                "GRANT USAGE ON SCHEMA {} TO {to}; GRANT SELECT ON {} TO {to};",
                ident(&table.name.schema),
                table.name.quoted()
            )),
        );
    }
    if table.row_security_applies {
        all.push(
            Error::broken(format!(
                "row-level security hides rows from role \"{role}\""
            ))
            .with_detail("A copy would lack rows that the stream brings.")
            .with_hint(format!("ALTER ROLE {to} BYPASSRLS;")),
        );
    }
    all
}

/// The error of one of them.
pub(crate) fn cannot_be_followed(table: &TableName, obstacle: Error) -> Error {
    obstacle.context(format_args!("table \"{table}\" cannot be followed"))
}

fn kind(table: &SourceTable) -> Option<Error> {
    let name = match table.kind {
        'r' | 'p' => return None,
        'v' => "a view",
        'm' => "a materialized view",
        'f' => "a foreign table",
        _ => "not a table",
    };
    Some(
        Error::broken(format!("it is {name}"))
            .with_detail("Only tables and partitioned tables are replicated.")
            .with_hint("Follow the tables that its rows come from."),
    )
}

fn persistence(table: &SourceTable) -> Vec<Error> {
    let mut all = Vec::new();
    if table.persistence != 'p' {
        all.push(
            Error::broken("it is unlogged or temporary, so its changes are not in the WAL")
                .with_hint(format!("ALTER TABLE {} SET LOGGED;", table.name.quoted())),
        );
    }
    if table.has_inheritance_children {
        all.push(
            Error::broken("other tables inherit from it")
                .with_detail(
                    "Their rows come under their own names in the stream, but under its name in a copy.",
                )
                .with_hint("Use a partitioned table, or a read model for each table."),
        );
    }
    all
}

/// Whether the changes of its partitions are in the stream, and its own if it is one.
fn partitions(table: &SourceTable, roots: &[TableName]) -> Vec<Error> {
    let mut all = Vec::new();
    if let Some(leaf) = table.unlogged_leaf() {
        all.push(
            Error::broken(format!(
                "partition \"{}\" is unlogged, so its changes are not in the WAL",
                leaf.name
            ))
            .with_hint(format!("ALTER TABLE {} SET LOGGED;", leaf.name.quoted())),
        );
    }
    if let Some(leaf) = table.foreign_leaf() {
        all.push(
            Error::broken(format!(
                "partition \"{}\" is a foreign table, so its changes are not in the WAL",
                leaf.name
            ))
            .with_hint("Detach it, or follow the other partitions by themselves."),
        );
    }
    if let Some(root) = table.partition_of_any(roots) {
        all.push(
            Error::broken(format!(
                "it is a partition of \"{root}\", under whose name its changes come"
            ))
            .with_hint(
                "Follow the partitioned table, or the partition alone by a publication of its own.",
            ),
        );
    }
    all
}

/// Whether all columns that are used are there, and in the stream.
fn columns(settings: &ReadModelSettings, table: &SourceTable) -> Vec<Error> {
    let mut all = Vec::new();
    let columns = settings
        .columns
        .iter()
        .map(|mapping| (&mapping.source, "column", "columns"));
    let soft_delete = settings.soft_delete.iter();
    let soft_delete = soft_delete.map(|name| (name, "soft-delete column", "soft_delete"));
    for (name, what, key) in columns.chain(soft_delete) {
        match table.column(name) {
            None => {
                let names: Vec<_> = table
                    .columns
                    .iter()
                    .map(|column| column.name.as_str())
                    .collect();
                all.push(
                    Error::broken(format!("{what} \"{name}\" does not exist"))
                        .with_detail(format!("The table has: {}.", names.join(", ")))
                        .with_hint(format!(
                            "Correct read_model.{key} of \"{}\".",
                            settings.target
                        )),
                );
            }
            Some(column) if column.generated => all.push(generated(name)),
            Some(_) => {}
        }
    }
    all
}

/// A column that is used, though it is generated.
pub(super) fn generated(name: &str) -> Error {
    Error::broken(format!("column \"{name}\" is generated, so it is not in the stream")).with_hint(
        "Leave the column out and compute it in the report or in the lookup table; as key, identity or soft delete use a column that is stored as written.",
    )
}
