//! Tables of our publication that no read model follows. A published table without a usable replica
//! identity makes its UPDATE and DELETE fail in the application, even if no consumer reads it.

use super::{Findings, SourceSide};
use crate::facts::{Publication, ReplicaIdentity, WithoutIdentity};
use crate::publication::drop_table_sql;
use crate::sql::ident;

/// Tables that are named, each with its correction; a publication of all tables may have thousands.
const TOLD: usize = 10;

/// The tables that no read model follows; the checks of a read model cover its own table.
pub(super) fn tables(findings: &mut Findings, side: &SourceSide) {
    let Some(publication) = &side.publication else {
        return;
    };
    let broken = match (publication.update, publication.delete) {
        (true, true) => "UPDATE and DELETE",
        (true, false) => "UPDATE",
        (false, true) => "DELETE",
        (false, false) => return,
    };
    let is_followed = |without: &&WithoutIdentity| {
        let mut followed = side.models.iter().filter_map(|model| model.table.as_ref());
        followed.any(|table| {
            table.name == without.table
                || table.leaves.iter().any(|leaf| leaf.name == without.table)
        })
    };
    let tables: Vec<&WithoutIdentity> = side
        .without_identity
        .iter()
        .filter(|without| !is_followed(without))
        .collect();
    if tables.is_empty() {
        return;
    }
    let told = tables.iter().take(TOLD);
    let names: Vec<String> = told
        .clone()
        .map(|without| without.table.to_string())
        .collect();
    let reasons: Vec<String> = told
        .clone()
        .map(|without| format!("\"{}\" {}", without.table, reason(without)))
        .collect();
    let fixes: Vec<String> = told.map(|without| fix(without)).collect();
    let more = match tables.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    findings
        .error(
            format!("publication \"{}\"", publication.name),
            format!(
                "it makes {broken} fail on tables that are not followed: {}{more}",
                names.join(", ")
            ),
        )
        .detail(format!(
            "A published table needs a replica identity: {}{more}.",
            reasons.join(", ")
        ))
        .fix(format!(
            "{} {}",
            fixes.join(" "),
            or_take_them_out(publication, &tables)
        ));
}

fn reason(without: &WithoutIdentity) -> &'static str {
    match without.replica_identity {
        ReplicaIdentity::Nothing => "has REPLICA IDENTITY NOTHING",
        ReplicaIdentity::Index => "has lost the index of its replica identity",
        ReplicaIdentity::Default | ReplicaIdentity::Full if without.deferrable_primary_key => {
            "has a deferrable primary key only"
        }
        ReplicaIdentity::Default | ReplicaIdentity::Full => "has no primary key",
    }
}

fn fix(without: &WithoutIdentity) -> String {
    let identity = match &without.unique_index {
        _ if without.has_primary_key => "DEFAULT".to_owned(),
        Some(index) => format!("USING INDEX {}", ident(index)),
        None => "FULL".to_owned(),
    };
    format!(
        "ALTER TABLE {} REPLICA IDENTITY {identity};",
        without.table.quoted()
    )
}

/// A table that the publication names can be removed from it; a table of a published schema, or of
/// FOR ALL TABLES, cannot.
fn or_take_them_out(publication: &Publication, tables: &[&WithoutIdentity]) -> String {
    if publication.all_tables {
        return "Or publish only the tables that are followed: cdc makes such a publication by itself if source.publication names one that \
                does not exist."
            .to_owned();
    }
    match tables {
        [only] => format!("Or: {};", drop_table_sql(&publication.name, &only.table)),
        _ => format!(
            "Or take them out of publication {}.",
            ident(&publication.name)
        ),
    }
}
