//! Which way a batch goes: plain facts in, a way out. Nothing here waits or asks a server.
//!
//! [`Way::of`] judges a batch, [`RowsWay::of`] the rows of one read model within it. A caller that
//! learns something new on a way (the target rejects a row, a value cannot be an argument) puts it
//! into [`Known`] and asks again: the same answer means that there is no other way.

use crate::batch::{Batch, IndexedFold};
use crate::fold::{Fold, Share};

/// Most rows that go as arguments of one statement; above, COPY is cheaper.
const ONE_STATEMENT_ROWS: usize = 500;

/// Most bytes that go as arguments of one statement.
const ONE_STATEMENT_BYTES: usize = 1 << 20;

/// Most rows that are staged as arguments of one statement: of several read models, each but the
/// first takes a round trip more by `COPY`.
const STAGED_BY_STATEMENT_ROWS: usize = 5000;

/// How many rows there are, and how large they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Size {
    /// The size of these rows.
    pub(super) fn of(rows: Share<'_>) -> Self {
        Self {
            rows: rows.len(),
            bytes: rows.bytes(),
        }
    }

    /// Adds more rows.
    pub(super) fn add(&mut self, more: Self) {
        self.rows = self.rows.saturating_add(more.rows);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    /// Whether the rows are so few that each is looked up, whatever the tables hold.
    pub(super) fn has_few_rows(self) -> bool {
        self.rows <= ONE_STATEMENT_ROWS
    }

    /// Whether rows and bytes are so few that they can be arguments of one statement.
    pub(super) fn is_small(self) -> bool {
        self.has_few_rows() && self.bytes <= ONE_STATEMENT_BYTES
    }

    /// Whether the rows are staged by a statement; else by COPY.
    pub(super) fn is_staged_by_statement(self) -> bool {
        self.rows <= STAGED_BY_STATEMENT_ROWS && self.bytes <= ONE_STATEMENT_BYTES
    }
}

/// How a batch is written. The header of the folder says what each way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// One statement, which is one commit (`small.rs`).
    Small,
    /// One transaction in which each read model is staged and merged (`whole.rs`).
    Whole,
    /// The same without the rows that the target rejects (`whole.rs`, `rejected.rs`).
    Isolating,
    /// The end of a transaction whose chunks are staged (`chunked.rs`).
    Chunked,
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BatchFacts {
    /// Chunks of its transaction that are staged.
    pub(super) chunks: u64,
    /// Read models with rows.
    pub(super) read_models: usize,
    /// Read models that leave with it.
    pub(super) suspended: usize,
    /// All rows.
    pub(super) size: Size,
    /// Whether it holds a TRUNCATE.
    pub(super) clears: bool,
}

/// What is known when a batch is about to be written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Whether its rows can be arguments of one statement, as far as is known.
    pub(super) can_be_arguments: bool,
    /// Whether a read model of the batch has rejected rows.
    pub(super) has_rejected: bool,
    /// Whether the target has just rejected a row of the batch.
    pub(super) is_rejected: bool,
    /// Whether a read model of the batch continues without its rejected rows.
    pub(super) isolates: bool,
}

/// The rows of those read models of a batch that have some.
pub(super) fn with_rows(batch: &Batch) -> impl Iterator<Item = &IndexedFold> {
    batch.folds.iter().filter(|(_, fold)| !fold.is_empty())
}

impl BatchFacts {
    pub(super) fn of(batch: &Batch) -> Self {
        let mut facts = Self {
            chunks: batch.chunks,
            suspended: batch.suspended.len(),
            ..Self::default()
        };
        for (_, fold) in with_rows(batch) {
            facts.read_models += 1;
            facts.size.add(Size::of(fold.all()));
            facts.clears |= fold.clear();
        }
        facts
    }

    fn is_small(&self) -> bool {
        self.read_models == 1 && self.suspended == 0 && !self.clears && self.size.is_small()
    }
}

impl Way {
    /// The way of this batch.
    pub(super) fn of(batch: &BatchFacts, known: &Known) -> Self {
        if batch.chunks > 0 {
            Self::Chunked
        } else if known.has_rejected || known.is_rejected && known.isolates {
            Self::Isolating
        } else if batch.is_small() && known.can_be_arguments {
            Self::Small
        } else {
            Self::Whole
        }
    }
}

