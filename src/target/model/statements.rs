//! The functions that a session creates for a read model, and their calls, from the templates in
//! `sql/target/write`.

use super::joins::Entry;
use super::joins::{Joins, Lookup, READ_ONCE_BYTES_A_ROW};
use super::{TargetModel, join, no_identity, numbered};

/// Size of the stage, in chunks, above which its rows are looked up instead of being read once for
/// each chunk.
const SMALL_CHUNKS: u32 = 16;

/// Bytes of a shadow from which on the primary key of a new map is created after the rows.
const LEAST_BYTES_TO_INDEX_LATER: u32 = 1 << 20;

/// Most rejected rows of a read model; with more it is suspended.
pub(crate) const MOST_REJECTED: i64 = 1000;

const MERGE: &str = include_str!("../../../sql/target/write/merge.sql");
const ISOLATE: &str = include_str!("../../../sql/target/write/isolate.sql");

/// The errors by which the target rejects a row ([`class_of`](crate::target::error::class_of)), as
/// conditions of plpgsql.
const REJECTIONS: &str = "data_exception OR integrity_constraint_violation OR with_check_option_violation \
                        OR raise_exception OR cardinality_violation OR program_limit_exceeded";

impl TargetModel {
    /// The writer for this session's stage.
    pub(crate) fn merge_function(&self, joins: Joins) -> String {
        self.merge(&format!("merge{}", joins.suffix()), &self.stage(), joins)
    }

    /// The writer for the shadow.
    pub(crate) fn merge_shadow_function(&self) -> String {
        self.merge("merge_shadow", &self.shadow(), Joins::ReadOnce)
    }

    fn merge(&self, name: &str, stage: &str, joins: Joins) -> String {
        let stays =
            "(s.state = 'l' AND NOT {{?moved}} AND m.state = 's' AND {{?key_is_as_it_was}})";
        let own = [
            ("function", self.function(name)),
            ("stage", stage.to_owned()),
            // Rows that stay shown under their keys leave the map as it is.
            ("?may_move", format!("{stays} IS NOT TRUE")),
            // A key is shared out only if several rows claim it.
            ("?open", "false".to_owned()),
            ("?where_asked", String::new()),
            ("?and_asked", String::new()),
        ];
        self.writer(MERGE, joins, &own)
    }

    /// The writer for this session's stage that finds the rows that the target rejects.
    pub(crate) fn isolate_function(&self, joins: Joins) -> String {
        self.isolate(&format!("isolate{}", joins.suffix()), &self.stage(), joins)
    }

    /// The same for the shadow.
    pub(crate) fn isolate_shadow_function(&self) -> String {
        self.isolate("isolate_shadow", &self.shadow(), Joins::ReadOnce)
    }

    fn isolate(&self, name: &str, stage: &str, joins: Joins) -> String {
        let own = [
            ("function", self.function(name)),
            ("stage", stage.to_owned()),
            // Every row is written individually, and every key is shared out from scratch.
            ("?may_move", "true".to_owned()),
            ("?open", "true".to_owned()),
            ("?where_asked", " WHERE t.open".to_owned()),
            ("?and_asked", " AND t.open".to_owned()),
            ("?rejections", REJECTIONS.to_owned()),
            ("most_rejected", MOST_REJECTED.to_string()),
        ];
        self.writer(ISOLATE, joins, &own)
    }

    /// Whether an address identifies one row of the lookup.
    pub(super) fn lookup_is(&self) -> Lookup {
        if self.lookup_has_parts {
            Lookup::Parted
        } else {
            Lookup::One
        }
    }

    fn writer(&self, template: &str, joins: Joins, own: &[Entry]) -> String {
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        self.fill_joined(template, joins, &own.collect::<Vec<_>>())
    }

    /// The session's function of this name.
    fn function(&self, name: &str) -> String {
        format!("pg_temp.{name}_{}", self.id)
    }

    /// The call of [`Self::isolate_function`], or of the one for the shadow.
    pub(crate) fn isolate_call(&self, joins: Joins, shadow: bool) -> String {
        let suffix = if shadow { "_shadow" } else { joins.suffix() };
        format!(
            "SELECT * FROM pg_temp.isolate{suffix}_{}($1, $2, $3, $4, $5, $6)",
            self.id
        )
    }

    /// The one statement of a small batch.
    pub(crate) fn apply_function(&self) -> String {
        let width = self.stage_width();
        self.fill(
            include_str!("../../../sql/target/write/apply.sql"),
            &[
                ("function", &self.function("apply")),
                ("merge", &self.function("merge")),
                ("?stage_columns", &self.stage_columns()),
                (
                    "?parameters",
                    &join(", ", (1..=width).map(|n| format!("_a{n} text[]"))),
                ),
                (
                    "?arrays",
                    &join(", ", (1..=width).map(|n| format!("_a{n}"))),
                ),
                ("?casts", &self.stage_casts()),
            ],
        )
    }

