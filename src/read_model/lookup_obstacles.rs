//! What a lookup table must be to be written: the one rule, for binding, for `cdc check` and for
//! plain comparisons.
//!
//! Whether the values of a source column go into the lookup's type is no part of it: a value that
//! the type does not take makes one row rejected, and `cdc check` tells of it before.

use crate::error::{Error, Result};
use crate::facts::{LookupColumn, LookupTable, SourceTable};
use crate::settings::ReadModelSettings;
use crate::sql::{TableName, ident, idents};

/// Who writes a lookup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookupWriter<'a> {
    /// The bookkeeping's schema.
    pub schema: &'a str,
    /// The role of the target.
    pub role: &'a str,
}

/// Privileges of who reads it, and of who writes it.
const TO_READ: [&str; 2] = ["SELECT", "USAGE"];
const TO_WRITE: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"];

/// Why the lookup cannot be written, each with what to do about it; empty if it can.
///
/// `source` is the read model's source table, if it is known: it has the types of columns that are
/// missing.
pub(crate) fn lookup_obstacles(
    settings: &ReadModelSettings,
    lookup: &LookupTable,
    source: Option<&SourceTable>,
    writer: LookupWriter<'_>,
) -> Vec<Error> {
    let mut all = Vec::new();
    all.extend(privileges(lookup, writer.role, &TO_WRITE));
    all.extend(row_security(lookup, writer.role));
    all.extend(unfit(settings, lookup, source, writer.schema));
    all
}

/// Refuses a lookup that cannot be written.
///
/// # Errors
/// [`Class::Broken`](crate::error::Class::Broken) with the first obstacle.
pub(crate) fn check_lookup(
    settings: &ReadModelSettings,
    lookup: &LookupTable,
    source: &SourceTable,
    writer: LookupWriter<'_>,
) -> Result<()> {
    let obstacles = lookup_obstacles(settings, lookup, Some(source), writer);
    match obstacles.into_iter().next() {
        None => Ok(()),
        Some(obstacle) => Err(cannot_be_written(&lookup.name, obstacle)),
    }
}

/// Why it cannot be written by whichever role.
pub(crate) fn unfit(
    settings: &ReadModelSettings,
    lookup: &LookupTable,
    source: Option<&SourceTable>,
    schema: &str,
) -> Vec<Error> {
    // Nothing else about it can be corrected.
    if let Some(error) = kind(lookup) {
        return vec![error];
    }
    let mut all = Vec::new();
    all.extend(persistence(lookup));
    all.extend(columns(settings, lookup, source));
    all.extend(synced_at(settings, lookup));
    all.extend(others(settings, lookup));
    all.extend(key(settings, lookup));
    all.extend(names(settings, lookup, schema));
    all
}

/// Why it cannot be read by this role, with every row.
pub(crate) fn lookup_reading(lookup: &LookupTable, role: &str) -> Vec<Error> {
    let mut all = Vec::new();
    all.extend(privileges(lookup, role, &TO_READ));
    all.extend(row_security(lookup, role));
    all
}

/// The error of one of them.
pub(crate) fn cannot_be_written(lookup: &TableName, obstacle: Error) -> Error {
    obstacle.context(format_args!("lookup table \"{lookup}\" cannot be written"))
}

