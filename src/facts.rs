//! What the catalogs of both sides say: read by the edges, judged by the core.
//!
//! `source/facts.rs` and `target/facts.rs` fill these; `check` turns them into findings, `relation`
//! and the writer bind read models with them.

use crate::lsn::Lsn;
use crate::settings::Settings;
use crate::sql::TableName;

/// How the stream names an old row (pg_class.relreplident).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, if there is one.
    Default,
    /// `n`: not at all.
    Nothing,
    /// `f`: all columns.
    Full,
    /// `i`: the columns of an index.
    Index,
}

/// The source server and the role that asks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SourceServer {
    /// server_version_num, for example 150018.
    pub version: u32,
    /// server_version as text.
    pub version_text: String,
    /// wal_level.
    pub wal_level: String,
    /// pg_is_in_recovery().
    pub in_recovery: bool,
    /// current_user.
    pub user: String,
    /// current_database().
    pub database: String,
    /// rolreplication, rolsuper, or member of rds_replication.
    pub may_replicate: bool,
    /// Whether the role may CREATE in the database (to create a publication).
    pub may_create: bool,
    /// Existing slots and max_replication_slots.
    pub slots: (u32, u32),
    /// Active walsenders and max_wal_senders.
    pub wal_senders: (u32, u32),
    /// max_slot_wal_keep_size in MB; -1 is without limit.
    pub max_slot_wal_keep_size_mb: i64,
    /// idle_replication_slot_timeout in seconds (18 and later); 0 is off.
    pub idle_slot_timeout_seconds: i64,
    /// Age of the oldest transaction of the cluster that has written and is still open, as far as
    /// the role may see.
    pub oldest_write_seconds: Option<i64>,
    /// Prepared transactions of the cluster.
    pub prepared_transactions: u32,
    /// synchronous_standby_names: the standbys that commits wait for.
    pub synchronous_standby_names: String,
    /// Physical replication slots (those of standbys) by name, and whether a walsender reads them.
    pub standby_slots: Vec<(String, bool)>,
    /// synchronized_standby_slots (17 and later): what they have not received is not streamed.
    pub synchronized_standby_slots: Vec<String>,
    /// server_encoding.
    pub encoding: String,
}

/// A replication slot, as pg_replication_slots shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Name.
    pub name: String,
    /// Output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// Database; `None` for a physical slot.
    pub database: Option<String>,
    /// Whether a walsender uses it.
    pub active_pid: Option<i32>,
    /// Oldest WAL it holds.
    pub restart_lsn: Option<Lsn>,
    /// Where its stream would continue; `None` while it is being created.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// reserved, extended, unreserved, lost.
    pub wal_status: Option<String>,
    /// Bytes of WAL that can still be written before the slot is in danger.
    pub safe_wal_bytes: Option<i64>,
    /// invalidation_reason (17 and later).
    pub invalidation_reason: Option<String>,
    /// Bytes of WAL that the slot holds on the source's disk.
    pub held_bytes: Option<i64>,
}

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// OID; another one means that it was created again.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// Published operations.
    pub insert: bool,
    /// Published operations.
    pub update: bool,
    /// Published operations.
    pub delete: bool,
    /// Published operations.
    pub truncate: bool,
    /// publish_via_partition_root.
    pub via_root: bool,
    /// Its comment, which says who created it.
    pub comment: Option<String>,
    /// Whether the asking role owns it.
    pub owned: bool,
    /// Tables that it publishes.
    pub tables: Vec<PublishedTable>,
}

/// A table in a publication (pg_publication_tables).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTable {
    /// Name.
    pub table: TableName,
    /// Published columns; `None` if there is no list (before 15 there are none).
    pub columns: Option<Vec<String>>,
    /// Row filter, if any.
    pub row_filter: Option<String>,
}

/// A published table without a usable replica identity: its UPDATE and DELETE fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithoutIdentity {
    /// Name; of a partitioned table it is a leaf.
    pub table: TableName,
    /// Its replica identity, as it is set.
    pub replica_identity: ReplicaIdentity,
    /// Whether it has a primary key that can serve.
    pub has_primary_key: bool,
    /// Whether it has one that cannot, since it is deferrable.
    pub deferrable_primary_key: bool,
    /// Another unique index that can serve.
    pub unique_index: Option<String>,
}

/// Tables under whose name the changes of all their partitions come. These are the tables of a
/// publication that publishes roots. They are also the sources of read models: our own publication
/// publishes roots as soon as one of these is partitioned.
pub(crate) fn roots(settings: &Settings, existing: Option<&Publication>) -> Vec<TableName> {
    let published = existing.filter(|publication| publication.via_root);
    let published = published
        .into_iter()
        .flat_map(|publication| &publication.tables);
    let sources = settings
        .read_models
        .iter()
        .map(|model| model.source.clone());
    sources
        .chain(published.map(|table| table.table.clone()))
        .collect()
}

