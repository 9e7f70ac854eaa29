//! Two read models of the source's table, and what their lookups should show.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc::facts::{ReplicaIdentity, SourceColumn, SourceTable, UniqueIndex};
use cdc::identity::{Basis, identity};
use cdc::read_model::{ReadModel, Remembering};
use cdc::settings::{ColumnMapping, OnRowError, ReadModelSettings};
use cdc::shape::{Shape, ShapeColumn};
use cdc::sql::TableName;

use crate::source::{Identity, Kind, Storage, Stored, Table, Unique};
use crate::statement::{live_rows, soft_delete};
use crate::wire::{self, text};
use crate::writer::{Value, Values};

/// The rows of a lookup by key.
pub type Lookup = BTreeMap<Values, Values>;

/// The lookups of two read models of one table: by code and by id.
pub type Lookups = [Lookup; 2];

/// What the catalog says of the table.
fn facts(kind: Kind) -> SourceTable {
    let columns = wire::columns(kind)
        .iter()
        .zip(1..)
        .map(|(&(name, of, oid), number)| SourceColumn {
            name: name.to_owned(),
            number,
            type_oid: oid,
            type_name: of.to_owned(),
            bare_type_name: of.to_owned(),
            not_null: name == "id" || (name == "code" && kind.identifies_by_code()),
            toastable: of == "text" && kind.storage != Storage::Plain,
            generated: false,
            builtin: true,
            collatable: of == "text",
            boolean: of == "boolean",
        });
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let index = |columns: &[&str], predicate: Option<&str>| UniqueIndex {
        name: columns.join("_"),
        columns: names(columns),
        predicate: predicate.map(str::to_owned),
        immediate: true,
    };
    let mut unique_indexes = vec![index(&["id"], None)];
    if kind.unique == Unique::AtOnce {
        unique_indexes.push(index(&["code"], live_rows(kind)));
    }
    let (replica_identity, primary_key, identity_index): (_, &[&str], &[&str]) = match kind.identity
    {
        Identity::PrimaryKey => (ReplicaIdentity::Default, &["id"], &[]),
        Identity::PrimaryKeyIsKey => (ReplicaIdentity::Default, &["code"], &[]),
        Identity::Index => (ReplicaIdentity::Index, &["id"], &["code", "id"]),
        Identity::IndexIsKey => (ReplicaIdentity::Index, &["id"], &["code"]),
        Identity::Full => (ReplicaIdentity::Full, &["id"], &[]),
        Identity::FullAlone => (ReplicaIdentity::Full, &[], &[]),
    };
    SourceTable {
        replica_identity,
        identity_index: names(identity_index),
        unique_indexes,
        ..SourceTable::ordinary(
            wire::LABELS,
            TableName::new("public", "labels"),
            columns.collect(),
            primary_key,
        )
    }
}

/// The read models.
pub fn models(kind: Kind) -> [Arc<ReadModel>; 2] {
    let by_code = [("label", "label"), ("code", "code"), ("note", "note")];
    let by_id = [("id", "id"), ("text", "note")];
    [
        Arc::new(bind(kind, "labels_lookup", "code", &by_code)),
        Arc::new(bind(kind, "labels_by_id", "id", &by_id)),
    ]
}

fn bind(kind: Kind, name: &str, key: &str, columns: &[(&str, &str)]) -> ReadModel {
    let soft_delete = soft_delete(kind).map(|(name, _)| name);
    let settings = ReadModelSettings {
        source: TableName::new("public", "labels"),
        target: TableName::new("public", name),
        key: vec![key.to_owned()],
        columns: columns
            .iter()
            .map(|(target, source)| ColumnMapping {
                target: (*target).to_owned(),
                source: (*source).to_owned(),
            })
            .collect(),
        soft_delete: soft_delete.map(str::to_owned),
        synced_at: None,
        on_row_error: OnRowError::Isolate,
    };
    let table = facts(kind);
    let identity = identity(&table, &[key.to_owned()], soft_delete).unwrap();
    let remembering = match identity.basis {
        Basis::Key => Remembering::OldTuple,
        Basis::PrimaryKey | Basis::Index => Remembering::Map,
    };
    ReadModel::bind(&settings, &table, &identity.columns, remembering).unwrap()
}

/// What the catalogs say of the table's columns; one of them may have another name.
pub fn shape(kind: Kind, is_altered: bool) -> Shape {
    let columns = wire::columns(kind)
        .iter()
        .zip(1..)
        .map(|(&(name, _, oid), number)| {
            let name = if is_altered && name == "label" {
                "was_label"
            } else {
                name
            };
            ShapeColumn {
                name: name.to_owned(),
                number,
                type_oid: oid,
                streamed: true,
            }
        });
    Shape {
        parts: None,
        oid: Some(wire::LABELS),
        columns: columns.collect(),
    }
}

/// What the lookups should show of the table: under each code the live row with the smallest id.
pub fn expected(table: &Table) -> Lookups {
    let row = |row: &Stored, columns: &[&str]| -> Values {
        columns
            .iter()
            .map(|column| text(table.kind, row, column).map_or(Value::Null, Value::Text))
            .collect()
    };
    let mut lookups = Lookups::default();
    for live in table.live() {
        if live.code.is_some() {
            let key = row(live, &["code"]);
            lookups[0]
                .entry(key)
                .or_insert_with(|| row(live, &["label", "code", "note"]));
        }
        lookups[1].insert(row(live, &["id"]), row(live, &["id", "note"]));
    }
    lookups
}
