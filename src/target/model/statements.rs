//! The functions that a session makes for a read model, and their calls, from the templates in `sql/target`.

use super::{TargetModel, join, no_identity, numbered};
use crate::sql::{fill, literal};

/// Bytes of map and lookup, for each row of a batch, up to which reading them from end to end is cheaper than looking each
/// row up in their indexes: a lookup takes some 2 microseconds, reading and probing a row of 100 bytes some 0.15.
const HASHED_BYTES_A_ROW: usize = 1300;

/// Bytes of a shadow from which on the indexes of an empty map are made after the rows.
const LEAST_BYTES_TO_INDEX_LATER: u32 = 1 << 20;

/// Most rows of a read model that are set apart; with more it is suspended.
pub const MOST_REJECTED: i64 = 1000;

const MERGE: &str = include_str!("../../../sql/target/merge.sql");

const COUNT_ROWS: &str = include_str!("../../../sql/target/count_rows.sql");
const DELETE_UNCLAIMED: &str = include_str!("../../../sql/target/delete_unclaimed.sql");
const UPDATE_SHOWN: &str = include_str!("../../../sql/target/update_shown.sql");
const INSERT_MISSING: &str = include_str!("../../../sql/target/insert_missing.sql");

const ISOLATE: &str = include_str!("../../../sql/target/isolate.sql");

/// Looked for first: to make it locks the map against autovacuum, also where it is there. Nobody asks for the keys of dead rows, which
/// may be too large for an index.
const MAKE_KEY_INDEX: &str = "IF pg_catalog.to_regclass({{map_key_name}}) IS NULL THEN \
                              CREATE INDEX map_{{id}}_key ON {{map}} ({{k}}) WHERE state <> 'd'; END IF;";

/// `random_page_cost` where the rows of a batch are looked up, as it was measured, and where the tables are read once.
const LOOK_UP_COST: &str = "0.25";
const HASH_COST: &str = "4";

/// The refusals of [`class_of`](crate::target::error::class_of) as conditions of plpgsql.
const REFUSALS: &str = "data_exception OR integrity_constraint_violation OR with_check_option_violation \
                        OR raise_exception OR cardinality_violation OR program_limit_exceeded";

impl TargetModel {
    /// The writer for this session's stage.
    pub fn merge_function(&self) -> String {
        self.merge("merge", &self.stage())
    }

    /// The writer for the shadow.
    pub fn merge_shadow_function(&self) -> String {
        self.merge("merge_shadow", &self.shadow())
    }

    fn merge(&self, name: &str, stage: &str) -> String {
        let stays = "(s.state = 'l' AND NOT {{moved}} AND m.state = 's' AND {{key_is_as_it_was}})";
        let may_move = format!("{stays} IS NOT TRUE");
        self.writer(MERGE, name, stage, (&may_move, false))
    }

    /// The writer for this session's stage that sets refused rows apart.
    pub fn isolate_function(&self) -> String {
        self.isolate("isolate", &self.stage())
    }

    /// The writer for the shadow that sets refused rows apart.
    pub fn isolate_shadow_function(&self) -> String {
        self.isolate("isolate_shadow", &self.shadow())
    }

    /// Every key is settled anew there.
    fn isolate(&self, name: &str, stage: &str) -> String {
        self.writer(ISOLATE, name, stage, ("true", true))
    }

    /// `open` is whether all keys that may change hands are settled, not only those that several rows claim.
    fn writer(&self, template: &str, name: &str, stage: &str, (may_move, open): (&str, bool)) -> String {
        let function = format!("pg_temp.{name}_{}", self.id);
        let counted =
            |kind: &str, statement: &str| fill(COUNT_ROWS, &[("kind", kind), ("statement", statement)]);
        let insert = |of_these: &str| counted("inserted", &fill(INSERT_MISSING, &[("of_these", of_these)]));
        let own: &[(&str, &str)] = &[
            (
                "left_out_values",
                include_str!("../../../sql/target/left_out_values.sql"),
            ),
            (
                "refuse_left_out",
                &refuse_left_out("neither the lookup nor the map holds"),
            ),
            ("find_moving", include_str!("../../../sql/target/find_moving.sql")),
            ("may_move", may_move),
            ("take_in", include_str!("../../../sql/target/take_in.sql")),
            ("update_shown", &counted("updated", UPDATE_SHOWN)),
            ("insert_missing", &insert("")),
            (
                "insert_moving",
                &insert(" JOIN {{moving}} x ON x.stage_row = s.ctid AND x.state = 'l'"),
            ),
            ("delete_unclaimed", &counted("deleted", DELETE_UNCLAIMED)),
            ("key_index", MAKE_KEY_INDEX),
            ("open", if open { "true" } else { "false" }),
            ("look_up", &find_rows("on", LOOK_UP_COST)),
            ("hash", &find_rows("off", HASH_COST)),
            ("hashed_bytes", &HASHED_BYTES_A_ROW.to_string()),
            (
                "share_out_keys",
                include_str!("../../../sql/target/share_out_keys.sql"),
            ),
            ("function", &function),
            ("stage", stage),
            ("refusals", REFUSALS),
            ("most_rejected", &MOST_REJECTED.to_string()),
        ];
        self.fill(template, own)
    }