/// How the rows of one read model are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsWay {
    /// All by the stage.
    Stage,
    /// The same, although the new ones could bypass the stage: the target has rejected such rows
    /// lately.
    PutOff,
    /// The new ones bypass the stage (`new_rows.rs`), the others go through it.
    NewRows,
}

/// What the rows of one read model are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowFacts {
    /// Whether a TRUNCATE is among them.
    pub(super) clears: bool,
    /// Whether there are no others than new ones.
    pub(super) only_new: bool,
    /// Number of new ones.
    pub(super) new_rows: usize,
    /// Whether a new one lacks a value that the stream left out.
    pub(super) lacks_values: bool,
    /// Whether no new one has an identity that another row had at the start.
    pub(super) stand_apart: bool,
}

/// What the rows are a piece of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Piece {
    /// A batch, which is committed as soon as it is written.
    #[default]
    Batch,
    /// A chunk of a transaction, which stays open for long.
    Chunk,
}

/// What is known when the rows of one read model are about to be written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowsKnown {
    pub(super) piece: Piece,
    /// Whether the stage already has rows of the same transaction; they may hold another state of
    /// the same rows.
    pub(super) is_staged: bool,
    /// Whether the read model has rejected rows.
    pub(super) has_rejected: bool,
    /// Whether new rows of the read model wait, since the target has rejected some lately.
    pub(super) is_put_off: bool,
}

impl RowFacts {
    pub(super) fn of(fold: &Fold) -> Self {
        let rows = fold.new_rows();
        // Of few rows nothing else matters.
        let many = rows.len() > ONE_STATEMENT_ROWS;
        Self {
            clears: fold.clear(),
            only_new: fold.only_new(),
            new_rows: rows.len(),
            lacks_values: many && rows.has_unchanged(),
            stand_apart: many && fold.new_rows_stand_apart(),
        }
    }

    /// Whether the new rows are worth a way of their own, and can take it.
    fn can_pass_the_stage(&self) -> bool {
        let few = if self.only_new {
            ONE_STATEMENT_ROWS
        } else {
            STAGED_BY_STATEMENT_ROWS
        };
        self.new_rows > few && !self.clears && !self.lacks_values && self.stand_apart
    }
}

impl RowsWay {
    /// The way of these rows.
    pub(super) fn of(rows: &RowFacts, known: &RowsKnown) -> Self {
        let is_in_the_way = known.is_staged || known.has_rejected;
        // The rest of a chunk would be written long after its new rows.
        let is_split = known.piece == Piece::Chunk && !rows.only_new;
        if !rows.can_pass_the_stage() || is_split || is_in_the_way {
            Self::Stage
        } else if known.is_put_off {
            Self::PutOff
        } else {
            Self::NewRows
        }
    }
}

