//! Messages become whole transactions, in terms of the read models.
//!
//! In: decoded pgoutput messages in stream order. Out: a [`Transaction`] at each Commit. If a
//! transaction is too large to keep in memory, its changes so far can be taken early
//! ([`Assembler::take_chunk`]); they count only once its Commit arrives.
//!
//! Transactions below the position where the assembler begins were applied before. They come again
//! after a restart, possibly in the layout that a table had then, so their changes are not mapped
//! and cannot break a read model.
//!
//! Each read model has one `Part` in the stream. A change that cannot be mapped (its table was
//! altered, an old row is missing) breaks the read model from that transaction on, and every
//! transaction from then on says so, until [`Assembler::suspended`] confirms that the suspension is
//! stored. The other read models continue.
//!
//! A Relation message tells names, not columns ([`crate::shape`]). What was mapped by one that
//! nobody has proved yet must not be handed on before [`Assembler::prove`].
//!
//! A stream that breaks the protocol's order (a change outside of a transaction, a Begin within
//! one) is an error of the connection, never of a row.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::progress::TransactionId;
use crate::protocol::pgoutput::{Begin, Commit, Message, OldTuple};
use crate::protocol::tuple::Tuple;
use crate::read_model::{Change, ModelIndex, ReadModel};
use crate::relation::{Layout, Relation};
use crate::row::Cell;
use crate::shape::Shape;
use crate::sql::TableName;

mod leaves;

pub(crate) use leaves::Leaf;
use leaves::Leaves;

/// A committed transaction of the source.
#[derive(Debug)]
pub struct Transaction {
    /// Its name: commit LSN, xid, commit time.
    pub id: TransactionId,
    /// End of the transaction: the checkpoint once it is applied.
    pub end_lsn: Lsn,
    /// Changes with their read model, in order.
    pub changes: Vec<(ModelIndex, Change)>,
    /// Read models that cannot continue from this transaction on, or from an earlier one whose
    /// report is not stored yet.
    pub broken: Vec<Broken>,
    /// Whether it changed any published table, of a read model in step or not.
    pub has_changes: bool,
    /// Leaves of partitioned tables that it was the first to change since they were described.
    pub leaves: Vec<Leaf>,
    /// Chunks of it that were taken before; `changes` has what came after the last one.
    pub chunks: u64,
}

/// A read model that cannot continue.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The read model.
    pub index: ModelIndex,
    /// Commit of the first transaction that it cannot take.
    pub commit_lsn: Lsn,
    /// Why.
    pub error: Error,
}

/// Collects messages until a transaction is whole.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Transactions that commit before this position are not mapped.
    from: Lsn,
    parts: Vec<Part>,
    relations: HashMap<u32, Described, RandomState>,
    /// Relation messages by which changes were mapped and that are not proved, with the commit of
    /// the first such change.
    unproved: Vec<(Relation, Lsn)>,
    leaves: Leaves,
    open: Option<Open>,
}

/// The newest Relation message of a table.
#[derive(Debug)]
struct Described {
    relation: Relation,
    /// Whether it is proved, or among those that are to be.
    used: bool,
}

/// A read model's part in the stream. Nothing else says whether its changes are taken.
#[derive(Debug)]
enum Part {
    /// Its changes are mapped; without a layout the next change breaks it, unless a fitting
    /// Relation message comes first.
    Active {
        model: Arc<ReadModel>,
        layout: Option<Layout>,
    },
    /// A change could not be mapped. The bookkeeping does not know yet.
    Broken(Broken),
    /// The bookkeeping says that it is suspended or was never copied.
    Absent,
}

impl Part {
    fn of(model: Option<Arc<ReadModel>>) -> Self {
        match model {
            Some(model) => Self::Active {
                model,
                layout: None,
            },
            None => Self::Absent,
        }
    }

    /// It cannot continue, and has no part in the open transaction either.
    fn break_off(&mut self, broken: &Broken, open: &mut Option<Open>) {
        *self = Self::Broken(broken.clone());
        if let Some(open) = open {
            open.forget(broken.index);
        }
    }

    /// Whether changes of this relation are mapped.
    fn follows(&self, relation: u32) -> bool {
        matches!(self, Self::Active { model, .. } if model.source_oid == relation)
    }
}

