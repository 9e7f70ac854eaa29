//! The fold: changes of whole transactions become one final state for each source row.
//!
//! In: [`Change`]s in commit order. Out: for each identity, *as it was at the start of the batch*,
//! what the row is at the end: live, dead or gone, and under which identity. A changed identity
//! carries the start along; TRUNCATE empties the fold and sets a flag: the writer then treats every
//! row that it remembers as gone.
//!
//! Why this is right: live keys are unique at every commit, so the state after the batch's last
//! commit depends on the final state of each row alone. Swapped and rotated keys, keys that were
//! freed and taken over, and rows that were inserted and deleted within the batch need no rule of
//! their own.
//!
//! Does no I/O, so it cannot fail. An unchanged out-of-line value is filled in from the row's
//! earlier state in the batch; where there is none it stays marked, and the writer finds it in the
//! target by the start identity.

use std::collections::{HashMap, hash_map};

use foldhash::fast::RandomState;

use crate::read_model::{Change, Image};
use crate::row::{Cell, Row};

mod share;

pub(crate) use share::Share;

/// What a row is at the end of the batch; borrowed, since the fold is kept until the batch is
/// committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Final<'a> {
    /// Identity at the start of the batch; `None` if the row did not exist.
    pub start: Option<&'a Row>,
    /// The row now; `None` if it is gone.
    pub now: Option<Now<'a>>,
}

impl Final<'_> {
    /// Whether the row is there and live.
    pub(crate) fn is_live(&self) -> bool {
        self.now.is_some_and(|now| now.live)
    }
}

/// A row that exists at the end of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now<'a> {
    /// Its identity.
    pub identity: &'a Row,
    /// Whether it is live.
    pub live: bool,
    /// Projected values.
    pub values: &'a Row,
}

/// Final states of one read model's rows over a batch.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// By the identity that the row has now.
    rows: HashMap<Row, Entry, RandomState>,
    /// Start identities of rows that are gone.
    gone: HashMap<Row, (), RandomState>,
    clear: bool,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    start: Option<Row>,
    live: bool,
    values: Row,
}

impl Entry {
    /// Approximate bytes in memory, with the identity under which it is stored.
    fn bytes(&self, identity: &Row) -> usize {
        let start = self.start.as_ref().map_or(0, Row::bytes);
        size_of::<(Row, Self)>() + start + identity.bytes() + self.values.bytes()
    }
}

impl Fold {
    /// Adds the next change.
    pub fn add(&mut self, change: Change) {
        match change {
            Change::Insert(new) => self.insert(new),
            Change::Update { old, new } => self.update(old, new),
            Change::Delete(identity) => self.delete(identity),
            Change::Truncate => {
                self.rows.clear();
                self.gone.clear();
                self.bytes = 0;
                self.clear = true;
            }
        }
    }

    fn insert(&mut self, new: Image) {
        // A row that was deleted and inserted again under one identity is one row to the writer:
        // its map entry is changed in place.
        let start = self
            .gone
            .remove_entry(&new.identity)
            .map(|(identity, ())| identity);
        if let Some(start) = &start {
            self.bytes = self.bytes.saturating_sub(start.bytes());
        }
        self.put(start, new);
    }

    fn update(&mut self, old: Option<Row>, mut new: Image) {
        let start = match self.take(old.as_ref().unwrap_or(&new.identity)) {
            Some(before) => {
                new.values = fill_unchanged(new.values, &before.values);
                before.start
            }
            // After a clear nothing is left to look up: for the writer, the row did not exist at
            // the start.
            None if self.clear => None,
            None => Some(old.unwrap_or_else(|| new.identity.clone())),
        };
        self.put(start, new);
    }

    fn delete(&mut self, identity: Row) {
        match self.take(&identity) {
            Some(entry) => self.leave(entry.start),
            None if self.clear => {}
            None => self.leave(Some(identity)),
        }
    }

    fn put(&mut self, start: Option<Row>, new: Image) {
        let entry = Entry {
            start,
            live: new.live,
            values: new.values,
        };
        self.bytes += entry.bytes(&new.identity);
        match self.rows.entry(new.identity) {
            hash_map::Entry::Vacant(place) => {
                place.insert(entry);
            }
            // No commit has two rows with one identity: the earlier one is gone.
            hash_map::Entry::Occupied(mut place) => {
                let before = place.insert(entry);
                self.bytes = self.bytes.saturating_sub(before.bytes(place.key()));
                self.leave(before.start);
            }
        }
    }

