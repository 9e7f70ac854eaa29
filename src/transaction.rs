//! Messages become whole transactions, in terms of the read models.
//!
//! In: decoded pgoutput messages in stream order. Out: a [`Transaction`] at each Commit. If a transaction is too large to keep
//! in memory, its changes so far can be taken early ([`Assembler::take_chunk`]); they count only once its Commit arrives.
//!
//! Transactions below the position where the assembler begins were applied before. They come again after a restart, possibly
//! in the layout that a table had then, so their changes are not mapped and cannot break a read model.
//!
//! Each read model has one [`Part`] in the stream. A change that cannot be mapped (its table was altered, an old row is
//! missing) breaks the read model from that transaction on, and every transaction from then on says so, until
//! [`Assembler::suspended`] confirms that the suspension is stored. The other read models continue.
//!
//! A stream that breaks the protocol's order (a change outside of a transaction, a Begin within one) is an error of
//! the connection, never of a row.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::progress::TransactionId;
use crate::protocol::pgoutput::{Begin, Commit, Message, OldTuple};
use crate::protocol::tuple::Tuple;
use crate::read_model::{Change, ReadModel};
use crate::relation::{Layout, Relation};
use crate::row::Cell;

/// A committed transaction of the source.
#[derive(Debug)]
pub struct Transaction {
    /// Its name: commit LSN, xid, commit time.
    pub id: TransactionId,
    /// End of the transaction: the checkpoint once it is applied.
    pub end_lsn: Lsn,
    /// Changes with the index of their read model, in order.
    pub changes: Vec<(usize, Change)>,
    /// Read models that cannot continue from this transaction on, or from an earlier one whose report is not stored yet.
    pub broken: Vec<Broken>,
    /// Whether it changed any published table, of a read model in step or not.
    pub has_changes: bool,
}

/// A read model that cannot continue.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The read model.
    pub index: usize,
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
    relations: HashMap<u32, Relation, RandomState>,
    open: Option<Open>,
}

/// A read model's part in the stream. Nothing else says whether its changes are taken.
#[derive(Debug)]
enum Part {
    /// Its changes are mapped; without a layout the next change breaks it, unless a fitting Relation message comes first.
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
            Some(model) => Self::Active { model, layout: None },
            None => Self::Absent,
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
    changes: Vec<(usize, Change)>,
    bytes: usize,
    has_changes: bool,
}

impl Assembler {
    /// An assembler without read models, which maps the transactions that commit at or after this position.
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
    pub fn is_active(&self, index: usize) -> bool {
        matches!(self.parts.get(index), Some(Part::Active { .. }))
    }

