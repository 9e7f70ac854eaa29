//! `COMMENT ON` for the tables of a read model that stay in the target: map, rejected rows, shadow.
//!
//! They are written with the table, never at a start. The letters of the states: the legend in
//! `sql/README.md`.

use super::TargetModel;
use crate::sql::literal;

const MAP_STATE: &str = "s shown under its key, w waits for a key that another row has, d dead (soft-deleted, kept for its values), \
                         r rejected by the lookup, x rejected by a type of the lookup";
const REJECTED_STATE: &str = "r rejected by the lookup, x rejected by a type of the lookup, \
                              a away: gone at the source, and the lookup does not let cdc delete it";
const SHADOW_STATE: &str =
    "l live, d dead (soft-deleted, kept for its values), x rejected by a type of the lookup";

/// Why a row is rejected, column by column.
const WHY: [&str; 3] = [
    "why it was rejected: the target's SQLSTATE",
    "why it was rejected: the constraint",
    "why it was rejected: the column",
];

impl TargetModel {
    pub(super) fn comment_on_map(&self) -> String {
        let of = Columns(self.map());
        let mut all = vec![of.table(&format!(
            "The map of lookup {}: each row of source {} that must be remembered, its key, and whether it is shown",
            self.model.settings.target, self.model.settings.source,
        ))];
        all.extend(self.identity_comments(&of, "i", "identity"));
        all.extend(self.key_comments(&of));
        all.extend(self.value_comments(&of, "v", "value of a row that is not shown"));
        all.push(of.column("state", MAP_STATE));
        all.join("\n")
    }

    pub(super) fn comment_on_rejected(&self) -> String {
        let of = Columns(self.rejected());
        let mut all = vec![
            of.table(&format!(
                "Rows of source {} that lookup {} does not take, without their values. For reports: view rejected",
                self.model.settings.source, self.model.settings.target,
            )),
            of.column("n", "number of the entry, as in rejection"),
        ];
        all.extend(self.identity_comments(&of, "i", "identity"));
        all.extend(self.key_comments(&of));
        all.push(of.column("state", REJECTED_STATE));
        all.extend(of.why());
        all.push(of.column("lsn", "end of the batch in which the row was rejected"));
        all.push(of.column("at", "when the row was first rejected for this reason"));
        all.join("\n")
    }

    pub(super) fn comment_on_shadow(&self) -> String {
        let of = Columns(self.shadow());
        let mut all = vec![of.table(&format!(
            "The rows of a copy of source {}, by identity. It is kept and emptied; table shadow says whose rows it holds",
            self.model.settings.source,
        ))];
        all.extend(self.identity_comments(&of, "o", "not used in a shadow"));
        all.extend(self.identity_comments(&of, "i", "identity"));
        all.push(of.column("state", SHADOW_STATE));
        all.extend(self.value_comments(&of, "p", "value"));
        let left_out = self.toastable();
        all.extend(left_out.map(|n| {
            of.column(
                &format!("u{n}"),
                &format!("whether the stream left p{n} out"),
            )
        }));
        all.extend(of.why());
        all.join("\n")
    }

    fn identity_comments(&self, of: &Columns, prefix: &str, what: &str) -> Vec<String> {
        let columns = self.model.identity.iter().zip(1..);
        columns
            .map(|(column, n)| {
                of.column(
                    &format!("{prefix}{n}"),
                    &format!("{what}: column {} of the source", column.name),
                )
            })
            .collect()
    }

    fn key_comments(&self, of: &Columns) -> Vec<String> {
        let columns = self
            .key
            .iter()
            .zip(1..)
            .filter_map(|(part, n)| Some((self.columns.get(part.column)?, n)));
        columns
            .map(|(column, n)| {
                of.column(
                    &format!("k{n}"),
                    &format!("key: column {} of the lookup", column.name),
                )
            })
            .collect()
    }

    fn value_comments(&self, of: &Columns, prefix: &str, what: &str) -> Vec<String> {
        let columns = self.columns.iter().zip(1..);
        columns
            .map(|(column, n)| {
                of.column(
                    &format!("{prefix}{n}"),
                    &format!("{what}: column {} of the lookup", column.name),
                )
            })
            .collect()
    }
}

/// A table, quoted, whose columns have plain names.
struct Columns(String);

impl Columns {
    fn table(&self, text: &str) -> String {
        format!("COMMENT ON TABLE {} IS {};", self.0, literal(text))
    }

    fn column(&self, name: &str, text: &str) -> String {
        format!("COMMENT ON COLUMN {}.{name} IS {};", self.0, literal(text))
    }

    fn why(&self) -> Vec<String> {
        let columns = WHY.iter().zip(1..);
        columns
            .map(|(text, n)| self.column(&format!("e{n}"), text))
            .collect()
    }
}
