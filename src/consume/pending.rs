//! The batch that is being collected while the one before is applied: whole transactions, folded.

use crate::batch::{Batch, IndexedFold, Position, Suspended};
use crate::fold::Fold;
use crate::lsn::Lsn;
use crate::read_model::{Change, ModelIndex};
use crate::sql::TableName;
use crate::transaction::{Broken, Leaf, Transaction};

/// Whole transactions that wait to be applied.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    folds: Vec<IndexedFold>,
    suspended: Vec<Suspended>,
    position: Option<Position>,
    transactions: u64,
    /// Chunks of these transactions that were staged before.
    chunks: u64,
    /// Read models with changes of a leaf that the watch has never seen.
    unseen: Vec<ModelIndex>,
    /// Leaves whose changes came under the name of their table, since they were described; with the
    /// commit of the first.
    leaves: Vec<(Leaf, Lsn)>,
}

impl Pending {
    /// Adds the next transaction.
    pub(crate) fn add(&mut self, transaction: Transaction) {
        self.add_part(transaction.changes);
        for broken in transaction.broken {
            self.suspend(broken);
        }
        let last = self.position.take().and_then(|position| position.last);
        self.position = Some(Position {
            lsn: transaction.end_lsn,
            commit_time: Some(transaction.id.commit_time),
            last: if transaction.has_changes {
                Some(transaction.id)
            } else {
                last
            },
        });
        self.transactions += 1;
        self.chunks += transaction.chunks;
    }

    /// Notes that a leaf was described before the first change of this transaction.
    pub(crate) fn bring_leaf(&mut self, leaf: Leaf, commit_lsn: Lsn) {
        self.leaves.push((leaf, commit_lsn));
    }

