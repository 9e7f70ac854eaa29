//! The identity rule: by which columns the stream names an old row, and whether publishing is
//! harmless.
//!
//! In: a table's facts. Out: its [`Identity`], or why it has none and the SQL that corrects it.
//!
//! | replica identity | identity |
//! |---|---|
//! | DEFAULT | primary key |
//! | USING INDEX | the index's columns |
//! | FULL with a primary key | primary key (the Relation message marks every column: ask the catalog) |
//! | FULL without one | the key, if an immediate unique index covers it over live rows and every leaf is FULL |
//! | NOTHING, or DEFAULT without (or with a deferrable) primary key | refused: publishing breaks the application |
//!
//! The Relation message speaks of the root of a partitioned table, but a leaf decides what is
//! logged of an old row, so every leaf has to name the root's identity.

use crate::error::{Error, Result};
use crate::facts::{Leaf, ReplicaIdentity, SourceTable, UniqueIndex};
use crate::sql::{ident, idents};

/// First version whose publications can hold generated columns, and refuse an identity with
/// unpublished ones.
const GENERATED_COLUMNS_IN_IDENTITY: u32 = 180_000;

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The primary key.
    PrimaryKey,
    /// The index of REPLICA IDENTITY USING INDEX.
    Index,
    /// The read model's key, under FULL and without a primary key: every old tuple holds the whole
    /// row and says whether it was live.
    Key,
}

/// The columns by which the stream names an old row; names as in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The columns, in the order of their index (of the read model's key for [`Basis::Key`]).
    pub columns: Vec<String>,
    /// Where they come from.
    pub basis: Basis,
}

/// The identity of a source table. `key` and `soft_delete` are the read model's, names as in the
/// source.
///
/// # Errors
/// `Broken`, with the reason and the SQL that corrects it, where there is no usable identity.
pub fn identity(
    table: &SourceTable,
    key: &[String],
    soft_delete: Option<&str>,
) -> Result<Identity> {
    own_identity_is_usable(table)?;
    let identity = match table.replica_identity {
        ReplicaIdentity::Index => Identity {
            columns: table.identity_index.clone(),
            basis: Basis::Index,
        },
        ReplicaIdentity::Full if table.primary_key.is_empty() => {
            key_identity(table, key, soft_delete)?
        }
        ReplicaIdentity::Nothing | ReplicaIdentity::Default | ReplicaIdentity::Full => Identity {
            columns: table.primary_key.clone(),
            basis: Basis::PrimaryKey,
        },
    };
    match table
        .leaves
        .iter()
        .find(|leaf| !names_identity(leaf, &identity))
    {
        Some(leaf) => Err(wrong_leaf(table, leaf, &identity)),
        None => Ok(identity),
    }
}

/// Whether the server can name an old row of the table at all; leaves have their own.
fn own_identity_is_usable(table: &SourceTable) -> Result<()> {
    match table.replica_identity {
        ReplicaIdentity::Nothing => Err(no_identity(table, "its replica identity is NOTHING")),
        ReplicaIdentity::Default if table.primary_key.is_empty() => {
            Err(no_identity(table, missing_primary_key(table)))
        }
        ReplicaIdentity::Index if table.identity_index.is_empty() => Err(no_identity(
            table,
            "the index of its replica identity was dropped",
        )),
        _ => Ok(()),
    }
}

/// Under FULL and without a primary key the read model's key is the identity, if two live rows can
/// never share it. Under a deferrable constraint they can: two rows may swap keys, and in between
/// one key names both.
fn key_identity(
    table: &SourceTable,
    key: &[String],
    soft_delete: Option<&str>,
) -> Result<Identity> {
    let covers = |index: &&UniqueIndex| {
        !index.columns.is_empty()
            && index.columns.iter().all(|column| key.contains(column))
            && index
                .predicate
                .as_deref()
                .is_none_or(|predicate| holds_for_live_rows(predicate, table, key, soft_delete))
    };
    let unique = || table.unique_indexes.iter().filter(covers);
    if unique().any(|index| index.immediate) {
        return Ok(Identity {
            columns: key.to_vec(),
            basis: Basis::Key,
        });
    }
    if let Some(index) = unique().next() {
        return Err(deferrable_key(table, key, index));
    }
    Err(Error::broken(format!(
        "table \"{}\" has replica identity FULL, no primary key and no unique index on the key ({})",
        table.name,
        key.join(", ")
    ))
    .with_detail(
        "Old rows cannot be distinguished, since nothing at the source keeps two live rows from being equal.",
    )
    .with_hint(format!(
        "Add a primary key, or: CREATE UNIQUE INDEX CONCURRENTLY ON {} ({});",
        table.name.quoted(),
        idents(key)
    )))
}

