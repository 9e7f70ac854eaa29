//! The writer in memory: what `sql/target/write/fold_chunk.sql`, `merge.sql`, `take_in.sql` and
//! `share_out_keys.sql` do with the final states of a batch, without the short ways that they take
//! where nothing changes hands.

use std::collections::BTreeMap;

use cdc::fold::{Final, Fold};
use cdc::read_model::ReadModel;
use cdc::row::{Cell, Row};

use crate::text::Text;

/// A value; NULL sorts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Unchanged,
    Text(Text),
}

/// The values of an identity, of a key or of a whole lookup row.
pub type Values = Vec<Value>;

fn values(row: &Row) -> Values {
    let value = |cell| match cell {
        Cell::Null => Value::Null,
        Cell::Unchanged => Value::Unchanged,
        Cell::Text(text) => Value::Text(Text::from(text)),
    };
    row.cells().map(value).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Shown,
    Waits,
    Dead,
}

/// A row of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: Values,
    state: State,
    /// Of a row that is not shown.
    values: Values,
}

/// Identity, whether it is live, and values.
pub type Present = (Values, bool, Values);

/// A staged final state.
#[derive(Debug)]
pub struct Staged {
    pub start: Option<Values>,
    /// `None` of a row that is gone or need not be remembered.
    pub now: Option<Present>,
}

/// A lookup table with its map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// The lookup's rows by key.
    pub lookup: BTreeMap<Values, Values>,
    map: BTreeMap<Values, Entry>,
}

/// The final state as `target/write/rows.rs` stages it: a dead row without a value that could be
/// left out later is not remembered.
fn staged(model: &ReadModel, state: Final<'_>) -> Staged {
    let now = state.now.filter(|now| now.live || model.keeps_dead_rows());
    Staged {
        start: state.start.map(values),
        now: now.map(|now| (values(now.identity), now.live, values(now.values))),
    }
}

/// Final states that wait for the end of their transaction: of one fold, or of several chunks.
#[derive(Debug, Default)]
pub struct Stage {
    pub rows: Vec<Staged>,
    /// What is not among them is gone.
    pub clear: bool,
    /// Whether there is a chunk.
    begun: bool,
}

impl Stage {
    /// All rows that there are.
    pub fn whole(rows: impl Iterator<Item = Present>) -> Self {
        let row = |now| Staged {
            start: None,
            now: Some(now),
        };
        Self {
            rows: rows.map(row).collect(),
            clear: true,
            begun: true,
        }
    }

    /// Adds the next chunk: the first one, and one of new rows alone, as it is.
    pub fn add(&mut self, model: &ReadModel, fold: &Fold) {
        let chunk: Vec<Staged> = fold.finals().map(|state| staged(model, state)).collect();
        if fold.clear() {
            self.rows = chunk;
        } else if !self.begun || fold.only_new() {
            self.rows.extend(chunk);
        } else {
            self.fold_in(chunk);
        }
        self.begun = true;
        self.clear |= fold.clear();
    }

    /// What a row was at the start of the chunk is what it was at the end of the ones before.
    fn fold_in(&mut self, chunk: Vec<Staged>) {
        let mut folded = Vec::new();
        for Staged { start, mut now } in chunk {
            let is_start = |row: &Staged| {
                start.is_some() && row.now.as_ref().map(|now| &now.0) == start.as_ref()
            };
            let before = self
                .rows
                .iter()
                .position(is_start)
                .map(|at| self.rows.remove(at));
            let Some(before) = before else {
                let start = start.filter(|_| !self.clear);
                if now.is_some() || !self.clear {
                    folded.push(Staged { start, now });
                }
                continue;
            };
            if let (Some((_, _, values)), Some((_, _, held))) = (&mut now, before.now) {
                take_left_out(values, &held);
            }
            if now.is_some() || before.start.is_some() {
                folded.push(Staged {
                    start: before.start,
                    now,
                });
            }
        }
        self.rows.extend(folded);
    }
}

/// Takes the values that are left out from those that are held.
pub fn take_left_out(values: &mut Values, held: &Values) {
    for (value, held) in values.iter_mut().zip(held) {
        if *value == Value::Unchanged {
            *value = *held;
        }
    }
}

/// Fails if a value is still left out.
pub fn all_there(rows: &[Staged]) -> Result<(), String> {
    let mut present = rows.iter().filter_map(|row| row.now.as_ref());
    if present.any(|(_, _, values)| values.contains(&Value::Unchanged)) {
        return Err("an update left out a value that nobody holds".to_owned());
    }
    Ok(())
}

