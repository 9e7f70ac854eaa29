//! A read model bound to its source table, and the truth table: one source change becomes one row
//! change.
//!
//! In: tuples of one relation, by position (`relation` says which column is where). Out:
//! [`Change`]s in terms of the read model: an identity, whether the row is live, and its projected
//! values. Whether a row was live *before* is answered by the map in the target, not by an old
//! tuple, so most changes need no old row at all.
//!
//! Only the identity's columns of an old tuple are used: if the root of a partitioned table is FULL
//! and its leaves are not, the old tuple has NULLs in all other columns (measured on 15.18). The
//! one exception is [`Remembering::OldTuple`], which is used only if every leaf is FULL.

pub(crate) mod follow;
mod handle;
pub(crate) mod lookup_obstacles;
pub(crate) mod obstacles;

pub use handle::{ModelId, ModelIndex};

use crate::error::{Error, Result};
use crate::facts::{ReplicaIdentity, SourceTable};
use crate::relation::{Layout, Relation};
use crate::row::{Cell, Row};
use crate::settings::ReadModelSettings;

/// How the soft-delete column says that a row is not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftDelete {
    /// A timestamp (or any other type): not live when it is not null.
    NotNull,
    /// A boolean: not live when it is true.
    True,
}

/// Who remembers what was live before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembering {
    /// The map in the target, by the row's identity.
    Map,
    /// The stream's old tuple (FULL without a primary key): the key replaces the identity, dead
    /// rows are not known.
    OldTuple,
}

/// A source column that the read model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundColumn {
    /// Name at the source.
    pub name: String,
    /// Number (pg_attribute.attnum): another one under the same name is another column.
    pub number: i16,
    /// Type; another one at a later time means that the table was altered.
    pub type_oid: u32,
    /// Type without modifier, for the map and for copies.
    pub bare_type_name: String,
    /// Whether the type is built in, so that the target has it too.
    pub builtin: bool,
    /// Whether its value can be stored out of line, so that updates may leave it out.
    pub toastable: bool,
    /// Whether it has a collation.
    pub collatable: bool,
}

/// A read model bound to its source table as the catalog showed it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadModel {
    /// The rule.
    pub settings: ReadModelSettings,
    /// OID of the source table: the stream's relation id.
    pub source_oid: u32,
    /// Replica identity of the source table; another one later means that the identity must be read
    /// again.
    pub replica_identity: ReplicaIdentity,
    /// Columns by which the stream names an old row.
    pub identity: Vec<BoundColumn>,
    /// Projected columns, in the order of the settings.
    pub columns: Vec<BoundColumn>,
    /// Positions of the key within `columns`.
    pub key: Vec<usize>,
    /// Soft-delete column and its kind.
    pub soft_delete: Option<(BoundColumn, SoftDelete)>,
    /// Who remembers what was live.
    pub remembering: Remembering,
}

impl ReadModel {
    /// Binds a read model to its source table; `identity` holds the names of the identity's
    /// columns.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if a column is not there.
    pub fn bind(
        settings: &ReadModelSettings,
        table: &SourceTable,
        identity: &[String],
        remembering: Remembering,
    ) -> Result<Self> {
        let bound = |name: &String| bound_column(settings, table, name);
        let columns = settings.columns.iter();
        let columns = columns.map(|mapping| bound(&mapping.source));
        let soft_delete = match &settings.soft_delete {
            None => None,
            Some(name) if table.column(name).is_some_and(|column| column.boolean) => {
                Some((bound(name)?, SoftDelete::True))
            }
            Some(name) => Some((bound(name)?, SoftDelete::NotNull)),
        };
        Ok(Self {
            settings: settings.clone(),
            source_oid: table.oid,
            replica_identity: table.replica_identity,
            columns: columns.collect::<Result<_>>()?,
            key: key_places(settings),
            soft_delete,
            identity: identity.iter().map(bound).collect::<Result<_>>()?,
            remembering,
        })
    }

    /// The source's columns that are used.
    pub(crate) fn used_columns(&self) -> impl Iterator<Item = &BoundColumn> {
        let soft_delete = self.soft_delete.iter().map(|(column, _)| column);
        self.identity.iter().chain(&self.columns).chain(soft_delete)
    }

    /// Their names.
    pub(crate) fn source_columns(&self) -> Vec<String> {
        self.used_columns()
            .map(|column| column.name.clone())
            .collect()
    }

    /// Whether dead rows are kept with their values: an update that brings one back may leave a
    /// value out.
    pub fn keeps_dead_rows(&self) -> bool {
        self.remembering == Remembering::Map && self.columns.iter().any(|column| column.toastable)
    }