fn privileges(lookup: &LookupTable, role: &str, needed: &[&str]) -> Option<Error> {
    let missing = lookup.missing_privileges.iter().map(String::as_str);
    let missing: Vec<&str> = missing.filter(|name| needed.contains(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let to = ident(role);
    let of_table: Vec<&str> = missing
        .iter()
        .copied()
        .filter(|name| *name != "USAGE")
        .collect();
    let mut grants = Vec::new();
    if missing.contains(&"USAGE") {
        let schema = ident(&lookup.name.schema);
        grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {to};"));
    }
    if !of_table.is_empty() {
        let table = lookup.name.quoted();
        grants.push(format!("GRANT {} ON {table} TO {to};", of_table.join(", ")));
    }
    Some(
        Error::broken(format!(
            "permission denied: role \"{role}\" lacks {}",
            missing.join(", ")
        ))
        .with_hint(grants.join(" ")),
    )
}

fn row_security(lookup: &LookupTable, role: &str) -> Option<Error> {
    lookup.row_security_applies.then(|| {
        Error::broken(format!(
            "row-level security hides rows from role \"{role}\""
        ))
        .with_detail("What is hidden would be neither written nor compared.")
        .with_hint(format!("ALTER ROLE {} BYPASSRLS;", ident(role)))
    })
}

fn kind(lookup: &LookupTable) -> Option<Error> {
    if matches!(lookup.kind, 'r' | 'p') {
        return None;
    }
    Some(
        Error::broken("it is not a table")
            .with_hint("Choose another name (read_model.target), or drop what is there."),
    )
}

fn persistence(lookup: &LookupTable) -> Option<Error> {
    if lookup.persistence == 'p' {
        return None;
    }
    Some(
        Error::broken("it is unlogged or temporary, so a crash would empty it")
            .with_detail("The checkpoint would not show that its rows are gone.")
            .with_hint(format!("ALTER TABLE {} SET LOGGED;", lookup.name.quoted())),
    )
}

/// Whether all projected columns are there, and can be written.
fn columns(
    settings: &ReadModelSettings,
    lookup: &LookupTable,
    source: Option<&SourceTable>,
) -> Vec<Error> {
    let mut all = Vec::new();
    for mapping in &settings.columns {
        match lookup.column(&mapping.target) {
            None => {
                let from = source.and_then(|table| table.column(&mapping.source));
                let type_name = from.map_or("<type>", |column| &column.type_name);
                all.push(
                    Error::broken(format!("column \"{}\" does not exist", mapping.target))
                        .with_hint(add_column(lookup, &mapping.target, type_name)),
                );
            }
            Some(column) if column.generated => all.push(
                Error::broken(format!(
                    "column \"{}\" is generated and cannot be written",
                    column.name
                ))
                .with_hint(
                    "Leave the column out of read_model.columns, or drop its expression or identity.",
                ),
            ),
            Some(_) => {}
        }
    }
    all
}

/// Whether the column for the time of the last change is there, and takes a time.
fn synced_at(settings: &ReadModelSettings, lookup: &LookupTable) -> Option<Error> {
    let name = settings.synced_at.as_ref()?;
    let this = format!("column \"{name}\" (synced_at)");
    let leave_out = "Leave read_model.synced_at out, or name another column.";
    match lookup.column(name) {
        None => Some(
            Error::broken(format!("{this} does not exist")).with_hint(add_column(
                lookup,
                name,
                "timestamptz NOT NULL DEFAULT now()",
            )),
        ),
        Some(column) if column.generated => Some(
            Error::broken(format!("{this} is generated and cannot be written"))
                .with_hint(leave_out),
        ),
        Some(column) if !column.bare_type_name.starts_with("timestamp ") => Some(
            Error::broken(format!(
                "{this} is {}, not timestamptz",
                column.declared_type_name
            ))
            .with_hint(leave_out),
        ),
        Some(_) => None,
    }
}

/// Whether columns outside of the projection fill themselves. A trigger may do so.
fn others(settings: &ReadModelSettings, lookup: &LookupTable) -> Vec<Error> {
    if !lookup.triggers.is_empty() {
        return Vec::new();
    }
    let unfilled = unfilled(settings, lookup).map(|column| {
        Error::broken(format!(
            "column \"{}\" is NOT NULL without a default, and no source column fills it",
            column.name
        ))
        .with_hint(format!(
            "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL; (or SET DEFAULT)",
            lookup.name.quoted(),
            ident(&column.name)
        ))
    });
    unfilled.collect()
}

/// Columns that need a value and get none.
pub(crate) fn unfilled<'a>(
    settings: &'a ReadModelSettings,
    lookup: &'a LookupTable,
) -> impl Iterator<Item = &'a LookupColumn> {
    lookup.columns.iter().filter(|column| {
        let mut written = settings.columns.iter().map(|mapping| &mapping.target);
        column.not_null
            && !column.has_default
            && !written.any(|name| *name == column.name)
            && settings.synced_at.as_ref() != Some(&column.name)
    })
}

/// Whether an index keeps two rows from having one key; of a column that is missing `columns` says
/// so.
fn key(settings: &ReadModelSettings, lookup: &LookupTable) -> Option<Error> {
    let mut key = settings.key.iter();
    let complete = key.all(|name| lookup.column(name).is_some());
    if !complete || lookup.key_index(&settings.key).is_some() {
        return None;
    }
    // Of a partitioned table no index can be made concurrently.
    let concurrently = match lookup.kind {
        'p' => "",
        _ => " CONCURRENTLY",
    };
    Some(
        Error::broken(format!(
            "it has no unique index on exactly its key ({})",
            settings.key.join(", ")
        ))
        .with_detail("The index must be immediate, valid and not partial, on plain columns.")
        .with_hint(format!(
            "CREATE UNIQUE INDEX{concurrently} ON {} ({});",
            lookup.name.quoted(),
            idents(&settings.key)
        )),
    )
}

/// What ends the body of a function, and what begins a placeholder: quoting does not help against
/// either.
const BREAKS_TEMPLATES: [&str; 2] = ["$cdc$", "{{"];

/// Whether the statements can be made that name it.
pub(crate) fn names(
    settings: &ReadModelSettings,
    lookup: &LookupTable,
    schema: &str,
) -> Option<Error> {
    let columns = settings
        .columns
        .iter()
        .filter_map(|mapping| lookup.column(&mapping.target));
    let of_columns = columns.flat_map(|column| {
        let types = [&column.name, &column.type_name, &column.bare_type_name];
        types.into_iter().chain(&column.collation)
    });
    let key = lookup.key_index(&settings.key);
    let key = key.into_iter().flat_map(|index| &index.columns);
    let mut names = [schema, &settings.target.schema, &settings.target.name]
        .into_iter()
        .chain(of_columns.map(String::as_str))
        .chain(settings.synced_at.as_deref())
        .chain(key.map(|part| part.equality.as_str()));
    let (name, part) = names.find_map(|name| {
        let part = BREAKS_TEMPLATES
            .into_iter()
            .find(|part| name.contains(part))?;
        Some((name, part))
    })?;
    Some(
        Error::broken(format!("the name {name} holds {part}"))
            .with_detail("The functions that write the lookup are made from templates that use this themselves.")
            .with_hint(
                "Rename the schema, table, column, type, collation or operator of this name at the target.",
            ),
    )
}

fn add_column(lookup: &LookupTable, name: &str, definition: &str) -> String {
    format!(
        "ALTER TABLE {} ADD COLUMN {} {definition};",
        lookup.name.quoted(),
        ident(name)
    )
}

#[cfg(test)]
#[path = "lookup_obstacles_tests.rs"]
pub(crate) mod tests;
