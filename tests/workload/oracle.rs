//! The oracle: every committed state of the source, in commit order, learnt without `cdc`.
//!
//! In: what a second slot with `test_decoding` says, and the samples of the lookup. Out: whether
//! each sample is one of the states and none goes back. Old rows are known from a model of the
//! table by id, never from old tuples. A state is held as the sum of its lines' hashes, so that it
//! costs a commit only what it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::journal::{Journal, quote};

/// Values above this many bytes are held and shown as their beginning, length and hash.
const SHOWN_BYTES: usize = 60;
/// Commits that are shown before and after the place of a failure.
const SHOWN_COMMITS: usize = 12;
/// Commits before a failure that are told as SQL.
const SQL_COMMITS: usize = 40;
/// Rows that are told as SQL of the table before these.
const SQL_ROWS: usize = 200;

/// What one look at the lookups showed.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When the answer was there, from the start of the test.
    pub at: Duration,
    /// Sum of the lines' hashes.
    pub hash: u64,
    /// The rows.
    pub lines: Vec<String>,
}

impl Sample {
    pub fn new(at: Duration, lines: Vec<String>) -> Self {
        let hash = lines
            .iter()
            .fold(0_u64, |sum, line| sum.wrapping_add(hash(line)));
        Self { at, hash, lines }
    }
}

/// A row of a lookup as one line.
pub fn line(table: &str, values: &[&str]) -> String {
    let mut line = table.to_owned();
    for value in values {
        line.push('|');
        line.push_str(&compact(value));
    }
    line
}

/// The change, if it is one of `labels` or of its partitions.
fn of_labels(data: &str) -> Option<&str> {
    let (tables, change) = data.strip_prefix("table ")?.split_once(": ")?;
    let first = tables.split(", ").next()?;
    ["public.labels", "public.labels_even", "public.labels_odd"]
        .contains(&first)
        .then_some(change)
}

fn hash(value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A value that may have been compacted, for SQL: as long as it was, with another end.
fn sql_value(value: &str) -> String {
    let compacted = value
        .rsplit_once("..(")
        .and_then(|(_, rest)| rest.split_once(" bytes, "));
    match compacted.and_then(|(bytes, _)| bytes.parse::<usize>().ok()) {
        Some(bytes) => format!("rpad({}, {bytes}, '.')", quote(value)),
        None => quote(value),
    }
}

fn compact(value: &str) -> String {
    if value.len() <= SHOWN_BYTES {
        return value.to_owned();
    }
    let start: String = value.chars().take(12).collect();
    format!("{start}..({} bytes, {:016x})", value.len(), hash(value))
}

/// Which lookups are compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lookups {
    /// `labels_by_id` too, besides `labels_lookup`.
    pub by_id: bool,
}

#[derive(Debug, Clone)]
struct Stored {
    code: String,
    label: String,
    display_name: String,
    live: bool,
}

/// The source's table after some commit, and what the lookups should show of it.
#[derive(Debug, Clone, Default)]
struct Table {
    lookups: Lookups,
    rows: HashMap<String, Stored>,
    /// Live ids by code; the smallest one is shown.
    claims: BTreeMap<String, BTreeSet<String>>,
    sum: u64,
}

impl Table {
    fn shown(&self, code: &str) -> Option<String> {
        let id = self.claims.get(code)?.first()?;
        let row = &self.rows[id];
        Some(line("c", &[code, &row.label, &row.display_name]))
    }

    fn by_id(id: &str, row: &Stored) -> String {
        line("i", &[id, &row.code, &row.label])
    }

    fn count(&mut self, line: Option<String>, add: bool) {
        let Some(line) = line else { return };
        let hash = hash(&line);
        self.sum = if add {
            self.sum.wrapping_add(hash)
        } else {
            self.sum.wrapping_sub(hash)
        };
    }

    fn take(&mut self, id: &str) -> Option<Stored> {
        let row = self.rows.get(id)?.clone();
        if row.live {
            self.count(self.shown(&row.code), false);
            let empty = {
                let ids = self.claims.get_mut(&row.code).unwrap();
                ids.remove(id);
                ids.is_empty()
            };
            if empty {
                self.claims.remove(&row.code);
            }
            self.count(self.shown(&row.code), true);
            if self.lookups.by_id {
                self.count(Some(Self::by_id(id, &row)), false);
            }
        }
        self.rows.remove(id)
    }

