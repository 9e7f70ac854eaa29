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
//! A Relation message brings names, not columns ([`crate::shape`]). Changes that were mapped by a
//! message that is not yet proved must not be handed on before [`Assembler::prove`].
//!
//! A stream that breaks the protocol's order (a change outside of a transaction, a Begin within
//! one) is an error of the connection, never of a row.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::progress::TransactionId;
use crate::protocol::pgoutput::{Commit, Message, OldTuple};
use crate::protocol::tuple::Tuple;
use crate::read_model::{Change, ModelIndex, ReadModel};
use crate::relation::{Layout, Relation};
use crate::row::Cell;
use crate::shape::Shape;
use crate::sql::TableName;

mod descriptions;
mod leaves;
mod open;

use descriptions::Descriptions;
pub(crate) use leaves::Leaf;
use leaves::Leaves;
use open::Open;

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
    descriptions: Descriptions,
    leaves: Leaves,
    open: Option<Open>,
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
    /// A change could not be mapped. The bookkeeping does not say so yet.
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
            let layout = self.descriptions.layout_of(&model);
            *part = Part::Active { model, layout };
        }
    }

    /// Skips the read model's changes from here on, in the open transaction too.
    pub(crate) fn deactivate(&mut self, index: ModelIndex) {
        if let Some(part) = index.of_mut(&mut self.parts) {
            *part = Part::Absent;
        }
        if let Some(open) = &mut self.open {
            open.forget(index);
        }
    }

    /// Tables whose changes were mapped by a description that is to be proved. A table that no read
    /// model follows any more is forgotten.
    pub(crate) fn take_unproved(&mut self) -> Vec<TableName> {
        let Self {
            parts,
            descriptions,
            ..
        } = self;
        descriptions.retain(|table| parts.iter().any(|part| part.follows(table)));
        let mut tables: Vec<TableName> = Vec::new();
        for part in parts {
            if let Part::Active { model, .. } = part
                && descriptions.is_unproved(model.source_oid)
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
        for (relation, commit_lsn) in self.descriptions.take_unproved() {
            broken.extend(self.break_where(commit_lsn, |model| {
                if model.source_oid != relation.oid {
                    return None;
                }
                let source = &model.settings.source;
                let proof = match shapes.iter().find(|(table, _)| table == source) {
                    Some((_, shape)) => shape.proves(model, &relation),
                    None => Shape::default().is_bound_to(model),
                };
                proof.err()
            }));
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
        self.break_where(commit_lsn, |model| {
            (model.settings.source == *table).then(|| error.clone())
        })
    }

    /// Breaks the read models that take part and have a reason.
    fn break_where(
        &mut self,
        commit_lsn: Lsn,
        why: impl Fn(&ReadModel) -> Option<Error>,
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (index, part) in ModelIndex::number(&mut self.parts) {
            let Part::Active { model, .. } = part else {
                continue;
            };
            if let Some(error) = why(model) {
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

    /// The name of the open transaction: its Begin has it already.
    pub(crate) fn open_transaction(&self) -> Option<TransactionId> {
        self.open.as_ref().map(Open::id)
    }

    /// Takes the changes of the open transaction so far, with their read models. The
    /// transaction that the Commit completes has only the later ones; what it breaks is reported
    /// with it.
    pub(crate) fn take_chunk(&mut self) -> Vec<(ModelIndex, Change)> {
        let open = self.open.as_mut();
        open.map(Open::take_chunk).unwrap_or_default()
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
                self.open = Some(Open::new(*begin, self.from));
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
                (Err(error), Some(open)) => *part = Part::Broken(open.breaks(index, error)),
                // Nothing is lost yet: the next change finds no layout and breaks the read model
                // then.
                (Err(_), None) => *layout = None,
            }
        }
        self.descriptions.add(relation);
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
            descriptions,
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
        let described = descriptions.map_by(relation, open.begin.final_lsn)?;
        let columns = described.columns.len();
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
            let layout = layout.as_ref().ok_or_else(|| altered(model));
            match layout.and_then(|layout| map(model, layout, first, second)) {
                Ok(Some(change)) => open.add(index, change),
                Ok(None) => {}
                Err(error) => *part = Part::Broken(open.breaks(index, error)),
            }
        }
        Ok(())
    }
}

fn altered(model: &ReadModel) -> Error {
    Error::broken(format!("table \"{}\" was altered", model.settings.source))
}

#[cfg(test)]
pub(crate) mod tests;
