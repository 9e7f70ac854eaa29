//! The consumer without servers: bytes to lookups by the crate's decoder, assembler, replay and fold, and the writer in
//! memory. It keeps a checkpoint and an acknowledged position, and can be started again from them at any time, within a
//! large transaction too, which is staged chunk by chunk.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc::facts::{ReplicaIdentity, SourceColumn, SourceTable, UniqueIndex};
use cdc::identity::{Basis, identity};
use cdc::lsn::Lsn;
use cdc::progress::{Progress, Replay, TransactionId, Verdict};
use cdc::protocol::pgoutput::decode;
use cdc::read_model::{ReadModel, Remembering};
use cdc::run::pending::Pending;
use cdc::settings::{ColumnMapping, OnRowError, ReadModelSettings};
use cdc::sql::TableName;
use cdc::transaction::{Assembler, Transaction};

use crate::source::{Identity, Kind, Storage, Stored, Table, Unique};
use crate::statement::{live_rows, soft_delete};
use crate::wire::{self, Cuts, text};
use crate::writer::{Stage, Target, Value, Values};

/// The lookups of two read models of one table: by code and by id.
pub type Lookups = [BTreeMap<Values, Values>; 2];

/// What the catalog says of the table.
fn facts(kind: Kind) -> SourceTable {
    let columns = wire::columns(kind)
        .iter()
        .zip(1..)
        .map(|(&(name, of, oid), number)| SourceColumn {
            name: name.to_owned(),
            number,
            type_oid: oid,
            type_name: of.to_owned(),
            bare_type_name: of.to_owned(),
            not_null: name == "id" || (name == "code" && kind.identifies_by_code()),
            toastable: of == "text" && kind.storage != Storage::Plain,
            generated: false,
            builtin: true,
            collatable: of == "text",
            boolean: of == "boolean",
        });
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let index = |columns: &[&str], predicate: Option<&str>| UniqueIndex {
        name: columns.join("_"),
        columns: names(columns),
        predicate: predicate.map(str::to_owned),
        immediate: true,
    };
    let mut unique_indexes = vec![index(&["id"], None)];
    if kind.unique == Unique::AtOnce {
        unique_indexes.push(index(&["code"], live_rows(kind)));
    }
    let (replica_identity, primary_key, identity_index): (_, &[&str], &[&str]) = match kind.identity {
        Identity::PrimaryKey => (ReplicaIdentity::Default, &["id"], &[]),
        Identity::PrimaryKeyIsKey => (ReplicaIdentity::Default, &["code"], &[]),
        Identity::Index => (ReplicaIdentity::Index, &["id"], &["code", "id"]),
        Identity::IndexIsKey => (ReplicaIdentity::Index, &["id"], &["code"]),
        Identity::Full => (ReplicaIdentity::Full, &["id"], &[]),
        Identity::FullAlone => (ReplicaIdentity::Full, &[], &[]),
    };
    SourceTable {
        replica_identity,
        identity_index: names(identity_index),
        unique_indexes,
        ..SourceTable::ordinary(
            wire::LABELS,
            TableName::new("public", "labels"),
            columns.collect(),
            primary_key,
        )
    }
}

/// The read models.
fn models(kind: Kind) -> [Arc<ReadModel>; 2] {
    let by_code = [("label", "label"), ("code", "code"), ("note", "note")];
    let by_id = [("id", "id"), ("text", "note")];
    [
        Arc::new(bind(kind, "labels_lookup", "code", &by_code)),
        Arc::new(bind(kind, "labels_by_id", "id", &by_id)),
    ]
}

/// An assembler that both take part in, from this position on.
pub fn assembler(models: &[Arc<ReadModel>; 2], from: Lsn) -> Assembler {
    let mut assembler = Assembler::new(from);
    for model in models {
        assembler.add(Some(Arc::clone(model)));
    }
    assembler
}

