//! The replacements of `{{?condition}}`: how two rows are compared, and what is asked of one.
//!
//! Identities are compared by their types' equality, keys by the operator of the lookup's own key
//! index, values byte by byte (`*=` and `*<>` of records). Conditions that depend on how rows are
//! found are in `joins.rs`.

use super::{Entry, all};
use crate::target::model::{KeyPart, TargetModel, join, numbered};

impl TargetModel {
    /// The conditions of this read model that every template may use.
    pub(super) fn conditions(&self) -> Vec<Entry> {
        [
            self.same_identity(),
            self.same_key(),
            self.same_key_as_rejected(),
            self.differences(),
            self.questions(),
        ]
        .concat()
    }

    /// Two rows have one identity.
    fn same_identity(&self) -> Vec<Entry> {
        let (n, _, _) = self.widths();
        let same = |left: &str, right: &str| all(n, |i| format!("{left}{i} = {right}{i}"));
        vec![
            // The entry of what the staged row was at the start of the batch.
            ("?start_is_map", same("s.o", "m.i")),
            // The entry of what it is now.
            ("?identity_is_map", same("s.i", "m.i")),
            // The entry of what it is now, or of what it was if it is gone.
            (
                "?known_is_map",
                all(n, |i| format!("coalesce(s.i{i}, s.o{i}) = m.i{i}")),
            ),
            // The holder of a key.
            ("?map_is_holder", same("m.i", "t.h")),
            ("?stage_is_holder", same("s.i", "t.h")),
            ("?rejected_is_holder", same("r.i", "t.h")),
            // Its write was tried.
            ("?tried_is_holder", same("x.h", "t.h")),
            // The row of an entry of rejected rows.
            ("?stage_is_rejected", same("s.i", "r.i")),
            ("?rejected_is_map", same("r.i", "m.i")),
        ]
    }

    /// Two rows have one key.
    fn same_key(&self) -> Vec<Entry> {
        let (lookup, stage) = (self.lookup_key(), self.stage_key());
        let (map, touched, claimed) = (self.key_of("m.k"), self.key_of("t.k"), self.key_of("x.c"));
        vec![
            ("?lookup_is_map", self.key_is(&lookup, &map)),
            ("?lookup_is_touched", self.key_is(&lookup, &touched)),
            ("?lookup_is_stage", self.key_is(&lookup, &stage)),
            // A row that moves claims the key of the lookup's row.
            ("?lookup_is_claimed", self.key_is(&lookup, &claimed)),
            ("?touched_is_map", self.key_is(&touched, &map)),
            ("?stage_is_touched", self.key_is(&stage, &touched)),
        ]
    }

    /// The key of a rejected row.
    fn same_key_as_rejected(&self) -> Vec<Entry> {
        let (lookup, stage, rejected) = (self.lookup_key(), self.stage_key(), self.key_of("r.k"));
        let (map, touched) = (self.key_of("m.k"), self.key_of("t.k"));
        vec![
            ("?rejected_is_touched", self.key_is(&rejected, &touched)),
            ("?lookup_is_rejected", self.key_is(&lookup, &rejected)),
            ("?stage_is_rejected_key", self.key_is(&stage, &rejected)),
            ("?rejected_key_is_map", self.key_is(&rejected, &map)),
        ]
    }

    /// Whether a row is another one than before.
    fn differences(&self) -> Vec<Entry> {
        let (n, keys, width) = self.widths();
        let lookup = join(", ", self.columns.iter().map(|column| column.in_lookup()));
        let stage_key = self.stage_key().join(", ");
        let map = format!("{}, {}", numbered("m.", "i", n), numbered("m.", "k", keys));
        let stage = format!("{}, {stage_key}", numbered("s.", "i", n));
        let kept = differs(&numbered("m.", "v", width), &numbered("s.", "p", width));
        vec![
            // The lookup shows something else than the staged row.
            (
                "?lookup_differs",
                differs(&lookup, &numbered("s.", "p", width)),
            ),
            // The entry of the map says something else.
            (
                "?map_differs",
                format!(
                    "(m.state <> CASE s.state WHEN 'l' THEN 's' ELSE s.state END OR {} OR (s.state <> 'l' AND {kept}))",
                    differs(&map, &stage)
                ),
            ),
            // The entry says something else than the row whose state is the map's.
            (
                "?entry_differs",
                format!(
                    "(m.state <> s.state OR {} OR (s.state <> 's' AND {kept}))",
                    differs(&map, &stage)
                ),
            ),
            // Byte by byte, even if the index calls two keys equal.
            (
                "?key_is_as_it_was",
                equals(&numbered("m.", "k", keys), &stage_key),
            ),
            // The row is rejected again for the same reason under the same key.
            ("?rejected_as_stage", self.rejected_as("s", &stage_key)),
            (
                "?rejected_as_tried",
                self.rejected_as("t", &numbered("t.", "k", keys)),
            ),
        ]
    }

