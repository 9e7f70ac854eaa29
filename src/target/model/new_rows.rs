//! Statements for rows that are all new: straight into map and lookup, without the stage.

use super::{TargetModel, join, numbered};
use crate::row::Row;
use crate::sql::ident;

impl TargetModel {
    /// `COPY` of the map's entries of new rows: identity, key, state and, where dead rows are
    /// remembered, values.
    pub(crate) fn copy_map(&self) -> String {
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

    /// `COPY` of the lookup's new rows: projected columns, then the time if the lookup has a column
    /// for it.
    pub(crate) fn copy_lookup(&self) -> String {
        let names = self.columns.iter().map(|column| ident(&column.name));
        let synced_at = self.model.settings.synced_at.iter().map(|name| ident(name));
        format!(
            "COPY {} ({}) FROM STDIN",
            self.lookup(),
            join(", ", names.chain(synced_at))
        )
    }

    /// Counts the rows that were written by `COPY`.
    pub(crate) fn count_new(&self, rows: i64) -> String {
        format!("SELECT pg_temp.cdc_count({}, {rows}, false, true)", self.id)
    }

    /// The sort key of rows: the first column of their key as text, nearly the order of the
    /// lookup's key index.
    pub(crate) fn sort_key<'a>(&self, values: &'a Row) -> Option<&'a [u8]> {
        values.cell(self.key_places().next()?).text()
    }

    /// Places of the key's columns among the projected ones, counted from 0.
    pub(crate) fn key_places(&self) -> impl Iterator<Item = usize> {
        self.key.iter().map(|part| part.column)
    }
}