    /// Read models that are broken although their suspension is not stored.
    pub fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.parts.iter().filter_map(|part| match part {
            Part::Broken(broken) => Some(broken),
            Part::Active { .. } | Part::Absent => None,
        })
    }

    /// Read models that the bookkeeping has to call in step: they take part, or broke without a stored suspension.
    pub fn taking_part(&self) -> Vec<usize> {
        let parts = self.parts.iter().enumerate();
        parts
            .filter(|(_, part)| !matches!(part, Part::Absent))
            .map(|(index, _)| index)
            .collect()
    }

    /// The suspension of a broken read model is stored: no transaction has to report it any more.
    pub fn suspended(&mut self, index: usize) {
        if let Some(part @ Part::Broken(_)) = self.parts.get_mut(index) {
            *part = Part::Absent;
        }
    }

    /// Lets a read model take part from the next transaction on, with a new binding.
    pub fn activate(&mut self, index: usize, model: Arc<ReadModel>) {
        if let Some(part) = self.parts.get_mut(index) {
            // If the relation does not fit, the server describes it again before its next change, which is judged then.
            let relation = self.relations.get(&model.source_oid);
            let layout = relation.and_then(|relation| model.layout(relation).ok());
            *part = Part::Active { model, layout };
        }
    }

    /// Passes the read model's changes over from here on, in the open transaction too.
    pub fn deactivate(&mut self, index: usize) {
        if let Some(part) = self.parts.get_mut(index) {
            *part = Part::Absent;
        }
        if let Some(open) = &mut self.open {
            open.forget(index);
        }
    }

    /// Whether a transaction has begun and not yet ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes that the open transaction takes in memory.
    pub fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// The name of the open transaction: its Begin tells it already.
    pub fn open_transaction(&self) -> Option<TransactionId> {
        self.open.as_ref().map(|open| TransactionId {
            commit_lsn: open.begin.final_lsn,
            xid: open.begin.xid,
            commit_time: open.begin.commit_time,
        })
    }

    /// Takes the changes of the open transaction so far, with the index of their read model. The transaction that the Commit
    /// completes has only the later ones; what it breaks is told with it.
    pub fn take_chunk(&mut self) -> Vec<(usize, Change)> {
        match &mut self.open {
            Some(open) => {
                open.bytes = 0;
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
        })
    }

    fn relation(&mut self, relation: Relation) {
        let mut open = self.open.as_mut().filter(|open| open.mapped);
        for (index, part) in self.parts.iter_mut().enumerate() {
            let Part::Active { model, layout } = part else {
                continue;
            };
            if model.source_oid != relation.oid {
                continue;
            }
            match (model.layout(&relation), open.as_deref_mut()) {
                (Ok(fitting), _) => *layout = Some(fitting),
                (Err(error), Some(open)) => *part = open.breaks(index, error),
                // Nothing is lost yet: the next change finds no layout and breaks the read model then.
                (Err(_), None) => *layout = None,
            }
        }
        self.relations.insert(relation.oid, relation);
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

    /// Maps one change for each read model of the relation. `map` gets the cells of the first tuple, then of the second one.
    fn each(
        &mut self,
        relation: u32,
        tuples: &[Tuple<'_>],
        map: impl Fn(&ReadModel, &Layout, &[Cell<'_>], &[Cell<'_>]) -> Result<Option<Change>>,
    ) -> Result<()> {
        let Self {
            parts,
            relations,
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
        let columns = relations
            .get(&relation)
            .map(|relation| relation.columns.len())
            .ok_or_else(|| {
                Error::protocol(format!(
                    "a change of relation {relation} came before its description"
                ))
            })?;
        if tuples.iter().any(|tuple| tuple.columns() != columns) {
            return Err(Error::protocol(format!(
                "a row of relation {relation} does not have its {columns} columns"
            )));
        }
        let mut cells = Vec::with_capacity(columns * tuples.len());
        cells.extend(tuples.iter().flat_map(Tuple::cells));
        let (first, second) = cells.split_at(columns.min(cells.len()));
        for (index, part) in parts.iter_mut().enumerate() {
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
    fn breaks(&mut self, index: usize, error: Error) -> Part {
        self.forget(index);
        Part::Broken(Broken {
            index,
            commit_lsn: self.begin.final_lsn,
            error,
        })
    }

    fn forget(&mut self, index: usize) {
        self.changes.retain(|(of, _)| *of != index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ReplicaIdentity;
    use crate::protocol::pgoutput::decode;
    use crate::read_model::Remembering;
    use crate::read_model::tests::labels_table;
    use crate::settings::ReadModelSettings;

    fn cstr(text: &str) -> Vec<u8> {
        [text.as_bytes(), b"\0"].concat()
    }

    fn begin(lsn: u64) -> Vec<u8> {
        [
            b"B".as_slice(),
            &lsn.to_be_bytes(),
            &5i64.to_be_bytes(),
            &77u32.to_be_bytes(),
        ]
        .concat()
    }

    fn commit(lsn: u64) -> Vec<u8> {
        [
            b"C\0".as_slice(),
            &lsn.to_be_bytes(),
            &(lsn + 8).to_be_bytes(),
            &5i64.to_be_bytes(),
        ]
        .concat()
    }

    fn relation(label: &str) -> Vec<u8> {
        let mut bytes = [
            b"R".as_slice(),
            &16400u32.to_be_bytes(),
            &cstr("public"),
            &cstr("labels"),
            b"d\0\x05",
        ]
        .concat();
        for (flag, name, oid) in [
            (1u8, "id", 2950u32),
            (0, "code", 1043),
            (0, label, 1043),
            (0, "display_name", 1043),
            (0, "deleted_at", 1184),
        ] {
            bytes.push(flag);
            bytes.extend(cstr(name));
            bytes.extend(oid.to_be_bytes());
            bytes.extend((-1i32).to_be_bytes());
        }
        bytes
    }

    fn insert(id: &str) -> Vec<u8> {
        let mut bytes = [b"I".as_slice(), &16400u32.to_be_bytes(), b"N\0\x05"].concat();
        for value in [id, "MR", "Mr.", "Mister"] {
            bytes.push(b't');
            bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            bytes.extend(value.as_bytes());
        }
        bytes.push(b'n');
        bytes
    }

    fn model() -> Arc<ReadModel> {
        let table = labels_table(ReplicaIdentity::Default);
        let settings = ReadModelSettings::labels();
        let model = ReadModel::bind(&settings, &table, &["id".to_owned()], Remembering::Map).unwrap();
        Arc::new(model)
    }

    fn assembler() -> Assembler {
        let mut assembler = Assembler::new(Lsn::ZERO);
        assembler.add(Some(model()));
        assembler
    }

    /// Two read models of one table.
    fn pair() -> Assembler {
        let mut assembler = assembler();
        assembler.add(Some(model()));
        assembler
    }

    /// The read models of a transaction's changes, and those that it breaks.
    fn told(transaction: &Transaction) -> (Vec<usize>, Vec<usize>) {
        (
            transaction.changes.iter().map(|(of, _)| *of).collect(),
            transaction.broken.iter().map(|broken| broken.index).collect(),
        )
    }

    fn take(assembler: &mut Assembler, messages: &[Vec<u8>]) -> Result<Vec<Transaction>> {
        let mut transactions = Vec::new();
        for bytes in messages {
            transactions.extend(assembler.take(&decode(bytes)?)?);
        }
        Ok(transactions)
    }

    #[test]
    fn a_transaction_is_handed_on_at_its_commit_and_never_before() {
        let mut assembler = assembler();
        assert!(!assembler.is_open());
        assert!(
            take(&mut assembler, &[begin(100), relation("label"), insert("1")])
                .unwrap()
                .is_empty()
        );
        assert!(assembler.is_open() && assembler.bytes() > 0);
        let transactions = take(
            &mut assembler,
            &[commit(100), begin(200), insert("2"), commit(200)],
        )
        .unwrap();
        assert_eq!(
            transactions.iter().map(|t| t.changes.len()).collect::<Vec<_>>(),
            [1, 1]
        );
        assert_eq!(transactions[0].end_lsn, Lsn(108));
        assert_eq!(transactions[0].id.xid, 77);
    }

    #[test]
    fn a_large_transaction_comes_in_chunks_of_which_the_last_one_ends_it() {
        let mut assembler = assembler();
        assert!(assembler.take_chunk().is_empty());
        take(
            &mut assembler,
            &[begin(100), relation("label"), insert("1"), insert("2")],
        )
        .unwrap();
        let id = assembler.open_transaction().unwrap();
        assert_eq!(assembler.take_chunk().len(), 2);
        assert_eq!((assembler.bytes(), assembler.take_chunk().len()), (0, 0));
        let end = take(
            &mut assembler,
            &[insert("3"), relation("text"), insert("4"), commit(100)],
        )
        .unwrap();
        assert_eq!(
            (end[0].changes.len(), end[0].broken.len(), end[0].has_changes),
            (0, 1, true)
        );
        assert_eq!((end[0].id, assembler.open_transaction()), (id, None));
    }

    #[test]
    fn messages_out_of_order_are_errors_of_the_connection() {
        for messages in [
            vec![commit(100)],
            vec![begin(100), begin(200)],
            vec![begin(100), commit(200)],
            vec![insert("1")],
            vec![begin(100), insert("1")],
        ] {
            assert!(take(&mut assembler(), &messages).unwrap_err().is_transient());
        }
    }

    #[test]
    fn an_altered_table_breaks_its_read_model_from_that_transaction_on() {
        let mut assembler = assembler();
        let first = [begin(100), relation("label"), insert("1"), commit(100)];
        assert_eq!(take(&mut assembler, &first).unwrap()[0].changes.len(), 1);
        let second = [
            begin(200),
            insert("2"),
            relation("text"),
            insert("3"),
            commit(200),
        ];
        let broken = take(&mut assembler, &second).unwrap().remove(0);
        assert_eq!((broken.changes.len(), broken.broken.len()), (0, 1));
        assert!(broken.broken[0].error.to_string().contains("\"label\""));
        assembler.suspended(0);
        let third = take(&mut assembler, &[begin(300), insert("4"), commit(300)])
            .unwrap()
            .remove(0);
        assert_eq!(
            (third.changes.len(), third.broken.len(), third.has_changes),
            (0, 0, true)
        );
    }

    #[test]
    fn a_transaction_that_was_applied_before_breaks_nothing_and_is_not_mapped() {
        let mut assembler = Assembler::new(Lsn(200));
        assembler.add(Some(model()));
        let old_layout = [begin(100), relation("text"), insert("1"), commit(100)];
        let applied = take(&mut assembler, &old_layout).unwrap().remove(0);
        assert_eq!((told(&applied), applied.has_changes), ((vec![], vec![]), true));
        assert!(assembler.is_active(0));
        // A Relation message between two transactions breaks nothing either.
        assert!(take(&mut assembler, &[relation("text")]).unwrap().is_empty());
        let begun = [begin(199), relation("text"), insert("2")];
        take(&mut assembler, &begun).unwrap();
        assert_eq!((assembler.bytes(), assembler.take_chunk().len()), (0, 0));
        let rest = [
            commit(199),
            begin(200),
            relation("label"),
            insert("3"),
            commit(200),
        ];
        let next = take(&mut assembler, &rest).unwrap();
        assert_eq!(told(&next[1]), (vec![0], vec![]));

        // The table still has the layout that does not fit.
        let mut assembler = Assembler::new(Lsn(200));
        assembler.add(Some(model()));
        take(&mut assembler, &old_layout).unwrap();
        let next = take(&mut assembler, &[begin(200), insert("2"), commit(200)]).unwrap();
        assert_eq!(told(&next[0]), (vec![], vec![0]));
    }

    #[test]
    fn every_transaction_says_that_a_read_model_is_broken_until_that_is_stored() {
        let mut assembler = pair();
        let first = [begin(100), relation("text"), insert("1"), commit(100)];
        let broken = take(&mut assembler, &first).unwrap().remove(0);
        assert_eq!(told(&broken), (vec![], vec![0, 1]));
        for lsn in [200, 300] {
            let next = take(&mut assembler, &[begin(lsn), commit(lsn)])
                .unwrap()
                .remove(0);
            assert_eq!(told(&next), (vec![], vec![0, 1]));
            assert!(next.broken.iter().all(|broken| broken.commit_lsn == Lsn(100)));
        }
        assert_eq!(assembler.taking_part(), [0, 1]);
        assembler.suspended(0);
        assert_eq!(assembler.taking_part(), [1]);
        let next = take(&mut assembler, &[begin(400), insert("4"), commit(400)]).unwrap();
        assert_eq!(told(&next[0]), (vec![], vec![1]));
        assembler.suspended(1);
        assembler.activate(1, model());
        assembler.suspended(1);
        assert!(assembler.is_active(1), "it has joined again");
    }

    #[test]
    fn a_read_model_that_leaves_takes_its_part_of_the_open_transaction_along() {
        let mut assembler = pair();
        take(&mut assembler, &[begin(100), relation("label"), insert("1")]).unwrap();
        assembler.deactivate(0);
        let active: Vec<_> = (0..3).map(|index| assembler.is_active(index)).collect();
        assert_eq!(active, [false, true, false]);
        let end = take(&mut assembler, &[insert("2"), commit(100)]).unwrap();
        assert_eq!(told(&end[0]), (vec![1, 1], vec![]));

        let mut assembler = pair();
        let both = [
            begin(100),
            relation("label"),
            insert("1"),
            relation("text"),
            insert("2"),
        ];
        take(&mut assembler, &both).unwrap();
        assembler.deactivate(1);
        let end = take(&mut assembler, &[commit(100)]).unwrap();
        assert_eq!(
            told(&end[0]),
            (vec![], vec![0]),
            "that it is broken is told of the other one alone"
        );
    }

    #[test]
    fn a_read_model_that_comes_back_takes_part_without_another_description() {
        let mut assembler = pair();
        let first = [begin(100), relation("label"), insert("1"), commit(100)];
        take(&mut assembler, &first).unwrap();
        assembler.deactivate(0);
        assembler.activate(0, model());
        assert!(assembler.is_active(0));
        let second = take(&mut assembler, &[begin(200), insert("2"), commit(200)]).unwrap();
        assert_eq!(told(&second[0]), (vec![0, 1], vec![]));

        // It came back to a table that it does not fit: the description that comes before the next change decides.
        for (label, expected) in [("label", (vec![0], vec![])), ("text", (vec![], vec![0]))] {
            let mut assembler = self::assembler();
            take(&mut assembler, &[begin(100), relation("text"), commit(100)]).unwrap();
            assembler.deactivate(0);
            assembler.activate(0, model());
            let messages = [begin(200), relation(label), insert("1"), commit(200)];
            let next = take(&mut assembler, &messages).unwrap();
            assert_eq!(told(&next[0]), expected, "{label}");
        }
    }
}
