//! What the stream and the watch know about each other.
//!
//! How far the stream has come: a change that the watch sees in the catalogs may still be on its
//! way. And which leaves the watch has never seen although the stream has brought changes of them:
//! a leaf that is attached, changed and detached between two looks leaves its rows in the lookup,
//! and nothing in the catalogs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::lsn::Lsn;
use crate::read_model::{Change, ModelIndex};

/// Positions of the running stream; each only moves forward.
#[derive(Debug)]
pub struct Passed {
    applied: AtomicU64,
    /// For each read model the commit of the last TRUNCATE that the stream brought.
    truncated: Vec<AtomicU64>,
    leaves: Mutex<Vec<Leaves>>,
}

/// Leaves of one read model's table, by OID.
#[derive(Debug, Clone, Default)]
struct Leaves {
    /// Those that the watch has seen: it notices when they go.
    seen: BTreeSet<u32>,
    /// Others that the stream has brought changes of.
    unseen: BTreeSet<u32>,
}

impl Passed {
    /// A stream of so many read models that begins.
    pub fn new(read_models: usize) -> Self {
        Self {
            applied: AtomicU64::new(0),
            truncated: (0..read_models).map(|_| AtomicU64::new(0)).collect(),
            leaves: Mutex::new(vec![Leaves::default(); read_models]),
        }
    }

    /// Notes that a transaction has changed this leaf; returns whether the watch has never seen it.
    /// It is received, and not yet applied.
    pub(crate) fn bring_leaf(&self, index: ModelIndex, leaf: u32) -> bool {
        self.with_leaves(index, |leaves| {
            let unseen = !leaves.seen.contains(&leaf);
            if unseen {
                leaves.unseen.insert(leaf);
            }
            unseen
        })
    }

    /// The leaves that the stream has brought and the watch has not seen.
    pub(crate) fn unseen(&self, index: ModelIndex) -> BTreeSet<u32> {
        self.with_leaves(index, |leaves| leaves.unseen.clone())
    }

    /// The watch has looked: it knows these leaves now, and has dealt with those that were unseen
    /// when it began to look.
    pub(crate) fn see_leaves(
        &self,
        index: ModelIndex,
        seen: &BTreeSet<u32>,
        settled: &BTreeSet<u32>,
    ) {
        self.with_leaves(index, |leaves| {
            leaves.seen.clone_from(seen);
            leaves.unseen.retain(|leaf| !settled.contains(leaf));
        });
    }

    fn with_leaves<T: Default>(&self, index: ModelIndex, of: impl FnOnce(&mut Leaves) -> T) -> T {
        // Nothing that runs under the lock can panic.
        let mut all = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        index.of_mut(&mut all).map(of).unwrap_or_default()
    }

    /// Notes which of these changes of a transaction are a TRUNCATE. They are received, and not yet
    /// applied.
    pub(crate) fn bring(&self, changes: &[(ModelIndex, Change)], commit: Lsn) {
        for (index, _) in changes
            .iter()
            .filter(|(_, change)| matches!(change, Change::Truncate))
        {
            if let Some(truncated) = index.of(&self.truncated) {
                truncated.fetch_max(commit.0, Ordering::Relaxed);
            }
        }
    }

    /// Every commit before this position is in the target.
    pub(crate) fn apply(&self, position: Lsn) {
        self.applied.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Every commit before this is in the target.
    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Relaxed))
    }

    /// The commit of the last TRUNCATE of this read model that the stream brought; zero if there
    /// was none.
    pub(crate) fn truncated(&self, index: ModelIndex) -> Lsn {
        let truncated = index.of(&self.truncated);
        truncated.map_or(Lsn::ZERO, |lsn| Lsn(lsn.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: ModelIndex = ModelIndex(0);

    #[test]
    fn a_leaf_is_unseen_until_a_look_that_began_later() {
        let passed = Passed::new(1);
        let leaves = |oids: &[u32]| oids.iter().copied().collect::<BTreeSet<u32>>();
        passed.see_leaves(LABELS, &leaves(&[1]), &leaves(&[]));
        assert!(!passed.bring_leaf(LABELS, 1) && passed.bring_leaf(LABELS, 2));
        assert!(!passed.bring_leaf(ModelIndex(7), 2), "no read model");
        let settled = passed.unseen(LABELS);
        assert!(passed.bring_leaf(LABELS, 3));
        passed.see_leaves(LABELS, &leaves(&[1, 2]), &settled);
        assert_eq!(passed.unseen(LABELS), leaves(&[3]));
        assert!(!passed.bring_leaf(LABELS, 2));
    }

    #[test]
    fn the_last_truncate_of_each_read_model_is_known() {
        let passed = Passed::new(2);
        let truncate = |index| (ModelIndex(index), Change::Truncate);
        passed.bring(&[truncate(0), truncate(5)], Lsn(100));
        passed.bring(&[], Lsn(200));
        passed.apply(Lsn(300));
        passed.apply(Lsn(250));
        assert_eq!(
            [
                passed.applied(),
                passed.truncated(ModelIndex(0)),
                passed.truncated(ModelIndex(1)),
                passed.truncated(ModelIndex(5))
            ],
            [Lsn(300), Lsn(100), Lsn::ZERO, Lsn::ZERO]
        );
    }
}