    fn put(&mut self, id: &str, row: Stored) {
        assert!(!self.rows.contains_key(id), "the oracle knows {id} already");
        self.rows.insert(id.to_owned(), row.clone());
        if row.live {
            self.count(self.shown(&row.code), false);
            self.claims
                .entry(row.code.clone())
                .or_default()
                .insert(id.to_owned());
            self.count(self.shown(&row.code), true);
            if self.lookups.by_id {
                self.count(Some(Self::by_id(id, &row)), true);
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .claims
            .keys()
            .filter_map(|code| self.shown(code))
            .collect();
        if self.lookups.by_id {
            let live = self.rows.iter().filter(|(_, row)| row.live);
            lines.extend(live.map(|(id, row)| Self::by_id(id, row)));
        }
        lines.sort();
        lines
    }

    /// The rows as INSERTs.
    fn write_sql(&self, sql: &mut String) {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(id, _)| *id);
        for (id, row) in rows.iter().take(SQL_ROWS) {
            let _ = writeln!(
                sql,
                "INSERT INTO labels (id, code, label, display_name, deleted_at) VALUES ({}, {}, {}, {}, {});",
                quote(id),
                quote(&row.code),
                sql_value(&row.label),
                sql_value(&row.display_name),
                if row.live { "NULL" } else { "now()" }
            );
        }
        if rows.len() > SQL_ROWS {
            let _ = writeln!(sql, "-- and {} more rows", rows.len() - SQL_ROWS);
        }
    }

    fn change(&mut self, text: &str) {
        if let Some(new) = text.strip_prefix("INSERT: ") {
            let new = columns(new);
            self.put(id(&new), stored(&new, None));
        } else if let Some(new) = text.strip_prefix("UPDATE: ") {
            let (old, new) = match new.strip_prefix("old-key: ") {
                Some(both) => {
                    let (old, new) = split_tuples(both);
                    (Some(columns(old)), columns(new))
                }
                None => (None, columns(new)),
            };
            let before = id(old.as_ref().unwrap_or(&new)).to_owned();
            let row = self
                .take(&before)
                .unwrap_or_else(|| panic!("the oracle does not know {before}"));
            self.put(id(&new), stored(&new, Some(&row)));
        } else if let Some(old) = text.strip_prefix("DELETE: ") {
            let old = columns(old);
            assert!(
                self.take(id(&old)).is_some(),
                "the oracle does not know {}",
                id(&old)
            );
        } else if text.starts_with("TRUNCATE:") {
            *self = Self {
                lookups: self.lookups,
                ..Self::default()
            };
        } else {
            panic!("unrecognized change: {text}");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Null,
    /// An out-of-line value that the UPDATE did not touch.
    Unchanged,
    Text(String),
}

type Columns = HashMap<String, Value>;

/// Where the old tuple ends: ` new-tuple: ` outside of quotes.
fn split_tuples(text: &str) -> (&str, &str) {
    const MARK: &str = " new-tuple: ";
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        if c == '\'' {
            quoted = !quoted;
        } else if !quoted && text[at..].starts_with(MARK) {
            return (&text[..at], &text[at + MARK.len()..]);
        }
    }
    panic!("no new tuple: {text}");
}

/// Reads `id[uuid]:'..' code[character varying]:'..' created_by[uuid]:null`.
fn columns(mut text: &str) -> Columns {
    let mut columns = Columns::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once('[').unwrap();
        let (_, rest) = rest.split_once("]:").unwrap();
        let (value, rest) = match rest.strip_prefix('\'') {
            Some(quoted) => {
                let (value, rest) = unquote(quoted);
                (Value::Text(value), rest)
            }
            None => {
                let (word, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
                let value = match word {
                    "null" => Value::Null,
                    "unchanged-toast-datum" => Value::Unchanged,
                    word => Value::Text(word.to_owned()),
                };
                (value, rest)
            }
        };
        columns.insert(name.to_owned(), value);
        text = rest.strip_prefix(' ').unwrap_or(rest);
    }
    columns
}

/// The value up to its closing quote, and what follows.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('\'').unwrap();
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return (value, rest),
        }
    }
}

fn id(columns: &Columns) -> &str {
    match &columns["id"] {
        Value::Text(id) => id,
        other => panic!("no id: {other:?}"),
    }
}

fn stored(columns: &Columns, before: Option<&Stored>) -> Stored {
    let text = |name: &str, old: Option<&String>| match &columns[name] {
        Value::Text(text) => compact(text),
        Value::Unchanged => old.unwrap().clone(),
        Value::Null => panic!("{name} is null"),
    };
    Stored {
        code: text("code", before.map(|row| &row.code)),
        label: text("label", before.map(|row| &row.label)),
        display_name: text("display_name", before.map(|row| &row.display_name)),
        live: columns["deleted_at"] == Value::Null,
    }
}

#[derive(Debug)]
struct Commit {
    lsn: String,
    xid: String,
    changes: Vec<String>,
}

