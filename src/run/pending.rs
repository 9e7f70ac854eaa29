//! The batch that is being collected while the one before is applied: whole transactions, folded.

use crate::error::Error;
use crate::fold::Fold;
use crate::read_model::Change;
use crate::target::writer::{Batch, Position};
use crate::transaction::Transaction;

/// Bytes of changes of one transaction that are kept in memory; above, it goes on chunk by chunk.
pub const CHUNK_BYTES: usize = 8 << 20;

/// A read model's index and its rows.
pub type IndexedFold = (usize, Fold);

/// Whole transactions that wait to be applied.
#[derive(Debug, Default)]
pub struct Pending {
    folds: Vec<IndexedFold>,
    suspended: Vec<(usize, Error)>,
    position: Option<Position>,
    transactions: u64,
}

impl Pending {
    /// Adds the next transaction.
    pub fn add(&mut self, transaction: Transaction) {
        self.add_part(transaction.changes);
        self.suspended.extend(transaction.broken);
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
    }

    /// Adds changes of a transaction whose end is to come.
    pub fn add_part(&mut self, changes: Vec<(usize, Change)>) {
        for (index, change) in changes {
            self.fold(index).add(change);
        }
    }

    fn fold(&mut self, index: usize) -> &mut Fold {
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

    /// Forgets what waits for a read model that does not take part after all.
    pub fn forget(&mut self, index: usize) {
        self.folds.retain(|(of, _)| *of != index);
        self.suspended.retain(|(of, _)| *of != index);
    }

    /// Number of transactions.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// Approximate bytes in memory.
    pub fn bytes(&self) -> usize {
        self.folds.iter().map(|(_, fold)| fold.bytes()).sum()
    }

    /// Takes everything as a batch.
    pub fn take(&mut self) -> Option<Batch> {
        let Self {
            folds,
            suspended,
            position,
            transactions,
        } = std::mem::take(self);
        Some(Batch {
            position: position?,
            folds,
            suspended,
            transactions,
            chunks: 0,
        })
    }

    /// Takes the folds alone: for what keeps no checkpoint, a chunk or a copy that is brought forward.
    pub fn take_folds(&mut self) -> (Vec<IndexedFold>, Vec<(usize, Error)>) {
        let taken = std::mem::take(self);
        (taken.folds, taken.suspended)
    }
}