    /// What is asked of one row.
    fn questions(&self) -> Vec<Entry> {
        let (n, _, _) = self.widths();
        let lookup = self.lookup_key();
        let moved = (1..=n).map(|i| format!("s.o{i} IS DISTINCT FROM s.i{i}"));
        let left_out = match join(" OR ", self.toastable().map(|u| format!("s.u{u}"))) {
            none if none.is_empty() => "false".to_owned(),
            some => some,
        };
        vec![
            // It has another identity than at the start of the batch.
            ("?moved", format!("({})", join(" OR ", moved))),
            // The stream left out one of its values.
            ("?left_out", left_out),
            // A part of the staged row's key is NULL.
            ("?no_key", any_is_null(&self.stage_key())),
            // A part of the lookup's key is NULL.
            ("?no_lookup_key", any_is_null(&lookup)),
            // An outer join has found no row of the lookup.
            (
                "?no_lookup",
                format!("{} IS NULL", lookup.first().map_or("", String::as_str)),
            ),
            // An outer join has found no row that is wanted.
            ("?no_wanted", format!("s.p{} IS NULL", self.first_key())),
            ("?in_map_order", self.in_map_order().to_owned()),
        ]
    }

    /// The stage is in the lookup's order. Looking up one page of the map after the other pays for
    /// the sort, unless texts are compared by the rules of a language.
    fn in_map_order(&self) -> &'static str {
        match self.model.identity.first() {
            Some(first) if !first.collatable => " ORDER BY coalesce(s.i1, s.o1)",
            _ => "",
        }
    }

    /// The key's columns under this prefix.
    fn key_of(&self, prefix: &str) -> Vec<String> {
        (1..=self.key.len())
            .map(|k| format!("{prefix}{k}"))
            .collect()
    }

    /// Two keys are one to the lookup.
    fn key_is(&self, left: &[String], right: &[String]) -> String {
        let sides = left.iter().zip(right);
        let parts = self.key.iter().zip(sides);
        join(
            " AND ",
            parts.map(|(part, (left, right))| same_value(part, left, right)),
        )
    }

    /// The entry of a rejected row equals the row, byte by byte.
    fn rejected_as(&self, of: &str, key: &str) -> String {
        let same_key = equals(&numbered("r.", "k", self.key.len()), key);
        format!(
            "({same_key} AND (r.e1, r.e2, r.e3) IS NOT DISTINCT FROM ({of}.e1, {of}.e2, {of}.e3))"
        )
    }
}

/// Whether the lookup treats two values of a key column as one. Records are compared by their
/// types' own equality, whatever those are.
fn same_value(part: &KeyPart, left: &str, right: &str) -> String {
    match &part.equality {
        Some(equality) => format!("{left} {equality} {right}"),
        None => format!("ROW({left})::record OPERATOR(pg_catalog.=) ROW({right})::record"),
    }
}

fn equals(left: &str, right: &str) -> String {
    format!("ROW({left})::record OPERATOR(pg_catalog.*=) ROW({right})::record")
}

fn differs(left: &str, right: &str) -> String {
    format!("ROW({left})::record OPERATOR(pg_catalog.*<>) ROW({right})::record")
}

fn any_is_null(columns: &[String]) -> String {
    join(
        " OR ",
        columns.iter().map(|column| format!("{column} IS NULL")),
    )
}
