//! A copy follows the stream of its own slot up to one position: every commit before it, none at or
//! after it.

use std::sync::Arc;

use crate::batch::IndexedFold;
use crate::consume::intake::{Intake, Step};
use crate::consume::pending::Pending;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::protocol::frame::StreamFrame;
use crate::read_model::{ModelIndex, ReadModel};
use crate::shape::Shape;
use crate::sql::TableName;
use crate::transaction::Leaf;

/// Bytes of folded changes after which the shadow is brought forward.
const MOST_PENDING_BYTES: usize = 16 << 20;

/// The slot's own stream, folded for the shadow.
#[derive(Debug)]
pub struct Follower {
    intake: Intake,
    pending: Pending,
    received: Lsn,
    end: Option<Lsn>,
    /// A part of the open transaction is in the shadow, or on its way: it has to follow as a whole.
    is_partly: bool,
    /// Leaves whose changes came under the name of their table.
    leaves: Vec<Leaf>,
}

impl Follower {
    /// Follows from the slot's consistent point, for the read models of the copy.
    pub fn new(consistent_point: Lsn, copied: &[(ModelIndex, Arc<ReadModel>)]) -> Self {
        let places = copied.iter().map(|(index, _)| index.0 + 1).max();
        let mut models = vec![None; places.unwrap_or_default()];
        for (index, model) in copied {
            if let Some(place) = index.of_mut(&mut models) {
                *place = Some(Arc::clone(model));
            }
        }
        Self {
            intake: Intake::new(consistent_point, None, consistent_point, models),
            pending: Pending::default(),
            received: consistent_point,
            end: None,
            is_partly: false,
            leaves: Vec::new(),
        }
    }

    /// As [`Intake::with_chunks_of`].
    #[must_use]
    pub fn with_chunks_of(self, chunk_bytes: usize) -> Self {
        Self {
            intake: self.intake.with_chunks_of(chunk_bytes),
            ..self
        }
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub fn take(&mut self, frame: &StreamFrame<'_>) -> Result<()> {
        let step = self.intake.take(frame)?;
        self.step(step)
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Whole(mut transaction) => {
                self.leaves.append(&mut transaction.leaves);
                self.received = self.received.max(transaction.end_lsn);
                self.is_partly = false;
                self.pending.add(transaction);
            }
            Step::Passed(position) => self.received = self.received.max(position),
            // No reader sees the shadow before the transaction is whole.
            Step::Nothing | Step::Began(_) => {
                if let Some(chunk) = self.intake.take_chunk()? {
                    self.pending.add_part(chunk.changes);
                    self.is_partly = true;
                }
            }
        }
        Ok(())
    }

    /// From here on it goes up to this position, and no further; without one as far as the stream.
    /// What came beyond the last end is taken in now, if it lies before this one.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn go_on_to(&mut self, end: Option<Lsn>) -> Result<()> {
        self.end = end;
        let step = self.intake.go_on(end)?;
        self.step(step)
    }

    /// Whether everything before the end was received.
    pub fn is_at_end(&self) -> bool {
        self.intake.is_at_end() || self.end.is_some_and(|end| self.received >= end)
    }

    /// Whether no more than these bytes of WAL are missing, and no part of a transaction.
    pub fn is_near(&self, end: Lsn, bytes: u64) -> bool {
        !self.is_partly && end.bytes_since(self.received) <= bytes
    }

    /// Whether the shadow has to be brought forward before more is taken in.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.bytes() >= MOST_PENDING_BYTES
    }

    /// Every commit before this was received.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// Takes the rows that wait.
    ///
    /// # Errors
    /// If a table was altered in the meantime: the next copy reads it as it is then.
    pub fn take_folds(&mut self) -> Result<Vec<IndexedFold>> {
        let (folds, broken) = self.pending.take_folds();
        match broken.into_iter().next() {
            Some(suspended) => Err(suspended.error),
            None => Ok(folds),
        }
    }

    /// Proves the descriptions by which the rows were mapped.
    ///
    /// # Errors
    /// If they may be of other columns.
    pub fn prove(&mut self, shapes: &[(TableName, Shape)]) -> Result<(), Error> {
        if let Some(broken) = self.intake.assembler.prove(shapes).pop() {
            return Err(broken.error);
        }
        for (root, leaf) in &self.leaves {
            if let Some((_, shape)) = shapes.iter().find(|(table, _)| table == root) {
                shape.has_leaf(root, *leaf)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::PgTimestamp;
    use crate::transaction::tests::{begin, commit, insert, model, relation};

    fn follower(chunk_bytes: usize) -> Follower {
        Follower::new(Lsn(100), &[(ModelIndex(0), model())]).with_chunks_of(chunk_bytes)
    }

    fn take(follower: &mut Follower, payloads: &[Vec<u8>]) {
        for payload in payloads {
            let frame = StreamFrame::WalData {
                start: Lsn(0),
                end: Lsn(0),
                send_time: PgTimestamp(0),
                payload,
            };
            follower.take(&frame).unwrap();
        }
    }

    fn rows(follower: &mut Follower) -> usize {
        let folds = follower.take_folds().unwrap();
        folds.iter().map(|(_, fold)| fold.len()).sum()
    }

    /// The transaction that came beyond the first end is not lost, whole or in chunks.
    #[test]
    fn a_copy_goes_on_behind_its_end() {
        for chunk_bytes in [usize::MAX, 1] {
            let mut follower = follower(chunk_bytes);
            take(
                &mut follower,
                &[begin(110), relation("label"), insert("1"), commit(110)],
            );
            follower.go_on_to(Some(Lsn(119))).unwrap();
            assert!(!follower.is_at_end());
            take(&mut follower, &[begin(120), insert("2")]);
            if chunk_bytes == usize::MAX {
                take(&mut follower, &[commit(120)]);
            }
            assert!(follower.is_at_end());
            assert_eq!(rows(&mut follower), 1);
            // It lies beyond this end as well.
            follower.go_on_to(Some(Lsn(120))).unwrap();
            assert!(follower.is_at_end());
            assert_eq!((rows(&mut follower), follower.received()), (0, Lsn(118)));
            follower.go_on_to(None).unwrap();
            assert!(!follower.is_at_end());
            if chunk_bytes == 1 {
                take(&mut follower, &[insert("3"), commit(120)]);
            }
            take(&mut follower, &[begin(130), insert("4"), commit(130)]);
            follower.go_on_to(Some(Lsn(140))).unwrap();
            let expected = if chunk_bytes == 1 { 3 } else { 2 };
            assert_eq!(rows(&mut follower), expected, "chunks of {chunk_bytes}");
        }
    }
}