#[derive(Debug)]
struct Open {
    begin: Begin,
    /// Whether its changes are mapped: it was not applied before.
    mapped: bool,
    changes: Vec<(ModelIndex, Change)>,
    bytes: usize,
    has_changes: bool,
    chunks: u64,
}

impl Assembler {
    /// An assembler without read models, which maps the transactions that commit at or after this
    /// position.
    pub fn new(from: Lsn) -> Self {
        Self {
            from,
            ..Self::default()
        }
    }

    /// Adds the next read model; `None` does not take part (yet).
    pub fn add(&mut self, model: Option<Arc<ReadModel>>) {
        self.parts.push(Part::of(model));
    }

    /// Whether the read model takes part.
    pub(crate) fn is_active(&self, index: ModelIndex) -> bool {
        matches!(index.of(&self.parts), Some(Part::Active { .. }))
    }

    /// Read models that are broken although their suspension is not stored.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.parts.iter().filter_map(|part| match part {
            Part::Broken(broken) => Some(broken),
            Part::Active { .. } | Part::Absent => None,
        })
    }

    /// Read models that the bookkeeping has to call in step: they take part, or broke without a
    /// stored suspension.
    pub(crate) fn taking_part(&self) -> Vec<ModelIndex> {
        ModelIndex::number(&self.parts)
            .filter(|(_, part)| !matches!(part, Part::Absent))
            .map(|(index, _)| index)
            .collect()
    }

    /// The suspension of a broken read model is stored: no transaction has to report it any more.
    pub(crate) fn suspended(&mut self, index: ModelIndex) {
        if let Some(part @ Part::Broken(_)) = index.of_mut(&mut self.parts) {
            *part = Part::Absent;
        }
    }

    /// Lets a read model take part from the next transaction on, with a new binding.
    pub(crate) fn activate(&mut self, index: ModelIndex, model: Arc<ReadModel>) {
        if let Some(part) = index.of_mut(&mut self.parts) {
            // If the relation does not fit, the server describes it again before its next change,
            // which is judged then.
            let described = self.relations.get_mut(&model.source_oid);
            let layout = described.and_then(|described| {
                // For others it may have been proved before this one was bound.
                described.used = false;
                model.layout(&described.relation).ok()
            });
            *part = Part::Active { model, layout };
        }
    }

    /// Passes the read model's changes over from here on, in the open transaction too.
    pub(crate) fn deactivate(&mut self, index: ModelIndex) {
        if let Some(part) = index.of_mut(&mut self.parts) {
            *part = Part::Absent;
        }
        if let Some(open) = &mut self.open {
            open.forget(index);
        }
    }

    /// Tables of which changes were mapped by a description that is to be proved. What no read
    /// model follows any more is forgotten.
    pub(crate) fn take_unproved(&mut self) -> Vec<TableName> {
        let Self {
            parts, unproved, ..
        } = self;
        unproved.retain(|(relation, _)| parts.iter().any(|part| part.follows(relation.oid)));
        let mut tables: Vec<TableName> = Vec::new();
        for part in parts {
            if let Part::Active { model, .. } = part
                && unproved
                    .iter()
                    .any(|(relation, _)| relation.oid == model.source_oid)
                && !tables.contains(&model.settings.source)
            {
                tables.push(model.settings.source.clone());
            }
        }
        tables
    }

    /// Proves the descriptions by what the catalogs say of these tables now. A read model whose
    /// changes may be of other columns is broken from the first of them on, in the open transaction
    /// too; returns those.
    pub(crate) fn prove(&mut self, shapes: &[(TableName, Shape)]) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (relation, commit_lsn) in std::mem::take(&mut self.unproved) {
            for (index, part) in ModelIndex::number(&mut self.parts) {
                let Part::Active { model, .. } = part else {
                    continue;
                };
                if model.source_oid != relation.oid {
                    continue;
                }
                let shape = shapes
                    .iter()
                    .find(|(table, _)| *table == model.settings.source);
                let proof = match shape {
                    Some((_, shape)) => shape.proves(model, &relation),
                    None => Shape::default().is_bound_to(model),
                };
                let Err(error) = proof else { continue };
                let found = Broken {
                    index,
                    commit_lsn,
                    error,
                };
                part.break_off(&found, &mut self.open);
                broken.push(found);
            }
        }
        broken
    }

    /// Breaks the read models of this table from this commit on, in the open transaction too;
    /// returns those that took part.
    pub(crate) fn break_table(
        &mut self,
        table: &TableName,
        commit_lsn: Lsn,
        error: &Error,
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (index, part) in ModelIndex::number(&mut self.parts) {
            if !matches!(part, Part::Active { model, .. } if model.settings.source == *table) {
                continue;
            }
            let found = Broken {
                index,
                commit_lsn,
                error: error.clone(),
            };
            part.break_off(&found, &mut self.open);
            broken.push(found);
        }
        broken
    }

    /// Whether a transaction has begun and not yet ended.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes that the open transaction takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// Chunks of the open transaction that were taken.
    pub(crate) fn chunks(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.chunks)
    }

    /// The name of the open transaction: its Begin tells it already.
    pub(crate) fn open_transaction(&self) -> Option<TransactionId> {
        self.open.as_ref().map(|open| TransactionId {
            commit_lsn: open.begin.final_lsn,
            xid: open.begin.xid,
            commit_time: open.begin.commit_time,
        })
    }

    /// Takes the changes of the open transaction so far, with their read models. The
    /// transaction that the Commit completes has only the later ones; what it breaks is told with
    /// it.
    pub(crate) fn take_chunk(&mut self) -> Vec<(ModelIndex, Change)> {
        match &mut self.open {
            Some(open) => {
                open.bytes = 0;
                open.chunks += 1;
                std::mem::take(&mut open.changes)
            }
            None => Vec::new(),
        }
    }

    /// Takes the next message; returns the transaction that it completes.
    ///
    /// # Errors
    /// A protocol error if the message cannot follow the ones before it.
    pub fn take(&mut self, message: &Message<'_>) -> Result<Option<Transaction>> {
        self.leaves.see(message);
        match message {
            Message::Begin(begin) => {
                if self.open.is_some() {
                    return Err(Error::protocol("a transaction began within another one"));
                }
                self.open = Some(Open {
                    begin: *begin,
                    mapped: begin.final_lsn >= self.from,
                    changes: Vec::new(),
                    bytes: 0,
                    has_changes: false,
                    chunks: 0,
                });
            }
            Message::Commit(commit) => return self.commit(*commit).map(Some),
            Message::Relation(relation) => self.relation(Relation::from(relation)),
            Message::Insert { relation, new } => self.insert(*relation, new)?,
            Message::Update { relation, old, new } => self.update(*relation, old.as_ref(), new)?,
            Message::Delete { relation, old } => self.delete(*relation, old)?,
            Message::Truncate { relations, .. } => self.truncate(relations.iter().copied())?,
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
        Ok(None)
    }

    fn commit(&mut self, commit: Commit) -> Result<Transaction> {
        let open = self
            .open
            .take()
            .ok_or_else(|| Error::protocol("a transaction ended that had not begun"))?;
        let Commit {
            commit_lsn,
            end_lsn,
            commit_time,
        } = commit;
        if open.begin.final_lsn != commit_lsn || end_lsn <= commit_lsn {
            return Err(Error::protocol(format!(
                "a transaction began with commit LSN {} and ended with {commit_lsn}, end LSN {end_lsn}",
                open.begin.final_lsn
            )));
        }
        // One that broke in this transaction is among them.
        let broken = if open.mapped {
            self.broken().cloned().collect()
        } else {
            Vec::new()
        };
        Ok(Transaction {
            id: TransactionId {
                commit_lsn,
                xid: open.begin.xid,
                commit_time,
            },
            end_lsn,
            changes: open.changes,
            broken,
            has_changes: open.has_changes,
            leaves: self.leaves.take(),
            chunks: open.chunks,
        })
    }

    fn relation(&mut self, relation: Relation) {
        let mut open = self.open.as_mut().filter(|open| open.mapped);
        for (index, part) in ModelIndex::number(&mut self.parts) {
            let Part::Active { model, layout } = part else {
                continue;
            };
            if model.source_oid != relation.oid {
                continue;
            }
            match (model.layout(&relation), open.as_deref_mut()) {
                (Ok(fitting), _) => *layout = Some(fitting),
                (Err(error), Some(open)) => *part = open.breaks(index, error),
                // Nothing is lost yet: the next change finds no layout and breaks the read model
                // then.
                (Err(_), None) => *layout = None,
            }
        }
        let described = Described {
            relation,
            used: false,
        };
        self.relations.insert(described.relation.oid, described);
    }

    fn insert(&mut self, relation: u32, new: &Tuple<'_>) -> Result<()> {
        self.each(relation, &[*new], |model, layout, new, _| {
            model.insert(layout, new)
        })
    }

    fn update(&mut self, relation: u32, old: Option<&OldTuple<'_>>, new: &Tuple<'_>) -> Result<()> {
        match old {
            None => self.each(relation, &[*new], |model, layout, new, _| {
                model.update(layout, None, new)
            }),
            Some(old) => self.each(relation, &[old.tuple(), *new], |model, layout, old, new| {
                model.update(layout, Some(old), new)
            }),
        }
    }

    fn delete(&mut self, relation: u32, old: &OldTuple<'_>) -> Result<()> {
        self.each(relation, &[old.tuple()], |model, layout, old, _| {
            model.delete(layout, old)
        })
    }

    fn truncate(&mut self, relations: impl Iterator<Item = u32>) -> Result<()> {
        for relation in relations {
            self.each(relation, &[], |_, _, _, _| Ok(Some(Change::Truncate)))?;
        }
        Ok(())
    }

    /// Maps one change for each read model of the relation. `map` gets the cells of the first
    /// tuple, then of the second one.
    fn each(
        &mut self,
        relation: u32,
        tuples: &[Tuple<'_>],
        map: impl Fn(&ReadModel, &Layout, &[Cell<'_>], &[Cell<'_>]) -> Result<Option<Change>>,
    ) -> Result<()> {
        let Self {
            parts,
            relations,
            unproved,
            open,
            ..
        } = self;
        let open = open
            .as_mut()
            .ok_or_else(|| Error::protocol("a change came outside of a transaction"))?;
        open.has_changes = true;
        if !open.mapped || !parts.iter().any(|part| part.follows(relation)) {
            return Ok(());
        }
        let described = relations.get_mut(&relation).ok_or_else(|| {
            Error::protocol(format!(
                "a change of relation {relation} came before its description"
            ))
        })?;
        if !std::mem::replace(&mut described.used, true) {
            unproved.push((described.relation.clone(), open.begin.final_lsn));
        }
        let columns = described.relation.columns.len();
        if tuples.iter().any(|tuple| tuple.columns() != columns) {
            return Err(Error::protocol(format!(
                "a row of relation {relation} does not have its {columns} columns"
            )));
        }
        let mut cells = Vec::with_capacity(columns * tuples.len());
        cells.extend(tuples.iter().flat_map(Tuple::cells));
        let (first, second) = cells.split_at(columns.min(cells.len()));
        for (index, part) in ModelIndex::number(parts) {
            let Part::Active { model, layout } = part else {
                continue;
            };
            if model.source_oid != relation {
                continue;
            }
            let change = match layout {
                Some(layout) => map(model, layout, first, second),
                None => Err(Error::broken(format!(
                    "table \"{}\" was altered",
                    model.settings.source
                ))),
            };
            match change {
                Ok(Some(change)) => {
                    open.bytes += change.bytes();
                    open.changes.push((index, change));
                }
                Ok(None) => {}
                Err(error) => *part = open.breaks(index, error),
            }
        }
        Ok(())
    }
}

impl Open {
    /// Drops the read model's changes; returns its part from here on.
    fn breaks(&mut self, index: ModelIndex, error: Error) -> Part {
        self.forget(index);
        Part::Broken(Broken {
            index,
            commit_lsn: self.begin.final_lsn,
            error,
        })
    }

    fn forget(&mut self, index: ModelIndex) {
        self.changes.retain(|(of, _)| *of != index);
    }
}

#[cfg(test)]
pub(crate) mod tests;
