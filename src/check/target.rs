//! What is checked of a read model's lookup table.

use super::Findings;
use super::types::{Fit, fit};
use crate::facts::{LookupColumn, LookupTable, SourceColumn, SourceTable};
use crate::settings::ReadModelSettings;
use crate::sql::{ident, idents};

/// A read model's lookup table; `source` is its source table, if that could be read.
pub(super) fn model(
    findings: &mut Findings,
    model: &ReadModelSettings,
    lookup: Option<&LookupTable>,
    source: Option<&SourceTable>,
    user: &str,
) {
    let subject = format!("lookup \"{}\"", model.target);
    let Some(lookup) = lookup else {
        missing(findings, model, source, &subject);
        return;
    };
    if !matches!(lookup.kind, 'r' | 'p') {
        findings
            .error(&subject, "it is not a table")
            .fix("Choose another name (read_model.target), or drop what is there.");
        return;
    }
    table(findings, lookup, user, &subject);
    columns(findings, model, lookup, source, &subject);
    others(findings, model, lookup, &subject);
    if let Some(name) = &model.synced_at {
        synced_at(findings, lookup, name, &subject);
    }
    let complete = model.key.iter().all(|name| lookup.column(name).is_some());
    if complete && lookup.key_index(&model.key).is_none() {
        findings
            .error(
                &subject,
                format!(
                    "it has no unique index on exactly its key ({})",
                    model.key.join(", ")
                ),
            )
            .detail("The index must be immediate, valid and not partial, on plain columns.")
            .fix(format!(
                "CREATE UNIQUE INDEX CONCURRENTLY ON {} ({});",
                lookup.name.quoted(),
                idents(&model.key)
            ));
    }
}

fn missing(
    findings: &mut Findings,
    model: &ReadModelSettings,
    source: Option<&SourceTable>,
    subject: &str,
) {
    findings.note(
        subject,
        "the table does not exist; cdc setup and cdc run make it",
    );
    for mapping in &model.columns {
        let column = source.and_then(|table| table.column(&mapping.source));
        if let Some(column) = column.filter(|column| !column.builtin) {
            findings
                .warning(
                    subject,
                    format!("type {} must exist at the target", column.bare_type_name),
                )
                .fix(
                    "Create the type (or its extension) there, or create the lookup table with another type.",
                );
        }
    }
}

fn table(findings: &mut Findings, lookup: &LookupTable, user: &str, subject: &str) {
    let name = lookup.name.quoted();
    if lookup.persistence != 'p' {
        findings
            .error(
                subject,
                "it is unlogged or temporary, so a crash would empty it",
            )
            .fix(format!("ALTER TABLE {name} SET LOGGED;"));
    }
    if lookup.row_security_applies {
        findings
            .error(subject, "row-level security applies to the role")
            .fix(format!("ALTER ROLE {} BYPASSRLS;", ident(user)));
    }
    let (usage, table): (Vec<_>, Vec<_>) = lookup
        .missing_privileges
        .iter()
        .cloned()
        .partition(|privilege| privilege == "USAGE");
    if !usage.is_empty() || !table.is_empty() {
        let mut grants = Vec::new();
        if !usage.is_empty() {
            grants.push(format!(
                "GRANT USAGE ON SCHEMA {} TO {};",
                ident(&lookup.name.schema),
                ident(user)
            ));
        }
        if !table.is_empty() {
            grants.push(format!(
                "GRANT {} ON {name} TO {};",
                table.join(", "),
                ident(user)
            ));
        }
        findings
            .error(
                subject,
                format!(
                    "role \"{user}\" lacks {}",
                    lookup.missing_privileges.join(", ")
                ),
            )
            .fix(grants.join(" "));
    }
    if !lookup.triggers.is_empty() {
        findings
            .warning(subject, format!("it has {}", lookup.triggers.join(", ")))
            .detail("If they change what is written, every comparison with the source differs.");
    }
    if !lookup.referenced_by.is_empty() {
        let tables: Vec<_> = lookup
            .referenced_by
            .iter()
            .map(ToString::to_string)
            .collect();
        findings
            .note(
                subject,
                format!("foreign keys of {} refer to it", tables.join(", ")),
            )
            .detail("A label that is still referred to cannot leave the lookup; such a row is rejected.")
            .fix("Drop the foreign keys if deletes at the source shall always get through.");
    }
}

