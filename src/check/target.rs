//! What is checked of a read model's lookup table.

use super::Findings;
use super::types::{Fit, fit};
use crate::facts::{LookupColumn, LookupTable, SourceColumn, SourceTable};
use crate::read_model::lookup_obstacles::{LookupWriter, lookup_obstacles, unfilled};
use crate::settings::ReadModelSettings;
use crate::sql::ident;

/// A read model's lookup table; `source` is its source table, if that could be read.
pub(super) fn model(
    findings: &mut Findings,
    model: &ReadModelSettings,
    lookup: Option<&LookupTable>,
    source: Option<&SourceTable>,
    writer: LookupWriter<'_>,
) {
    let subject = format!("lookup \"{}\"", model.target);
    let Some(lookup) = lookup else {
        missing(findings, model, source, &subject);
        return;
    };
    for obstacle in lookup_obstacles(model, lookup, source, writer) {
        findings.add_error(&subject, &obstacle);
    }
    if !matches!(lookup.kind, 'r' | 'p') {
        return;
    }
    triggers(findings, model, lookup, &subject);
    references(findings, lookup, &subject);
    for mapping in &model.columns {
        let from = source.and_then(|table| table.column(&mapping.source));
        if let (Some(from), Some(column)) = (from, lookup.column(&mapping.target)) {
            types(findings, lookup, (from, column), &subject);
            if !model.source_key().contains(&mapping.source) {
                nulls(findings, lookup, (from, column), &subject);
            }
        }
    }
    synced_at(findings, model, lookup, &subject);
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

/// Triggers and rules, which may change what is written, and columns that only they can fill.
fn triggers(
    findings: &mut Findings,
    model: &ReadModelSettings,
    lookup: &LookupTable,
    subject: &str,
) {
    if lookup.triggers.is_empty() {
        return;
    }
    findings
        .warning(subject, format!("it has {}", lookup.triggers.join(", ")))
        .detail("If they change what is written, every comparison with the source differs.");
    for column in unfilled(model, lookup) {
        findings
            .warning(
                subject,
                format!("column \"{}\" is NOT NULL without a default", column.name),
            )
            .detail("A row for which no trigger fills it is rejected.");
    }
}

fn references(findings: &mut Findings, lookup: &LookupTable, subject: &str) {
    if lookup.referenced_by.is_empty() {
        return;
    }
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
        .detail(
            "A label that is still referred to cannot leave the lookup; such a row is rejected.",
        )
        .fix("Drop the foreign keys if deletes at the source shall always get through.");
}

/// Whether the source's values go into the lookup's type.
fn types(
    findings: &mut Findings,
    lookup: &LookupTable,
    (from, column): (&SourceColumn, &LookupColumn),
    subject: &str,
) {
    let message = format!(
        "column \"{}\" is {}, the source's is {}",
        column.name, column.declared_type_name, from.type_name
    );
    let finding = match column_fit(from, column) {
        Fit::Good => return,
        Fit::Some(which) => findings
            .warning(subject, message)
            .detail(format!("Of what the source can hold, {which}.")),
        Fit::Never => findings.error(subject, message),
    };
    finding.fix(alter_type(lookup, column, &from.type_name));
}

/// Whether the lookup takes the source's NULLs.
fn nulls(
    findings: &mut Findings,
    lookup: &LookupTable,
    (from, column): (&SourceColumn, &LookupColumn),
    subject: &str,
) {
    if !column.not_null || from.not_null {
        return;
    }
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

fn synced_at(
    findings: &mut Findings,
    model: &ReadModelSettings,
    lookup: &LookupTable,
    subject: &str,
) {
    let column = model
        .synced_at
        .as_ref()
        .and_then(|name| lookup.column(name));
    let without_zone =
        |column: &&LookupColumn| column.bare_type_name == "timestamp without time zone";
    if let Some(column) = column.filter(without_zone) {
        findings
            .warning(
                subject,
                format!(
                    "column \"{}\" (synced_at) has no time zone; it gets the time in UTC",
                    column.name
                ),
            )
            .fix(alter_type(lookup, column, "timestamptz"));
    }
}
