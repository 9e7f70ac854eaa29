//! Whose slot and publication it is, and whether the publication serves the read models.

use super::{Findings, SourceSide};
use crate::facts::{Publication, SourceTable};
use crate::ownership::{Maker, Ownership};
use crate::publication::{Plan, plan};
use crate::settings::Settings;

/// The slot and the publication. Without the target it is not known which pipeline this is.
pub(super) fn owned(
    findings: &mut Findings,
    settings: &Settings,
    side: &SourceSide,
    ownership: Option<&Ownership>,
) {
    if let Some(ownership) = ownership {
        bookkeeping(findings, settings, ownership);
        let (system, database) = &side.system;
        if let Err(error) = ownership.check_source((system, database)) {
            findings.add_error("target", &error);
        }
        slot(findings, side, ownership);
    }
    let assumed = Ownership::assumed(&settings.source.slot, &settings.target.schema);
    publication(findings, settings, side, ownership.unwrap_or(&assumed));
}

fn bookkeeping(findings: &mut Findings, settings: &Settings, ownership: &Ownership) {
    let schema = &settings.target.schema;
    if let Some(other) = &ownership.known.other_slot {
        findings
            .error(
                "target",
                format!("the bookkeeping in schema \"{schema}\" belongs to a pipeline with slot \"{other}\""),
            )
            .fix("Give each pipeline a schema of its own (target.schema), or use the slot that it was made with (source.slot).");
    }
}

fn slot(findings: &mut Findings, side: &SourceSide, ownership: &Ownership) {
    let Some(slot) = &side.slot else {
        return;
    };
    let (system, database) = &side.system;
    // Another check reports a slot of another kind.
    if slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_ref() != Some(database) {
        return;
    }
    if let Err(error) = ownership.check_slot((system, database), &side.comments) {
        findings.add_error(format!("slot \"{}\"", slot.name), &error);
    }
}

fn publication(
    findings: &mut Findings,
    settings: &Settings,
    side: &SourceSide,
    ownership: &Ownership,
) {
    let subject = format!("publication \"{}\"", settings.source.publication);
    let tables: Vec<SourceTable> = side
        .models
        .iter()
        .filter_map(|model| model.table.clone())
        .collect();
    let existing = side.publication.as_ref();
    let plan = match plan(settings, &tables, existing, ownership, side.server.version) {
        Ok(plan) => plan,
        Err(error) => {
            findings.add_error(&subject, &error);
            return;
        }
    };
    if let Some(publication) = existing {
        column_lists(findings, publication, &subject);
    }
    for lack in &plan.lacking {
        // The check of the table reports a missing table.
        if side
            .models
            .get(lack.model)
            .is_some_and(|model| model.table.is_some())
        {
            findings.add_error(&subject, &lack.error);
        }
    }
    let maker = existing.map(|existing| ownership.maker(existing.comment.as_deref()));
    if let Some(Maker::AnotherPipeline(comment)) = maker {
        findings
            .warning(
                &subject,
                "it belongs to another pipeline, which may alter or drop it",
            )
            .detail(format!("Its comment says: {comment}."))
            .fix("Give this pipeline a publication of its own (source.publication).");
    }
    to_execute(findings, (&plan, &subject), side);
}

/// What `cdc` does by itself, if the role may.
fn to_execute(findings: &mut Findings, (plan, subject): (&Plan, &str), side: &SourceSide) {
    let exists = side.publication.is_some();
    // A comment alone changes nothing.
    let statements: Vec<String> = plan
        .statements()
        .into_iter()
        .filter(|sql| !exists || !sql.starts_with("COMMENT"))
        .collect();
    if statements.is_empty() {
        return;
    }
    let sql = format!("{};", statements.join("; "));
    let message = if exists {
        "the publication has to be extended"
    } else {
        "the publication does not exist"
    };
    if exists || side.server.may_create {
        findings
            .note(subject, format!("{message}; cdc setup and cdc run do it"))
            .fix(sql);
    } else {
        findings
            .error(subject, message)
            .detail(format!(
                "Role \"{}\" may not do it: a new one takes CREATE on the database.",
                side.server.user
            ))
            .fix(format!("As the owner of the tables: {sql}"));
    }
}

fn column_lists(findings: &mut Findings, publication: &Publication, subject: &str) {
    let listed: Vec<String> = publication
        .tables
        .iter()
        .filter(|table| table.columns.is_some())
        .map(|table| table.table.to_string())
        .collect();
    if !listed.is_empty() {
        findings
            .warning(subject, format!("it has a column list for {}", listed.join(", ")))
            .detail(
                "DROP COLUMN and ALTER TYPE of a listed column fail in the application's migrations, \
                 and another replica identity later would make its UPDATE and DELETE fail.",
            )
            .fix("Publish whole tables, unless columns must not leave the source.");
    }
}