/// A source table.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceTable {
    /// OID: the relation id of the stream.
    pub oid: u32,
    /// Name.
    pub name: TableName,
    /// pg_class.relkind: `r` or `p` are supported.
    pub kind: char,
    /// pg_class.relpersistence: only `p` is in the WAL.
    pub persistence: char,
    /// Replica identity (of the root, for a partitioned table).
    pub replica_identity: ReplicaIdentity,
    /// Columns in order, without dropped ones.
    pub columns: Vec<SourceColumn>,
    /// Columns of the primary key if it is immediate (usable as identity); empty otherwise.
    pub primary_key: Vec<String>,
    /// Whether there is a primary key that is deferrable and so no identity.
    pub deferrable_primary_key: bool,
    /// Columns of the REPLICA IDENTITY USING INDEX index; empty otherwise.
    pub identity_index: Vec<String>,
    /// Unique indexes, the primary key's too.
    pub unique_indexes: Vec<UniqueIndex>,
    /// Leaves of a partitioned table.
    pub leaves: Vec<Leaf>,
    /// Partitioned tables that it is a partition of, the nearest first.
    pub partition_of: Vec<TableName>,
    /// Whether tables inherit from it (not as partitions).
    pub has_inheritance_children: bool,
    /// Whether row-level security applies to the asking role.
    pub row_security_applies: bool,
    /// Whether the role may SELECT (and use the schema).
    pub may_select: bool,
    /// Whether the role owns it (to publish it).
    pub owned: bool,
    /// pg_class.reltuples (summed over leaves); negative if never analysed.
    pub estimated_rows: f64,
}

impl SourceTable {
    /// A permanent table of the asking role with this primary key and nothing that is out of the
    /// ordinary, never analysed: what tests and benchmarks begin with.
    pub fn ordinary(
        oid: u32,
        name: TableName,
        columns: Vec<SourceColumn>,
        primary_key: &[&str],
    ) -> Self {
        Self {
            oid,
            name,
            kind: 'r',
            persistence: 'p',
            replica_identity: ReplicaIdentity::Default,
            columns,
            primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
            deferrable_primary_key: false,
            identity_index: Vec::new(),
            unique_indexes: Vec::new(),
            leaves: Vec::new(),
            partition_of: Vec::new(),
            has_inheritance_children: false,
            row_security_applies: false,
            may_select: true,
            owned: true,
            estimated_rows: -1.0,
        }
    }

    /// Number of its rows by the server's statistics; `None` if it was never analysed.
    pub(crate) fn estimate(&self) -> Option<i64> {
        // Written with no more digits than a count has.
        let rows = format!("{:.0}", self.estimated_rows).parse().ok();
        rows.filter(|&rows: &i64| rows >= 0)
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&SourceColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// A leaf whose changes are not in the WAL.
    pub(crate) fn unlogged_leaf(&self) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.persistence != 'p')
    }

    /// A leaf whose rows are on another server.
    pub(crate) fn foreign_leaf(&self) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.kind == 'f')
    }

    /// The first of these tables that it is a partition of.
    pub(crate) fn partition_of_any<'a>(&'a self, roots: &[TableName]) -> Option<&'a TableName> {
        self.partition_of.iter().find(|root| roots.contains(root))
    }
}

/// A column of a source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// Name.
    pub name: String,
    /// pg_attribute.attnum.
    pub number: i16,
    /// Type.
    pub type_oid: u32,
    /// Type with modifier, as format_type prints it: `character varying(50)`.
    pub type_name: String,
    /// Type without modifier, as `format_type(oid, -1)` prints it: `character varying`, `bpchar`.
    pub bare_type_name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Whether a value can be stored out of line (variable length, in a table that has a TOAST
    /// table).
    pub toastable: bool,
    /// Whether it is generated (attgenerated).
    pub generated: bool,
    /// Whether the type is built in (its schema is pg_catalog).
    pub builtin: bool,
    /// Whether the type has a collation.
    pub collatable: bool,
    /// Whether it is boolean, or a domain over boolean: a soft-delete column of it means "not
    /// true".
    pub boolean: bool,
}

/// A unique index of a source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Name.
    pub name: String,
    /// Its columns; empty if it has expressions.
    pub columns: Vec<String>,
    /// Predicate of a partial index, as pg_get_expr prints it.
    pub predicate: Option<String>,
    /// Whether it is enforced row by row; a deferrable one only at the end of a statement or
    /// transaction.
    pub immediate: bool,
}

/// A leaf of a partitioned table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Name.
    pub name: TableName,
    /// pg_class.relkind: `r`, or `f` for a foreign table.
    pub kind: char,
    /// pg_class.relpersistence: only `p` is in the WAL.
    pub persistence: char,
    /// Its own replica identity.
    pub replica_identity: ReplicaIdentity,
    /// Whether it has a usable primary key.
    pub has_primary_key: bool,
    /// Columns of its own identity (primary key or identity index); empty under FULL, and if it has
    /// none.
    pub identity_columns: Vec<String>,
}

