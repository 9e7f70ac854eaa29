//! Whether the stream runs, is about to pause for a copy, or is paused until that copy is merged or
//! compared.

use std::sync::Arc;

use crate::lsn::Lsn;
use crate::read_model::{ModelIndex, ReadModel};

/// Read models as a copy bound them.
pub(crate) type Joining = Vec<(ModelIndex, Arc<ReadModel>)>;

/// Streaming, or on the way to one position and back.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    /// The stream runs.
    #[default]
    Streaming,
    /// It pauses at the first position at or after this one. What was received is applied; once
    /// that position was received, nothing more is taken in.
    Pausing {
        /// What the copy has received.
        at_least: Lsn,
        /// Read models that take part from the position on, if they do not yet.
        models: Joining,
    },
    /// It is paused. What is received in the meantime waits.
    Paused {
        /// Read models that take part in what waits already. They leave again, with their part of
        /// it, unless their copy is merged.
        joining: Vec<ModelIndex>,
    },
}

impl Mode {
    /// Whether to take in nothing more, so that the stream can pause.
    pub(crate) fn comes_to_stand(&self, received: Lsn) -> bool {
        matches!(self, Self::Pausing { at_least, .. } if received >= *at_least)
    }

    /// Whether an idle position has to be stored first, since the stream passes this one without a
    /// transaction.
    pub(crate) fn waits_for(&self, applied: Lsn) -> bool {
        matches!(self, Self::Pausing { at_least, .. } if applied < *at_least)
    }

    /// Whether nothing is handed to the target.
    pub(crate) fn stands_still(&self) -> bool {
        matches!(self, Self::Paused { .. })
    }

    /// Pauses, if that was requested and this position is far enough. Returns the read models that
    /// may join here.
    pub(crate) fn stand(&mut self, applied: Lsn) -> Option<Joining> {
        match self {
            Self::Pausing { at_least, models } if applied >= *at_least => {
                let models = std::mem::take(models);
                *self = Self::Paused {
                    joining: Vec::new(),
                };
                Some(models)
            }
            _ => None,
        }
    }

    /// A read model takes part in what waits.
    pub(crate) fn join(&mut self, index: ModelIndex) {
        if let Self::Paused { joining } = self {
            joining.push(index);
        }
    }

    /// The copy of a read model is merged: it stays.
    pub(crate) fn merged(&mut self, index: ModelIndex) {
        if let Self::Paused { joining } = self {
            joining.retain(|of| *of != index);
        }
    }

    /// The stream continues. Returns the read models that leave again.
    pub(crate) fn resume(&mut self) -> Vec<ModelIndex> {
        match std::mem::take(self) {
            Self::Paused { joining } => joining,
            Self::Streaming | Self::Pausing { .. } => Vec::new(),
        }
    }
}
