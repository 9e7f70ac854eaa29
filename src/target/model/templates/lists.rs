//! The replacements of `{{?list}}`: columns, assignments and expressions, one for each column of
//! the identity, the key or the values.
//!
//! A list is named by its alias and prefix: `{{?m_k}}` is `m.k1, m.k2`. The prefixes are in the
//! legend of `sql/README.md`.

use super::{Entry, each};
use crate::sql::ident;
use crate::target::model::{TargetColumn, TargetModel, join, no_identity, numbered};

/// Pages of map and lookup, in bytes; those of a partitioned lookup are its partitions'.
const BYTES_TO_READ: &str = "(pg_catalog.pg_relation_size({{map_name}}) + coalesce(\
     (SELECT sum(pg_catalog.pg_relation_size(t.relid)) FROM pg_catalog.pg_partition_tree({{lookup_name}}) t), \
     pg_catalog.pg_relation_size({{lookup_name}})))";

impl TargetModel {
    /// The lists of this read model that every template may use.
    pub(super) fn lists(&self) -> Vec<Entry> {
        [
            self.plain_lists(),
            self.lists_of_alias(),
            self.keys_of_rows(),
            self.assignments(),
            self.map_assignments(),
            self.values_of_rows(),
            self.texts(),
        ]
        .concat()
    }

    /// Columns without an alias.
    fn plain_lists(&self) -> Vec<Entry> {
        let (n, keys, width) = self.widths();
        vec![
            // Identity.
            ("?i", numbered("", "i", n)),
            // Key.
            ("?k", numbered("", "k", keys)),
            // Key now.
            ("?c", numbered("", "c", keys)),
            // Identity of the holder.
            ("?h", numbered("", "h", n)),
            // Projected values.
            ("?p", numbered("", "p", width)),
            // Values of a row that is not shown.
            ("?v", numbered("", "v", width)),
        ]
    }

    /// Columns of a row: of the map `m`, the stage `s`, touched keys or tries `t`, rejected rows
    /// `r`, a subquery `x`.
    fn lists_of_alias(&self) -> Vec<Entry> {
        let (n, keys, width) = self.widths();
        vec![
            ("?m_i", numbered("m.", "i", n)),
            ("?m_k", numbered("m.", "k", keys)),
            ("?m_v", numbered("m.", "v", width)),
            ("?s_i", numbered("s.", "i", n)),
            ("?s_p", numbered("s.", "p", width)),
            ("?t_k", numbered("t.", "k", keys)),
            ("?t_h", numbered("t.", "h", n)),
            ("?r_k", numbered("r.", "k", keys)),
            ("?x_k", numbered("x.", "k", keys)),
            ("?x_c", numbered("x.", "c", keys)),
            ("?x_h", numbered("x.", "h", n)),
            ("?x_p", numbered("x.", "p", width)),
        ]
    }

    /// The key as part of the values, or under another name.
    fn keys_of_rows(&self) -> Vec<Entry> {
        let (_, keys, _) = self.widths();
        let lookup = self.lookup_key();
        let stage = self.stage_key();
        let named = |columns: &[String]| {
            let columns = columns.iter().zip(1..);
            join(", ", columns.map(|(column, k)| format!("{column} AS k{k}")))
        };
        vec![
            // The key of a staged row.
            ("?s_key", stage.join(", ")),
            // The same as k1..
            ("?s_key_as_k", named(&stage)),
            // The key of a row of the lookup as k1..
            ("?l_key_as_k", named(&lookup)),
            // The key now as k1..
            ("?x_c_as_k", each(keys, |k| format!("x.c{k} AS k{k}"))),
        ]
    }

    /// What stage, touched keys and lookup are set to.
    fn assignments(&self) -> Vec<Entry> {
        let (n, _, _) = self.widths();
        let assigned = self.columns.iter().zip(1..);
        let assigned = assigned.map(|(column, p)| format!("{} = s.p{p}", ident(&column.name)));
        let synced_at = self
            .synced_at()
            .into_iter()
            .map(|name| format!("{name} = now()"));
        vec![
            // The staged row is gone.
            ("?i_null", no_identity(n)),
            // The key has no holder.
            ("?h_null", each(n, |h| format!("h{h} = NULL"))),
            // The first row holds the key.
            ("?h_from_first", each(n, |h| format!("h{h} = x.i{h}"))),
            // The lookup's row becomes the staged one.
            ("?lookup_assign", join(", ", assigned.chain(synced_at))),
            // Values that the stream left out come from where they are known.
            ("?resolve", self.resolve_from_lookup()),
        ]
    }

