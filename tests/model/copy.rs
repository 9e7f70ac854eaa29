//! An exact copy without servers: the rows that the source has at one point, brought forward by a stream of its own, and merged
//! into lookups as they were when the copy began.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc::lsn::Lsn;
use cdc::protocol::pgoutput::decode;
use cdc::read_model::ReadModel;
use cdc::run::pending::Pending;
use cdc::transaction::Assembler;

use crate::reader::{Reader, assembler};
use crate::source::{Mark, Table};
use crate::wire::{Cuts, text};
use crate::writer::{Stage, Staged, Target, Value, Values, all_there, take_left_out};

/// The rows of a copy by identity, as `sql/target/write/catch_up.sql` keeps them: whether they are live, and their values.
type Shadow = BTreeMap<Values, (bool, Values)>;

/// What `COPY` reads of the table: live rows, and the dead ones whose values are kept.
fn shadow(model: &ReadModel, table: &Table) -> Shadow {
    let mut shadow = Shadow::new();
    for row in table.rows.iter() {
        let value = |name: &str| text(table.kind, row, name).map_or(Value::Null, Value::Text);
        let values: Values = model.columns.iter().map(|column| value(&column.name)).collect();
        let live = row.mark != Mark::Dead && model.key.iter().all(|at| values[*at] != Value::Null);
        if live || model.keeps_dead_rows() {
            let identity = model.identity.iter().map(|column| value(&column.name)).collect();
            shadow.insert(identity, (live, values));
        }
    }
    shadow
}

/// A copy that follows the stream.
pub struct Copy {
    models: [Arc<ReadModel>; 2],
    shadows: [Shadow; 2],
    /// The lookups, which nobody writes meanwhile.
    lookups: [Target; 2],
    assembler: Assembler,
    pending: Pending,
    /// Whether its stream has had the tables' descriptions.
    pub described: bool,
}

impl Copy {
    /// The table at the copy's point, for the lookups as they are now.
    pub fn new(table: &Table, reader: &Reader) -> Self {
        let models = reader.models.clone();
        Self {
            shadows: [shadow(&models[0], table), shadow(&models[1], table)],
            lookups: reader.targets().clone(),
            assembler: assembler(&models, Lsn::ZERO),
            pending: Pending::default(),
            described: false,
            models,
        }
    }

    /// Reads the next transaction; its beginning is taken into the shadows where it is cut.
    pub fn read(&mut self, messages: &[&[u8]], cuts: Cuts) -> Result<(), String> {
        for (at, bytes) in messages.iter().enumerate() {
            let message = decode(bytes).map_err(|error| error.to_string())?;
            let whole = self.assembler.take(&message).map_err(|error| error.to_string())?;
            if let Some(transaction) = whole {
                self.pending.add(transaction);
            } else if cuts.after(at) {
                self.pending.add_part(self.assembler.take_chunk());
                self.write()?;
            }
        }
        Ok(())
    }

    /// Brings the shadows forward.
    pub fn write(&mut self) -> Result<(), String> {
        let (folds, broken) = self.pending.take_folds();
        if let Some((index, error)) = broken.first() {
            return Err(format!("read model {index} is broken in a copy: {error}"));
        }
        for (index, fold) in folds {
            let mut stage = Stage::default();
            stage.add(&self.models[index], &fold);
            catch_up(&mut self.shadows[index], stage)?;
        }
        Ok(())
    }

    /// The lookups after the merge.
    pub fn merged(&self) -> Result<[Target; 2], String> {
        let mut merged = self.lookups.clone();
        for ((target, model), shadow) in merged.iter_mut().zip(&self.models).zip(&self.shadows) {
            let rows = shadow
                .iter()
                .map(|(identity, (live, values))| (identity.clone(), *live, values.clone()));
            target.apply(model, Stage::whole(rows))?;
        }
        Ok(merged)
    }
}

fn catch_up(shadow: &mut Shadow, stage: Stage) -> Result<(), String> {
    let mut rows = stage.rows;
    for Staged { start, now } in &mut rows {
        let held = start.as_ref().and_then(|start| shadow.get(start));
        if let (Some((_, _, values)), Some((_, held))) = (now, held) {
            take_left_out(values, held);
        }
    }
    all_there(&rows)?;
    if stage.clear {
        shadow.clear();
    }
    for row in &rows {
        let identity = row.now.as_ref().map(|now| &now.0);
        for gone in row.start.iter().chain(identity) {
            shadow.remove(gone);
        }
    }
    for (identity, live, values) in rows.into_iter().filter_map(|row| row.now) {
        if shadow.insert(identity, (live, values)).is_some() {
            return Err("two rows of a copy have one identity".to_owned());
        }
    }
    Ok(())
}
