//! How the writer's statements find rows of map and lookup. It is not left to the server's statistics.
//!
//! The server plans by what it knows of its tables: nothing of temporary ones, which only their session could analyse; nothing,
//! or what was true once, of tables that have just been filled. Where it takes two tables for a few rows it compares each row of
//! one with each row of the other (10,000 rows took 33 s of a processor).
//!
//! So each statement has one of these forms, and in none of them is a table read from end to end for each row of another one:
//!
//! - **Looked up**: `l.ctid = (SELECT l.ctid FROM lookup l WHERE ...)`. A subquery that yields one value is never made a join, so it is
//!   an index scan for each row, and the address that it finds is a TID scan. Both are certain with `enable_seqscan = off`: what is
//!   staged has no index and is read all the same, and then any other plan would read a second table too.
//! - **Hashed**: with `enable_nestloop = off` two tables are joined by a hash (or a merge, by types that cannot be hashed). Of map and
//!   lookup only rows that were looked up before take part, by `ctid = ANY (...)`: a TID scan, since `enable_indexscan = off`.
//! - **Read once**: hashed, and all rows of map and lookup take part. This is cheaper by an order of magnitude where the batch is large
//!   beside them, and the only way where all of their rows are compared.
//!
//! (The server's manual, "Planner Method Configuration": these settings discourage a method, and it is used only where there is no other
//! one. Costs are made up then, so that `jit` has to be off: the server would compile each statement.)
//!
//! They are settings of the functions, and a plan that a session keeps was made under them. Where a function needs two forms it
//! changes them in between, always at the same place.

use crate::sql::fill;

/// How a function of the writer finds the rows of map and lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Joins {
    /// Each row is looked up.
    LookedUp,
    /// The tables are read once.
    ReadOnce,
}

/// Bytes of map and lookup, for each row of a batch, up to which reading them from end to end is cheaper than looking each
/// row up in their indexes: a lookup takes some 2 microseconds, reading and probing a row of 100 bytes some 0.15.
pub(super) const READ_ONCE_BYTES_A_ROW: usize = 1300;

/// Settings of functions that look rows up. What it costs to look one up is told as it was measured: by the default, which is
/// that of a spinning disk, the server reads a table of 40 pages for the sake of one row.
pub(super) const LOOK_UP: &str = "SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on \
                                  SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off";

/// Settings of functions that read tables from end to end.
const READ: &str = "SET enable_nestloop = off SET enable_seqscan = on SET enable_indexscan = on \
                    SET enable_bitmapscan = off SET jit = off";

/// What changes the settings of such a function until it ends, or until they are changed again.
const TO_LOOK_UP: &str = "PERFORM pg_catalog.set_config('enable_nestloop', 'on', true), \
                          pg_catalog.set_config('enable_seqscan', 'off', true), \
                          pg_catalog.set_config('enable_indexscan', 'on', true);";
pub(super) const TO_HASH: &str = "PERFORM pg_catalog.set_config('enable_nestloop', 'off', true), \
                       pg_catalog.set_config('enable_seqscan', 'on', true), \
                       pg_catalog.set_config('enable_indexscan', 'off', true);";
const TO_READ: &str = "PERFORM pg_catalog.set_config('enable_nestloop', 'off', true), \
                       pg_catalog.set_config('enable_seqscan', 'on', true), \
                       pg_catalog.set_config('enable_indexscan', 'on', true);";

impl Joins {
    /// What the names of the functions end in.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::LookedUp => "",
            Self::ReadOnce => "_read_once",
        }
    }

    /// Lets a part of the writer look rows up although the tables are read once, if few rows move.
    pub(super) fn by_number_of_moving(self, part: &str, lookup: Lookup) -> String {
        if self == Self::LookedUp {
            return part.to_owned();
        }
        let looked_up = Self::LookedUp.fill(part, lookup);
        format!("IF _few THEN\n{TO_LOOK_UP}\n{looked_up}\n{TO_READ}\nELSE\n{part}\nEND IF;")
    }

    /// Puts this way of joining into a template.
    pub(super) fn fill(self, template: &str, lookup: Lookup) -> String {
        let read_once = self == Self::ReadOnce;
        let choose = |looked_up: &str, read: &str| if read_once { read } else { looked_up }.to_owned();
        let row = |condition: &str| choose(&lookup.row(condition), condition);
        let entry = |condition: &str| choose(&entry_address(condition), condition);
        let beside =
            |condition: &str| choose(&entry_beside(condition), &format!("{{{{map}}}} m ON {condition}"));
        let values = [
            ("find_claims", choose(FIND_CLAIMS, "")),
            ("find_shown", choose(FIND_SHOWN, "")),
            ("settings", choose(LOOK_UP, READ)),
            ("look_up", choose(TO_LOOK_UP, "")),
            ("hash", choose(TO_HASH, "")),
            ("judge_number_of_moving", choose("", &among_few())),
            // Looked up.
            ("entry_known", beside("{{known_is_map}}")),
            ("entry_at_start", beside("{{start_is_map}}")),
            ("map_of_start", entry("{{start_is_map}}")),
            ("map_of_winner", entry("{{map_is_winner}}")),
            (
                "map_of_refused",
                choose(ENTRY_OF_REFUSED, "{{identity_is_map}} AND m.state = 'r'"),
            ),
            ("lookup_of_map", row("{{lookup_is_map}}")),
            ("lookup_of_touched", row("{{lookup_is_touched}}")),
            ("lookup_of_stage", row("{{lookup_is_stage}}")),
            ("claim_is_shown", choose(CLAIM_IS_SHOWN, CLAIM_IS_AMONG_ALL)),
            (
                "staged_is_missing",
                choose(STAGED_IS_MISSING, STAGED_IS_NOT_AMONG_ALL),
            ),
            (
                "rejected_is_over",
                choose(REJECTED_IS_OVER, REJECTED_IS_NOT_AMONG_ALL),
            ),
            // Those that are there and did not differ are found faster than none is not found.
            ("and_some_are_missing", choose("", SOME_ARE_MISSING)),
            // Hashed.
            ("entries_that_go", choose(ENTRIES_THAT_GO, ALL_ENTRIES_THAT_GO)),
            ("map_of_claims", choose(" AND m.ctid = ANY (_claims)", "")),
            ("lookup_of_shown", choose(" AND l.ctid = ANY (_shown)", "")),
            // Pieces of a batch may be of one row.
            ("settings_of_write", LOOK_UP.to_owned()),
            ("row_of_touched", lookup.row("{{lookup_is_touched}}")),
            ("row_of_stage", lookup.row("{{lookup_is_stage}}")),
        ];
        let values: Vec<(&str, &str)> = values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fill(template, &values)
    }
}