/// A sample that should not have been.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: String,
    /// Number of the last commit that may have to do with it.
    pub commit: usize,
}

/// The source's life.
#[derive(Debug)]
pub struct History {
    lookups: Lookups,
    commits: Vec<Commit>,
    /// Sums after 0, 1, 2 .. commits.
    states: Vec<u64>,
    last: Table,
}

impl History {
    /// Reads everything that the slot has, up to now.
    pub async fn read(client: &Client, slot: &str, lookups: Lookups) -> Self {
        let query = format!(
            "SELECT lsn, xid, data FROM pg_logical_slot_peek_changes('{slot}', NULL, NULL, 'include-xids', '1', 'skip-empty-xacts', '1')"
        );
        let messages = client.simple_query(&query).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((
                row.get(0).unwrap(),
                row.get(1).unwrap(),
                row.get(2).unwrap(),
            )),
            _ => None,
        });
        Self::replay(rows, lookups)
    }

    fn replay<'a>(
        rows: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
        lookups: Lookups,
    ) -> Self {
        let mut table = Table {
            lookups,
            ..Table::default()
        };
        let mut history = Self {
            lookups,
            commits: Vec::new(),
            states: vec![0],
            last: Table::default(),
        };
        let mut changes = Vec::new();
        for (lsn, xid, data) in rows {
            if let Some(change) = of_labels(data) {
                table.change(change);
                changes.push(change.to_owned());
            } else if data.starts_with("COMMIT") && !changes.is_empty() {
                history.commits.push(Commit {
                    lsn: lsn.to_owned(),
                    xid: xid.to_owned(),
                    changes: std::mem::take(&mut changes),
                });
                history.states.push(table.sum);
            }
        }
        history.last = table;
        history
    }

    pub fn commits(&self) -> usize {
        self.commits.len()
    }

    /// The sum of the newest state.
    pub fn last_hash(&self) -> u64 {
        self.last.sum
    }

    /// What the lookups show in the newest state.
    pub fn last_lines(&self) -> Vec<String> {
        self.last.lines()
    }

    /// Each sample is a committed state, and none is older than the one before; returns how many
    /// states were seen.
    pub fn check(&self, samples: &[Sample]) -> Result<usize, Failure> {
        let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
        for (place, state) in self.states.iter().enumerate() {
            places.entry(*state).or_default().push(place);
        }
        let mut seen = BTreeSet::new();
        let mut reached = 0;
        for (number, sample) in samples.iter().enumerate() {
            let of_sample = places
                .get(&sample.hash)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let later = of_sample.partition_point(|place| *place < reached);
            match of_sample.get(later) {
                Some(place) => {
                    reached = *place;
                    seen.insert(reached);
                }
                None => return Err(self.explain(samples, number, reached, of_sample)),
            }
        }
        Ok(seen.len())
    }

    /// What the lookup showed when it should have shown something else.
    pub fn difference(&self, sample: &Sample) -> String {
        let mut text = String::new();
        differences(&mut text, &sample.lines, &self.last_lines());
        text
    }

    fn explain(
        &self,
        samples: &[Sample],
        number: usize,
        reached: usize,
        earlier: &[usize],
    ) -> Failure {
        let sample = &samples[number];
        let mut text = format!("sample {number}, at {:.3?}, ", sample.at);
        let mut near = reached;
        if let Some(place) = earlier.last() {
            let _ = writeln!(
                text,
                "goes back to the state after commit {place}, after {reached} had been seen"
            );
            near = *place;
        } else {
            let _ = writeln!(
                text,
                "is no committed state; the one before was the state after commit {reached}"
            );
            let mut least = usize::MAX;
            self.each_state(|place, table| {
                let distance = distance(&sample.lines, &table.lines());
                if distance < least || (distance == least && place <= reached) {
                    (least, near) = (distance, place);
                }
            });
        }
        let first = reached.min(near).saturating_sub(2);
        let end = reached.max(near) + 2;
        self.each_state(|place, table| {
            if place == near {
                let _ = writeln!(
                    text,
                    "\nsample against the nearest state, after commit {place}:"
                );
                differences(&mut text, &sample.lines, &table.lines());
            }
            if place == reached {
                let _ = writeln!(
                    text,
                    "\nsample against the state seen before, after commit {place}:"
                );
                differences(&mut text, &sample.lines, &table.lines());
            }
        });
        let _ = writeln!(text, "\nsamples before and after:");
        for sample in &samples[number.saturating_sub(3)..(number + 3).min(samples.len())] {
            let places: Vec<usize> = (0..self.states.len())
                .filter(|place| self.states[*place] == sample.hash)
                .take(8)
                .collect();
            let _ = writeln!(
                text,
                "  {:.3?}: {} rows, states {places:?}",
                sample.at,
                sample.lines.len()
            );
        }
        let _ = writeln!(text, "\ncommits:");
        for place in first..=end.min(self.commits.len().saturating_sub(1)) {
            if place > first + SHOWN_COMMITS && place + SHOWN_COMMITS < end {
                continue;
            }
            let commit = &self.commits[place];
            let _ = writeln!(text, "  {}: {} xid {}", place + 1, commit.lsn, commit.xid);
            for change in &commit.changes {
                let short: String = change.chars().take(600).collect();
                let _ = writeln!(text, "      {short}");
            }
        }
        Failure {
            why: text,
            commit: end.min(self.commits.len()),
        }
    }

    /// The last commits up to this one as SQL for psql, beginning with the rows that were there.
    /// Run one after the other the statements may choose other rows than they did beside each
    /// other.
    pub fn sql(&self, commit: usize, journal: &Journal) -> String {
        // The first commit made the tables.
        let earliest = commit.saturating_sub(SQL_COMMITS).max(1).min(commit);
        let xids: Vec<&str> = self.commits[earliest..commit]
            .iter()
            .map(|commit| commit.xid.as_str())
            .collect();
        let first = earliest + journal.first_shown(&xids);
        let mut sql = format!("-- labels after commit {first}\nTRUNCATE labels;\n");
        self.each_state(|place, table| {
            if place == first {
                table.write_sql(&mut sql);
            }
        });
        for (commit, number) in self.commits[first..commit].iter().zip(first + 1..) {
            journal.write_sql(number, &commit.xid, &mut sql);
        }
        sql
    }

    fn each_state(&self, mut look: impl FnMut(usize, &Table)) {
        let mut table = Table {
            lookups: self.lookups,
            ..Table::default()
        };
        look(0, &table);
        for (place, commit) in self.commits.iter().enumerate() {
            for change in &commit.changes {
                table.change(change);
            }
            look(place + 1, &table);
        }
    }
}

