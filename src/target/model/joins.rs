//! How the writer's statements find rows of map and lookup, without relying on the server's
//! statistics.
//!
//! The server plans by its statistics. It has none for temporary tables, which only their session
//! could analyse, and none or old ones for tables that have just been filled. If it expects a few
//! rows in two tables, it compares each row of one with each row of the other (10,000 rows took 33
//! s of a processor).
//!
//! So each statement has one of these forms, and none of them reads a whole table for each row of
//! another one:
//!
//! - **Looked up**: `l.ctid = (SELECT l.ctid FROM lookup l WHERE ...)`. A subquery that yields one
//!   value is never turned into a join, so it is an index scan for each row, and the address that
//!   it finds is a TID scan. `enable_seqscan = off` ensures both: the stage has no index and is
//!   read in full anyway, and any other plan would read a second table in full too.
//! - **Hashed**: with `enable_nestloop = off` two tables are joined by a hash (or a merge, by types
//!   that cannot be hashed). Of map and lookup only rows that were looked up before take part, by
//!   `ctid = ANY (...)`: a TID scan, since `enable_indexscan = off`.
//! - **Read once**: hashed, and all rows of map and lookup take part. This is cheaper by an order
//!   of magnitude if the batch is large beside them, and the only way if all of their rows are
//!   compared.
//!
//! (The server's manual, "Planner Method Configuration": these settings discourage a method, which
//! is then used only if there is no other one. The costs are then not real, so `jit` has to be off:
//! otherwise the server would compile each statement.)
//!
//! They are settings of the functions, and hold when a session's plans are made. A function that
//! needs two forms changes the settings in between, always at the same place.

/// The text between the braces of a placeholder, and what replaces it: `("map", ..)`, `("?moved",
/// ..)`.
pub(super) type Entry = (&'static str, String);

/// How a function of the writer finds the rows of map and lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Joins {
    /// Each row is looked up.
    LookedUp,
    /// The tables are read once.
    ReadOnce,
}

/// Bytes of map and lookup, for each row of a batch, up to which reading both tables is cheaper
/// than looking each row up in their indexes: a lookup takes some 2 microseconds, reading and
/// probing a row of 100 bytes some 0.15.
pub(super) const READ_ONCE_BYTES_A_ROW: usize = 1300;

/// Settings of functions that look rows up. The cost of a lookup is set to what was measured. With
/// the default, which is that of a spinning disk, the server would read a table of 40 pages for one
/// row.
pub(super) const LOOK_UP: &str = "SET enable_nestloop = on SET enable_seqscan = off SET enable_indexscan = on \
                                  SET enable_bitmapscan = off SET random_page_cost = 0.25 SET jit = off";

/// Settings of functions that read whole tables.
const READ: &str = "SET enable_nestloop = off SET enable_seqscan = on SET enable_indexscan = on \
                    SET enable_bitmapscan = off SET jit = off";

