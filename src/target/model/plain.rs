//! The statements of a plain comparison: they create only temporary tables of the session.

use super::{TargetModel, join, numbered};
use crate::facts::LookupTable;
use crate::sql::ident;

/// Schema of a plain comparison's tables: the session's own, which ends with it.
pub(crate) const SESSION_SCHEMA: &str = "pg_temp";

/// Names of what a subquery adds to the lookup's own columns.
const THERE: &str = "\"cdc: there\"";
const TURN: &str = "\"cdc: turn\"";

impl TargetModel {
    /// Creates the session's table for the rows of one look.
    pub(crate) fn create_session_shadow(&self) -> String {
        format!(
            "DROP TABLE IF EXISTS {shadow}; CREATE TEMPORARY TABLE {shadow} ({columns})",
            shadow = self.shadow(),
            columns = self.stage_definition()
        )
    }

    /// Notes what differs at this look.
    pub(crate) fn find_differing(&self) -> String {
        let (rows, no_lookup, and_turn) = if self.has_key_index() {
            (
                format!("{} l", self.lookup()),
                "l.tableoid IS NULL".to_owned(),
                "",
            )
        } else {
            let turn = " AND l.\"cdc: turn\" = s.turn";
            (
                self.lookup_rows_in_turn(),
                format!("l.{THERE} IS NULL"),
                turn,
            )
        };
        let as_v = self
            .columns
            .iter()
            .zip(1..)
            .map(|(column, n)| format!("{} AS v{n}", column.in_lookup()));
        self.fill(
            include_str!("../../../sql/target/write/plain_differing.sql"),
            &[
                ("differing", &self.differing()),
                ("?lookup_rows", &rows),
                ("?no_lookup", &no_lookup),
                ("?and_turn", and_turn),
                ("?lookup_as_v", &join(", ", as_v)),
            ],
        )
    }

    /// The lookup's rows, those of one key numbered.
    fn lookup_rows_in_turn(&self) -> String {
        let of_key = self
            .key
            .iter()
            .filter_map(|part| self.columns.get(part.column));
        let key = join(", ", of_key.map(super::TargetColumn::in_lookup));
        let columns = join(
            ", ",
            self.columns
                .iter()
                .map(|column| format!("l.{}", ident(&column.name))),
        );
        format!(
            "(SELECT {columns}, l.tableoid AS {THERE}, pg_catalog.row_number() OVER (PARTITION BY {key} ORDER BY l.ctid) AS {TURN} FROM {} l) l",
            self.lookup()
        )
    }

    /// Counts what this look has seen.
    pub(crate) fn count_differing(&self) -> String {
        self.fill(
            include_str!("../../../sql/target/write/plain_counts.sql"),
            &[("differing", &self.differing())],
        )
    }

    /// Stores the rows that differ in the same way as at an earlier look.
    pub(crate) fn judge_differing(&self, earlier: &Self) -> String {
        let width = self.columns.len();
        self.fill(
            include_str!("../../../sql/target/write/plain_judge.sql"),
            &[
                ("differing", &self.differing()),
                ("differing_before", &earlier.differing()),
                ("judged", &self.judged()),
                ("?f_p", &numbered("f.", "p", width)),
                ("?f_v", &numbered("f.", "v", width)),
                ("?d_p", &numbered("d.", "p", width)),
                ("?d_v", &numbered("d.", "v", width)),
            ],
        )
    }

    /// Creates a table that takes the same rows as the lookup, as far as types, NOT NULLs and
    /// CHECKs go: the lookup's other columns may have defaults or generators that write elsewhere.
    pub(crate) fn create_tried(&self, lookup: &LookupTable) -> String {
        let tried = self.tried();
        let others = lookup
            .columns
            .iter()
            .filter(|column| !self.columns.iter().any(|own| own.name == column.name))
            .map(|column| format!("; ALTER TABLE {tried} DROP COLUMN {}", ident(&column.name)));
        format!(
            "CREATE TEMPORARY TABLE {tried} (LIKE {} INCLUDING CONSTRAINTS){}",
            self.lookup(),
            join("", others)
        )
    }

    /// Empties that table, and writes the judged rows with these numbers into it.
    pub(crate) fn try_rows(&self, (low, high): (i64, i64)) -> String {
        let names = self.columns.iter().map(|column| ident(&column.name));
        format!(
            "TRUNCATE {tried}; INSERT INTO {tried} ({names}) SELECT {values} FROM {judged} d \
             WHERE d.n BETWEEN {low} AND {high} AND d.kind <> 'extra'",
            tried = self.tried(),
            names = join(", ", names),
            values = numbered("d.", "p", self.columns.len()),
            judged = self.judged(),
        )
    }

    /// Notes why a judged row is rejected: SQLSTATE, constraint, column.
    pub(crate) fn note_rejected(&self) -> String {
        format!(
            "UPDATE {} SET e1 = $2, e2 = $3, e3 = $4 WHERE n = $1",
            self.judged()
        )
    }

    /// How many rows were judged.
    pub(crate) fn count_judged(&self) -> String {
        format!("SELECT count(*) FROM {}", self.judged())
    }

    /// What the comparison has found; keys of at most `limit` rows of each kind.
    pub(crate) fn plain_result(&self, limit: u32) -> String {
        let n = self.identity_types.len();
        self.fill(
            include_str!("../../../sql/target/write/plain_result.sql"),
            &[
                ("judged", &self.judged()),
                (
                    "?judged_identity_text",
                    &format!("pg_catalog.concat_ws(', ', {})", numbered("d.", "i", n)),
                ),
                ("limit", &limit.to_string()),
            ],
        )
    }

    fn differing(&self) -> String {
        format!("{}.differing_{}_{}", self.schema, self.id, self.shadow)
    }

    fn judged(&self) -> String {
        format!("{}.judged_{}", self.schema, self.id)
    }

    fn tried(&self) -> String {
        format!("{}.tried_{}", self.schema, self.id)
    }
}
