//! What every way of writing shares: the read models, and the transaction that is open.

use super::learned::Learned;
use crate::batch::Written;
use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::read_model::{ModelId, ModelIndex};
use crate::sql::TableName;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::model::TargetModel;
use crate::target::statement;

/// What was written of each read model.
pub(super) type AllWritten = Vec<(ModelIndex, Written)>;

/// The session's read models by index, as far as they are bound to their lookups.
#[derive(Debug, Default)]
pub(super) struct Models(Vec<Option<TargetModel>>);

impl Models {
    /// Sets the read model of this index.
    pub(super) fn set(&mut self, index: ModelIndex, model: TargetModel) {
        if self.0.len() <= index.0 {
            self.0.resize_with(index.0 + 1, || None);
        }
        if let Some(place) = index.of_mut(&mut self.0) {
            *place = Some(model);
        }
    }

    /// The read model of this index.
    ///
    /// # Errors
    /// [`Class::Transient`] if it is not bound to its lookup.
    pub(super) fn get(&self, index: ModelIndex) -> Result<&TargetModel> {
        index.of(&self.0).and_then(Option::as_ref).ok_or_else(|| {
            Error::new(
                Class::Transient,
                format!("read model {} is not bound to its lookup", index.0),
            )
        })
    }

    /// Those that are bound, with their indexes.
    pub(super) fn bound(&self) -> impl Iterator<Item = (ModelIndex, &TargetModel)> {
        ModelIndex::number(&self.0).filter_map(|(index, model)| Some((index, model.as_ref()?)))
    }

    /// Numbers of those of these read models that are bound.
    pub(super) fn ids(&self, indexes: &[ModelIndex]) -> Vec<ModelId> {
        let models = indexes.iter().filter_map(|index| self.get(*index).ok());
        models.map(|model| model.id).collect()
    }

    /// The read model that keeps this lookup.
    pub(super) fn index_of(&self, table: &TableName) -> Option<ModelIndex> {
        let mut models = self.bound();
        models
            .find(|(_, model)| model.model.settings.target == *table)
            .map(|(index, _)| index)
    }
}

/// The transaction in which a way writes. The function that opens it ends it.
#[derive(Debug)]
pub(super) struct WriteTx<'a> {
    pub(super) conn: &'a mut Connection,
    pub(super) models: &'a Models,
    pub(super) bookkeeping: &'a Bookkeeping,
    /// The epoch under which the session writes.
    pub(super) epoch: i64,
    /// Most keys of written rows of each kind that are reported.
    pub(super) keys: i32,
    pub(super) learned: &'a mut Learned,
    /// The read model that an error belongs to from now on.
    pub(super) blamed: Option<ModelIndex>,
}

impl<'a> WriteTx<'a> {
    /// The read model of this index.
    ///
    /// # Errors
    /// As [`Models::get`].
    pub(super) fn model(&self, index: ModelIndex) -> Result<&'a TargetModel> {
        self.models.get(index)
    }

    /// The next read model's turn: from now on an error belongs to it.
    ///
    /// # Errors
    /// As [`Models::get`].
    pub(super) fn turn_to(&mut self, index: ModelIndex) -> Result<&'a TargetModel> {
        self.blamed = Some(index);
        self.models.get(index)
    }

    /// Sends a statement and reads no rows.
    pub(super) async fn execute(&mut self, sql: impl Into<String>) -> Result<()> {
        statement::execute(self.conn, sql.into()).await
    }

    /// Commits if all went well, else rolls back. Returns the result, and the read model that an
    /// error belongs to.
    pub(super) async fn end<T>(self, result: Result<T>) -> (Result<T>, Option<ModelIndex>) {
        (statement::end(self.conn, result).await, self.blamed)
    }
}

/// Adds another way's counts and keys of a read model, keeping at most `keys` keys of each kind.
pub(super) fn add_written(all: &mut AllWritten, index: ModelIndex, more: Written, keys: i32) {
    let Some((_, written)) = all.iter_mut().find(|(of, _)| *of == index) else {
        all.push((index, more));
        return;
    };
    written.inserted += more.inserted;
    written.updated += more.updated;
    written.deleted += more.deleted;
    written.total += more.total;
    let most = usize::try_from(keys).unwrap_or_default();
    let add = |keys: &mut Vec<String>, more: Vec<String>| {
        let room = most.saturating_sub(keys.len());
        keys.extend(more.into_iter().take(room));
    };
    add(&mut written.inserted_keys, more.inserted_keys);
    add(&mut written.updated_keys, more.updated_keys);
    add(&mut written.deleted_keys, more.deleted_keys);
}
