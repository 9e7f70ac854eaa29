//! What is checked of a read model's source table.

use super::{Findings, SourceModel, counted};
use crate::facts::{Publication, ReplicaIdentity, SourceServer, SourceTable};
use crate::identity::{Identity, identity, writes_stay_legal};
use crate::read_model::obstacles::obstacles;
use crate::settings::ReadModelSettings;
use crate::sql::{TableName, ident, idents};

/// A read model's source table.
pub(super) fn model(
    findings: &mut Findings,
    model: &ReadModelSettings,
    (facts, roots): (&SourceModel, &[TableName]),
    server: &SourceServer,
) {
    let subject = format!("table \"{}\"", model.source);
    let Some(table) = &facts.table else {
        findings
            .error(&subject, "the table does not exist at the source")
            .fix(format!(
                "Correct read_model.source of \"{}\", or create the table.",
                model.target
            ));
        return;
    };
    if table.kind == 'p' {
        findings.note(
            &subject,
            "TRUNCATE, ATTACH and DETACH of a single partition are not in the stream; cdc notices and copies again",
        );
    }
    for obstacle in obstacles(model, table, roots, &server.user) {
        findings.add_error(&subject, &obstacle);
    }
    if !matches!(table.kind, 'r' | 'p') {
        return;
    }
    soft_delete(findings, model, table, &subject);
    if model
        .source_key()
        .iter()
        .all(|name| table.column(name).is_some())
    {
        key(findings, model, table, facts, &subject);
    }
    let found = identity(table, &model.source_key(), model.soft_delete.as_deref());
    match &found {
        Err(error) => {
            findings.add_error(&subject, error);
        }
        Ok(_) if table.replica_identity == ReplicaIdentity::Full => {
            findings
                .note(&subject, "replica identity is FULL, which costs much WAL")
                .detail("cdc does not need it where the table has a primary key.");
        }
        Ok(_) => {}
    }
    for publication in &facts.publications {
        breaks_master(
            findings,
            publication,
            table,
            found.as_ref().ok(),
            server.version,
        );
    }
}

fn soft_delete(
    findings: &mut Findings,
    model: &ReadModelSettings,
    table: &SourceTable,
    subject: &str,
) {
    let Some(name) = &model.soft_delete else {
        return;
    };
    let Some(column) = table.column(name) else {
        return;
    };
    let boolean = column.boolean;
    let timestamp =
        column.bare_type_name.starts_with("timestamp") || column.bare_type_name == "date";
    if !boolean && !timestamp {
        findings.warning(
            subject,
            format!(
                "soft-delete column \"{name}\" is of type {}: any value but NULL means deleted",
                column.type_name
            ),
        );
    }
    if !boolean && column.not_null {
        findings
            .warning(
                subject,
                format!(
                    "soft-delete column \"{name}\" is NOT NULL, so every row counts as deleted"
                ),
            )
            .fix("Use a column that is NULL while the row lives, or a boolean one.");
    }
}

fn key(
    findings: &mut Findings,
    model: &ReadModelSettings,
    table: &SourceTable,
    facts: &SourceModel,
    subject: &str,
) {
    let key = model.source_key();
    let text = key.join(", ");
    for name in &key {
        if table.column(name).is_some_and(|column| !column.not_null) {
            let now = match facts.without_key {
                Some(count) if count > 0 => format!(" ({} now)", counted(count, "row")),
                _ => String::new(),
            };
            findings.note(
                subject,
                format!("key column \"{name}\" may be NULL; such rows are left out{now}"),
            );
        }
    }
    let unique = has_unique_key(table, &key);
    let live = match &model.soft_delete {
        Some(name) if table.column(name).is_some_and(|column| column.boolean) => {
            format!(" WHERE {} IS NOT TRUE", ident(name))
        }
        Some(name) => format!(" WHERE {} IS NULL", ident(name)),
        None => String::new(),
    };
    let index = format!(
        "CREATE UNIQUE INDEX CONCURRENTLY ON {} ({}){live};",
        table.name.quoted(),
        idents(&key)
    );
    if let Some(count) = facts.duplicates.filter(|count| *count > 0) {
        let keys = counted(count, "key");
        let belong = if count == 1 { "belongs" } else { "belong" };
        findings
            .warning(
                subject,
                format!("{keys} ({text}) {belong} to more than one live row"),
            )
            .detail("The row with the smallest identity is shown; the others wait until the key is free.")
            .fix(format!("Correct the rows, then: {index}"));
    } else if !unique {
        findings
            .note(
                subject,
                format!("nothing keeps two live rows from having one key ({text})"),
            )
            .detail("If that happens, the row with the smallest identity is shown.")
            .fix(index);
    }
}

/// Whether a unique index, partial or not, is on the key or on a part of it.
pub(super) fn has_unique_key(table: &SourceTable, key: &[String]) -> bool {
    table.unique_indexes.iter().any(|index| {
        !index.columns.is_empty() && index.columns.iter().all(|column| key.contains(column))
    })
}

/// Finds publications, of any creator, under which the application's UPDATE and DELETE fail.
fn breaks_master(
    findings: &mut Findings,
    publication: &Publication,
    table: &SourceTable,
    identity: Option<&Identity>,
    version: u32,
) {
    if !publication.update && !publication.delete {
        return;
    }
    let subject = format!("publication \"{}\"", publication.name);
    for published in publication.tables.iter() {
        let leaf = table.leaves.iter().any(|leaf| leaf.name == published.table);
        if published.table != table.name && !leaf {
            continue;
        }
        if let Err(error) = writes_stay_legal(table, published.columns.as_deref(), version) {
            findings
                .error(
                    &subject,
                    format!("it makes UPDATE and DELETE on \"{}\" fail", table.name),
                )
                .detail(format!("{error}."))
                .fix(error.hint().unwrap_or_default());
        }
        let Some(filter) = &published.row_filter else {
            continue;
        };
        let outside = table.columns.iter().find(|column| {
            let in_identity =
                identity.is_some_and(|identity| identity.columns.contains(&column.name));
            !in_identity && mentions(filter, &column.name)
        });
        if let Some(column) = outside.filter(|_| table.replica_identity != ReplicaIdentity::Full) {
            findings
                .error(&subject, format!("it makes UPDATE and DELETE on \"{}\" fail", table.name))
                .detail(format!(
                    "Its row filter uses column \"{}\", which is not part of the replica identity.",
                    column.name
                ))
                .fix(format!(
                    "ALTER PUBLICATION {name} DROP TABLE {table}; ALTER PUBLICATION {name} ADD TABLE {table};",
                    name = ident(&publication.name),
                    table = table.name.quoted()
                ));
        }
    }
}

/// Whether the expression has the name as a word of its own.
fn mentions(expression: &str, name: &str) -> bool {
    expression
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .any(|word| word == name)
        || expression.contains(&ident(name))
}