impl Joins {
    /// What the names of the functions end in.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::LookedUp => "",
            Self::ReadOnce => "_read_once",
        }
    }

    /// What replaces a step in this form; `None`: its own text. Settings change only in the form
    /// that looks rows up, where a part that hashes comes in between. Only the form that reads the
    /// tables once asks whether few rows move.
    pub(super) fn step(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (Self::LookedUp, "by_number_of_moving.sql") => Some("{{> {{part}}}}"),
            (Self::LookedUp, "judge_number_of_moving.sql")
            | (Self::ReadOnce, "look_up.sql" | "hash.sql" | "find_claims.sql" | "find_shown.sql") => {
                Some("")
            }
            _ => None,
        }
    }

    /// The conditions that depend on the form.
    pub(super) fn conditions(self, lookup: Lookup) -> Vec<Entry> {
        [
            self.settings(),
            self.found_rows(lookup),
            self.found_or_not(),
            self.of_found_rows(),
        ]
        .concat()
    }

    fn choose(self, looked_up: &str, read_once: &str) -> String {
        match self {
            Self::LookedUp => looked_up.to_owned(),
            Self::ReadOnce => read_once.to_owned(),
        }
    }

    fn settings(self) -> Vec<Entry> {
        vec![
            // Of a whole function.
            ("?settings", self.choose(LOOK_UP, READ)),
            // Of the one that writes a piece of a batch: pieces may be of one row.
            ("?settings_of_write", LOOK_UP.to_owned()),
        ]
    }

    /// Rows that are looked up.
    fn found_rows(self, lookup: Lookup) -> Vec<Entry> {
        let row = |condition: &str| self.choose(&lookup.row(condition), condition);
        let entry = |condition: &str| self.choose(&entry_address(condition), condition);
        let beside = |condition: &str| {
            self.choose(
                &entry_beside(condition),
                &format!("{{{{map}}}} m ON {condition}"),
            )
        };
        vec![
            // The entry of what a staged row is, or was if it is gone; beside it in a FROM clause.
            ("?entry_known", beside("{{?known_is_map}}")),
            // The entry of what it was at the start of the batch; beside it in a FROM clause.
            ("?entry_at_start", beside("{{?start_is_map}}")),
            ("?map_of_start", entry("{{?start_is_map}}")),
            // The entry of the row that holds a key.
            ("?map_of_holder", entry("{{?map_is_holder}}")),
            // The entry of a staged row that was rejected.
            (
                "?map_of_rejected",
                self.choose(ENTRY_OF_REJECTED, "{{?identity_is_map}} AND m.state = 'r'"),
            ),
            // The lookup's row of a key.
            ("?lookup_of_map", row("{{?lookup_is_map}}")),
            ("?lookup_of_touched", row("{{?lookup_is_touched}}")),
            ("?lookup_of_stage", row("{{?lookup_is_stage}}")),
            // The same whatever the form.
            ("?row_of_touched", lookup.row("{{?lookup_is_touched}}")),
            ("?row_of_stage", lookup.row("{{?lookup_is_stage}}")),
        ]
    }

    /// Whether there is such a row.
    fn found_or_not(self) -> Vec<Entry> {
        vec![
            // The lookup has a row under the key that a moving row claims.
            (
                "?claim_is_shown",
                self.choose(CLAIM_IS_SHOWN, CLAIM_IS_AMONG_ALL),
            ),
            // The lookup has no row under the key of a staged one.
            (
                "?staged_is_missing",
                self.choose(STAGED_IS_MISSING, STAGED_IS_NOT_AMONG_ALL),
            ),
            // The map does not call a row rejected any more.
            (
                "?rejected_is_over",
                self.choose(REJECTED_IS_OVER, REJECTED_IS_NOT_AMONG_ALL),
            ),
            // Counting the rows that already match is cheaper than an anti-join that finds nothing.
            ("?and_some_are_missing", self.choose("", SOME_ARE_MISSING)),
        ]
    }

    /// Rows of map and lookup that were looked up before, for a hash.
    fn of_found_rows(self) -> Vec<Entry> {
        vec![
            // Entries of identities that their rows no longer have, and that no other row has
            // taken.
            (
                "?entries_that_go",
                self.choose(ENTRIES_THAT_GO, ALL_ENTRIES_THAT_GO),
            ),
            // Entries of rows that have or want a touched key.
            (
                "?map_of_claims",
                self.choose(" AND m.ctid = ANY (_claims)", ""),
            ),
            // Rows of the lookup under a touched key.
            (
                "?lookup_of_shown",
                self.choose(" AND l.ctid = ANY (_shown)", ""),
            ),
        ]
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

const CLAIM_IS_SHOWN: &str =
    "(SELECT l.ctid FROM {{lookup}} l WHERE {{?lookup_is_claimed}}) IS NOT NULL";
const CLAIM_IS_AMONG_ALL: &str = "EXISTS (SELECT FROM {{lookup}} l WHERE {{?lookup_is_claimed}})";

const STAGED_IS_MISSING: &str =
    "(SELECT l.ctid FROM {{lookup}} l WHERE {{?lookup_is_stage}}) IS NULL";
const STAGED_IS_NOT_AMONG_ALL: &str =
    "NOT EXISTS (SELECT FROM {{lookup}} l WHERE {{?lookup_is_stage}})";

const REJECTED_IS_OVER: &str =
    "(SELECT m.state IN ('r', 'x') FROM {{map}} m WHERE {{?rejected_is_map}}) IS NOT TRUE";
const REJECTED_IS_NOT_AMONG_ALL: &str =
    "NOT EXISTS (SELECT FROM {{map}} m WHERE {{?rejected_is_map}} AND m.state IN ('r', 'x'))";

/// With the state as a condition, the server could also read the index by key to find the entry.
const ENTRY_OF_REJECTED: &str = "m.ctid = (SELECT CASE m.state WHEN 'r' THEN m.ctid END FROM {{map}} m WHERE {{?identity_is_map}})";

const ENTRIES_THAT_GO: &str = "WHERE m.ctid = ANY (ARRAY(SELECT x.map_row FROM {{moving}} x \
                               WHERE x.map_row IS NOT NULL AND x.state NOT IN ('l', 'd', 'x')))";
const ALL_ENTRIES_THAT_GO: &str =
    "USING {{moving}} x WHERE m.ctid = x.map_row AND x.state NOT IN ('l', 'd', 'x')";

const SOME_ARE_MISSING: &str = " AND (SELECT count(*) FROM {{lookup}} l JOIN {{stage}} s ON {{?lookup_is_stage}} \
                                WHERE s.state = 'l') < _total";

/// The map's entry that an index finds, beside the row that asks for it. The LIMIT keeps it from
/// being turned into a join.
fn entry_beside(condition: &str) -> String {
    format!("LATERAL (SELECT m.*, m.ctid FROM {{{{map}}}} m WHERE {condition} LIMIT 1) m ON true")
}

/// That `m` is the map's entry that an index finds by this condition.
fn entry_address(condition: &str) -> String {
    format!("m.ctid = (SELECT m.ctid FROM {{{{map}}}} m WHERE {condition})")
}
