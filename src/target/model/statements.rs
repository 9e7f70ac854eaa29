//! The functions that a session makes for a read model, and their calls, from the templates in `sql/target`.

use super::joins::{Joins, LOOK_UP, Lookup, READ_ONCE_BYTES_A_ROW, TO_HASH};
use super::{TargetModel, join, no_identity, numbered};
use crate::sql::fill;

/// Chunks that the stage may be as large as before its rows are looked up instead of being read once for each chunk.
const SMALL_CHUNKS: u32 = 16;

/// Bytes of a shadow from which on the primary key of a new map is made after the rows.
const LEAST_BYTES_TO_INDEX_LATER: u32 = 1 << 20;

/// Most rows of a read model that are set apart; with more it is suspended.
pub const MOST_REJECTED: i64 = 1000;

const MERGE: &str = include_str!("../../../sql/target/merge.sql");

const SETTLE_MOVING: &str = include_str!("../../../sql/target/settle_moving.sql");
const TAKE_IN: &str = include_str!("../../../sql/target/take_in.sql");
const SHARE_OUT_KEYS: &str = include_str!("../../../sql/target/share_out_keys.sql");
const COUNT_ROWS: &str = include_str!("../../../sql/target/count_rows.sql");
const DELETE_UNCLAIMED: &str = include_str!("../../../sql/target/delete_unclaimed.sql");
const UPDATE_SHOWN: &str = include_str!("../../../sql/target/update_shown.sql");
const INSERT_MISSING: &str = include_str!("../../../sql/target/insert_missing.sql");

const ISOLATE: &str = include_str!("../../../sql/target/isolate.sql");

/// Looked for first: to make it locks the map against autovacuum, also where it is there. Nobody asks for the keys of dead rows, which
/// may be too large for an index.
const MAKE_KEY_INDEX: &str = "IF pg_catalog.to_regclass({{map_key_name}}) IS NULL THEN \
                              CREATE INDEX {{map_table}}_key ON {{map}} ({{k}}) WHERE state <> 'd'; END IF;";

/// The refusals of [`class_of`](crate::target::error::class_of) as conditions of plpgsql.
const REFUSALS: &str = "data_exception OR integrity_constraint_violation OR with_check_option_violation \
                        OR raise_exception OR cardinality_violation OR program_limit_exceeded";

impl TargetModel {
    /// The writer for this session's stage.
    pub fn merge_function(&self, joins: Joins) -> String {
        self.merge(&format!("merge{}", joins.suffix()), &self.stage(), joins)
    }

    /// The writer for the shadow.
    pub fn merge_shadow_function(&self) -> String {
        self.merge("merge_shadow", &self.shadow(), Joins::ReadOnce)
    }

    fn merge(&self, name: &str, stage: &str, joins: Joins) -> String {
        let stays = "(s.state = 'l' AND NOT {{moved}} AND m.state = 's' AND {{key_is_as_it_was}})";
        let may_move = format!("{stays} IS NOT TRUE");
        let counted =
            |kind: &str, statement: &str| fill(COUNT_ROWS, &[("kind", kind), ("statement", statement)]);
        let insert = |of_these: &str| counted("inserted", &fill(INSERT_MISSING, &[("of_these", of_these)]));
        let insert_moving = insert(" JOIN {{moving}} x ON x.stage_row = s.ctid AND x.state = 'l'");
        let settle = [
            ("take_in", TAKE_IN),
            ("share_out_keys", SHARE_OUT_KEYS),
            ("delete_unclaimed", &counted("deleted", DELETE_UNCLAIMED)),
        ];
        let settle = fill(SETTLE_MOVING, &settle);
        let template = fill(
            MERGE,
            &[
                (
                    "settle_moving",
                    &joins.by_number_of_moving(&settle, self.lookup_is()),
                ),
                (
                    "insert_moving",
                    &joins.by_number_of_moving(&insert_moving, self.lookup_is()),
                ),
                ("insert_missing", &insert("")),
                ("update_shown", &counted("updated", UPDATE_SHOWN)),
            ],
        );
        self.writer(
            &template,
            joins,
            name,
            stage,
            &[
                ("may_move", &may_move),
                ("open", "false"),
                ("where_asked", ""),
                ("and_asked", ""),
            ],
        )
    }

    /// The writer for this session's stage that sets refused rows apart.
    pub fn isolate_function(&self, joins: Joins) -> String {
        self.isolate(&format!("isolate{}", joins.suffix()), &self.stage(), joins)
    }

    /// The writer for the shadow that sets refused rows apart.
    pub fn isolate_shadow_function(&self) -> String {
        self.isolate("isolate_shadow", &self.shadow(), Joins::ReadOnce)
    }

    /// Every key is settled from scratch there, not only those that several rows claim.
    fn isolate(&self, name: &str, stage: &str, joins: Joins) -> String {
        let keys_of_rejected = include_str!("../../../sql/target/keys_of_rejected.sql");
        let own = [
            ("may_move", "true"),
            ("open", "true"),
            ("where_asked", " WHERE t.open"),
            ("and_asked", " AND t.open"),
            ("refusals", REFUSALS),
            ("most_rejected", &MOST_REJECTED.to_string()),
        ];
        let parts = [
            (
                "find_holders",
                include_str!("../../../sql/target/find_holders.sql"),
            ),
            ("keys_of_rejected", keys_of_rejected),
        ];
        self.writer(&fill(ISOLATE, &parts), joins, name, stage, &own)
    }