fn bind(kind: Kind, name: &str, key: &str, columns: &[(&str, &str)]) -> ReadModel {
    let soft_delete = soft_delete(kind).map(|(name, _)| name);
    let settings = ReadModelSettings {
        source: TableName::new("public", "labels"),
        target: TableName::new("public", name),
        key: vec![key.to_owned()],
        columns: columns
            .iter()
            .map(|(target, source)| ColumnMapping {
                target: (*target).to_owned(),
                source: (*source).to_owned(),
            })
            .collect(),
        soft_delete: soft_delete.map(str::to_owned),
        synced_at: None,
        on_row_error: OnRowError::Isolate,
    };
    let table = facts(kind);
    let identity = identity(&table, &[key.to_owned()], soft_delete).unwrap();
    let remembering = match identity.basis {
        Basis::Key => Remembering::OldTuple,
        Basis::PrimaryKey | Basis::Index => Remembering::Map,
    };
    ReadModel::bind(&settings, &table, &identity.columns, remembering).unwrap()
}

/// What the lookups should show of the table: under each code the live row with the smallest id.
pub fn expected(table: &Table) -> Lookups {
    let row = |row: &Stored, columns: &[&str]| -> Values {
        columns
            .iter()
            .map(|column| text(table.kind, row, column).map_or(Value::Null, Value::Text))
            .collect()
    };
    let mut lookups = Lookups::default();
    for live in table.live() {
        if live.code.is_some() {
            let key = row(live, &["code"]);
            lookups[0]
                .entry(key)
                .or_insert_with(|| row(live, &["label", "code", "note"]));
        }
        lookups[1].insert(row(live, &["id"]), row(live, &["id", "note"]));
    }
    lookups
}

/// The consumer.
pub struct Reader {
    pub models: [Arc<ReadModel>; 2],
    targets: [Target; 2],
    checkpoint: Lsn,
    last: Option<TransactionId>,
    /// The slot's position: what was acknowledged.
    pub slot: Lsn,
    assembler: Assembler,
    replay: Replay,
    progress: Progress,
    pending: Pending,
    /// What the chunks of the open transaction have staged, and how many they are.
    stages: [Stage; 2],
    chunks: u32,
}

impl Reader {
    pub fn new(kind: Kind) -> Self {
        let mut reader = Self {
            models: models(kind),
            targets: Default::default(),
            checkpoint: Lsn::ZERO,
            last: None,
            slot: Lsn::ZERO,
            assembler: Assembler::new(Lsn::ZERO),
            replay: Replay::new(Lsn::ZERO, None, Lsn::ZERO),
            progress: Progress::default(),
            pending: Pending::default(),
            stages: Default::default(),
            chunks: 0,
        };
        reader.start();
        reader
    }

    /// Starts again: only what the target and the slot have stored is known.
    pub fn start(&mut self) {
        self.assembler = assembler(&self.models, self.checkpoint);
        self.replay = Replay::new(self.checkpoint, self.last, self.slot);
        self.progress = Progress::at(self.checkpoint);
        self.pending = Pending::default();
        self.stages = Default::default();
        self.chunks = 0;
    }

    pub fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// The last applied transaction with changes, if it must come again.
    pub fn last_to_come(&self) -> Option<TransactionId> {
        self.last.filter(|last| last.commit_lsn >= self.slot)
    }

    /// A judge as at the start.
    pub fn judge(&self) -> Replay {
        Replay::new(self.checkpoint, self.last, self.slot)
    }

    /// Reads a whole transaction; what was applied must be skipped, and the rest must not. Returns whether it is applied at
    /// once, as one that came in chunks is.
    pub fn read(&mut self, messages: &[&[u8]], cuts: Cuts) -> Result<bool, String> {
        let transaction = self
            .take(messages, cuts)?
            .ok_or("a transaction was not handed on at its end")?;
        if let Some(broken) = transaction.broken.first() {
            return Err(format!("read model {} is broken: {}", broken.index, broken.error));
        }
        if self.judged(transaction.id, transaction.has_changes)? == Verdict::Apply {
            self.progress.receive(transaction.end_lsn);
            self.pending.add(transaction);
        }
        let at_once = self.chunks > 0;
        if at_once {
            self.apply()?;
        }
        Ok(at_once)
    }

