//! The COPY that reads a read model's rows: identity, state, projected values.
//!
//! Columns are never cast: `bpchar::text` strips blanks, and neither COPY nor the stream does.

use crate::read_model::{BoundColumn, ReadModel, SoftDelete};
use crate::sql::ident;

/// `COPY (...) TO STDOUT` of the live rows, and of the dead ones whose values must be kept.
pub(crate) fn copy_query(model: &ReadModel) -> String {
    let rows = if model.keeps_dead_rows() {
        Rows::All
    } else {
        Rows::Live
    };
    query(model, rows)
}

/// The same of the live rows alone.
pub(crate) fn live_rows_query(model: &ReadModel) -> String {
    query(model, Rows::Live)
}

/// Which rows are read.
#[derive(Clone, Copy)]
enum Rows {
    Live,
    /// The dead ones too, marked as such.
    All,
}

fn query(model: &ReadModel, rows: Rows) -> String {
    let name = |column: &BoundColumn| format!("t.{}", ident(&column.name));
    let identity: Vec<String> = model.identity.iter().map(name).collect();
    let columns: Vec<String> = model.columns.iter().map(name).collect();
    let live = live(model);
    let (state, filter) = match rows {
        Rows::All => (
            format!("CASE WHEN {live} THEN 'l' ELSE 'd' END"),
            String::new(),
        ),
        Rows::Live => ("'l'".to_owned(), format!(" WHERE {live}")),
    };
    format!(
        "COPY (SELECT {}, {state}, {} FROM {} t{filter}) TO STDOUT",
        identity.join(", "),
        columns.join(", "),
        model.settings.source.quoted()
    )
}

/// The condition under which a row is live.
fn live(model: &ReadModel) -> String {
    let soft_delete = model.soft_delete.iter().map(|(column, kind)| {
        let name = ident(&column.name);
        match kind {
            SoftDelete::NotNull => format!("t.{name} IS NULL"),
            SoftDelete::True => format!("t.{name} IS NOT TRUE"),
        }
    });
    let key = model
        .key
        .iter()
        .filter_map(|&at| model.columns.get(at))
        .map(|column| format!("t.{} IS NOT NULL", ident(&column.name)));
    soft_delete.chain(key).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ReplicaIdentity;
    use crate::read_model::Remembering;
    use crate::read_model::tests::labels_table;
    use crate::settings::ReadModelSettings;

    #[test]
    fn dead_rows_are_read_only_where_their_values_must_be_kept() {
        let mut table = labels_table(ReplicaIdentity::Default);
        let bind = |table: &crate::facts::SourceTable| {
            ReadModel::bind(
                &ReadModelSettings::labels(),
                table,
                &["id".to_owned()],
                Remembering::Map,
            )
            .unwrap()
        };
        assert_eq!(
            copy_query(&bind(&table)),
            "COPY (SELECT t.\"id\", CASE WHEN t.\"deleted_at\" IS NULL AND t.\"code\" IS NOT NULL THEN 'l' ELSE 'd' END, \
             t.\"code\", t.\"label\", t.\"display_name\" FROM \"public\".\"labels\" t) TO STDOUT"
        );
        let live = "'l', t.\"code\", t.\"label\", t.\"display_name\" FROM \"public\".\"labels\" t WHERE t.\"deleted_at\" IS NULL";
        assert!(!copy_query(&bind(&table)).contains(live));
        assert!(live_rows_query(&bind(&table)).contains(live));
        for column in &mut table.columns {
            column.toastable = false;
        }
        assert!(copy_query(&bind(&table)).contains(live));
    }
}