    /// Tables whose leaves are to be proved.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &TableName> {
        self.leaves.iter().map(|((root, _), _)| root)
    }

    /// Takes the leaves that are to be proved.
    pub(crate) fn take_leaves(&mut self) -> Vec<(Leaf, Lsn)> {
        std::mem::take(&mut self.leaves)
    }

    /// Adds changes of a transaction whose end is to come.
    pub(crate) fn add_part(&mut self, changes: Vec<(ModelIndex, Change)>) {
        for (index, change) in changes {
            self.fold(index).add(change);
        }
    }

    fn fold(&mut self, index: ModelIndex) -> &mut Fold {
        let at = self
            .folds
            .iter()
            .position(|(of, _)| *of == index)
            .unwrap_or_else(|| {
                self.folds.push((index, Fold::default()));
                self.folds.len() - 1
            });
        match self.folds.get_mut(at) {
            Some((_, fold)) => fold,
            None => unreachable!("the position was just found"),
        }
    }

    /// Notes that a transaction which waits has changed a leaf that the watch has never seen.
    pub(crate) fn bring_unseen(&mut self, index: ModelIndex) {
        if !self.unseen.contains(&index) {
            self.unseen.push(index);
        }
    }

    /// Takes the read models whose unseen leaves have to be recorded before the batch is sent.
    pub(crate) fn take_unseen(&mut self) -> Vec<ModelIndex> {
        std::mem::take(&mut self.unseen)
    }

    fn suspend(&mut self, broken: Broken) {
        let Broken { index, error, .. } = broken;
        if !self.suspended.iter().any(|one| one.index == index) {
            self.suspended.push(Suspended { index, error });
        }
    }

    /// A read model leaves before all waiting changes for it.
    pub(crate) fn break_off(&mut self, broken: Broken) {
        self.folds.retain(|(of, _)| *of != broken.index);
        self.suspend(broken);
    }

    /// Forgets the waiting changes for a read model that does not take part after all.
    pub(crate) fn forget(&mut self, index: ModelIndex) {
        self.folds.retain(|(of, _)| *of != index);
        self.suspended.retain(|one| one.index != index);
    }

    /// Chunks of what waits that were staged before.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Number of read models whose rows wait.
    pub(crate) fn read_models(&self) -> usize {
        self.folds.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// Approximate bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.folds.iter().map(|(_, fold)| fold.bytes()).sum()
    }

    /// Takes everything as a batch; `None` if no transaction is whole.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let position = self.position.take()?;
        let Self {
            folds,
            suspended,
            transactions,
            chunks,
            ..
        } = std::mem::take(self);
        Some(Batch {
            position,
            folds,
            suspended,
            transactions,
            chunks,
        })
    }

    /// Takes the folds alone: for a chunk, or for a copy that is brought forward, neither of which
    /// stores a checkpoint.
    pub(crate) fn take_folds(&mut self) -> (Vec<IndexedFold>, Vec<Suspended>) {
        let taken = std::mem::take(self);
        (taken.folds, taken.suspended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::lsn::{Lsn, PgTimestamp};
    use crate::progress::TransactionId;
    use crate::row::{Cell, Row};

    fn id(commit_lsn: u64) -> TransactionId {
        TransactionId {
            commit_lsn: Lsn(commit_lsn),
            xid: 7,
            commit_time: PgTimestamp(1),
        }
    }

    /// A transaction that deletes one row for each of these read models.
    fn transaction(commit_lsn: u64, of: &[usize]) -> Transaction {
        let row = Row::from_cells([Cell::Text(&commit_lsn.to_be_bytes())]);
        Transaction {
            id: id(commit_lsn),
            end_lsn: Lsn(commit_lsn + 8),
            changes: of
                .iter()
                .map(|of| (ModelIndex(*of), Change::Delete(row.clone())))
                .collect(),
            broken: Vec::new(),
            has_changes: !of.is_empty(),
            leaves: Vec::new(),
            chunks: 0,
        }
    }

    fn rows(folds: &[IndexedFold]) -> Vec<(usize, usize)> {
        folds.iter().map(|(of, fold)| (of.0, fold.len())).collect()
    }

    #[test]
    fn a_batch_is_whole_transactions_and_ends_with_the_last_one() {
        let mut pending = Pending::default();
        assert!(pending.is_empty() && pending.take().is_none());
        for (commit_lsn, of) in [(100, [3, 1].as_slice()), (200, &[1]), (300, &[])] {
            pending.add(transaction(commit_lsn, of));
        }
        assert_eq!((pending.is_empty(), pending.transactions), (false, 3));
        let bytes = Row::from_cells([Cell::Text(&[0; 8])]).bytes();
        assert_eq!(pending.bytes(), 3 * bytes);
        let batch = pending.take().unwrap();
        assert_eq!(rows(&batch.folds), [(3, 1), (1, 2)]);
        let position = Position {
            lsn: Lsn(308),
            commit_time: Some(PgTimestamp(1)),
            last: Some(id(200)),
        };
        assert_eq!(
            (batch.position, batch.transactions, batch.chunks),
            (position, 3, 0)
        );
        assert!(pending.is_empty() && pending.take().is_none() && pending.bytes() == 0);
    }

    #[test]
    fn a_read_model_that_leaves_takes_its_rows_and_its_fault_along() {
        let mut pending = Pending::default();
        pending.add(transaction(100, &[0, 1]));
        pending.add(Transaction {
            broken: [(0, "zero"), (1, "one")]
                .map(|(index, why)| Broken {
                    index: ModelIndex(index),
                    commit_lsn: Lsn(200),
                    error: Error::broken(why),
                })
                .to_vec(),
            ..transaction(200, &[0, 1])
        });
        pending.forget(ModelIndex(0));
        let batch = pending.take().unwrap();
        assert_eq!(rows(&batch.folds), [(1, 2)]);
        let suspended: Vec<_> = batch.suspended.iter().map(|one| one.index.0).collect();
        assert_eq!(suspended, [1]);
    }

    #[test]
    fn a_read_model_that_breaks_off_leaves_before_all_that_waits_for_it() {
        let mut pending = Pending::default();
        pending.add(transaction(100, &[0, 1]));
        pending.add(transaction(200, &[0]));
        pending.break_off(Broken {
            index: ModelIndex(0),
            commit_lsn: Lsn(200),
            error: Error::broken("zero"),
        });
        let batch = pending.take().unwrap();
        assert_eq!((rows(&batch.folds), batch.transactions), (vec![(1, 1)], 2));
        let suspended: Vec<_> = batch.suspended.iter().map(|one| one.index.0).collect();
        assert_eq!(suspended, [0]);
    }

    #[test]
    fn a_part_of_a_transaction_is_no_batch() {
        let mut pending = Pending::default();
        pending.add_part(transaction(100, &[2]).changes);
        assert!(pending.is_empty() && pending.take().is_none());
        pending.add_part(transaction(200, &[2]).changes);
        let (folds, broken) = pending.take_folds();
        assert_eq!((rows(&folds), broken.len()), (vec![(2, 2)], 0));
        assert_eq!(rows(&pending.take_folds().0), []);
    }
}