/// The target server and the role that asks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TargetServer {
    /// server_version_num.
    pub version: u32,
    /// server_version as text.
    pub version_text: String,
    /// pg_is_in_recovery().
    pub in_recovery: bool,
    /// current_user.
    pub user: String,
    /// current_database().
    pub database: String,
    /// Whether the role may CREATE schemas in the database.
    pub may_create: bool,
    /// Whether the role may create temporary tables.
    pub may_use_temporary: bool,
    /// server_encoding.
    pub encoding: String,
    /// Whether the bookkeeping schema exists.
    pub bookkeeping_exists: bool,
    /// Whether the role may use and create in the bookkeeping schema (true if it does not exist).
    pub bookkeeping_usable: bool,
}

/// Room for temporary files, beside the largest lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TempFiles {
    /// temp_file_limit in bytes.
    pub limit: i64,
    /// The largest lookup.
    pub lookup: TableName,
    /// Its size in bytes.
    pub bytes: i64,
}

/// A lookup table.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupTable {
    /// OID.
    pub oid: u32,
    /// Name.
    pub name: TableName,
    /// pg_class.relkind: `r` or `p`.
    pub kind: char,
    /// pg_class.relpersistence: `u` is refused.
    pub persistence: char,
    /// Whether rows of it may be in other tables: partitions, or tables that inherit from it.
    pub has_parts: bool,
    /// Columns in order, without dropped ones.
    pub columns: Vec<LookupColumn>,
    /// Unique, immediate, non-partial indexes on plain columns.
    pub unique_indexes: Vec<KeyIndex>,
    /// User triggers that fire on insert or update (they may change values).
    pub triggers: Vec<String>,
    /// Tables with a foreign key to it.
    pub referenced_by: Vec<TableName>,
    /// Whether row-level security applies to the asking role.
    pub row_security_applies: bool,
    /// Privileges that the role lacks, of SELECT, INSERT, UPDATE, DELETE (and USAGE of the schema).
    pub missing_privileges: Vec<String>,
}

impl LookupColumn {
    /// Whether its type is a domain.
    pub(crate) fn is_domain(&self) -> bool {
        self.declared_type_name != self.type_name
    }
}

impl LookupTable {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&LookupColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The unique index on exactly these columns, in any order.
    pub fn key_index(&self, key: &[String]) -> Option<&KeyIndex> {
        self.unique_indexes.iter().find(|index| {
            index.columns.len() == key.len()
                && index
                    .columns
                    .iter()
                    .all(|column| key.contains(&column.name))
        })
    }
}

/// A column of a lookup table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupColumn {
    /// Name.
    pub name: String,
    /// Type.
    pub type_oid: u32,
    /// Type with modifier, schema-qualified where needed, for use in SQL (format_type under an
    /// empty search_path). Of a domain, the type below it: staging tables hold rows that have no
    /// value where the domain demands one.
    pub type_name: String,
    /// The same type without modifier (`format_type(oid, -1)`), for use in SQL.
    pub bare_type_name: String,
    /// Type as the table declares it: differs from `type_name` for a domain.
    pub declared_type_name: String,
    /// Collation of the column as quoted SQL name (`"pg_catalog"."C"`); `None` if not collatable or
    /// default.
    pub collation: Option<String>,
    /// Whether the type has a collation at all.
    pub collatable: bool,
    /// NOT NULL (of the column, its domain or one below that).
    pub not_null: bool,
    /// Has a default or is generated or an identity column.
    pub has_default: bool,
    /// GENERATED ALWAYS (stored) or identity ALWAYS: cannot be written.
    pub generated: bool,
}

/// A unique index that can carry the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIndex {
    /// Name.
    pub name: String,
    /// Whether it belongs to the primary key.
    pub primary: bool,
    /// Columns in the index's order.
    pub columns: Vec<KeyColumn>,
}

/// A column of a key index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Name.
    pub name: String,
    /// The index's equality operator for use in SQL: `OPERATOR("pg_catalog".=)`.
    pub equality: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_needs_an_index_on_exactly_its_columns_in_any_order() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let index = |columns: &[&str]| KeyIndex {
            name: columns.join("_"),
            primary: false,
            columns: names(columns)
                .into_iter()
                .map(|name| KeyColumn {
                    name,
                    equality: "OPERATOR(\"pg_catalog\".=)".to_owned(),
                })
                .collect(),
        };
        let lookup = LookupTable {
            oid: 1,
            name: TableName::new("public", "products_lookup"),
            kind: 'r',
            persistence: 'p',
            has_parts: false,
            columns: Vec::new(),
            unique_indexes: vec![index(&["id"]), index(&["a", "b", "c"]), index(&["a", "b"])],
            triggers: Vec::new(),
            referenced_by: Vec::new(),
            row_security_applies: false,
            missing_privileges: Vec::new(),
        };
        for (key, expected) in [
            (&["id"][..], Some("id")),
            (&["a", "b"], Some("a_b")),
            (&["b", "a"], Some("a_b")),
            (&["c", "a", "b"], Some("a_b_c")),
            (&["a"], None),
            (&["a", "c"], None),
            (&["id", "a"], None),
        ] {
            let found = lookup.key_index(&names(key));
            assert_eq!(found.map(|index| index.name.as_str()), expected, "{key:?}");
        }
    }
}
