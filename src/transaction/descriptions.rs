//! What Relation messages have told of each table, and what of it is still to be proved.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ReadModel;
use crate::relation::{Layout, Relation};

/// The newest description of each table, and those by which changes were mapped.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    newest: HashMap<u32, Described, RandomState>,
    /// Those that changes were mapped by and that are not proved, with the commit of the first such
    /// change.
    unproved: Vec<(Relation, Lsn)>,
}

/// The newest Relation message of a table.
#[derive(Debug)]
struct Described {
    relation: Relation,
    /// Whether it is proved, or among those that are to be.
    used: bool,
}

impl Descriptions {
    /// A table is described anew.
    pub(super) fn add(&mut self, relation: Relation) {
        let described = Described {
            relation,
            used: false,
        };
        self.newest.insert(described.relation.oid, described);
    }

    /// The layout of a read model that takes part from here on. If its table's description does not
    /// fit, the server describes the table again before its next change, which is judged then.
    pub(super) fn layout_of(&mut self, model: &ReadModel) -> Option<Layout> {
        let described = self.newest.get_mut(&model.source_oid)?;
        // For others it may have been proved before this one was bound.
        described.used = false;
        model.layout(&described.relation).ok()
    }

    /// The description by which a change of this table is mapped, in the transaction that commits
    /// here: it is to be proved.
    ///
    /// # Errors
    /// A protocol error if there is none.
    pub(super) fn map_by(&mut self, table: u32, commit_lsn: Lsn) -> Result<&Relation> {
        let described = self.newest.get_mut(&table).ok_or_else(|| {
            Error::protocol(format!(
                "a change of relation {table} came before its description"
            ))
        })?;
        if !std::mem::replace(&mut described.used, true) {
            self.unproved.push((described.relation.clone(), commit_lsn));
        }
        Ok(&described.relation)
    }

    /// Forgets what is to be proved of tables that no read model follows any more.
    pub(super) fn retain(&mut self, is_followed: impl Fn(u32) -> bool) {
        self.unproved
            .retain(|(relation, _)| is_followed(relation.oid));
    }

    /// Whether a description of this table is to be proved.
    pub(super) fn is_unproved(&self, table: u32) -> bool {
        self.unproved
            .iter()
            .any(|(relation, _)| relation.oid == table)
    }

    /// Takes what is to be proved.
    pub(super) fn take_unproved(&mut self) -> Vec<(Relation, Lsn)> {
        std::mem::take(&mut self.unproved)
    }
}