    fn take(&mut self, identity: &Row) -> Option<Entry> {
        let entry = self.rows.remove(identity)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes(identity));
        Some(entry)
    }

    /// A row of the start no longer exists.
    fn leave(&mut self, start: Option<Row>) {
        if let Some(start) = start {
            self.bytes += start.bytes();
            self.gone.insert(start, ());
        }
    }

    /// Whether every row of the start of the batch is gone unless it is among the final states.
    pub fn clear(&self) -> bool {
        self.clear
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        !self.clear && self.rows.is_empty() && self.gone.is_empty()
    }

    /// Whether it holds only rows that did not exist at the start.
    pub fn only_new(&self) -> bool {
        !self.clear && self.gone.is_empty() && self.rows.values().all(|entry| entry.start.is_none())
    }

    /// Whether no new row has an identity that another row had at the start. The target may not
    /// know that row (a dead row that is not remembered), and so could not distinguish the two.
    pub(crate) fn new_rows_stand_apart(&self) -> bool {
        let is_new = |identity: &Row| {
            self.rows
                .get(identity)
                .is_some_and(|entry| entry.start.is_none())
        };
        let moved = self.rows.iter().filter_map(|(identity, entry)| {
            let start = entry.start.as_ref()?;
            (start != identity).then_some(start)
        });
        !self.gone.keys().chain(moved).any(is_new)
    }

    /// Number of final states.
    pub fn len(&self) -> usize {
        self.rows.len() + self.gone.len()
    }

    /// Approximate bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a final state lacks an unchanged value, so that the writer must look it up.
    pub(crate) fn has_unchanged(&self) -> bool {
        self.all().has_unchanged()
    }

    /// The final states, gone rows first.
    pub fn finals(&self) -> impl Iterator<Item = Final<'_>> {
        let gone = self.gone.keys().map(|start| Final {
            start: Some(start),
            now: None,
        });
        let rows = self.rows.iter().map(|(identity, entry)| Final {
            start: entry.start.as_ref(),
            now: Some(Now {
                identity,
                live: entry.live,
                values: &entry.values,
            }),
        });
        gone.chain(rows)
    }
}

