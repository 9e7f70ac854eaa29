//! A source table as plain data: what statements do to its rows, and what the server would write of
//! it into its WAL.
//!
//! A statement that the server would refuse (a row or a code that is there already) is an error
//! here too. Which values are stored out of line follows the server's rules for the sizes that
//! `statement.rs` writes as SQL.

use crate::statement::{Set, Statement};

/// How the stream names an old row, and whether that is the lookup's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// DEFAULT, primary key (id).
    PrimaryKey,
    /// DEFAULT, primary key (code): the lookup's key.
    PrimaryKeyIsKey,
    /// USING INDEX on (code, id).
    Index,
    /// USING INDEX on (code): the lookup's key.
    IndexIsKey,
    /// FULL beside the primary key (id).
    Full,
    /// FULL without a primary key: the old row tells what was live.
    FullAlone,
}

/// How codes are kept unique among live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unique {
    /// By an index that is checked at once.
    AtOnce,
    /// By a constraint that is checked at commit.
    AtCommit,
    /// Not at all.
    Never,
}

/// The soft-delete column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftDelete {
    /// `deleted_at timestamptz`: dead when it is not null.
    Timestamp,
    /// `deleted boolean`: dead when it is true.
    Boolean,
    /// There is none.
    Absent,
}

/// Where long values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In the row, always: no update leaves a value out.
    Plain,
    /// Large notes out of line.
    LongNotes,
    /// Codes too, of rows that have or had something else out of line.
    LongCodes,
}

/// What the table is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub identity: Identity,
    pub unique: Unique,
    pub soft_delete: SoftDelete,
    pub storage: Storage,
}

impl Kind {
    /// Any kind that a table can have.
    pub fn any(random: &mut fastrand::Rng) -> Self {
        let identity = [
            Identity::PrimaryKey,
            Identity::PrimaryKeyIsKey,
            Identity::Index,
            Identity::IndexIsKey,
            Identity::Full,
            Identity::FullAlone,
        ][random.usize(0..6)];
        let unique = match identity {
            Identity::FullAlone => Unique::AtOnce,
            _ => [Unique::AtOnce, Unique::AtCommit, Unique::Never][random.usize(0..3)],
        };
        Self {
            identity,
            unique,
            soft_delete: [
                SoftDelete::Timestamp,
                SoftDelete::Boolean,
                SoftDelete::Absent,
            ][[0, 0, 0, 1, 1, 2][random.usize(0..6)]],
            storage: [Storage::Plain, Storage::LongNotes, Storage::LongCodes][random.usize(0..3)],
        }
    }

    /// Whether the code is part of the identity, and so never null.
    pub fn identifies_by_code(self) -> bool {
        matches!(
            self.identity,
            Identity::PrimaryKeyIsKey | Identity::Index | Identity::IndexIsKey
        )
    }

    /// Whether dead rows too have codes of their own.
    pub fn code_is_identity(self) -> bool {
        matches!(
            self.identity,
            Identity::PrimaryKeyIsKey | Identity::IndexIsKey
        )
    }
}

/// The soft-delete column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Null,
    /// Live; only of a boolean column.
    False,
    Dead,
}

/// The text of a note: a number makes it another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub number: u32,
    /// Some kilobytes.
    pub large: bool,
}

/// Which of a row's values are out of line, or left out of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Which {
    pub code: bool,
    pub note: bool,
}

/// A row of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub id: u8,
    pub code: Option<u8>,
    pub label: u32,
    pub note: Note,
    pub mark: Mark,
    /// What is stored out of line.
    pub out: Which,
}

/// What a statement wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Insert(Stored),
    Update {
        old: Stored,
        new: Stored,
        /// Out of line before and not assigned.
        unchanged: Which,
    },
    Delete(Stored),
    Truncate,
    /// A row of a table that is published too, but that no read model reads.
    Elsewhere,
}

/// Why the server refuses a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// Rows by id; ids are below 8.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows([Option<Stored>; 8]);

impl Rows {
    pub fn get(&self, id: u8) -> Option<&Stored> {
        self.0[usize::from(id)].as_ref()
    }

    /// Smallest id first.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter().flatten()
    }

    pub fn ids(&self) -> Vec<u8> {
        self.iter().map(|row| row.id).collect()
    }

    /// Returns the row that was there.
    fn insert(&mut self, row: Stored) -> Option<Stored> {
        self.0[usize::from(row.id)].replace(row)
    }

    fn remove(&mut self, id: u8) -> Option<Stored> {
        self.0[usize::from(id)].take()
    }
}