    /// The call of [`Self::isolate_function`], or of the one for the shadow.
    pub fn isolate_call(&self, shadow: bool) -> String {
        let name = if shadow { "isolate_shadow" } else { "isolate" };
        format!("SELECT * FROM pg_temp.{name}_{}($1, $2, $3, $4, $5, $6)", self.id)
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
        let arrays: String = (0..self.stage_width())
            .map(|n| format!(", ${}", n + 10))
            .collect();
        format!(
            "SELECT * FROM pg_temp.apply_{}($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz, $7, $8, $9{arrays})",
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
    pub fn merge_call(&self) -> String {
        format!("SELECT * FROM pg_temp.merge_{}($1, $2, $3)", self.id)
    }

    /// Settings of a transaction that merges this many rows of a large batch, from here to its end.
    ///
    /// The plans are made for the batch in hand, not taken from a small one. Where the tables are small beside the
    /// batch they are read once and hashed: a nested loop over a table that the server takes for empty reads, for
    /// each row, all that this very statement has inserted (measured: 20,000 rows in 4.2 s, 0.04 s hashed). Elsewhere
    /// a nested loop may look rows up in an index, but never run through rows that were kept aside: those are
    /// compared each with each where the server takes them for few (5,000 rows with 200,000 in 88 s). What it costs to look a
    /// row up is told as it was measured: by the default, which is that of a spinning disk, the server would rather hash millions of
    /// rows than look some ten thousand up.
    pub fn plan_for(&self, rows: usize) -> String {
        let most_bytes = rows.saturating_mul(HASHED_BYTES_A_ROW);
        format!(
            "SELECT pg_catalog.set_config('plan_cache_mode', 'force_custom_plan', true), \
             pg_catalog.set_config('jit', 'off', true), \
             pg_catalog.set_config('enable_material', 'off', true), \
             pg_catalog.set_config('enable_nestloop', CASE WHEN x.small THEN 'off' ELSE 'on' END, true), \
             pg_catalog.set_config('random_page_cost', CASE WHEN x.small THEN '{HASH_COST}' ELSE '{LOOK_UP_COST}' END, true) \
             FROM (SELECT pg_catalog.pg_relation_size({map}) + pg_catalog.pg_relation_size({lookup}) < {most_bytes} AS small) x",
            map = literal(&self.map()),
            lookup = literal(&self.lookup()),
        )
    }

    /// Tells the server what the map holds, unless it knows: it takes a table that was never analysed for one of a few hundred keys,
    /// and autovacuum may come a minute after the rows, or never. Not while somebody else is about it.
    pub fn analyze_map(&self) -> String {
        let map = self.map();
        format!(
            "DO $cdc$ BEGIN IF (SELECT c.reltuples < 0 OR pg_catalog.pg_relation_size(c.oid) \
             > 2 * c.relpages::bigint * pg_catalog.current_setting('block_size')::bigint \
             FROM pg_catalog.pg_class c WHERE c.oid = {}::pg_catalog.regclass) \
             THEN ANALYZE (SKIP_LOCKED) {map}; END IF; END $cdc$",
            literal(&map)
        )
    }

    /// Takes the indexes of an empty map away, if the shadow is large.
    pub fn drop_map_indexes(&self) -> String {
        let least_bytes = LEAST_BYTES_TO_INDEX_LATER.to_string();
        self.fill(
            include_str!("../../../sql/target/drop_map_indexes.sql"),
            &[("least_bytes", &least_bytes)],
        )
    }

    /// Makes the primary key of the map if it is not there.
    pub fn make_map_identity(&self) -> String {
        self.fill(include_str!("../../../sql/target/make_map_identity.sql"), &[])
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

/// How the rows of a large batch are found from here on: looked up in the indexes, or by reading the tables once.
fn find_rows(nested_loops: &str, random_page_cost: &str) -> String {
    format!(
        "PERFORM pg_catalog.set_config('enable_nestloop', '{nested_loops}', true), \
         pg_catalog.set_config('random_page_cost', '{random_page_cost}', true);"
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
