//! The author of random transactions: few ids and few codes, so that they come again, and only what
//! a server accepts.

use crate::source::{Kind, Mark, Note, SoftDelete, Stored, Table, Unique, Which};
use crate::statement::{Set, Statement};

/// Ids from 1 to this one: few, so that they come again.
const IDS: u8 = 7;
/// Codes below this one.
const CODES: u8 = 5;
/// A code to put a row aside with.
const ASIDE: u8 = 99;

/// Writes random transactions that the server accepts.
pub struct Author {
    table: Table,
    /// Counts up, so that every value is another one.
    number: u32,
    pub random: fastrand::Rng,
}

impl Author {
    /// Begins with an empty table.
    pub fn new(kind: Kind, random: fastrand::Rng) -> Self {
        Self {
            table: Table::new(kind),
            number: 0,
            random,
        }
    }

    /// A transaction; `None` if the server would refuse its commit.
    pub fn transaction(&mut self) -> Option<Vec<Statement>> {
        let before = self.table;
        let mut statements = Vec::new();
        if self.random.u8(0..15) > 0 {
            for _ in 0..self.random.usize(1..=5) {
                self.some(&mut statements, true);
            }
        }
        let mut again = before;
        if again.run(&statements).is_err() {
            self.table = before;
            return None;
        }
        Some(statements)
    }

    /// Adds statements that belong together, as far as the server accepts them.
    fn some(&mut self, statements: &mut Vec<Statement>, outermost: bool) {
        if outermost && self.random.u8(0..10) == 0 {
            let before = self.table;
            let mut inner = Vec::new();
            for _ in 0..self.random.usize(1..4) {
                self.some(&mut inner, false);
            }
            let kept = self.random.bool();
            if !kept {
                self.table = before;
            }
            statements.push(Statement::Savepoint {
                statements: inner,
                kept,
            });
            return;
        }
        for statement in self.idea() {
            let mut trial = self.table;
            if trial.statement(&statement, &mut Vec::new()).is_ok() {
                self.table = trial;
                statements.push(statement);
            }
        }
    }

    fn idea(&mut self) -> Vec<Statement> {
        let ids = self.table.rows.ids();
        let Some(id) = self.random.choice(ids.iter().copied()) else {
            return vec![self.insert()];
        };
        let update = |id, set: &[Set]| Statement::Update {
            id,
            set: set.to_vec(),
        };
        match self.random.u8(0..100) {
            0..=21 => vec![self.insert()],
            22..=33 => vec![update(id, &[Set::Label(self.next())])],
            34..=39 => vec![update(id, &[Set::Note(self.note())])],
            40..=47 => vec![update(id, &[Set::Code(self.code())])],
            48..=58 => vec![update(id, &[Set::Mark(self.mark())])],
            59..=62 => {
                let set = [
                    Set::Code(self.code()),
                    Set::Mark(self.mark()),
                    Set::Label(self.next()),
                ];
                vec![update(id, &set[..self.random.usize(1..=3)])]
            }
            63..=66 => vec![update(id, &[Set::Id(self.random.u8(1..=IDS))])],
            67..=68 => vec![update(
                id,
                &[Set::Id(self.random.u8(1..=IDS)), Set::Code(self.code())],
            )],
            69..=70 => vec![update(id, &[])],
            71..=78 => self.rotate(ids),
            79..=86 => vec![Statement::Delete(id)],
            87..=89 => vec![Statement::Delete(id), self.insert_as(id)],
            90..=92 => {
                let new = self.insert();
                let Statement::Insert(row) = new else {
                    return vec![new];
                };
                vec![new, Statement::Delete(row.id), self.insert_as(row.id)]
            }
            93 => vec![Statement::Relabel(self.next())],
            94 if self.random.u8(0..3) == 0 => vec![Statement::Truncate],
            _ => vec![Statement::Elsewhere],
        }
    }

    /// Two or three rows pass their codes on: straight, or by way of a code that nobody has.
    fn rotate(&mut self, mut ids: Vec<u8>) -> Vec<Statement> {
        self.random.shuffle(&mut ids);
        ids.truncate(self.random.usize(2..4));
        let codes: Vec<_> = ids
            .iter()
            .map(|id| self.table.rows.get(*id).and_then(|row| row.code))
            .collect();
        let set = |at: usize, code| Statement::Update {
            id: ids[at],
            set: vec![Set::Code(code)],
        };
        let count = ids.len();
        let heirs = (0..count).map(|at| set(at, codes[(at + 1) % count]));
        let at_once =
            self.table.kind.unique == Unique::AtOnce || self.table.kind.code_is_identity();
        if at_once || self.random.u8(0..4) == 0 {
            // The first one steps aside, and each takes the code that was just given up.
            let aside = std::iter::once(set(0, Some(ASIDE)));
            return aside.chain(heirs.rev()).collect();
        }
        heirs.collect()
    }

    fn insert(&mut self) -> Statement {
        let id = self.random.u8(1..=IDS);
        self.insert_as(id)
    }

    fn insert_as(&mut self, id: u8) -> Statement {
        Statement::Insert(Stored {
            id,
            code: self.code(),
            label: self.next(),
            note: self.note(),
            mark: if self.random.u8(0..5) == 0 {
                self.mark()
            } else {
                Mark::Null
            },
            out: Which::default(),
        })
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn code(&mut self) -> Option<u8> {
        (self.random.u8(0..12) > 0).then(|| self.random.u8(0..CODES))
    }

    fn note(&mut self) -> Note {
        Note {
            number: self.next(),
            large: self.random.bool(),
        }
    }

    fn mark(&mut self) -> Mark {
        match self.table.kind.soft_delete {
            SoftDelete::Absent => Mark::Null,
            SoftDelete::Timestamp => [Mark::Null, Mark::Dead][self.random.usize(0..2)],
            SoftDelete::Boolean => {
                [Mark::Null, Mark::False, Mark::Dead, Mark::Dead][self.random.usize(0..4)]
            }
        }
    }
}
