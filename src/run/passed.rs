//! How far the stream has come, told to the watch: what it sees in the catalogs may still be on its way in the stream.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::lsn::Lsn;
use crate::read_model::Change;

/// Positions of the running stream; each only moves forward.
#[derive(Debug)]
pub struct Passed {
    applied: AtomicU64,
    /// For each read model the commit of the last TRUNCATE that the stream brought.
    truncated: Vec<AtomicU64>,
}

impl Passed {
    /// A stream of so many read models that begins.
    pub fn new(read_models: usize) -> Self {
        Self {
            applied: AtomicU64::new(0),
            truncated: (0..read_models).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Notes which of these changes of a transaction are a TRUNCATE. They are received, and not yet applied.
    pub fn bring(&self, changes: &[(usize, Change)], commit: Lsn) {
        for (index, _) in changes
            .iter()
            .filter(|(_, change)| matches!(change, Change::Truncate))
        {
            if let Some(truncated) = self.truncated.get(*index) {
                truncated.fetch_max(commit.0, Ordering::Relaxed);
            }
        }
    }

    /// Every commit before this position is in the target.
    pub fn apply(&self, position: Lsn) {
        self.applied.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Every commit before this is in the target.
    pub fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Relaxed))
    }

    /// The commit of the last TRUNCATE of this read model that the stream brought; zero if there was none.
    pub fn truncated(&self, index: usize) -> Lsn {
        let truncated = self.truncated.get(index);
        truncated.map_or(Lsn::ZERO, |lsn| Lsn(lsn.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_truncate_of_each_read_model_is_known() {
        let passed = Passed::new(2);
        passed.bring(&[(0, Change::Truncate), (5, Change::Truncate)], Lsn(100));
        passed.bring(&[], Lsn(200));
        passed.apply(Lsn(300));
        passed.apply(Lsn(250));
        assert_eq!(
            [
                passed.applied(),
                passed.truncated(0),
                passed.truncated(1),
                passed.truncated(5)
            ],
            [Lsn(300), Lsn(100), Lsn::ZERO, Lsn::ZERO]
        );
    }
}
