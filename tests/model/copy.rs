//! An exact copy without servers: the rows that the source has at one point, brought forward by a
//! stream of its own, and merged into the lookups where the stream is paused.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc::consume::follower::Follower;
use cdc::lsn::Lsn;
use cdc::read_model::{ModelIndex, ReadModel};

use crate::feed::Feed;
use crate::source::{Mark, Table};
use crate::wire::text;
use crate::writer::{Stage, Staged, Target, Value, Values, all_there, take_left_out};

/// The rows of a copy by identity, as `sql/target/write/catch_up.sql` keeps them: whether they are
/// live, and their values.
type Shadow = BTreeMap<Values, (bool, Values)>;

/// What `COPY` reads of the table: live rows, and the dead ones whose values are kept.
fn shadow(model: &ReadModel, table: &Table) -> Shadow {
    let mut shadow = Shadow::new();
    for row in table.rows.iter() {
        let value = |name: &str| text(table.kind, row, name).map_or(Value::Null, Value::Text);
        let values: Values = model
            .columns
            .iter()
            .map(|column| value(&column.name))
            .collect();
        let live = row.mark != Mark::Dead && model.key.iter().all(|at| values[*at] != Value::Null);
        if live || model.keeps_dead_rows() {
            let identity = model
                .identity
                .iter()
                .map(|column| value(&column.name))
                .collect();
            shadow.insert(identity, (live, values));
        }
    }
    shadow
}

/// A copy that follows the stream.
pub struct Copy {
    models: [Arc<ReadModel>; 2],
    shadows: [Shadow; 2],
    pub follower: Follower,
    /// What its own connection has sent.
    pub feed: Feed,
    /// Whether it has asked the stream to stand still.
    pub asked: bool,
    /// Whether it has asked in order to compare only.
    pub compares: bool,
    /// Where the stream is paused for it.
    pub position: Option<Lsn>,
}

impl Copy {
    /// The table at the copy's point.
    pub fn new(
        table: &Table,
        models: &[Arc<ReadModel>; 2],
        feed: Feed,
        point: Lsn,
        chunk_bytes: usize,
    ) -> Self {
        let copied: Vec<_> = ModelIndex::number(models.iter().cloned()).collect();
        Self {
            shadows: [shadow(&models[0], table), shadow(&models[1], table)],
            follower: Follower::new(point, &copied).with_chunks_of(chunk_bytes),
            feed,
            asked: false,
            compares: false,
            position: None,
            models: models.clone(),
        }
    }

    /// Brings the shadows forward by what was received. `false` if the table was altered.
    pub fn write(&mut self) -> Result<bool, String> {
        let Ok(folds) = self.follower.take_folds() else {
            return Ok(false);
        };
        for (index, fold) in folds {
            let mut stage = Stage::default();
            stage.add(&self.models[index.0], &fold);
            catch_up(&mut self.shadows[index.0], stage)?;
        }
        Ok(true)
    }

    /// Merges the copies into the lookups.
    pub fn merge(&self, targets: &mut [Target; 2]) -> Result<(), String> {
        for ((target, model), shadow) in targets.iter_mut().zip(&self.models).zip(&self.shadows) {
            let rows = shadow
                .iter()
                .map(|(identity, (live, values))| (identity.clone(), *live, values.clone()));
            target.apply(model, Stage::whole(rows))?;
        }
        Ok(())
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
