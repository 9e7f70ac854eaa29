//! The session's read models.

use crate::error::{Class, Error, Result};
use crate::read_model::{ModelId, ModelIndex};
use crate::sql::TableName;
use crate::target::model::TargetModel;

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