/// `new` with its unchanged cells taken from `before`.
fn fill_unchanged(new: Row, before: &Row) -> Row {
    if !new.has_unchanged() {
        return new;
    }
    Row::from_cells(
        new.cells()
            .zip(before.cells())
            .map(|(new, before)| match new {
                Cell::Unchanged => before,
                new => new,
            }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn row(text: &str) -> Row {
        Row::from_cells([if text == "u" {
            Cell::Unchanged
        } else {
            Cell::Text(text.as_bytes())
        }])
    }

    fn image(identity: &str, values: &str, live: bool) -> Image {
        Image {
            identity: row(identity),
            live,
            values: row(values),
        }
    }

    pub(super) fn insert(identity: &str, values: &str) -> Change {
        Change::Insert(image(identity, values, true))
    }

    pub(super) fn update(old: Option<&str>, identity: &str, values: &str) -> Change {
        Change::Update {
            old: old.map(row),
            new: image(identity, values, true),
        }
    }

    pub(super) fn delete(identity: &str) -> Change {
        Change::Delete(row(identity))
    }

    pub(super) fn folded(changes: Vec<Change>) -> Fold {
        let mut fold = Fold::default();
        for change in changes {
            fold.add(change);
        }
        fold
    }

    /// Finals as text, sorted: `start -> identity=value`.
    fn check(changes: Vec<Change>, clear: bool, expected: &[&str]) {
        let show = |row: &Row| {
            row.cells()
                .map(|cell| match cell {
                    Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                })
                .collect::<String>()
        };
        let fold = folded(changes);
        assert_eq!(fold.clear(), clear);
        let mut finals: Vec<_> = fold
            .finals()
            .map(|Final { start, now }| {
                let start = start.map_or("new".to_owned(), show);
                let now = now.map_or("gone".to_owned(), |now| {
                    format!(
                        "{}={}{}",
                        show(now.identity),
                        show(now.values),
                        if now.live { "" } else { " dead" }
                    )
                });
                format!("{start} -> {now}")
            })
            .collect();
        finals.sort();
        assert_eq!(finals, expected);
    }

    #[test]
    fn final_states_of_small_histories() {
        check(vec![], false, &[]);
        check(vec![insert("1", "a")], false, &["new -> 1=a"]);
        check(
            vec![insert("1", "a"), update(None, "1", "b")],
            false,
            &["new -> 1=b"],
        );
        check(vec![insert("1", "a"), delete("1")], false, &[]);
        check(
            vec![update(None, "1", "a"), update(None, "1", "b")],
            false,
            &["1 -> 1=b"],
        );
        check(vec![delete("1")], false, &["1 -> gone"]);
        check(vec![delete("1"), insert("1", "b")], false, &["1 -> 1=b"]);
        check(
            vec![delete("1"), insert("1", "b"), delete("1")],
            false,
            &["1 -> gone"],
        );
        check(
            vec![update(None, "1", "a"), delete("1")],
            false,
            &["1 -> gone"],
        );
        check(
            vec![Change::Update {
                old: None,
                new: image("1", "a", false),
            }],
            false,
            &["1 -> 1=a dead"],
        );
    }

    #[test]
    fn a_changed_identity_carries_its_start_along() {
        check(vec![update(Some("1"), "2", "a")], false, &["1 -> 2=a"]);
        check(
            vec![update(Some("1"), "2", "a"), update(Some("2"), "3", "b")],
            false,
            &["1 -> 3=b"],
        );
        check(
            vec![update(Some("1"), "2", "a"), insert("1", "b")],
            false,
            &["1 -> 2=a", "new -> 1=b"],
        );
        check(
            vec![update(Some("1"), "2", "a"), delete("2")],
            false,
            &["1 -> gone"],
        );
        check(
            vec![insert("1", "a"), update(Some("1"), "2", "b")],
            false,
            &["new -> 2=b"],
        );
        let swap = vec![
            update(Some("1"), "9", "a"),
            update(Some("2"), "1", "b"),
            update(Some("9"), "2", "a"),
        ];
        check(swap, false, &["1 -> 2=a", "2 -> 1=b"]);
    }

    #[test]
    fn unchanged_values_come_from_the_batch_or_stay_marked() {
        check(
            vec![insert("1", "a"), update(None, "1", "u")],
            false,
            &["new -> 1=a"],
        );
        check(
            vec![update(None, "1", "a"), update(Some("1"), "2", "u")],
            false,
            &["1 -> 2=a"],
        );
        check(vec![update(None, "1", "u")], false, &["1 -> 1=Unchanged"]);
        check(
            vec![update(None, "1", "u"), update(None, "1", "b")],
            false,
            &["1 -> 1=b"],
        );
    }

    #[test]
    fn truncate_empties_the_fold() {
        check(
            vec![update(None, "1", "a"), delete("2"), Change::Truncate],
            true,
            &[],
        );
        check(
            vec![Change::Truncate, insert("1", "a"), delete("1")],
            true,
            &[],
        );
        check(
            vec![Change::Truncate, insert("1", "a"), update(None, "1", "u")],
            true,
            &["new -> 1=a"],
        );
    }

    #[test]
    fn what_a_stream_says_of_rows_that_cannot_be_there_is_taken_as_far_as_it_goes() {
        // After a TRUNCATE no earlier row is left to be looked up.
        check(
            vec![Change::Truncate, update(None, "1", "a"), delete("2")],
            true,
            &["new -> 1=a"],
        );
        // The row that came to an identity last has it.
        check(
            vec![update(None, "2", "b"), update(Some("1"), "2", "a")],
            false,
            &["1 -> 2=a", "2 -> gone"],
        );
    }

    #[test]
    fn a_fold_says_what_the_writer_may_leave_out() {
        // Changes; whether it is empty, holds new rows only, lacks a value; number of final states.
        for (changes, empty, only_new, unchanged, len) in [
            (vec![], true, true, false, 0),
            (vec![insert("1", "a"), delete("1")], true, true, false, 0),
            (vec![Change::Truncate], false, false, false, 0),
            (
                vec![Change::Truncate, insert("1", "a")],
                false,
                false,
                false,
                1,
            ),
            (
                vec![insert("1", "a"), insert("2", "b")],
                false,
                true,
                false,
                2,
            ),
            (vec![insert("1", "a"), delete("2")], false, false, false, 2),
            (vec![delete("2")], false, false, false, 1),
            (
                vec![insert("1", "a"), update(None, "2", "u")],
                false,
                false,
                true,
                2,
            ),
        ] {
            let told = format!("{changes:?}");
            let fold = folded(changes);
            assert_eq!(
                (
                    fold.is_empty(),
                    fold.only_new(),
                    fold.has_unchanged(),
                    fold.len()
                ),
                (empty, only_new, unchanged, len),
                "{told}"
            );
        }
    }

    #[test]
    fn final_states_are_live_if_the_row_is_there_and_not_deleted() {
        for (change, live) in [
            (insert("1", "a"), true),
            (Change::Insert(image("1", "a", false)), false),
            (delete("1"), false),
        ] {
            let told = format!("{change:?}");
            let fold = folded(vec![change]);
            assert_eq!(
                fold.finals().map(|row| row.is_live()).collect::<Vec<_>>(),
                [live],
                "{told}"
            );
        }
    }

    #[test]
    fn new_rows_stand_apart_unless_they_have_an_identity_that_was_there() {
        for (changes, apart) in [
            (
                vec![insert("1", "a"), delete("2"), update(None, "3", "b")],
                true,
            ),
            // One row that went and came back.
            (vec![delete("1"), insert("1", "a")], true),
            (
                vec![delete("1"), insert("2", "a"), update(Some("2"), "1", "a")],
                false,
            ),
            (vec![update(Some("1"), "2", "a"), insert("1", "b")], false),
            (
                vec![update(Some("1"), "2", "a"), update(Some("3"), "1", "b")],
                true,
            ),
        ] {
            let told = format!("{changes:?}");
            assert_eq!(folded(changes).new_rows_stand_apart(), apart, "{told}");
        }
    }

    #[test]
    fn a_fold_is_as_large_as_the_rows_that_it_holds_and_the_state_of_each_that_is_there() {
        let state = size_of::<(Row, Entry)>();
        let (text, long) = (row("1").bytes(), row("longer").bytes());
        for (changes, bytes) in [
            (vec![], 0),
            (vec![insert("1", "longer")], state + text + long),
            (vec![insert("1", "longer"), delete("1")], 0),
            (
                vec![insert("1", "longer"), update(None, "1", "a")],
                state + 2 * text,
            ),
            // With the identity that it had at the start.
            (vec![update(None, "1", "longer")], state + 2 * text + long),
            (
                vec![update(Some("longer"), "1", "a")],
                state + 2 * text + long,
            ),
            (vec![delete("longer")], long),
            (
                vec![delete("longer"), insert("longer", "a")],
                state + 2 * long + text,
            ),
            (vec![update(None, "1", "longer"), Change::Truncate], 0),
            (
                vec![update(None, "2", "longer"), update(Some("1"), "2", "a")],
                state + 4 * text,
            ),
        ] {
            let told = format!("{changes:?}");
            assert_eq!(folded(changes).bytes(), bytes, "{told}");
        }
    }

    /// A table as a plain map, to compare with: identity -> (start identity, value).
    type Table = BTreeMap<u8, (Option<u8>, u8)>;

    proptest! {
        /// Whatever happens to a table, the finals applied to its state at the start give its state
        /// at the end.
        #[test]
        fn finals_lead_from_the_start_to_the_end(steps in prop::collection::vec((0u8..6, 0u8..6, 0u8..6), 0..60)) {
            let mut table: Table = (0..3).map(|id| (id, (Some(id), 100 + id))).collect();
            let mut fold = Fold::default();
            let id = |id: u8| Row::from_cells([Cell::Text(&[b'0' + id])]);
            let values = |value: u8| Row::from_cells([Cell::Text(&[value])]);
            for (value, (kind, a, b)) in (0u8..).zip(steps) {
                let known = table.contains_key(&a);
                match kind {
                    0 | 1 if !known => {
                        table.insert(a, (None, value));
                        fold.add(Change::Insert(Image { identity: id(a), live: true, values: values(value) }));
                    }
                    0 | 1 => {
                        table.entry(a).and_modify(|row| row.1 = value);
                        fold.add(Change::Update { old: None, new: Image { identity: id(a), live: true, values: values(value) } });
                    }
                    2 | 3 if known && !table.contains_key(&b) => {
                        let (start, old) = table.remove(&a).unwrap();
                        table.insert(b, (start, old));
                        let unchanged = Row::from_cells([Cell::Unchanged]);
                        fold.add(Change::Update { old: Some(id(a)), new: Image { identity: id(b), live: true, values: unchanged } });
                    }
                    4 if known => {
                        table.remove(&a);
                        fold.add(Change::Delete(id(a)));
                    }
                    5 if a == 0 && b == 0 => {
                        table.clear();
                        fold.add(Change::Truncate);
                    }
                    _ => {}
                }
            }
            let mut state: BTreeMap<Row2, u8> = if fold.clear() { BTreeMap::new() } else {
                (0..3u8).map(|i| (vec![b'0' + i], 100 + i)).collect()
            };
            let at_start = state.clone();
            let finals: Vec<_> = fold.finals().collect();
            let bytes = |row: Option<&Row>| row.map_or(0, Row::bytes);
            let held: usize = finals.iter().map(|one| {
                let now = one.now.map_or(0, |now| size_of::<(Row, Entry)>() + bytes(Some(now.identity)) + bytes(Some(now.values)));
                bytes(one.start) + now
            }).sum();
            prop_assert_eq!(fold.bytes(), held);
            for start in finals.iter().filter_map(|f| f.start) {
                state.remove(&text(start));
            }
            for Final { start, now } in &finals {
                if let Some(now) = now {
                    let value = match now.values.cell(0) {
                        Cell::Unchanged => at_start[&text(start.unwrap())],
                        other => other.text().unwrap()[0],
                    };
                    prop_assert_eq!(state.insert(text(now.identity), value), None);
                }
            }
            let expected: BTreeMap<Row2, u8> = table.into_iter().map(|(i, (_, value))| (vec![b'0' + i], value)).collect();
            prop_assert_eq!(state, expected);
        }
    }

    type Row2 = Vec<u8>;

    fn text(row: &Row) -> Row2 {
        row.cell(0).text().unwrap().to_vec()
    }
}