    /// The change that an INSERT makes.
    pub fn insert(&self, layout: &Layout, new: &[Cell<'_>]) -> Result<Option<Change>> {
        let new = self.image(layout, new, None, None)?;
        Ok(match self.remembering {
            Remembering::OldTuple if !new.live => None,
            Remembering::OldTuple | Remembering::Map => Some(Change::Insert(new)),
        })
    }

    /// The change that an UPDATE makes. `old` is the K or O tuple, if the stream brought one.
    pub fn update(
        &self,
        layout: &Layout,
        old: Option<&[Cell<'_>]>,
        new: &[Cell<'_>],
    ) -> Result<Option<Change>> {
        let identity = old.map(|old| self.identity(layout, old)).transpose()?;
        match self.remembering {
            Remembering::Map => {
                let new = self.image(layout, new, old, None)?;
                let old = identity.filter(|old| *old != new.identity);
                Ok(Some(Change::Update { old, new }))
            }
            Remembering::OldTuple => {
                let (Some(old), Some(identity)) = (old, identity) else {
                    return Err(Error::broken(
                        "an update came without its old row under REPLICA IDENTITY FULL",
                    ));
                };
                let was_live = self.is_live(layout, old);
                let new = self.image(layout, new, Some(old), Some(old))?;
                Ok(match (was_live, new.live) {
                    (false, false) => None,
                    (false, true) => Some(Change::Insert(new)),
                    (true, false) => Some(Change::Delete(identity)),
                    (true, true) => {
                        let old = (identity != new.identity).then_some(identity);
                        Some(Change::Update { old, new })
                    }
                })
            }
        }
    }

    /// The change that a DELETE makes. `old` is the K or O tuple.
    pub fn delete(&self, layout: &Layout, old: &[Cell<'_>]) -> Result<Option<Change>> {
        let identity = self.identity(layout, old)?;
        Ok(match self.remembering {
            Remembering::OldTuple if !self.is_live(layout, old) => None,
            Remembering::OldTuple | Remembering::Map => Some(Change::Delete(identity)),
        })
    }

    /// Whether the row is live: not soft-deleted, and no key column is null.
    fn is_live(&self, layout: &Layout, cells: &[Cell<'_>]) -> bool {
        let deleted = match (layout.soft_delete, &self.soft_delete) {
            (Some(position), Some((_, kind))) => match (kind, cell(cells, position)) {
                (SoftDelete::NotNull, Cell::Null) => false,
                (SoftDelete::NotNull, _) => true,
                (SoftDelete::True, value) => value == Cell::Text(b"t"),
            },
            _ => false,
        };
        !deleted
            && self
                .key
                .iter()
                .all(|&key| cell(cells, position(&layout.columns, key)) != Cell::Null)
    }

    /// The new row in terms of the read model. A value that the new tuple leaves out is taken from
    /// `identity_from` where it belongs to the identity, and from `values_from` (only if the old
    /// tuple is used) otherwise.
    fn image(
        &self,
        layout: &Layout,
        new: &[Cell<'_>],
        identity_from: Option<&[Cell<'_>]>,
        values_from: Option<&[Cell<'_>]>,
    ) -> Result<Image> {
        let of_identity = |&at: &usize| match (cell(new, at), identity_from) {
            (Cell::Unchanged, Some(old)) => cell(old, at),
            (value, _) => value,
        };
        let identity = Row::from_cells(layout.identity.iter().map(of_identity));
        if identity.has_unchanged() {
            return Err(Error::broken(
                "an update left out a column of the identity and its old row",
            ));
        }
        let value = |&at: &usize| match (cell(new, at), values_from, identity_from) {
            (Cell::Unchanged, Some(old), _) => cell(old, at),
            (Cell::Unchanged, None, Some(old)) if layout.identity.contains(&at) => cell(old, at),
            (value, ..) => value,
        };
        let values = Row::from_cells(layout.columns.iter().map(value));
        let mut left_out = values.cells().zip(&self.columns);
        if let Some((_, column)) =
            left_out.find(|(value, column)| *value == Cell::Unchanged && !column.toastable)
        {
            return Err(Error::broken(format!(
                "an update left out column \"{}\": the table was altered and now stores values out of line",
                column.name
            )));
        }
        Ok(Image {
            identity,
            live: self.is_live(layout, new),
            values,
        })
    }

    fn identity(&self, layout: &Layout, old: &[Cell<'_>]) -> Result<Row> {
        let row = Row::from_cells(layout.identity.iter().map(|&at| cell(old, at)));
        if row.has_unchanged() {
            return Err(Error::broken(
                "an old row came without a column of its identity",
            ));
        }
        // Columns of a key cannot be null: the row comes from a partition that has another one.
        let of_a_key = self.replica_identity != ReplicaIdentity::Full;
        if of_a_key && row.cells().any(|cell| cell == Cell::Null) {
            return Err(Error::broken(format!(
                "an old row came without the identity of table \"{}\": a partition has another one",
                self.settings.source
            )));
        }
        Ok(row)
    }

    /// Where each of the read model's columns is in the relation.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken), with what differs, if the relation is not
    /// the table that the read model was bound to.
    pub fn layout(&self, relation: &Relation) -> Result<Layout> {
        if relation.name != self.settings.source {
            return Err(Error::broken(format!(
                "table \"{}\" is now called \"{}\"",
                self.settings.source, relation.name
            )));
        }
        if relation.replica_identity != self.replica_identity {
            return Err(Error::broken(format!(
                "the replica identity of table \"{}\" was changed from {:?} to {:?}",
                relation.name, self.replica_identity, relation.replica_identity
            )));
        }
        let find = |column: &BoundColumn| -> Result<usize> {
            let position = relation
                .position(&column.name)
                .ok_or_else(|| missing_column(&column.name, &self.settings))?;
            match relation.columns.get(position) {
                Some(found) if found.type_oid == column.type_oid => Ok(position),
                _ => Err(Error::broken(format!(
                    "the type of column \"{}\" of table \"{}\" was changed",
                    column.name, relation.name
                ))),
            }
        };
        let layout = Layout {
            identity: self.identity.iter().map(find).collect::<Result<_>>()?,
            columns: self.columns.iter().map(find).collect::<Result<_>>()?,
            soft_delete: self
                .soft_delete
                .as_ref()
                .map(|(column, _)| find(column))
                .transpose()?,
        };
        let flagged = relation
            .columns
            .iter()
            .filter(|column| column.in_identity)
            .count();
        let identity_flagged = layout.identity.iter().all(|&at| {
            relation
                .columns
                .get(at)
                .is_some_and(|column| column.in_identity)
        });
        let full = relation.replica_identity == ReplicaIdentity::Full;
        if !identity_flagged || (!full && flagged != layout.identity.len()) {
            return Err(Error::broken(format!(
                "the identity of table \"{}\" was changed",
                relation.name
            )));
        }
        Ok(layout)
    }
}

/// The source's column of this name.
fn bound_column(
    settings: &ReadModelSettings,
    table: &SourceTable,
    name: &str,
) -> Result<BoundColumn> {
    let column = table
        .column(name)
        .ok_or_else(|| missing_column(name, settings))?;
    Ok(BoundColumn {
        name: column.name.clone(),
        number: column.number,
        type_oid: column.type_oid,
        bare_type_name: column.bare_type_name.clone(),
        builtin: column.builtin,
        toastable: column.toastable,
        collatable: column.collatable,
    })
}

/// The places of the key's columns among the projected ones.
fn key_places(settings: &ReadModelSettings) -> Vec<usize> {
    let place = |name: &String| {
        let mut columns = settings.columns.iter();
        columns.position(|mapping| &mapping.target == name)
    };
    settings.key.iter().filter_map(place).collect()
}

fn missing_column(name: &str, settings: &ReadModelSettings) -> Error {
    Error::broken(format!(
        "column \"{name}\" of table \"{}\" does not exist",
        settings.source
    ))
    .with_hint(
        "Create the column, publish it, or change the read model's columns in the configuration.",
    )
}

fn cell<'a>(cells: &[Cell<'a>], position: usize) -> Cell<'a> {
    cells.get(position).copied().unwrap_or(Cell::Null)
}

fn position(positions: &[usize], index: usize) -> usize {
    positions.get(index).copied().unwrap_or(usize::MAX)
}

/// A source row in terms of the read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Identity of the row.
    pub identity: Row,
    /// Whether the lookup may show it.
    pub live: bool,
    /// Projected values, in the order of the read model's columns.
    pub values: Row,
}

/// One source change in terms of a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new row.
    Insert(Image),
    /// An existing row; `old` is its identity before, if that changed.
    Update {
        /// Identity before the change, if it was another one.
        old: Option<Row>,
        /// The row now.
        new: Image,
    },
    /// The row of this identity was deleted.
    Delete(Row),
    /// All rows were deleted.
    Truncate,
}

impl Change {
    /// Bytes that the change takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let rows = match self {
            Self::Insert(new) => new.identity.bytes() + new.values.bytes(),
            Self::Update { old, new } => {
                old.as_ref().map_or(0, Row::bytes) + new.identity.bytes() + new.values.bytes()
            }
            Self::Delete(identity) => identity.bytes(),
            Self::Truncate => 0,
        };
        rows + size_of::<Self>()
    }
}

#[cfg(test)]
pub(crate) mod tests;