    /// Whether an address tells one row of the lookup.
    fn lookup_is(&self) -> Lookup {
        if self.lookup_has_parts {
            Lookup::Parted
        } else {
            Lookup::One
        }
    }

    fn writer(&self, template: &str, joins: Joins, name: &str, stage: &str, own: &[(&str, &str)]) -> String {
        let function = format!("pg_temp.{name}_{}", self.id);
        let parts = [
            (
                "left_out_values",
                include_str!("../../../sql/target/left_out_values.sql"),
            ),
            (
                "refuse_left_out",
                &refuse_left_out("neither the lookup nor the map holds"),
            ),
            ("find_moving", include_str!("../../../sql/target/find_moving.sql")),
            ("take_in", TAKE_IN),
            ("share_out_keys", SHARE_OUT_KEYS),
        ];
        let names = [
            ("key_index", MAKE_KEY_INDEX),
            (
                "key_index_is_usable",
                include_str!("../../../sql/target/key_index_is_usable.sql"),
            ),
            ("function", &function),
            ("stage", stage),
        ];
        let text = joins.fill(&fill(template, &parts), self.lookup_is());
        self.fill(&fill(&text, own), &names)
    }

    /// The call of [`Self::isolate_function`], or of the one for the shadow.
    pub fn isolate_call(&self, joins: Joins, shadow: bool) -> String {
        let suffix = if shadow { "_shadow" } else { joins.suffix() };
        format!(
            "SELECT * FROM pg_temp.isolate{suffix}_{}($1, $2, $3, $4, $5, $6)",
            self.id
        )
    }

    /// The one statement of a small batch.
    pub fn apply_function(&self) -> String {
        let width = self.stage_width();
        self.fill(
            include_str!("../../../sql/target/apply.sql"),
            &[
                ("function", &format!("pg_temp.apply_{}", self.id)),
                ("merge", &format!("pg_temp.merge_{}", self.id)),
                ("stage", &self.stage()),
                ("stage_columns", &self.stage_columns()),
                (
                    "parameters",
                    &join(", ", (1..=width).map(|n| format!("_a{n} text[]"))),
                ),
                ("arrays", &join(", ", (1..=width).map(|n| format!("_a{n}")))),
                ("casts", &self.stage_casts()),
            ],
        )
    }