    /// Reads the beginning of a transaction, of which nothing may be seen.
    pub fn read_beginning(&mut self, messages: &[&[u8]], cuts: Cuts) -> Result<(), String> {
        match self.take(messages, cuts)? {
            None => Ok(()),
            Some(_) => Err("a transaction was handed on without its end".to_owned()),
        }
    }

    fn take(&mut self, messages: &[&[u8]], cuts: Cuts) -> Result<Option<Transaction>, String> {
        let mut whole = None;
        for (at, bytes) in messages.iter().enumerate() {
            let message = decode(bytes).map_err(|error| error.to_string())?;
            if whole.is_some() {
                return Err("a transaction was handed on before its end".to_owned());
            }
            whole = self.assembler.take(&message).map_err(|error| error.to_string())?;
            if cuts.after(at) {
                self.stage_chunk()?;
            }
        }
        Ok(whole)
    }

    /// Stages what the open transaction has changed so far, behind all that was read before it.
    fn stage_chunk(&mut self) -> Result<(), String> {
        let changes = self.assembler.bytes() > 0;
        let Some(id) = self.assembler.open_transaction().filter(|_| changes) else {
            return Ok(());
        };
        self.apply()?;
        let changes = self.assembler.take_chunk();
        if self.judged(id, true)? == Verdict::Skip {
            return Err("changes that were applied before are mapped again".to_owned());
        }
        let mut chunk = Pending::default();
        chunk.add_part(changes);
        for (index, fold) in chunk.take_folds().0 {
            self.stages[index].add(&self.models[index], &fold);
        }
        self.chunks += 1;
        Ok(())
    }

    fn judged(&mut self, id: TransactionId, has_changes: bool) -> Result<Verdict, String> {
        let applied = id.commit_lsn < self.checkpoint;
        let expected = if applied { Verdict::Skip } else { Verdict::Apply };
        let verdict = self.replay.judge(id, has_changes);
        if verdict != expected || self.replay.is_proved() == applied {
            return Err(format!(
                "commit {} with checkpoint {}: expected {expected:?}, found {verdict:?}, proved: {}",
                id.commit_lsn,
                self.checkpoint,
                self.replay.is_proved()
            ));
        }
        Ok(verdict)
    }

    /// Applies what waits, with its checkpoint.
    pub fn apply(&mut self) -> Result<(), String> {
        let Some(batch) = self.pending.take() else {
            return Ok(());
        };
        for (index, fold) in batch.folds.iter().filter(|(_, fold)| !fold.is_empty()) {
            self.stages[*index].add(&self.models[*index], fold);
        }
        self.chunks = 0;
        let staged = self.targets.iter_mut().zip(&self.models).zip(&mut self.stages);
        for ((target, model), stage) in staged {
            target.apply(model, std::mem::take(stage))?;
        }
        self.checkpoint = self.checkpoint.max(batch.position.lsn);
        self.last = batch.position.last.or(self.last);
        self.progress.apply(batch.position.lsn);
        Ok(())
    }

    /// The stream has passed a position without another transaction; it is stored.
    pub fn pass(&mut self, position: Lsn) -> Result<(), String> {
        if self.replay.pass(position) != Verdict::Skip || !self.replay.is_proved() {
            return Err(format!(
                "the stream cannot pass {position}, with checkpoint {}",
                self.checkpoint
            ));
        }
        self.checkpoint = self.checkpoint.max(position);
        self.progress.apply(position);
        Ok(())
    }

    /// The target has flushed what it has, and the server is told.
    pub fn acknowledge(&mut self) -> Result<(), String> {
        self.progress.harden(self.checkpoint);
        self.slot = self.progress.acknowledge();
        if self.slot != self.checkpoint || self.progress.received() < self.checkpoint {
            return Err(format!(
                "{} is acknowledged with checkpoint {}",
                self.slot, self.checkpoint
            ));
        }
        Ok(())
    }

    /// By code, and by id.
    pub fn targets(&self) -> &[Target; 2] {
        &self.targets
    }
}
