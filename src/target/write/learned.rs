//! What the session learns of its read models while it writes: whose rows are rejected, whose new
//! rows wait, how much was written.

use crate::read_model::ModelId;
use std::collections::{HashMap, HashSet};

use super::sweep::Dead;

/// Most batches that go through the stage before new rows bypass it again.
const MOST_PASSED_OVER: u32 = 64;

/// Rows written since the last planning after which the session plans again at the earliest: a plan
/// made for an empty table reads all of a large one.
const REPLAN_ROWS: i64 = 1000;

/// What the session has learned, by the number of the read model.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Read models with rejected rows.
    rejecting: HashSet<ModelId>,
    pub(super) put_off: PutOff,
    pub(super) dead: Dead,
    written_since_planning: i64,
    planned_rows: i64,
}

impl Learned {
    /// Whether the read model has rejected rows.
    pub(super) fn has_rejected(&self, id: ModelId) -> bool {
        self.rejecting.contains(&id)
    }

    /// Notes whether the read model has rejected rows.
    pub(super) fn note_rejected(&mut self, id: ModelId, has_rejected: bool) {
        if has_rejected {
            self.rejecting.insert(id);
        } else {
            self.rejecting.remove(&id);
        }
    }

    /// Notes that so many rows were written.
    pub(super) fn note_rows(&mut self, rows: i64) {
        self.written_since_planning += rows;
    }

    /// Whether the tables have doubled since the session planned.
    pub(super) fn have_tables_doubled(&self) -> bool {
        self.written_since_planning >= self.planned_rows.max(REPLAN_ROWS)
    }

    /// Notes that the session plans again.
    pub(super) fn note_planning(&mut self) {
        self.planned_rows += self.written_since_planning;
        self.written_since_planning = 0;
    }
}

/// Read models whose new rows were rejected when they bypassed the stage: not every batch is to be
/// written twice.
#[derive(Debug, Default)]
pub(super) struct PutOff(HashMap<ModelId, Wait>);

#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    /// Batches that still go by the stage.
    left: u32,
    /// Batches that went by it the last time.
    last: u32,
}

impl PutOff {
    /// Whether the read model's new rows go through the stage.
    pub(super) fn has(&self, id: ModelId) -> bool {
        self.0.get(&id).is_some_and(|wait| wait.left > 0)
    }

    /// Notes that a batch went through the stage that could have bypassed it.
    pub(super) fn pass_over(&mut self, id: ModelId) {
        if let Some(wait) = self.0.get_mut(&id) {
            wait.left = wait.left.saturating_sub(1);
        }
    }

    /// Notes that the target rejected a new row: the next batches go through the stage, each time
    /// twice as many.
    pub(super) fn add(&mut self, id: ModelId) {
        let wait = self.0.entry(id).or_default();
        wait.last = wait.last.saturating_mul(2).clamp(1, MOST_PASSED_OVER);
        wait.left = wait.last;
    }

    /// Notes that the target took all new rows.
    pub(super) fn remove(&mut self, id: ModelId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: ModelId = ModelId(1);

    #[test]
    fn new_rows_wait_twice_as_long_after_each_rejection() {
        let mut put_off = PutOff::default();
        assert!(!put_off.has(LABELS));
        for batches in [1, 2, 4, 8, 16, 32, 64, 64] {
            put_off.add(LABELS);
            for _ in 0..batches {
                assert!(put_off.has(LABELS), "{batches}");
                put_off.pass_over(LABELS);
            }
            assert!(!put_off.has(LABELS), "{batches}");
        }
        put_off.remove(LABELS);
        put_off.add(LABELS);
        put_off.pass_over(LABELS);
        assert!(!put_off.has(LABELS), "the wait begins at one batch again");
        assert!(!put_off.has(ModelId(2)));
    }

    #[test]
    fn the_session_plans_again_once_the_tables_have_doubled() {
        let mut learned = Learned::default();
        for (rows, doubled) in [(999, false), (1, true)] {
            learned.note_rows(rows);
            assert_eq!(learned.have_tables_doubled(), doubled, "{rows}");
        }
        learned.note_planning();
        learned.note_rows(1500);
        learned.note_planning();
        for (rows, doubled) in [(2499, false), (1, true)] {
            learned.note_rows(rows);
            assert_eq!(learned.have_tables_doubled(), doubled, "{rows}");
        }
    }
}