/// What addresses of the lookup's rows mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It is one table: an address is one row's.
    One,
    /// It has partitions: an address is one row's within one of them.
    Parted,
}

impl Lookup {
    /// That `l` is the lookup's row that an index finds by this condition.
    fn row(self, condition: &str) -> String {
        let found = |column: &str| {
            format!("l.{column} = (SELECT l.{column} FROM {{{{lookup}}}} l WHERE {condition})")
        };
        match self {
            Self::One => found("ctid"),
            Self::Parted => format!("{} AND {}", found("ctid"), found("tableoid")),
        }
    }
}

const FIND_CLAIMS: &str = include_str!("../../../sql/target/find_claims.sql");

const FIND_SHOWN: &str = "_shown := ARRAY(SELECT (SELECT l.ctid FROM {{lookup}} l WHERE {{lookup_is_touched}}) \
                          FROM {{touched}} t WHERE t.open);";

const CLAIM_IS_SHOWN: &str = "(SELECT l.ctid FROM {{lookup}} l WHERE {{lookup_is_claimed}}) IS NOT NULL";
const CLAIM_IS_AMONG_ALL: &str = "EXISTS (SELECT FROM {{lookup}} l WHERE {{lookup_is_claimed}})";

const STAGED_IS_MISSING: &str = "(SELECT l.ctid FROM {{lookup}} l WHERE {{lookup_is_stage}}) IS NULL";
const STAGED_IS_NOT_AMONG_ALL: &str = "NOT EXISTS (SELECT FROM {{lookup}} l WHERE {{lookup_is_stage}})";

const REJECTED_IS_OVER: &str =
    "(SELECT m.state IN ('r', 'x') FROM {{map}} m WHERE {{rejected_is_map}}) IS NOT TRUE";
const REJECTED_IS_NOT_AMONG_ALL: &str =
    "NOT EXISTS (SELECT FROM {{map}} m WHERE {{rejected_is_map}} AND m.state IN ('r', 'x'))";

/// With its state as a condition the entry could be found by reading the index by key, too.
const ENTRY_OF_REFUSED: &str =
    "m.ctid = (SELECT CASE m.state WHEN 'r' THEN m.ctid END FROM {{map}} m WHERE {{identity_is_map}})";

const ENTRIES_THAT_GO: &str = "WHERE m.ctid = ANY (ARRAY(SELECT x.map_row FROM {{moving}} x \
                               WHERE x.map_row IS NOT NULL AND x.state NOT IN ('l', 'd', 'x')))";
const ALL_ENTRIES_THAT_GO: &str =
    "USING {{moving}} x WHERE m.ctid = x.map_row AND x.state NOT IN ('l', 'd', 'x')";

const SOME_ARE_MISSING: &str = " AND (SELECT count(*) FROM {{lookup}} l JOIN {{stage}} s ON {{lookup_is_stage}} \
                                WHERE s.state = 'l') < _total";

/// Asks, where the tables are read once, whether the rows that move are better looked up.
fn among_few() -> String {
    format!(
        "_few := NOT _clear AND (SELECT count(*) FROM {{{{moving}}}} x) * {READ_ONCE_BYTES_A_ROW} < {{{{bytes_to_read}}}};"
    )
}

/// The map's entry that an index finds, beside the row that asks for it. The limit keeps it from being made a join.
fn entry_beside(condition: &str) -> String {
    format!("LATERAL (SELECT m.*, m.ctid FROM {{{{map}}}} m WHERE {condition} LIMIT 1) m ON true")
}

/// That `m` is the map's entry that an index finds by this condition.
fn entry_address(condition: &str) -> String {
    format!("m.ctid = (SELECT m.ctid FROM {{{{map}}}} m WHERE {condition})")
}