    /// Stages rows that come as one array of text for each column of the stage, within the
    /// transaction of a batch.
    pub(crate) fn stage_statement(&self) -> String {
        let arrays = join(
            ", ",
            (1..=self.stage_width()).map(|n| format!("${n}::text[]")),
        );
        format!(
            "INSERT INTO {stage} ({columns}) SELECT {casts} FROM unnest({arrays}) AS a({columns}) \
             WHERE pg_catalog.current_setting('cdc.in_batch', true) = 'yes'",
            stage = self.stage(),
            columns = self.stage_columns(),
            casts = self.stage_casts(),
        )
    }

    /// The columns of the stage out of a row `a` of texts.
    fn stage_casts(&self) -> String {
        let bare = |name: &str| name.split(" COLLATE ").next().unwrap_or(name).to_owned();
        let mut types: Vec<String> = (0..2)
            .flat_map(|_| self.identity_types.iter().map(|name| bare(name)))
            .collect();
        types.push("\"char\"".to_owned());
        types.extend(
            self.columns
                .iter()
                .map(|column| column.bare_type_name.clone()),
        );
        types.extend(self.toastable().map(|_| "boolean".to_owned()));
        let columns = self.stage_columns();
        let names: Vec<&str> = columns.split(", ").collect();
        debug_assert_eq!(types.len(), names.len(), "{columns}");
        let casts = names.iter().zip(&types);
        join(
            ", ",
            casts.map(|(name, of)| read_as(&format!("a.{name}"), of)),
        )
    }

    /// The call of the one statement, with its parameters numbered from 1.
    pub(crate) fn apply_call(&self) -> String {
        let arrays: String = (0..self.stage_width())
            .map(|n| format!(", ${}", n + 9))
            .collect();
        format!(
            "SELECT * FROM pg_temp.apply_{}($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz, $7, $8{arrays})",
            self.id
        )
    }

    /// Adds a chunk of a large transaction to the session's stage.
    pub(crate) fn fold_chunk_function(&self) -> String {
        let n = self.identity_types.len();
        let flags: Vec<usize> = self.toastable().collect();
        let carried = (1..=self.columns.len()).map(|p| {
            if flags.contains(&p) {
                format!("CASE WHEN s.u{p} AND b.state IS NOT NULL THEN b.p{p} ELSE s.p{p} END")
            } else {
                format!("s.p{p}")
            }
        });
        let still_out = flags
            .iter()
            .map(|u| format!("s.u{u} AND (b.state IS NULL OR b.u{u})"));
        let start = (1..=n).map(|o| {
            format!("CASE WHEN b.state IS NOT NULL THEN b.o{o} WHEN NOT _cleared THEN s.o{o} END")
        });
        self.fill(
            include_str!("../../../sql/target/write/fold_chunk.sql"),
            &[
                ("function", &self.function("fold_chunk")),
                ("small_chunks", &SMALL_CHUNKS.to_string()),
                // The stage holds what the row was before this chunk.
                (
                    "?before_is_start",
                    &join(" AND ", (1..=n).map(|i| format!("b.i{i} = s.o{i}"))),
                ),
                // What it was at the start of the transaction.
                ("?start", &join(", ", start)),
                ("?o", &numbered("", "o", n)),
                (
                    "?p_and_u",
                    &join(
                        ", ",
                        (1..=self.columns.len())
                            .map(|p| format!("p{p}"))
                            .chain(flags.iter().map(|u| format!("u{u}"))),
                    ),
                ),
                // Its values, and which of them still are left out.
                ("?carried", &join(", ", carried.chain(still_out))),
            ],
        )
    }

    pub(super) fn stage_index(&self) -> String {
        format!("pg_temp.stage_{}_i", self.id)
    }

    /// Drops the index of the stage that chunks may have created: batches do not use it.
    pub(crate) fn drop_stage_index(&self) -> String {
        format!("DROP INDEX IF EXISTS {}", self.stage_index())
    }

    /// The call of [`Self::fold_chunk_function`].
    pub(crate) fn fold_chunk_call(&self) -> String {
        format!("SELECT pg_temp.fold_chunk_{}($1, $2, $3)", self.id)
    }

    /// Turns dead rows that a type of the lookup rejected into gone rows: so the merge functions
    /// see them.
    pub(crate) fn forget_rejected_dead(&self) -> String {
        format!(
            "DELETE FROM {stage} WHERE state = 'y' AND o1 IS NULL; UPDATE {stage} SET state = 'g', {none} WHERE state = 'y'",
            stage = self.stage(),
            none = no_identity(self.identity_types.len()),
        )
    }

