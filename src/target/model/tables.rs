//! The tables of a read model: map, rejected rows and shadow, which stay in the target, and those
//! of a session.

use super::{TargetModel, join, numbered};
use crate::sql::{block, literal};

/// Why a row is rejected: SQLSTATE, constraint, column.
const WHY: &str = "e1 text, e2 text, e3 text";

impl TargetModel {
    /// Creates the map and the table of the rejected rows if they are missing. The map gets its
    /// primary key with its rows ([`Self::make_map_identity`]).
    pub fn create_map(&self) -> String {
        let map = self.map();
        let columns = [
            self.identity_columns("i", " NOT NULL"),
            self.key_columns("k"),
            self.value_columns("v"),
        ]
        .join(", ");
        format!(
            "-- The map: what is shown of each source row.\n\
             CREATE TABLE IF NOT EXISTS {map} ({columns}, state \"char\" NOT NULL);\n\
             -- Until it has a primary key: a publication at the target may need it.\n\
             ALTER TABLE {map} REPLICA IDENTITY FULL;\n\
             -- What its columns are.\n{comments}\n{rejected}",
            comments = self.comment_on_map(),
            rejected = self.create_rejected(),
        )
    }

    /// Creates the table of the rejected rows, with identity and key as they are. An existing one
    /// is not locked.
    pub(crate) fn create_rejected(&self) -> String {
        let columns = [self.identity_columns("i", ""), self.key_columns("k")].join(", ");
        let made = block(&format!(
            "BEGIN\nIF pg_catalog.to_regclass({name}) IS NULL THEN\n\
             CREATE TABLE IF NOT EXISTS {rejected} (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns}, \
             state \"char\" NOT NULL, {WHY}, lsn pg_lsn, at timestamptz NOT NULL DEFAULT now());\n\
             {comments}\nEND IF;\nEND",
            name = literal(&self.rejected()),
            rejected = self.rejected(),
            comments = self.comment_on_rejected(),
        ));
        format!("-- What the lookup does not take, unless the table is there.\n{made}")
    }

    /// Creates the session's tables of lookup rows that are tried in pieces, and of the entries of
    /// rows that are tried again.
    pub(crate) fn create_tries(&self) -> String {
        let columns = [
            self.key_columns("k"),
            self.identity_columns("h", ""),
            self.value_columns("p"),
        ]
        .join(", ");
        format!(
            "-- Writes that are tried in pieces.\n\
             CREATE TEMPORARY TABLE tries_{id} (n integer PRIMARY KEY, op \"char\" NOT NULL, {columns}, {WHY}, \
             swap boolean NOT NULL DEFAULT false);\n\
             -- Entries of rejected rows that are tried again.\n\
             CREATE TEMPORARY TABLE earlier_{id} (LIKE {rejected});",
            id = self.id,
            rejected = self.rejected(),
        )
    }

    /// Creates the session's staging tables.
    pub(crate) fn create_stage(&self) -> String {
        let moving = [
            self.identity_columns("i", ""),
            "state \"char\" NOT NULL".to_owned(),
            self.key_columns("c"),
            "stage_row tid, renamed boolean NOT NULL, was \"char\"".to_owned(),
            self.key_columns("k"),
            "map_row tid".to_owned(),
        ]
        .join(", ");
        let touched = [
            self.key_columns("k"),
            "claimed boolean NOT NULL".to_owned(),
            self.identity_columns("h", ""),
            "open boolean NOT NULL DEFAULT true".to_owned(),
        ]
        .join(", ");
        format!(
            "-- The final states of a batch.\n\
             CREATE TEMPORARY TABLE stage_{id} ({columns});\n\
             -- Rows that may change the map.\n\
             CREATE TEMPORARY TABLE moving_{id} ({moving});\n\
             -- Keys that may change hands.\n\
             CREATE TEMPORARY TABLE touched_{id} ({touched});",
            id = self.id,
            columns = self.stage_definition(),
        )
    }

    /// Empties the session's staging tables, also those of the isolating run, after many rows or
    /// few.
    pub(crate) fn empty_stage(&self, many: bool, isolating: bool) -> String {
        let mut tables = vec![self.stage(), self.moving(), self.touched()];
        if isolating {
            tables.extend([self.tries(), self.earlier()]);
        }
        if many {
            format!("TRUNCATE {}", tables.join(", "))
        } else {
            join(
                "; ",
                tables.iter().map(|table| format!("DELETE FROM {table}")),
            )
        }
    }

    /// Creates the session's table for a chunk of a large transaction.
    pub(crate) fn create_chunk(&self) -> String {
        format!(
            "-- The final states of a chunk of a large transaction.\n\
             CREATE TEMPORARY TABLE chunk_{id} ({columns});",
            id = self.id,
            columns = self.stage_definition(),
        )
    }

    /// Creates the shadow.
    pub(crate) fn create_shadow(&self) -> String {
        format!(
            "-- The rows of a copy.\nCREATE UNLOGGED TABLE {} ({});\n-- What its columns are.\n{}",
            self.shadow(),
            self.stage_definition(),
            self.comment_on_shadow().trim_end_matches(';'),
        )
    }

    /// The columns of the shadow: a table with other columns cannot be used.
    pub(crate) fn shadow_definition(&self) -> String {
        self.stage_definition()
    }

    /// Empties the shadow at once. No other session may have it locked, not even to read. Its index
    /// stays, if it has one.
    pub(crate) fn truncate_shadow(&self) -> String {
        format!("TRUNCATE {}", self.shadow())
    }

    /// Empties the shadow while another session, such as a dump, reads it.
    pub(crate) fn delete_shadow(&self) -> String {
        format!("DELETE FROM {}", self.shadow())
    }

    /// Gives the server statistics of the shadow, once it is filled.
    pub(crate) fn analyze_shadow(&self) -> String {
        format!("ANALYZE {}", self.shadow())
    }

    /// Indexes the shadow by identity, for the changes that bring it forward.
    pub(crate) fn index_shadow(&self) -> String {
        format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {name}_i ON {shadow} ({i})",
            name = self.shadow_table(),
            shadow = self.shadow(),
            i = numbered("", "i", self.identity_types.len())
        )
    }

    pub(super) fn stage_definition(&self) -> String {
        let flags: String = self
            .toastable()
            .map(|n| format!(", u{n} boolean NOT NULL DEFAULT false"))
            .collect();
        format!(
            "{}, {}, state \"char\" NOT NULL, {}{flags}, {WHY}",
            self.identity_columns("o", ""),
            self.identity_columns("i", ""),
            self.value_columns("p"),
        )
    }

    fn identity_columns(&self, prefix: &str, suffix: &str) -> String {
        join(
            ", ",
            self.identity_types
                .iter()
                .zip(1..)
                .map(|(name, n)| format!("{prefix}{n} {name}{suffix}")),
        )
    }

    fn key_columns(&self, prefix: &str) -> String {
        join(
            ", ",
            self.key.iter().zip(1..).filter_map(|(part, n)| {
                Some(format!(
                    "{prefix}{n} {}",
                    self.columns.get(part.column)?.definition()
                ))
            }),
        )
    }

    fn value_columns(&self, prefix: &str) -> String {
        join(
            ", ",
            self.columns
                .iter()
                .zip(1..)
                .map(|(column, n)| format!("{prefix}{n} {}", column.definition())),
        )
    }
}