fn distance(a: &[String], b: &[String]) -> usize {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
    a.symmetric_difference(&b).count()
}

fn differences(text: &mut String, sample: &[String], state: &[String]) {
    let (sample, state): (BTreeSet<_>, BTreeSet<_>) =
        (sample.iter().collect(), state.iter().collect());
    if sample == state {
        text.push_str("  the same\n");
    }
    for line in sample.difference(&state) {
        let _ = writeln!(text, "  only in the sample: {line}");
    }
    for line in state.difference(&sample) {
        let _ = writeln!(text, "  only in the state:  {line}");
    }
}

#[test]
fn oracle_follows_what_test_decoding_says() {
    let insert = |id: &str, code: &str| {
        format!(
            "table public.labels: INSERT: id[uuid]:'{id}' code[character varying]:'{code}' label[text]:'it''s ] new-tuple: ' display_name[text]:'' deleted_at[timestamp with time zone]:null"
        )
    };
    let lines = [
        "BEGIN 1".to_owned(),
        insert("a", "A"),
        insert("b", "B"),
        "COMMIT 1".to_owned(),
        "BEGIN 2".to_owned(),
        "table public.labels: UPDATE: old-key: id[uuid]:'a' new-tuple: id[uuid]:'c' code[character varying]:'C' label[text]:unchanged-toast-datum display_name[text]:'x' deleted_at[timestamp with time zone]:null".to_owned(),
        "table public.labels: DELETE: id[uuid]:'b'".to_owned(),
        "COMMIT 2".to_owned(),
    ];
    let rows = lines.iter().map(|line| ("0/1", "1", line.as_str()));
    let history = History::replay(rows, Lookups::default());
    assert_eq!(history.last_lines(), ["c|C|it's ] new-tuple: |x"]);
    let state = |lines: &[&str]| {
        Sample::new(
            Duration::ZERO,
            lines.iter().map(|line| (*line).to_owned()).collect(),
        )
    };
    let first = state(&["c|A|it's ] new-tuple: |", "c|B|it's ] new-tuple: |"]);
    let second = state(&["c|C|it's ] new-tuple: |x"]);
    assert_eq!(
        history.check(&[state(&[]), first.clone(), second.clone()]),
        Ok(3)
    );
    assert!(
        history
            .check(&[second, first.clone()])
            .unwrap_err()
            .why
            .contains("goes back")
    );
    let half = state(&["c|A|it's ] new-tuple: |"]);
    assert!(
        history
            .check(&[first, half])
            .unwrap_err()
            .why
            .contains("no committed state")
    );
}
