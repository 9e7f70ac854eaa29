//! What the placeholders of the templates in `sql/target` stand for: comparisons, column lists and conditions of one read model.

use super::{KeyPart, TargetColumn, TargetModel, join, no_identity, numbered};
use crate::sql::{fill, ident, literal};

/// Pages of map and lookup, in bytes; those of a partitioned lookup are its partitions'.
const BYTES_TO_READ: &str = "(pg_catalog.pg_relation_size({{map_name}}) + coalesce(\
     (SELECT sum(pg_catalog.pg_relation_size(t.relid)) FROM pg_catalog.pg_partition_tree({{lookup_name}}) t), \
     pg_catalog.pg_relation_size({{lookup_name}})))";

impl TargetModel {
    /// Fills the placeholders that several templates share, after those given.
    pub(super) fn fill(&self, template: &str, own: &[(&str, &str)]) -> String {
        let n = self.identity_types.len();
        let width = self.columns.len();
        let keys = self.key.len();
        let same =
            |left: &str, right: &str| join(" AND ", (1..=n).map(|i| format!("{left}{i} = {right}{i}")));
        let moved = |alias: &str| {
            let differs = (1..=n).map(|i| format!("{alias}o{i} IS DISTINCT FROM {alias}i{i}"));
            format!("({})", join(" OR ", differs))
        };
        // Key comparisons, by the operator of the lookup's key index.
        let key_is = |left: &dyn Fn(usize, &KeyPart) -> String, right: &dyn Fn(usize, &KeyPart) -> String| {
            join(
                " AND ",
                self.key
                    .iter()
                    .zip(1..)
                    .map(|(part, n)| same_key(part, &left(n, part), &right(n, part))),
            )
        };
        let in_lookup = |_: usize, part: &KeyPart| {
            self.columns
                .get(part.column)
                .map_or(String::new(), TargetColumn::in_lookup)
        };
        let in_stage = |_: usize, part: &KeyPart| format!("s.p{}", part.column + 1);
        let in_map = |n: usize, _: &KeyPart| format!("m.k{n}");
        let in_touched = |n: usize, _: &KeyPart| format!("t.k{n}");
        let in_rejected = |n: usize, _: &KeyPart| format!("r.k{n}");
        let lookup_key = |alias: bool| {
            join(
                ", ",
                self.key.iter().zip(1..).map(|(part, n)| {
                    let column = in_lookup(n, part);
                    if alias {
                        format!("{column} AS k{n}")
                    } else {
                        column
                    }
                }),
            )
        };
        let stage_key = |alias: bool| {
            join(
                ", ",
                self.key.iter().zip(1..).map(|(part, n)| {
                    let column = in_stage(n, part);
                    if alias {
                        format!("{column} AS k{n}")
                    } else {
                        column
                    }
                }),
            )
        };
        let first_key = self.key.first().map_or(1, |part| part.column + 1);
        let lookup_values = join(", ", self.columns.iter().map(TargetColumn::in_lookup));
        let differs = |left: &str, right: &str| {
            format!("ROW({left})::record OPERATOR(pg_catalog.*<>) ROW({right})::record")
        };
        // An entry of a refused row says the same of it, to the letter.
        let refused_as = |of: &str, key: &str| {
            format!(
                "(ROW({})::record OPERATOR(pg_catalog.*=) ROW({key})::record \
                 AND (r.e1, r.e2, r.e3) IS NOT DISTINCT FROM ({of}.e1, {of}.e2, {of}.e3))",
                numbered("r.", "k", keys)
            )
        };
        // The stage is in the lookup's order. To look up one page of the map after the other pays for the sort, unless texts are to be
        // compared by the rules of a language.
        let in_map_order = match self.model.identity.first() {
            Some(first) if !first.collatable => " ORDER BY coalesce(s.i1, s.o1)",
            _ => "",
        };
        let synced_at = self.model.settings.synced_at.as_ref().map(|name| ident(name));
        let assign = join(
            ", ",
            self.columns
                .iter()
                .zip(1..)
                .map(|(column, n)| format!("{} = s.p{n}", ident(&column.name)))
                .chain(synced_at.iter().map(|name| format!("{name} = now()"))),
        );
        let lookup_columns = join(
            ", ",
            self.columns
                .iter()
                .map(|column| ident(&column.name))
                .chain(synced_at.clone()),
        );
        let stage_values = join(
            ", ",
            (1..=width)
                .map(|n| format!("s.p{n}"))
                .chain(synced_at.iter().map(|_| "now()".to_owned())),
        );
        let left_out = match join(" OR ", self.toastable().map(|n| format!("s.u{n}"))) {
            none if none.is_empty() => "false".to_owned(),
            some => some,
        };
        let resolve = self.resolve(
            |n| {
                let column = self
                    .columns
                    .get(n - 1)
                    .map_or(String::new(), TargetColumn::in_lookup);
                format!("CASE WHEN m.state = 's' THEN {column} ELSE m.v{n} END")
            },
            |n| {
                let key = self.key.first().map_or(String::new(), |part| in_lookup(1, part));
                format!(
                    "CASE m.state WHEN 's' THEN {key} IS NULL WHEN 'x' THEN m.v{n} IS NULL ELSE false END"
                )
            },
        );
        let map_assign = [
            join(", ", (1..=n).map(|i| format!("i{i} = s.i{i}"))),
            join(
                ", ",
                self.key
                    .iter()
                    .zip(1..)
                    .map(|(part, k)| format!("k{k} = {}", in_stage(k, part))),
            ),
            "state = CASE s.state WHEN 'l' THEN 's' ELSE s.state END".to_owned(),
            join(
                ", ",
                (1..=width).map(|v| format!("v{v} = CASE WHEN s.state <> 'l' THEN s.p{v} END")),
            ),
        ]
        .join(", ");
        let map_names = format!("{}, {}", numbered("m.", "i", n), numbered("m.", "k", keys));
        let stage_names = format!("{}, {}", numbered("s.", "i", n), stage_key(false));
        let map_differs = format!(
            "(m.state <> CASE s.state WHEN 'l' THEN 's' ELSE s.state END OR {} OR (s.state <> 'l' AND {}))",
            differs(&map_names, &stage_names),
            differs(&numbered("m.", "v", width), &numbered("s.", "p", width)),
        );
        let v_from_lookup = join(
            ", ",
            self.columns
                .iter()
                .zip(1..)
                .map(|(column, v)| format!("v{v} = {}", column.in_lookup())),
        );
        let shared: &[(&str, String)] = &[
            ("bytes_to_read", BYTES_TO_READ.to_owned()),
            ("schema", self.schema.clone()),
            ("id", self.id.to_string()),
            ("map", self.map()),
            ("map_table", self.map_table()),
            ("lookup", self.lookup()),
            ("moving", self.moving()),
            ("touched", self.touched()),
            ("shadow", self.shadow()),
            ("tries", self.tries()),
            ("rejected", self.rejected()),
            ("earlier", self.earlier()),
            ("lookup_name", literal(&self.lookup())),
            ("map_name", literal(&self.map())),
            ("map_key_name", literal(&format!("{}_key", self.map()))),
            ("shadow_name", literal(&self.shadow())),
            ("resolve", resolve),
            ("left_out", left_out),
            ("i", numbered("", "i", n)),
            ("k", numbered("", "k", keys)),
            ("c", numbered("", "c", keys)),
            ("p", numbered("", "p", width)),
            ("v", numbered("", "v", width)),
            ("w", numbered("", "w", n)),
            ("m_i", numbered("m.", "i", n)),
            ("m_k", numbered("m.", "k", keys)),
            ("m_v", numbered("m.", "v", width)),
            ("t_k", numbered("t.", "k", keys)),
            ("t_w", numbered("t.", "w", n)),
            ("r_k", numbered("r.", "k", keys)),
            ("x_w", numbered("x.", "w", n)),
            ("w_null", join(", ", (1..=n).map(|w| format!("w{w} = NULL")))),
            (
                "w_from_first",
                join(", ", (1..=n).map(|w| format!("w{w} = x.i{w}"))),
            ),
            ("x_p", numbered("x.", "p", width)),
            (
                "tries_key",
                format!("pg_catalog.concat_ws(', ', {})", numbered("t.", "k", keys)),
            ),
            ("rejected_key_text", text_of("r.", "k", keys)),
            ("rejected_identity_text", text_of("r.", "i", n)),
            ("stage_identity_text", text_of("s.", "i", n)),
            ("i_null", no_identity(n)),
            (
                "null_p",
                join(
                    ", ",
                    self.columns
                        .iter()
                        .zip(1..)
                        .map(|(column, p)| format!("NULL::{} AS p{p}", column.definition())),
                ),
            ),
            ("x_k", numbered("x.", "k", keys)),
            ("x_c", numbered("x.", "c", keys)),
            (
                "x_c_as_k",
                join(", ", (1..=keys).map(|k| format!("x.c{k} AS k{k}"))),
            ),
            ("s_i", numbered("s.", "i", n)),
            ("s_p", numbered("s.", "p", width)),
            ("s_key", stage_key(false)),
            ("s_key_as_k", stage_key(true)),
            ("l_key_as_k", lookup_key(true)),
            ("moved", moved("s.")),
            ("start_is_map", same("s.o", "m.i")),
            ("start_is_shadow", same("s.o", "m.i")),
            ("identity_is_map", same("s.i", "m.i")),
            (
                "known_is_map",
                join(
                    " AND ",
                    (1..=n).map(|i| format!("coalesce(s.i{i}, s.o{i}) = m.i{i}")),
                ),
            ),
            ("in_map_order", in_map_order.to_owned()),
            ("map_is_winner", same("m.i", "t.w")),
            ("stage_is_winner", same("s.i", "t.w")),
            (
                "no_key",
                join(
                    " OR ",
                    self.key
                        .iter()
                        .map(|part| format!("s.p{} IS NULL", part.column + 1)),
                ),
            ),
            (
                "no_lookup_key",
                join(
                    " OR ",
                    self.key
                        .iter()
                        .map(|part| format!("{} IS NULL", in_lookup(0, part))),
                ),
            ),
            (
                "no_lookup",
                format!(
                    "{} IS NULL",
                    self.key.first().map_or(String::new(), |part| in_lookup(1, part))
                ),
            ),
            ("lookup_is_map", key_is(&in_lookup, &in_map)),
            ("lookup_is_touched", key_is(&in_lookup, &in_touched)),
            ("lookup_is_stage", key_is(&in_lookup, &in_stage)),
            ("touched_is_map", key_is(&in_touched, &in_map)),
            ("lookup_is_claimed", key_is(&in_lookup, &|n, _| format!("x.c{n}"))),
            ("rejected_is_touched", key_is(&in_rejected, &in_touched)),
            ("lookup_is_rejected", key_is(&in_lookup, &in_rejected)),
            ("stage_is_rejected_key", key_is(&in_stage, &in_rejected)),
            ("rejected_key_is_map", key_is(&in_rejected, &in_map)),
            ("stage_is_rejected", same("s.i", "r.i")),
            ("rejected_is_map", same("r.i", "m.i")),
            ("rejected_is_winner", same("r.i", "t.w")),
            ("tried_is_winner", same("x.w", "t.w")),
            ("rejected_as_stage", refused_as("s", &stage_key(false))),
            ("rejected_as_tried", refused_as("t", &numbered("t.", "k", keys))),
            ("stage_is_touched", key_is(&in_stage, &in_touched)),
            ("map_assign", map_assign),
            ("map_differs", map_differs),
            (
                "kept_values",
                join(
                    ", ",
                    (1..=width).map(|v| format!("CASE WHEN s.state <> 'l' THEN s.p{v} END")),
                ),
            ),
            ("v_from_lookup", v_from_lookup),
            (
                "v_from_stage",
                join(", ", (1..=width).map(|v| format!("v{v} = s.p{v}"))),
            ),
            (
                "v_from_tries",
                join(", ", (1..=width).map(|v| format!("v{v} = t.p{v}"))),
            ),
            ("v_null", join(", ", (1..=width).map(|v| format!("v{v} = NULL")))),
            ("lookup_assign", assign),
            ("lookup_columns", lookup_columns),
            ("stage_values", stage_values),
            (
                "lookup_differs",
                differs(&lookup_values, &numbered("s.", "p", width)),
            ),
            ("key_is_as_it_was", {
                let (was, now) = (numbered("m.", "k", keys), stage_key(false));
                format!("ROW({was})::record OPERATOR(pg_catalog.*=) ROW({now})::record")
            }),
            (
                "stage_key_text",
                format!("pg_catalog.concat_ws(', ', {})", stage_key(false)),
            ),
            (
                "key_text",
                format!("pg_catalog.concat_ws(', ', {})", lookup_key(false)),
            ),
            // The key of a row whose key the lookup's types may have refused.
            (
                "refused_key_text",
                format!(
                    "CASE WHEN s.p{first_key} IS NOT NULL THEN pg_catalog.concat_ws(', ', {}) END",
                    stage_key(false)
                ),
            ),
            ("no_wanted", format!("s.p{first_key} IS NULL")),
        ];
        let shared: Vec<(&str, &str)> = shared
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fill(&fill(template, own), &shared)
    }
}

/// Whether two values of a key column are one to the lookup. Records are compared by their types' own equality, whatever those are.
fn same_key(part: &KeyPart, left: &str, right: &str) -> String {
    match &part.equality {
        Some(equality) => format!("{left} {equality} {right}"),
        None => format!("ROW({left})::record OPERATOR(pg_catalog.=) ROW({right})::record"),
    }
}

/// Columns as one text; NULL if the first one is.
fn text_of(alias: &str, prefix: &str, count: usize) -> String {
    format!(
        "CASE WHEN {alias}{prefix}1 IS NOT NULL THEN pg_catalog.concat_ws(', ', {}) END",
        numbered(alias, prefix, count)
    )
}
