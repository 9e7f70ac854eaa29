//! What every way of writing shares: the read models, and the transaction that is open.

use sqlx::PgConnection;

use super::learned::Learned;
use crate::batch::Written;
use crate::error::{Class, Error, Result};
use crate::read_model::ModelId;
use crate::sql::TableName;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::model::TargetModel;
use crate::target::statement;

/// What was written of each read model, by its index.
pub(super) type AllWritten = Vec<(usize, Written)>;

/// The session's read models by index, as far as they are bound to their lookups.
#[derive(Debug, Default)]
pub(super) struct Models(Vec<Option<TargetModel>>);

impl Models {
    /// Sets the read model of this index.
    pub(super) fn set(&mut self, index: usize, model: TargetModel) {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(model);
        }
    }

    /// The read model of this index.
    ///
    /// # Errors
    /// [`Class::Transient`] if it is not bound to its lookup.
    pub(super) fn get(&self, index: usize) -> Result<&TargetModel> {
        self.0.get(index).and_then(Option::as_ref).ok_or_else(|| {
            Error::new(
                Class::Transient,
                format!("read model {index} is not bound to its lookup"),
            )
        })
    }

    /// Those that are bound, with their indexes.
    pub(super) fn bound(&self) -> impl Iterator<Item = (usize, &TargetModel)> {
        let models = self.0.iter().enumerate();
        models.filter_map(|(index, model)| Some((index, model.as_ref()?)))
    }

    /// Numbers of those of these read models that are bound.
    pub(super) fn ids(&self, indexes: &[usize]) -> Vec<ModelId> {
        let models = indexes.iter().filter_map(|index| self.get(*index).ok());
        models.map(|model| model.id).collect()
    }

    /// The read model that keeps this lookup.
    pub(super) fn index_of(&self, table: &TableName) -> Option<usize> {
        let mut models = self.bound();
        models
            .find(|(_, model)| model.model.settings.target == *table)
            .map(|(index, _)| index)
    }
}

/// The transaction in which a way writes. Whoever opens it ends it.
#[derive(Debug)]
pub(super) struct WriteTx<'a> {
    pub(super) conn: &'a mut PgConnection,
    pub(super) models: &'a Models,
    pub(super) bookkeeping: &'a Bookkeeping,
    /// The epoch under which the session writes.
    pub(super) epoch: i64,
    /// Most keys of written rows of each kind that are reported.
    pub(super) keys: i32,
    pub(super) learned: &'a mut Learned,
    /// The read model whose fault an error is from now on.
    pub(super) blamed: Option<usize>,
}

impl<'a> WriteTx<'a> {
    /// The read model of this index.
    ///
    /// # Errors
    /// As [`Models::get`].
    pub(super) fn model(&self, index: usize) -> Result<&'a TargetModel> {
        self.models.get(index)
    }

    /// The next read model's turn: an error is its fault from now on.
    ///
    /// # Errors
    /// As [`Models::get`].
    pub(super) fn turn_to(&mut self, index: usize) -> Result<&'a TargetModel> {
        self.blamed = Some(index);
        self.models.get(index)
    }

    /// Sends a statement of which nothing is read.
    pub(super) async fn execute(&mut self, sql: impl Into<String>) -> Result<()> {
        statement::execute(self.conn, sql.into()).await
    }

    /// Commits if all went well, else rolls back. Returns the result, and whose fault an error is.
    pub(super) async fn end<T>(self, result: Result<T>) -> (Result<T>, Option<usize>) {
        (statement::end(self.conn, result).await, self.blamed)
    }
}

/// Adds what was written of a read model in another way, with at most `keys` keys of each kind.
pub(super) fn add_written(all: &mut AllWritten, index: usize, more: Written, keys: i32) {
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