/// Whether a statement is planned for rows of this batch: not for rows that all bypass the stage.
pub(super) fn needs_plans(batch: &Batch) -> bool {
    let passes = |fold: &Fold| fold.only_new() && RowFacts::of(fold).can_pass_the_stage();
    !batch.folds.iter().all(|(_, fold)| passes(fold))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Position, Suspended};
    use crate::error::Error;
    use crate::lsn::Lsn;
    use crate::read_model::{Change, Image, ModelIndex};
    use crate::row::{Cell, Row};

    /// A row that is new.
    fn insert(number: usize) -> Change {
        let text = number.to_string();
        Change::Insert(Image {
            identity: Row::from_cells([Cell::Text(text.as_bytes())]),
            live: true,
            values: Row::from_cells([Cell::Text(text.as_bytes())]),
        })
    }

    fn fold(changes: impl IntoIterator<Item = Change>) -> Fold {
        let mut fold = Fold::default();
        changes.into_iter().for_each(|change| fold.add(change));
        fold
    }

    fn batch(folds: Vec<Fold>) -> Batch {
        Batch {
            position: Position {
                lsn: Lsn::ZERO,
                commit_time: None,
                last: None,
            },
            folds: ModelIndex::number(folds).collect(),
            suspended: Vec::new(),
            transactions: 1,
            chunks: 0,
        }
    }

    #[test]
    fn a_batch_is_judged_by_the_read_models_that_have_rows() {
        let of = |folds| BatchFacts::of(&batch(folds));
        let facts = of(vec![
            Fold::default(),
            fold((0..3).map(insert)),
            Fold::default(),
        ]);
        assert_eq!(
            (facts.read_models, facts.size.rows, facts.clears),
            (1, 3, false)
        );
        assert_eq!(facts.size.bytes, fold((0..3).map(insert)).bytes());
        let facts = of(vec![fold([Change::Truncate]), fold([insert(1)])]);
        assert_eq!(
            (facts.read_models, facts.size.rows, facts.clears),
            (2, 1, true)
        );
        let leaving = Batch {
            suspended: vec![Suspended {
                index: ModelIndex(0),
                error: Error::broken("it lacks a column"),
            }],
            chunks: 2,
            ..batch(Vec::new())
        };
        let facts = BatchFacts::of(&leaving);
        assert_eq!(
            (facts.suspended, facts.chunks, facts.read_models),
            (1, 2, 0)
        );
    }

    #[test]
    fn statements_are_planned_unless_all_rows_go_past_the_stage() {
        let new = || fold((0..=ONE_STATEMENT_ROWS).map(insert));
        let gone = Change::Delete(Row::from_cells([Cell::Text(b"gone")]));
        let mixed = fold((0..=ONE_STATEMENT_ROWS).map(insert).chain([gone]));
        for (case, folds, expected) in [
            ("new rows", vec![new()], false),
            ("new rows of two read models", vec![new(), new()], false),
            (
                "few new rows beside them",
                vec![new(), fold([insert(1)])],
                true,
            ),
            ("no rows beside them", vec![new(), Fold::default()], true),
            ("a row that goes", vec![mixed], true),
        ] {
            assert_eq!(needs_plans(&batch(folds)), expected, "{case}");
        }
    }

    const SMALL: BatchFacts = BatchFacts {
        chunks: 0,
        read_models: 1,
        suspended: 0,
        size: Size {
            rows: ONE_STATEMENT_ROWS,
            bytes: ONE_STATEMENT_BYTES,
        },
        clears: false,
    };

    const TAKEN: Known = Known {
        can_be_arguments: true,
        has_rejected: false,
        is_rejected: false,
        isolates: true,
    };

    fn with_size(rows: usize, bytes: usize) -> BatchFacts {
        let size = Size { rows, bytes };
        BatchFacts { size, ..SMALL }
    }

    #[test]
    fn a_batch_goes_the_first_way_that_its_facts_allow() {
        let chunked = BatchFacts { chunks: 1, ..SMALL };
        let empty = BatchFacts::default();
        let two = BatchFacts {
            read_models: 2,
            ..SMALL
        };
        let leaving = BatchFacts {
            suspended: 1,
            ..SMALL
        };
        let clearing = BatchFacts {
            clears: true,
            ..SMALL
        };
        let not_text = Known {
            can_be_arguments: false,
            ..TAKEN
        };
        let rejected_before = Known {
            has_rejected: true,
            ..TAKEN
        };
        let rejected_now = Known {
            is_rejected: true,
            ..TAKEN
        };
        let stops = Known {
            isolates: false,
            ..TAKEN
        };
        for (case, batch, known, way) in [
            ("few rows of one read model", SMALL, TAKEN, Way::Small),
            ("a row too many", with_size(501, 1), TAKEN, Way::Whole),
            (
                "a byte too many",
                with_size(1, (1 << 20) + 1),
                TAKEN,
                Way::Whole,
            ),
            ("rows of two read models", two, TAKEN, Way::Whole),
            ("no rows", empty, TAKEN, Way::Whole),
            ("a read model leaves", leaving, TAKEN, Way::Whole),
            ("a TRUNCATE", clearing, TAKEN, Way::Whole),
            ("a value cannot be an argument", SMALL, not_text, Way::Whole),
            (
                "rows were rejected before",
                SMALL,
                rejected_before,
                Way::Isolating,
            ),
            (
                "rows were rejected before, many rows",
                two,
                rejected_before,
                Way::Isolating,
            ),
            ("a row is rejected", SMALL, rejected_now, Way::Isolating),
            (
                "a row of many is rejected",
                two,
                rejected_now,
                Way::Isolating,
            ),
            (
                "a row is rejected where the read model stops",
                SMALL,
                Known {
                    is_rejected: true,
                    ..stops
                },
                Way::Small,
            ),
            (
                "rows were rejected before the read model was to stop",
                SMALL,
                Known {
                    has_rejected: true,
                    ..stops
                },
                Way::Isolating,
            ),
            ("the end of chunks", chunked, TAKEN, Way::Chunked),
            (
                "the end of chunks after rejected rows",
                chunked,
                rejected_before,
                Way::Chunked,
            ),
            (
                "the end of chunks is rejected",
                chunked,
                rejected_now,
                Way::Chunked,
            ),
        ] {
            assert_eq!(Way::of(&batch, &known), way, "{case}");
        }
    }

    #[test]
    fn new_rows_go_past_the_stage_where_they_are_many_and_nothing_is_known_of_them() {
        const MANY: RowFacts = RowFacts {
            clears: false,
            only_new: true,
            new_rows: ONE_STATEMENT_ROWS + 1,
            lacks_values: false,
            stand_apart: true,
        };
        let mixed = |new_rows| RowFacts {
            only_new: false,
            new_rows,
            ..MANY
        };
        let batch = RowsKnown::default();
        let chunk = RowsKnown {
            piece: Piece::Chunk,
            ..batch
        };
        let put_off = RowsKnown {
            is_put_off: true,
            ..batch
        };
        let few = RowFacts {
            new_rows: 500,
            ..MANY
        };
        for (case, rows, known, way) in [
            ("many", MANY, batch, RowsWay::NewRows),
            ("few", few, batch, RowsWay::Stage),
            ("many beside others", mixed(5001), batch, RowsWay::NewRows),
            ("few beside others", mixed(5000), batch, RowsWay::Stage),
            ("none", RowFacts::default(), batch, RowsWay::Stage),
            (
                "behind a TRUNCATE",
                RowFacts {
                    clears: true,
                    ..MANY
                },
                batch,
                RowsWay::Stage,
            ),
            (
                "without a value",
                RowFacts {
                    lacks_values: true,
                    ..MANY
                },
                batch,
                RowsWay::Stage,
            ),
            (
                "with another row's identity",
                RowFacts {
                    stand_apart: false,
                    ..MANY
                },
                batch,
                RowsWay::Stage,
            ),
            ("a chunk", MANY, chunk, RowsWay::NewRows),
            ("a chunk with others", mixed(5001), chunk, RowsWay::Stage),
            (
                "a chunk behind staged ones",
                MANY,
                RowsKnown {
                    is_staged: true,
                    ..chunk
                },
                RowsWay::Stage,
            ),
            (
                "beside rejected rows",
                MANY,
                RowsKnown {
                    has_rejected: true,
                    ..chunk
                },
                RowsWay::Stage,
            ),
            ("after a rejection", MANY, put_off, RowsWay::PutOff),
            ("few after a rejection", few, put_off, RowsWay::Stage),
            (
                "beside rejected rows after a rejection",
                MANY,
                RowsKnown {
                    has_rejected: true,
                    ..put_off
                },
                RowsWay::Stage,
            ),
        ] {
            assert_eq!(RowsWay::of(&rows, &known), way, "{case}");
        }
    }

    #[test]
    fn a_size_says_how_rows_are_staged_and_looked_for() {
        // Rows, bytes; whether they are few, small, and staged by a statement.
        for (rows, bytes, expected) in [
            (0, 0, (true, true, true)),
            (500, 1 << 20, (true, true, true)),
            (500, (1 << 20) + 1, (true, false, false)),
            (501, 1, (false, false, true)),
            (5000, 1 << 20, (false, false, true)),
            (5001, 1, (false, false, false)),
        ] {
            let size = Size { rows, bytes };
            assert_eq!(
                (
                    size.has_few_rows(),
                    size.is_small(),
                    size.is_staged_by_statement()
                ),
                expected,
                "{size:?}"
            );
        }
    }
}
