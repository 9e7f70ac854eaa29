//! The final states of a fold, or those of them that the writer takes in one way.

use super::{Final, Fold};

/// Some of a fold's final states, counted.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    fold: &'a Fold,
    /// Whether the rows must be new; `None` takes all.
    new: Option<bool>,
    len: usize,
    bytes: usize,
}

impl Fold {
    /// All final states.
    pub fn all(&self) -> Share<'_> {
        Share {
            fold: self,
            new: None,
            len: self.len(),
            bytes: self.bytes,
        }
    }

    /// The rows that were not there at the start of the batch.
    pub(crate) fn new_rows(&self) -> Share<'_> {
        let entries = self.rows.iter().filter(|(_, entry)| entry.start.is_none());
        let (len, bytes) = entries.fold((0, 0), |(len, bytes), (identity, entry)| {
            (len + 1, bytes + entry.bytes(identity))
        });
        Share {
            fold: self,
            new: Some(true),
            len,
            bytes,
        }
    }

    /// All others: the rows that existed at the start, whether they exist now or not.
    pub(crate) fn known_rows(&self) -> Share<'_> {
        let new = self.new_rows();
        Share {
            fold: self,
            new: Some(false),
            len: self.len().saturating_sub(new.len),
            bytes: self.bytes.saturating_sub(new.bytes),
        }
    }
}

impl<'a> Share<'a> {
    /// Number of final states.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Approximate bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the target's rows that are not among the fold's final states are gone.
    pub(crate) fn clear(&self) -> bool {
        self.fold.clear
    }

    /// Whether a final state lacks an unchanged value, so that the writer must look it up.
    pub(crate) fn has_unchanged(&self) -> bool {
        let mut rows = self.finals().filter_map(|row| row.now);
        rows.any(|now| now.values.has_unchanged())
    }

    /// The final states, gone rows first.
    pub(crate) fn finals(self) -> impl Iterator<Item = Final<'a>> {
        self.fold
            .finals()
            .filter(move |row| self.new.is_none_or(|new| row.start.is_none() == new))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{delete, folded, insert, update};
    use super::*;
    use crate::read_model::Change;

    #[test]
    fn new_rows_and_others_share_the_fold() {
        // Changes; new rows, and whether one lacks a value; others, and whether one lacks a value.
        for (changes, new, known) in [
            (vec![], (0, false), (0, false)),
            (
                vec![insert("1", "a"), insert("2", "b")],
                (2, false),
                (0, false),
            ),
            (
                vec![insert("1", "a"), update(None, "2", "u"), delete("3")],
                (1, false),
                (2, true),
            ),
            (
                vec![insert("1", "u"), update(None, "2", "a")],
                (1, true),
                (1, false),
            ),
            // A row of the start returns under its identity: it is not new.
            (vec![delete("1"), insert("1", "a")], (0, false), (1, false)),
            (
                vec![update(Some("1"), "2", "a"), insert("1", "b")],
                (1, false),
                (1, false),
            ),
        ] {
            let told = format!("{changes:?}");
            let fold = folded(changes);
            let shown = |share: Share<'_>| {
                assert_eq!(share.finals().count(), share.len(), "{told}");
                assert_eq!(share.is_empty(), share.finals().next().is_none(), "{told}");
                (share.len(), share.has_unchanged())
            };
            assert_eq!(
                (shown(fold.new_rows()), shown(fold.known_rows())),
                (new, known),
                "{told}"
            );
            assert_eq!(
                shown(fold.all()),
                (new.0 + known.0, new.1 || known.1),
                "{told}"
            );
            assert_eq!(
                fold.new_rows().bytes() + fold.known_rows().bytes(),
                fold.all().bytes(),
                "{told}"
            );
            let new = |share: Share<'_>| share.finals().filter(|row| row.start.is_none()).count();
            assert_eq!(
                (new(fold.new_rows()), new(fold.known_rows())),
                (fold.new_rows().len(), 0)
            );
        }
    }

    #[test]
    fn a_share_is_as_large_as_its_rows() {
        let fold = folded(vec![
            insert("1", "longer"),
            update(None, "2", "a"),
            delete("3"),
        ]);
        let alone = |changes| folded(changes).bytes();
        assert_eq!(fold.new_rows().bytes(), alone(vec![insert("1", "longer")]));
        assert_eq!(
            fold.known_rows().bytes(),
            alone(vec![update(None, "2", "a"), delete("3")])
        );
    }

    #[test]
    fn every_share_tells_that_nothing_else_is_left() {
        for (changes, clear) in [
            (vec![insert("1", "a")], false),
            (vec![Change::Truncate], true),
        ] {
            let fold = folded(changes);
            let told = [fold.all(), fold.new_rows(), fold.known_rows()].map(|share| share.clear());
            assert_eq!(told, [clear; 3]);
        }
    }
}