fn deferrable_key(table: &SourceTable, key: &[String], index: &UniqueIndex) -> Error {
    let name = table.name.quoted();
    Error::broken(format!(
        "table \"{}\" has replica identity FULL, no primary key, and its key ({}) is unique by a deferrable constraint only (\"{}\")",
        table.name,
        key.join(", "),
        index.name
    ))
    .with_detail(
        "Old rows cannot be distinguished, since two live rows may be equal until the constraint is checked.",
    )
    .with_hint(format!(
        "Add a primary key that is not deferrable, or: CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({});",
        idents(key)
    ))
}

/// Whether every live row satisfies the predicate of a partial index, as pg_get_expr prints it.
///
/// Only the forms that a soft delete has are understood; anything else does not hold.
fn holds_for_live_rows(
    predicate: &str,
    table: &SourceTable,
    key: &[String],
    soft_delete: Option<&str>,
) -> bool {
    let written = |name: &str, condition: &str| {
        [
            format!("{name} {condition}"),
            format!("{} {condition}", ident(name)),
        ]
    };
    let mut allowed: Vec<String> = key
        .iter()
        .flat_map(|name| written(name, "IS NOT NULL"))
        .collect();
    if let Some(name) = soft_delete {
        let column = table.column(name);
        let boolean = column.is_some_and(|column| column.boolean);
        if boolean {
            allowed.extend(written(name, "IS NOT TRUE"));
            // `NOT column` is NULL for a NULL: such a row is live, but outside of the index.
            if column.is_some_and(|column| column.not_null) {
                allowed.extend(written(name, "= false"));
                allowed.extend(written(name, "IS FALSE"));
                allowed.extend([format!("NOT {name}"), format!("NOT {}", ident(name))]);
            }
        } else {
            allowed.extend(written(name, "IS NULL"));
        }
    }
    let terms = predicate
        .strip_prefix("((")
        .and_then(|rest| rest.strip_suffix("))"));
    let terms = terms.or_else(|| {
        predicate
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
    });
    terms
        .unwrap_or(predicate)
        .split(") AND (")
        .all(|term| allowed.iter().any(|allowed| allowed == term))
}

/// Whether what the leaf logs of an old row holds the identity.
fn names_identity(leaf: &Leaf, identity: &Identity) -> bool {
    leaf.replica_identity == ReplicaIdentity::Full
        || identity.basis != Basis::Key
            && identity
                .columns
                .iter()
                .all(|column| leaf.identity_columns.contains(column))
}

fn missing_primary_key(table: &SourceTable) -> &'static str {
    if table.deferrable_primary_key {
        "its primary key is deferrable, which cannot be a replica identity"
    } else {
        "it has neither a primary key nor another replica identity"
    }
}

fn no_identity(table: &SourceTable, reason: &str) -> Error {
    let name = table.name.quoted();
    let mend = if table.replica_identity != ReplicaIdentity::Default
        && !table.primary_key.is_empty()
    {
        format!("Use the primary key: ALTER TABLE {name} REPLICA IDENTITY DEFAULT;")
    } else if let Some(index) = identity_candidate(table) {
        format!(
            "Use a unique index: ALTER TABLE {name} REPLICA IDENTITY USING INDEX {};",
            ident(index)
        )
    } else {
        format!(
            "Add a primary key (not deferrable), or log whole rows: ALTER TABLE {name} REPLICA IDENTITY FULL;"
        )
    };
    Error::broken(format!(
        "table \"{}\" has no usable replica identity: {reason}",
        table.name
    ))
    .with_detail(
        "As soon as it is published, every UPDATE and DELETE of the application would fail.",
    )
    .with_hint(mend)
}

/// A unique index that can become the replica identity: immediate, whole, on columns that are NOT
/// NULL.
fn identity_candidate(table: &SourceTable) -> Option<&str> {
    let usable = |name: &String| table.column(name).is_some_and(|column| column.not_null);
    let index = table.unique_indexes.iter().find(|index| {
        index.immediate
            && index.predicate.is_none()
            && !index.columns.is_empty()
            && index.columns.iter().all(usable)
    })?;
    Some(&index.name)
}