    /// Stages rows that come as one array of text for each column of the stage.
    pub fn stage_statement(&self) -> String {
        let arrays = join(", ", (1..=self.stage_width()).map(|n| format!("${n}::text[]")));
        format!(
            "INSERT INTO {stage} ({columns}) SELECT {casts} FROM unnest({arrays}) AS a({columns})",
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
        types.extend(self.columns.iter().map(|column| column.bare_type_name.clone()));
        types.extend(self.toastable().map(|_| "boolean".to_owned()));
        let columns = self.stage_columns();
        let names: Vec<&str> = columns.split(", ").collect();
        debug_assert_eq!(types.len(), names.len(), "{columns}");
        let casts = names.iter().zip(&types);
        join(", ", casts.map(|(name, of)| read_as(&format!("a.{name}"), of)))
    }

    /// The call of the one statement, with its parameters numbered from 1.
    pub fn apply_call(&self) -> String {
        let arrays: String = (0..self.stage_width()).map(|n| format!(", ${}", n + 9)).collect();
        format!(
            "SELECT * FROM pg_temp.apply_{}($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz, $7, $8{arrays})",
            self.id
        )
    }

    /// Adds a chunk of a large transaction to the session's stage.
    pub fn fold_chunk_function(&self) -> String {
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
        let start = (1..=n)
            .map(|o| format!("CASE WHEN b.state IS NOT NULL THEN b.o{o} WHEN NOT _cleared THEN s.o{o} END"));
        self.fill(
            include_str!("../../../sql/target/fold_chunk.sql"),
            &[
                ("function", &format!("pg_temp.fold_chunk_{}", self.id)),
                ("settings", LOOK_UP),
                ("hash", TO_HASH),
                ("small_chunks", &SMALL_CHUNKS.to_string()),
                ("make_stage_index", &self.make_stage_index()),
                ("stage_index", &self.stage_index()),
                ("stage", &self.stage()),
                ("chunk", &self.chunk()),
                (
                    "before_is_start",
                    &join(" AND ", (1..=n).map(|i| format!("b.i{i} = s.o{i}"))),
                ),
                ("start", &join(", ", start)),
                ("o", &numbered("", "o", n)),
                (
                    "p_and_u",
                    &join(
                        ", ",
                        (1..=self.columns.len())
                            .map(|p| format!("p{p}"))
                            .chain(flags.iter().map(|u| format!("u{u}"))),
                    ),
                ),
                ("carried", &join(", ", carried.chain(still_out))),
            ],
        )
    }

    fn make_stage_index(&self) -> String {
        let i = numbered("", "i", self.identity_types.len());
        format!("CREATE INDEX stage_{}_i ON {} ({i});", self.id, self.stage())
    }

    fn stage_index(&self) -> String {
        format!("pg_temp.stage_{}_i", self.id)
    }

    /// Takes the index of the stage away that chunks may have made: batches do not look there.
    pub fn drop_stage_index(&self) -> String {
        format!("DROP INDEX IF EXISTS {}", self.stage_index())
    }

    /// The call of [`Self::fold_chunk_function`].
    pub fn fold_chunk_call(&self) -> String {
        format!("SELECT pg_temp.fold_chunk_{}($1, $2, $3)", self.id)
    }

    /// What the writers see of dead rows that a type of the lookup refused: each is gone.
    pub fn forget_refused_dead(&self) -> String {
        format!(
            "DELETE FROM {stage} WHERE state = 'y' AND o1 IS NULL; UPDATE {stage} SET state = 'g', {none} WHERE state = 'y'",
            stage = self.stage(),
            none = no_identity(self.identity_types.len()),
        )
    }

    /// How many live rows in the stage a type of the lookup refused, and the SQLSTATE of one of them.
    pub fn count_refused(&self) -> String {
        format!("SELECT count(*), min(e1) FROM {} WHERE state = 'x'", self.stage())
    }

    /// The call of the writer over the session's stage.
    pub fn merge_call(&self, joins: Joins) -> String {
        format!(
            "SELECT * FROM pg_temp.merge{}_{}($1, $2, $3)",
            joins.suffix(),
            self.id
        )
    }

    /// Asks whether map and lookup are so small beside this many rows that they are better read once.
    pub fn are_small_beside(&self, rows: usize) -> String {
        let most_bytes = rows.saturating_mul(READ_ONCE_BYTES_A_ROW);
        self.fill(&format!("SELECT {{{{bytes_to_read}}}} < {most_bytes}"), &[])
    }

    /// Makes the primary key of the map if it is not there, before the shadow is merged: where that is large, it is better made after.
    pub fn make_map_identity_before(&self) -> String {
        let small =
            format!("pg_catalog.pg_relation_size({{{{shadow_name}}}}) < {LEAST_BYTES_TO_INDEX_LATER}");
        self.make_identity(&small)
    }

    /// Makes the primary key of the map if it is not there.
    pub fn make_map_identity(&self) -> String {
        self.make_identity("true")
    }

    fn make_identity(&self, now: &str) -> String {
        let template = include_str!("../../../sql/target/make_map_identity.sql");
        self.fill(template, &[("now", now)])
    }

    /// The call of the writer over the shadow.
    pub fn merge_shadow_call(&self) -> String {
        format!("SELECT * FROM pg_temp.merge_shadow_{}($1, $2, $3)", self.id)
    }

    /// Brings the shadow forward from the session's stage.
    pub fn catch_up_function(&self) -> String {
        let resolve = self.resolve(
            |n| format!("m.p{n}"),
            |n| format!("m.state = 'x' AND m.p{n} IS NULL"),
        );
        self.fill(
            include_str!("../../../sql/target/catch_up.sql"),
            &[
                ("function", &format!("pg_temp.catch_up_{}", self.id)),
                ("settings", LOOK_UP),
                ("refuse_left_out", &refuse_left_out("the copy does not hold")),
                ("stage", &self.stage()),
                ("resolve", &resolve),
            ],
        )
    }

    /// The call of [`Self::catch_up_function`].
    pub fn catch_up_call(&self) -> String {
        format!("SELECT pg_temp.catch_up_{}($1, $2)", self.id)
    }

    /// The comparison of a dry run; keys of at most `limit` rows of each kind.
    pub fn compare(&self, limit: u32) -> String {
        self.fill(
            include_str!("../../../sql/target/compare.sql"),
            &[("limit", &limit.to_string()), ("no_lookup", "l.tableoid IS NULL")],
        )
    }

    /// What each left-out value becomes, and whether it still is left out. Without such columns nothing changes.
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

/// What follows where values that the stream left out have been looked for; `missing` completes "a value that".
fn refuse_left_out(missing: &str) -> String {
    fill(
        include_str!("../../../sql/target/refuse_left_out.sql"),
        &[("missing", missing)],
    )
}

/// A text read by a type's input function, as `COPY` does. A cast does the same but for types that have a function for it, which
/// may read otherwise: `'-'::text::regclass` is an error, and what types of extensions do is not known. Elements of an array
/// are always read by the input function.
fn read_as(text: &str, of: &str) -> String {
    let may_have_a_function = matches!(of, "regclass" | "\"char\"" | "name" | "xml") || of.contains('.');
    if !may_have_a_function || of.ends_with("[]") {
        return format!("{text}::{of}");
    }
    let quoted = format!("replace(replace({text}, E'\\\\', E'\\\\\\\\'), '\"', E'\\\\\"')");
    format!("(('{{\"' || {quoted} || '\"}}')::{of}[])[1]")
}