/// The table: small enough to be copied for every trial.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub kind: Kind,
    pub rows: Rows,
}

impl Table {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            rows: Rows::default(),
        }
    }

    /// Runs a whole transaction and returns what the stream tells of it.
    pub fn run(&mut self, statements: &[Statement]) -> Result<Vec<Event>, Refused> {
        let mut events = Vec::new();
        for statement in statements {
            self.statement(statement, &mut events)?;
        }
        if self.kind.unique == Unique::AtCommit {
            self.codes_are_unique()?;
        }
        Ok(events)
    }

    /// Runs one statement of a transaction.
    pub fn statement(
        &mut self,
        statement: &Statement,
        events: &mut Vec<Event>,
    ) -> Result<(), Refused> {
        match statement {
            Statement::Insert(row) => self.insert(*row, events)?,
            Statement::Update { id, set } => self.update(*id, set, events)?,
            Statement::Relabel(label) => {
                for id in self.rows.ids() {
                    self.update(id, &[Set::Label(*label)], events)?;
                }
            }
            Statement::Delete(id) => events.extend(self.rows.remove(*id).map(Event::Delete)),
            Statement::Truncate => {
                self.rows = Rows::default();
                events.push(Event::Truncate);
            }
            Statement::Elsewhere => events.push(Event::Elsewhere),
            Statement::Savepoint { statements, kept } => {
                let (rows, before) = (self.rows, events.len());
                for statement in statements {
                    self.statement(statement, events)?;
                }
                if !kept {
                    self.rows = rows;
                    events.truncate(before);
                }
            }
        }
        if self.kind.unique == Unique::AtOnce || self.kind.code_is_identity() {
            self.codes_are_unique()?;
        }
        Ok(())
    }

    fn insert(&mut self, row: Stored, events: &mut Vec<Event>) -> Result<(), Refused> {
        let mut row = row;
        row.out = self.out_of_line(None, &row, Which::default());
        if row.code.is_none() && self.kind.identifies_by_code() {
            return Err(Refused);
        }
        if self.rows.insert(row).is_some() {
            return Err(Refused);
        }
        events.push(Event::Insert(row));
        Ok(())
    }

    fn update(&mut self, id: u8, set: &[Set], events: &mut Vec<Event>) -> Result<(), Refused> {
        let Some(old) = self.rows.remove(id) else {
            return Ok(());
        };
        let mut new = old;
        let mut unchanged = old.out;
        for set in set {
            match *set {
                Set::Id(id) => new.id = id,
                Set::Code(code) => (new.code, unchanged.code) = (code, false),
                Set::Label(label) => new.label = label,
                Set::Note(note) => (new.note, unchanged.note) = (note, false),
                Set::Mark(mark) => new.mark = mark,
            }
        }
        new.out = self.out_of_line(Some(&old), &new, unchanged);
        if new.code.is_none() && self.kind.identifies_by_code() {
            return Err(Refused);
        }
        if self.rows.insert(new).is_some() {
            return Err(Refused);
        }
        events.push(Event::Update {
            old,
            new,
            unchanged,
        });
        Ok(())
    }

    /// A row is looked through for values to store out of line when it is larger than 2 kB, or when
    /// it or its earlier version has such values; then everything longer than a pointer goes, down
    /// to the table's toast_tuple_target.
    fn out_of_line(&self, old: Option<&Stored>, new: &Stored, unchanged: Which) -> Which {
        if self.kind.storage == Storage::Plain {
            return Which::default();
        }
        let before = old.map_or(Which::default(), |old| old.out);
        let note = unchanged.note || new.note.large;
        let looked_through = before.code || before.note || note;
        Which {
            code: new.code.is_some() && looked_through && self.kind.storage == Storage::LongCodes,
            note,
        }
    }

    fn codes_are_unique(&self) -> Result<(), Refused> {
        let all = self.kind.code_is_identity();
        let live = self.rows.iter().filter(|row| all || row.mark != Mark::Dead);
        let mut seen = [false; 256];
        for code in live.filter_map(|row| row.code) {
            if std::mem::replace(&mut seen[usize::from(code)], true) {
                return Err(Refused);
            }
        }
        Ok(())
    }

    /// The rows that are not soft-deleted, smallest id first.
    pub fn live(&self) -> impl Iterator<Item = &Stored> {
        self.rows.iter().filter(|row| row.mark != Mark::Dead)
    }
}