    /// How many live rows in the stage a type of the lookup rejected, and the SQLSTATE of one of
    /// them.
    pub(crate) fn count_rejected(&self) -> String {
        format!(
            "SELECT count(*), min(e1) FROM {} WHERE state = 'x'",
            self.stage()
        )
    }

    /// The call of the writer over the session's stage.
    pub(crate) fn merge_call(&self, joins: Joins) -> String {
        format!(
            "SELECT * FROM pg_temp.merge{}_{}($1, $2, $3)",
            joins.suffix(),
            self.id
        )
    }

    /// Asks whether map and lookup are so small beside this many rows that they are better read
    /// once.
    pub(crate) fn are_small_beside(&self, rows: usize) -> String {
        let most_bytes = rows.saturating_mul(READ_ONCE_BYTES_A_ROW);
        self.fill(
            &format!("SELECT {{{{?bytes_to_read}}}} < {most_bytes}"),
            &[],
        )
    }

    /// Creates the primary key of the map if it is missing, before the shadow is merged. If the
    /// shadow is large, the key is better created afterwards.
    pub(crate) fn make_map_identity_before(&self) -> String {
        let small = format!(
            "pg_catalog.pg_relation_size({{{{shadow_name}}}}) < {LEAST_BYTES_TO_INDEX_LATER}"
        );
        self.make_identity(&small)
    }

    /// Creates the primary key of the map if it is missing.
    pub fn make_map_identity(&self) -> String {
        self.make_identity("true")
    }

    fn make_identity(&self, now: &str) -> String {
        let template = include_str!("../../../sql/target/write/make_map_identity.sql");
        self.fill(template, &[("?now", now)])
    }

    /// The call of the writer over the shadow.
    pub(crate) fn merge_shadow_call(&self) -> String {
        format!("SELECT * FROM pg_temp.merge_shadow_{}($1, $2, $3)", self.id)
    }

    /// Brings the shadow forward from the session's stage.
    pub(crate) fn catch_up_function(&self) -> String {
        let resolve = self.resolve(
            |n| format!("m.p{n}"),
            |n| format!("m.state = 'x' AND m.p{n} IS NULL"),
        );
        self.fill(
            include_str!("../../../sql/target/write/catch_up.sql"),
            &[
                ("function", &self.function("catch_up")),
                ("?resolve", &resolve),
            ],
        )
    }

    /// The call of [`Self::catch_up_function`].
    pub(crate) fn catch_up_call(&self) -> String {
        format!("SELECT pg_temp.catch_up_{}($1, $2)", self.id)
    }

    /// The comparison of a dry run; keys of at most `limit` rows of each kind.
    pub(crate) fn compare(&self, limit: u32) -> String {
        self.fill(
            include_str!("../../../sql/target/write/compare.sql"),
            &[
                ("limit", &limit.to_string()),
                ("?no_lookup", "l.tableoid IS NULL"),
            ],
        )
    }

    /// The comparison of a resync: how many rows of lookup and map are not as the shadow has them,
    /// how many are shown, and how many wait.
    pub(crate) fn unequal(&self) -> String {
        self.fill(
            include_str!("../../../sql/target/write/unequal.sql"),
            &[("?no_lookup", "l.tableoid IS NULL")],
        )
    }

    /// What each left-out value becomes, and whether it still is left out. Without such columns
    /// nothing changes.
    pub(super) fn resolve(
        &self,
        value: impl Fn(usize) -> String,
        missing: impl Fn(usize) -> String,
    ) -> String {
        let assignments = self.toastable().map(|n| {
            let (value, missing) = (value(n), missing(n));
            format!("p{n} = CASE WHEN s.u{n} THEN {value} ELSE s.p{n} END, u{n} = s.u{n} AND ({missing})")
        });
        match join(", ", assignments) {
            none if none.is_empty() => "state = s.state".to_owned(),
            assignments => assignments,
        }
    }
}

/// A text read by a type's input function, as `COPY` does. A cast does the same, except for types
/// that have a function for it, which may read the text in another way: `'-'::text::regclass` is an
/// error, and what types of extensions do is not known. Elements of an array are always read by the
/// input function.
fn read_as(text: &str, of: &str) -> String {
    let may_have_a_function =
        matches!(of, "regclass" | "\"char\"" | "name" | "xml") || of.contains('.');
    if !may_have_a_function || of.ends_with("[]") {
        return format!("{text}::{of}");
    }
    let quoted = format!("replace(replace({text}, E'\\\\', E'\\\\\\\\'), '\"', E'\\\\\"')");
    format!("(('{{\"' || {quoted} || '\"}}')::{of}[])[1]")
}