impl Target {
    /// Brings lookup and map to the final states.
    pub fn apply(&mut self, model: &ReadModel, stage: Stage) -> Result<(), String> {
        let key = |values: &Values| -> Values { model.key.iter().map(|at| values[*at]).collect() };
        let Stage {
            rows: mut staged,
            clear,
            ..
        } = stage;
        self.resolve(&mut staged);
        all_there(&staged)?;
        let touched = self.touched(clear, &staged, &key);
        let mut live = self.take_in(clear, staged, &key)?;
        for key in touched.keys() {
            self.share_out(key, &mut live)?;
        }
        for (key, claimed) in touched {
            let shown = |entry: &Entry| entry.state == State::Shown && entry.key == key;
            if !claimed && !self.map.values().any(shown) {
                self.lookup.remove(&key);
            }
        }
        for values in live.into_values() {
            self.lookup.insert(key(&values), values);
        }
        Ok(())
    }

    /// Left-out values are in the lookup row that the map names, or in the map.
    fn resolve(&self, staged: &mut [Staged]) {
        for row in staged {
            let (Some(start), Some((_, _, values))) = (&row.start, &mut row.now) else {
                continue;
            };
            let Some(entry) = self.map.get(start) else {
                continue;
            };
            let held = match entry.state {
                State::Shown => self.lookup.get(&entry.key),
                State::Waits | State::Dead => Some(&entry.values),
            };
            if let Some(held) = held {
                take_left_out(values, held);
            }
        }
    }

    /// Keys that may change hands, and whether a final state claims them.
    fn touched(
        &self,
        clear: bool,
        staged: &[Staged],
        key: &impl Fn(&Values) -> Values,
    ) -> BTreeMap<Values, bool> {
        let mut touched = BTreeMap::new();
        if clear {
            touched.extend(self.lookup.keys().map(|key| (key.clone(), false)));
        }
        let named = staged.iter().flat_map(|row| {
            let now = row.now.as_ref().map(|now| &now.0);
            [row.start.as_ref(), now].into_iter().flatten()
        });
        let entries: Vec<&Entry> = if clear {
            self.map.values().collect()
        } else {
            named
                .filter_map(|identity| self.map.get(identity))
                .collect()
        };
        let claims = entries
            .into_iter()
            .filter(|entry| entry.state != State::Dead);
        touched.extend(claims.map(|entry| (entry.key.clone(), false)));
        let live = staged
            .iter()
            .filter_map(|row| row.now.as_ref())
            .filter(|now| now.1);
        touched.extend(live.map(|now| (key(&now.2), true)));
        touched
    }

    /// The map takes the final states in; returns the values of the live ones by identity.
    fn take_in(
        &mut self,
        clear: bool,
        staged: Vec<Staged>,
        key: &impl Fn(&Values) -> Values,
    ) -> Result<BTreeMap<Values, Values>, String> {
        if clear {
            self.map.clear();
        }
        for start in staged.iter().filter_map(|row| row.start.as_ref()) {
            self.map.remove(start);
        }
        let mut live = BTreeMap::new();
        for (identity, is_live, values) in staged.into_iter().filter_map(|row| row.now) {
            let entry = Entry {
                key: key(&values),
                state: if is_live { State::Shown } else { State::Dead },
                values: if is_live {
                    Values::new()
                } else {
                    values.clone()
                },
            };
            if self.map.insert(identity.clone(), entry).is_some() {
                return Err(format!("two rows have the identity {identity:?}"));
            }
            if is_live {
                live.insert(identity, values);
            }
        }
        Ok(live)
    }

    /// Of the rows that claim the key the smallest identity is shown, the others wait with their
    /// values.
    fn share_out(
        &mut self,
        key: &Values,
        live: &mut BTreeMap<Values, Values>,
    ) -> Result<(), String> {
        let claims = |entry: &Entry| entry.state != State::Dead && entry.key == *key;
        let mut claimants = self.map.iter_mut().filter(|(_, entry)| claims(entry));
        let Some((winner, entry)) = claimants.next() else {
            return Ok(());
        };
        for (identity, entry) in claimants {
            let values = live.remove(identity);
            if entry.state == State::Shown {
                let values = values.or_else(|| self.lookup.get(key).cloned());
                entry.values = values.ok_or("a row that waits has no values")?;
            }
            entry.state = State::Waits;
        }
        if entry.state == State::Waits && !live.contains_key(winner) {
            live.insert(winner.clone(), std::mem::take(&mut entry.values));
        }
        entry.state = State::Shown;
        Ok(())
    }
}