fn columns(
    findings: &mut Findings,
    model: &ReadModelSettings,
    lookup: &LookupTable,
    source: Option<&SourceTable>,
    subject: &str,
) {
    for mapping in &model.columns {
        let from = source.and_then(|table| table.column(&mapping.source));
        let Some(column) = lookup.column(&mapping.target) else {
            let type_name = from.map_or("<type>", |column| &column.type_name);
            findings
                .error(
                    subject,
                    format!("column \"{}\" does not exist", mapping.target),
                )
                .fix(format!(
                    "ALTER TABLE {} ADD COLUMN {} {type_name};",
                    lookup.name.quoted(),
                    ident(&mapping.target)
                ));
            continue;
        };
        if column.generated {
            findings
                .error(
                    subject,
                    format!(
                        "column \"{}\" is generated and cannot be written",
                        column.name
                    ),
                )
                .fix("Leave the column out of read_model.columns.");
        }
        let Some(from) = from else {
            continue;
        };
        match column_fit(from, column) {
            Fit::Good => {}
            Fit::Some(which) => {
                findings
                    .warning(
                        subject,
                        format!(
                            "column \"{}\" is {}, the source's is {}",
                            column.name, column.declared_type_name, from.type_name
                        ),
                    )
                    .detail(format!("Of what the source can hold, {which}."))
                    .fix(alter_type(lookup, column, &from.type_name));
            }
            Fit::Never => {
                findings
                    .error(
                        subject,
                        format!(
                            "column \"{}\" is {}, the source's is {}",
                            column.name, column.declared_type_name, from.type_name
                        ),
                    )
                    .fix(alter_type(lookup, column, &from.type_name));
            }
        }
        let key = model.source_key().contains(&mapping.source);
        if column.not_null && !from.not_null && !key {
            findings
                .warning(
                    subject,
                    format!(
                        "column \"{}\" is NOT NULL, but may be NULL at the source",
                        column.name
                    ),
                )
                .detail("A row with NULL there is rejected.")
                .fix(format!(
                    "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                    lookup.name.quoted(),
                    ident(&column.name)
                ));
        }
    }
}

/// How the source's column goes into the lookup's. What a domain demands of its values is not read.
fn column_fit(from: &SourceColumn, column: &LookupColumn) -> Fit {
    if from.type_name == column.declared_type_name {
        return Fit::Good;
    }
    let fit = fit(
        (&from.bare_type_name, &from.type_name),
        (&column.bare_type_name, &column.type_name),
    );
    match fit {
        Fit::Good if column.is_domain() => Fit::Some(format!(
            "values that {} does not take are rejected",
            column.declared_type_name
        )),
        fit => fit,
    }
}

fn alter_type(lookup: &LookupTable, column: &LookupColumn, type_name: &str) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {} TYPE {type_name};",
        lookup.name.quoted(),
        ident(&column.name)
    )
}

/// Columns outside of the projection must fill themselves.
fn others(findings: &mut Findings, model: &ReadModelSettings, lookup: &LookupTable, subject: &str) {
    for column in &lookup.columns {
        let written = model
            .columns
            .iter()
            .any(|mapping| mapping.target == column.name)
            || model.synced_at.as_ref() == Some(&column.name);
        if !written && column.not_null && !column.has_default {
            findings
                .error(
                    subject,
                    format!(
                        "column \"{}\" is NOT NULL without a default, and no source column fills it",
                        column.name
                    ),
                )
                .fix(format!(
                    "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL; (or SET DEFAULT)",
                    lookup.name.quoted(),
                    ident(&column.name)
                ));
        }
    }
}

fn synced_at(findings: &mut Findings, lookup: &LookupTable, name: &str, subject: &str) {
    match lookup.column(name) {
        None => {
            findings
                .error(
                    subject,
                    format!("column \"{name}\" (synced_at) does not exist"),
                )
                .fix(format!(
                    "ALTER TABLE {} ADD COLUMN {} timestamptz NOT NULL DEFAULT now();",
                    lookup.name.quoted(),
                    ident(name)
                ));
        }
        Some(column) if column.generated => {
            findings
                .error(
                    subject,
                    format!("column \"{name}\" (synced_at) is generated and cannot be written"),
                )
                .fix("Leave read_model.synced_at out, or name another column.");
        }
        Some(column) if column.bare_type_name == "timestamp without time zone" => {
            findings
                .warning(
                    subject,
                    format!(
                        "column \"{name}\" (synced_at) has no time zone; it gets the time in UTC"
                    ),
                )
                .fix(alter_type(lookup, column, "timestamptz"));
        }
        Some(column) if column.bare_type_name != "timestamp with time zone" => {
            findings
                .error(
                    subject,
                    format!(
                        "column \"{name}\" (synced_at) is {}, not timestamptz",
                        column.declared_type_name
                    ),
                )
                .fix("Leave read_model.synced_at out, or name another column.");
        }
        Some(_) => {}
    }
}
