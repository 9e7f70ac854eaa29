//! What a read model's stage holds.

use super::way::Size;
use crate::fold::Share;
use crate::read_model::ModelIndex;

/// Final states of one read model that are in its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Staged {
    /// The read model.
    pub(super) index: ModelIndex,
    /// Whether rows that are not among them are gone.
    pub(super) clear: bool,
    /// Whether some of them lack a value that the stream left out.
    pub(super) resolve: bool,
    pub(super) size: Size,
    /// Rows with a value that a type of the lookup rejects.
    pub(super) rejected: RejectedCounts,
}

/// Rows with a value that a type of the lookup rejects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RejectedCounts {
    /// Those that the lookup should show.
    pub(crate) live: i64,
    /// Those that are only not remembered.
    pub(crate) dead: i64,
}

impl Staged {
    /// Nothing yet.
    pub(super) fn none(index: ModelIndex) -> Self {
        Self {
            index,
            clear: false,
            resolve: false,
            size: Size::default(),
            rejected: RejectedCounts::default(),
        }
    }

    /// Notes the next rows.
    pub(super) fn add(&mut self, rows: Share<'_>) {
        if rows.clear() {
            self.size = Size::default();
        }
        self.clear |= rows.clear();
        self.resolve |= rows.has_unchanged();
        self.size.add(Size::of(rows));
    }
}
