//! What a Relation message says of a table, kept by OID, and where a read model's columns are in
//! its tuples.
//!
//! Relation messages come again after every invalidation and at each new connection: the newest by
//! OID is the right one for the changes that follow it. Altered tables are noticed by comparing it
//! with the read model.

use crate::facts::ReplicaIdentity;
use crate::protocol::pgoutput;
use crate::sql::TableName;

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// OID: the relation id of the changes.
    pub oid: u32,
    /// Name.
    pub name: TableName,
    /// Replica identity.
    pub replica_identity: ReplicaIdentity,
    /// Published columns in the order of the tuples' cells.
    pub columns: Vec<RelationColumn>,
}

/// A published column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Name.
    pub name: String,
    /// Type.
    pub type_oid: u32,
    /// Whether it is part of the replica identity; all are under FULL.
    pub in_identity: bool,
}

impl Relation {
    /// Position of the column of this name within a tuple.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

impl From<&pgoutput::Relation<'_>> for Relation {
    fn from(message: &pgoutput::Relation<'_>) -> Self {
        Self {
            oid: message.oid,
            name: TableName::new(message.schema, message.name),
            replica_identity: message.replica_identity,
            columns: message
                .columns
                .iter()
                .map(|column| RelationColumn {
                    name: column.name.to_owned(),
                    type_oid: column.type_oid,
                    in_identity: column.in_identity,
                })
                .collect(),
        }
    }
}

/// Positions of a read model's columns within the tuples of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Of the identity's columns.
    pub identity: Vec<usize>,
    /// Of the projected columns.
    pub columns: Vec<usize>,
    /// Of the soft-delete column.
    pub soft_delete: Option<usize>,
}