fn wrong_leaf(table: &SourceTable, leaf: &Leaf, identity: &Identity) -> Error {
    let columns = identity.columns.join(", ");
    let leaf_name = leaf.name.quoted();
    if breaks_writes(leaf) {
        return Error::broken(format!(
            "partition \"{}\" of table \"{}\" has no usable replica identity",
            leaf.name, table.name
        ))
        .with_detail(
            "As soon as it is published, every UPDATE and DELETE of the application in it would fail.",
        )
        .with_hint(if leaf.has_primary_key {
            format!("Use its primary key: ALTER TABLE {leaf_name} REPLICA IDENTITY DEFAULT;")
        } else {
            format!("Add a primary key, or log whole rows: ALTER TABLE {leaf_name} REPLICA IDENTITY FULL;")
        });
    }
    Error::broken(format!(
        "partition \"{}\" does not log the identity of table \"{}\" ({columns})",
        leaf.name, table.name
    ))
    .with_detail(
        "The partition has a replica identity of its own, and only that is logged of its old rows.",
    )
    .with_hint(match identity.basis {
        Basis::PrimaryKey if leaf.has_primary_key => {
            format!("Use its primary key: ALTER TABLE {leaf_name} REPLICA IDENTITY DEFAULT;")
        }
        Basis::Index => {
            format!("Use the partition's index on ({columns}) as its REPLICA IDENTITY too.")
        }
        Basis::PrimaryKey | Basis::Key => {
            format!("Log whole rows in it too: ALTER TABLE {leaf_name} REPLICA IDENTITY FULL;")
        }
    })
}

/// Whether UPDATE and DELETE of the leaf fail once it is published.
fn breaks_writes(leaf: &Leaf) -> bool {
    leaf.replica_identity != ReplicaIdentity::Full && leaf.identity_columns.is_empty()
}

/// Proves that the application's writes stay legal when the table is published with these columns
/// (`None`: all), by a server of this version (server_version_num).
///
/// # Errors
/// `Broken`, with the reason and what corrects it.
pub(crate) fn writes_stay_legal(
    table: &SourceTable,
    columns: Option<&[String]>,
    version: u32,
) -> Result<()> {
    own_identity_is_usable(table)?;
    if let Some(leaf) = table.leaves.iter().find(|leaf| breaks_writes(leaf)) {
        let identity = Identity {
            columns: Vec::new(),
            basis: Basis::Key,
        };
        return Err(wrong_leaf(table, leaf, &identity));
    }
    let logged = logged_columns(table);
    if version >= GENERATED_COLUMNS_IN_IDENTITY {
        none_is_generated(table, &logged)?;
    }
    match columns {
        Some(columns) => all_are_listed(table, &logged, columns),
        None => Ok(()),
    }
}

/// The columns that are logged of an old row, of the table or of one of its leaves.
fn logged_columns(table: &SourceTable) -> Vec<&str> {
    let leaves = table.leaves.iter();
    let mut identities = leaves.map(|leaf| leaf.replica_identity);
    let is_full = table.replica_identity == ReplicaIdentity::Full
        || identities.any(|identity| identity == ReplicaIdentity::Full);
    if is_full {
        let columns = table.columns.iter();
        return columns.map(|column| column.name.as_str()).collect();
    }
    let own = match table.replica_identity {
        ReplicaIdentity::Index => &table.identity_index,
        _ => &table.primary_key,
    };
    let leaves = table.leaves.iter().flat_map(|leaf| &leaf.identity_columns);
    own.iter().chain(leaves).map(String::as_str).collect()
}

fn none_is_generated(table: &SourceTable, logged: &[&str]) -> Result<()> {
    let generated = |name: &&&str| table.column(name).is_some_and(|column| column.generated);
    match logged.iter().find(generated) {
        None => Ok(()),
        Some(name) => Err(Error::broken(format!(
            "the replica identity of table \"{}\" holds the generated column \"{name}\", which is not published",
            table.name
        ))
        .with_detail("As soon as it is published, every UPDATE and DELETE of the application would fail.")
        .with_hint("Use a replica identity without generated columns, for example the primary key.")),
    }
}

fn all_are_listed(table: &SourceTable, logged: &[&str], columns: &[String]) -> Result<()> {
    let missing = |name: &&&str| !columns.iter().any(|column| column == **name);
    match logged.iter().find(missing) {
        None => Ok(()),
        Some(name) => Err(Error::broken(format!(
            "the column list of table \"{}\" lacks \"{name}\", a column of its replica identity",
            table.name
        ))
        .with_detail("With such a publication every UPDATE and DELETE of the application fails.")
        .with_hint(
            "Publish whole tables (publish_columns = \"all\"), or add the column to the list.",
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests;