    /// What an entry of the map is set to.
    fn map_assignments(&self) -> Vec<Entry> {
        let (n, _, width) = self.widths();
        let stage = self.stage_key();
        let keys = stage.iter().zip(1..);
        let whole = [
            each(n, |i| format!("i{i} = s.i{i}")),
            join(", ", keys.map(|(column, k)| format!("k{k} = {column}"))),
            "state = CASE s.state WHEN 'l' THEN 's' ELSE s.state END".to_owned(),
            each(width, |v| {
                format!("v{v} = CASE WHEN s.state <> 'l' THEN s.p{v} END")
            }),
        ];
        let columns = self.columns.iter().zip(1..);
        let from_lookup = columns.map(|(column, v)| format!("v{v} = {}", column.in_lookup()));
        vec![
            // The whole entry, as the staged row is.
            ("?map_assign", whole.join(", ")),
            // It is shown: the lookup has its values.
            ("?v_null", each(width, |v| format!("v{v} = NULL"))),
            // It is not shown any more: it keeps what the lookup shows.
            ("?v_from_lookup", join(", ", from_lookup)),
            // It is not shown: it keeps its values of this batch.
            ("?v_from_stage", each(width, |v| format!("v{v} = s.p{v}"))),
            // The lookup has rejected it: it keeps what was tried.
            ("?v_from_tries", each(width, |v| format!("v{v} = t.p{v}"))),
        ]
    }

    /// What is inserted.
    fn values_of_rows(&self) -> Vec<Entry> {
        let (_, _, width) = self.widths();
        let columns = self.columns.iter().map(|column| ident(&column.name));
        let values = (1..=width).map(|p| format!("s.p{p}"));
        let now = self.synced_at().map(|_| "now()".to_owned());
        let nulls = self.columns.iter().zip(1..);
        let nulls = nulls.map(|(column, p)| format!("NULL::{} AS p{p}", column.definition()));
        vec![
            // Columns of the lookup that are written.
            (
                "?lookup_columns",
                join(", ", columns.chain(self.synced_at())),
            ),
            // What they get of a staged row.
            ("?stage_values", join(", ", values.chain(now))),
            // What the map keeps of a staged row: the values, unless it is shown.
            (
                "?kept_values",
                each(width, |p| {
                    format!("CASE WHEN s.state <> 'l' THEN s.p{p} END")
                }),
            ),
            // The values of a row that is to be deleted.
            ("?null_p", join(", ", nulls)),
        ]
    }

    /// Keys and identities as one text for people, and sizes.
    fn texts(&self) -> Vec<Entry> {
        let (n, keys, _) = self.widths();
        let stage = self.stage_key().join(", ");
        let first = self.first_key();
        vec![
            ("?key_text", text_of(&self.lookup_key().join(", "))),
            ("?stage_key_text", text_of(&stage)),
            // NULL if the lookup's types rejected the key.
            (
                "?stage_key_text_or_null",
                format!(
                    "CASE WHEN s.p{first} IS NOT NULL THEN {} END",
                    text_of(&stage)
                ),
            ),
            ("?tries_key", text_of(&numbered("t.", "k", keys))),
            ("?rejected_key_text", text_or_null("r.", "k", keys)),
            ("?rejected_identity_text", text_or_null("r.", "i", n)),
            ("?stage_identity_text", text_or_null("s.", "i", n)),
            ("?bytes_to_read", BYTES_TO_READ.to_owned()),
        ]
    }

    /// Numbers of the columns of identity, key and values.
    pub(super) fn widths(&self) -> (usize, usize, usize) {
        (
            self.identity_types.len(),
            self.key.len(),
            self.columns.len(),
        )
    }

    /// The key's columns in a row `l` of the lookup.
    pub(super) fn lookup_key(&self) -> Vec<String> {
        let columns = self.key.iter().map(|part| self.columns.get(part.column));
        columns
            .map(|column| column.map_or(String::new(), TargetColumn::in_lookup))
            .collect()
    }

    /// The key's columns in a staged row `s`.
    pub(super) fn stage_key(&self) -> Vec<String> {
        let parts = self.key.iter();
        parts
            .map(|part| format!("s.p{}", part.column + 1))
            .collect()
    }

    /// Number of the key's first column among the values.
    pub(super) fn first_key(&self) -> usize {
        self.key.first().map_or(1, |part| part.column + 1)
    }

    fn synced_at(&self) -> Option<String> {
        self.model
            .settings
            .synced_at
            .as_ref()
            .map(|name| ident(name))
    }

    /// A left-out value is in the lookup row that the map names, or in the map. It still is left
    /// out if there is no such row, and if a type of the lookup rejected the row before.
    fn resolve_from_lookup(&self) -> String {
        let value = |n: usize| {
            let column = n.checked_sub(1).and_then(|at| self.columns.get(at));
            let column = column.map_or(String::new(), TargetColumn::in_lookup);
            format!("CASE WHEN m.state = 's' THEN {column} ELSE m.v{n} END")
        };
        let missing = |n: usize| {
            let key = self.lookup_key().into_iter().next().unwrap_or_default();
            format!(
                "CASE m.state WHEN 's' THEN {key} IS NULL WHEN 'x' THEN m.v{n} IS NULL ELSE false END"
            )
        };
        self.resolve(value, missing)
    }
}

fn text_of(columns: &str) -> String {
    format!("pg_catalog.concat_ws(', ', {columns})")
}

/// Columns as one text; NULL if the first one is.
fn text_or_null(alias: &str, prefix: &str, count: usize) -> String {
    let text = text_of(&numbered(alias, prefix, count));
    format!("CASE WHEN {alias}{prefix}1 IS NOT NULL THEN {text} END")
}
