//! Statements for rows that are all new: straight into map and lookup, without the stage.

use super::{TargetModel, join, numbered};
use crate::sql::ident;

impl TargetModel {
    /// `COPY` of the map's entries of new rows: identity, key, state and, where dead rows are remembered, values.
    pub fn copy_map(&self) -> String {
        let values = if self.model.keeps_dead_rows() {
            format!(", {}", numbered("", "v", self.columns.len()))
        } else {
            String::new()
        };
        format!(
            "COPY {map} ({i}, {k}, state{values}) FROM STDIN",
            map = self.map(),
            i = numbered("", "i", self.identity_types.len()),
            k = numbered("", "k", self.key.len()),
        )
    }

    /// `COPY` of the lookup's new rows: projected columns, then the time if the lookup has a column for it.
    pub fn copy_lookup(&self) -> String {
        let names = self.columns.iter().map(|column| ident(&column.name));
        let synced_at = self.model.settings.synced_at.iter().map(|name| ident(name));
        format!(
            "COPY {} ({}) FROM STDIN",
            self.lookup(),
            join(", ", names.chain(synced_at))
        )
    }

    /// The transaction's time, and whether one of these keys is claimed by a row that is shown. A parameter is an array of
    /// texts for each key column.
    ///
    /// The lookup's index would tell too, but not of a key whose row somebody took out of the lookup.
    pub fn claimed_keys(&self) -> String {
        let n = self.key.len();
        let same = self.key.iter().zip(1..).map(|(part, n)| {
            let of = self
                .columns
                .get(part.column)
                .map_or(String::new(), super::TargetColumn::definition);
            format!("a.k{n}::{of} {} m.k{n}", part.equality)
        });
        format!(
            "SELECT pg_catalog.now()::text, count(*) > 0 \
             FROM pg_catalog.unnest({arrays}) AS a({k}) JOIN {map} m ON {same} WHERE m.state = 's'",
            arrays = join(", ", (1..=n).map(|n| format!("${n}::text[]"))),
            k = numbered("", "k", n),
            map = self.map(),
            same = join(" AND ", same),
        )
    }

    /// Counts the rows that were written by `COPY`.
    pub fn count_new(&self, rows: i64) -> String {
        format!(
            "UPDATE {}.read_model SET rows = coalesce(rows, 0) + {rows}, last_change_at = now() WHERE id = {}",
            self.schema, self.id
        )
    }

    /// Places of the key's columns among the projected ones, counted from 0.
    pub fn key_places(&self) -> impl Iterator<Item = usize> {
        self.key.iter().map(|part| part.column)
    }
}
