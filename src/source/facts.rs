//! Reads what the source's catalogs say into [`crate::facts`].
//!
//! In: an ordinary connection (any search_path; every name is qualified). Out: plain values for the
//! core. One set of queries for 13 to 18: columns that only newer versions have are read by name
//! from the row as JSON, so that the text needs no version. Nothing here reads a table's rows
//! except [`duplicate_live_keys`] and [`rows_without_key`], which return a count only.

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Row};

use crate::as_of::Reading;
use crate::error::{Error, Result};
use crate::facts::{
    Leaf, Publication, PublishedTable, ReplicaIdentity, Slot, SourceColumn, SourceServer,
    SourceTable, UniqueIndex, WithoutIdentity,
};
use crate::lsn::{Lsn, PgTimestamp};
use crate::source::error::from_driver;
use crate::sql::{TableName, ident, idents};

/// The server, and the role that asks.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn server(client: &Client) -> Result<SourceServer> {
    let row = client
        .query_one(include_str!("../../sql/source/server.sql"), &[])
        .await
        .map_err(from_driver)?;
    Ok(SourceServer {
        version: small(&row, "version")?,
        version_text: get(&row, "version_text")?,
        wal_level: get(&row, "wal_level")?,
        in_recovery: get(&row, "in_recovery")?,
        user: get(&row, "user_name")?,
        database: get(&row, "database_name")?,
        may_replicate: get(&row, "may_replicate")?,
        may_create: get(&row, "may_create")?,
        slots: (small(&row, "slots")?, small(&row, "max_slots")?),
        wal_senders: (small(&row, "wal_senders")?, small(&row, "max_wal_senders")?),
        max_slot_wal_keep_size_mb: get::<Option<i64>>(&row, "max_slot_wal_keep_size_mb")?
            .unwrap_or(-1),
        idle_slot_timeout_seconds: get::<Option<i64>>(&row, "idle_slot_timeout_seconds")?
            .unwrap_or(0),
        oldest_write_seconds: get(&row, "oldest_write_seconds")?,
        prepared_transactions: small(&row, "prepared_transactions")?,
        synchronous_standby_names: get(&row, "synchronous_standby_names")?,
        standby_slots: {
            let names: Vec<String> = get(&row, "standby_slots")?;
            let used: Vec<bool> = get(&row, "standby_slots_used")?;
            names.into_iter().zip(used).collect()
        },
        synchronized_standby_slots: get::<Option<String>>(&row, "synchronized_standby_slots")?
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().trim_matches('"').to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
        encoding: get(&row, "encoding")?,
    })
}

/// A table with its columns, indexes and leaves; `None` if there is none of this name.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn table(client: &Client, name: &TableName) -> Result<Option<SourceTable>> {
    let found = client
        .query_opt(
            include_str!("../../sql/source/table.sql"),
            &[&name.schema, &name.name],
        )
        .await
        .map_err(from_driver)?;
    let Some(row) = found else {
        return Ok(None);
    };
    let oid: u32 = get(&row, "oid")?;
    let kind = character(&row, "kind")?;
    let replica_identity = replica_identity(&row)?;
    let indexes = client
        .query(include_str!("../../sql/source/indexes.sql"), &[&oid])
        .await
        .map_err(from_driver)?;
    let mut table = SourceTable {
        oid,
        name: name.clone(),
        kind,
        persistence: character(&row, "persistence")?,
        replica_identity,
        columns: columns(client, oid).await?,
        primary_key: Vec::new(),
        deferrable_primary_key: false,
        identity_index: Vec::new(),
        unique_indexes: Vec::new(),
        leaves: if kind == 'p' {
            leaves(client, oid).await?
        } else {
            Vec::new()
        },
        partition_of: if get(&row, "is_partition")? {
            partition_of(client, oid).await?
        } else {
            Vec::new()
        },
        has_inheritance_children: get(&row, "has_inheritance_children")?,
        row_security_applies: get(&row, "row_security_applies")?,
        may_select: get(&row, "may_select")?,
        owned: get(&row, "owned")?,
        estimated_rows: get::<Option<f64>>(&row, "estimated_rows")?.unwrap_or(-1.0),
    };
    for index in &indexes {
        add_index(&mut table, index)?;
    }
    Ok(Some(table))
}

/// Puts a unique index where it matters: as primary key, as identity, and into the list of all.
fn add_index(table: &mut SourceTable, index: &Row) -> Result<()> {
    let columns = get::<Option<Vec<String>>>(index, "columns")?.unwrap_or_default();
    let immediate: bool = get(index, "is_immediate")?;
    if get::<bool>(index, "is_primary")? {
        if immediate {
            table.primary_key.clone_from(&columns);
        } else {
            table.deferrable_primary_key = true;
        }
    }
    if get::<bool>(index, "is_identity")? && table.replica_identity == ReplicaIdentity::Index {
        table.identity_index.clone_from(&columns);
    }
    table.unique_indexes.push(UniqueIndex {
        name: get(index, "name")?,
        columns,
        predicate: get(index, "predicate")?,
        immediate,
    });
    Ok(())
}

async fn columns(client: &Client, oid: u32) -> Result<Vec<SourceColumn>> {
    let rows = client
        .query(include_str!("../../sql/source/columns.sql"), &[&oid])
        .await
        .map_err(from_driver)?;
    rows.iter()
        .map(|row| {
            Ok(SourceColumn {
                name: get(row, "name")?,
                number: get(row, "number")?,
                type_oid: get(row, "type_oid")?,
                type_name: get(row, "type_name")?,
                bare_type_name: get(row, "bare_type_name")?,
                not_null: get(row, "not_null")?,
                toastable: get(row, "toastable")?,
                generated: get(row, "generated")?,
                builtin: get(row, "builtin")?,
                collatable: get(row, "collatable")?,
                boolean: get(row, "boolean")?,
            })
        })
        .collect()
}

async fn leaves(client: &Client, oid: u32) -> Result<Vec<Leaf>> {
    let rows = client
        .query(include_str!("../../sql/source/leaves.sql"), &[&oid])
        .await
        .map_err(from_driver)?;
    rows.iter()
        .map(|row| {
            Ok(Leaf {
                name: table_name(row)?,
                kind: character(row, "kind")?,
                persistence: character(row, "persistence")?,
                replica_identity: replica_identity(row)?,
                has_primary_key: get(row, "has_primary_key")?,
                identity_columns: get(row, "identity_columns")?,
            })
        })
        .collect()
}

async fn partition_of(client: &Client, oid: u32) -> Result<Vec<TableName>> {
    let rows = client
        .query(include_str!("../../sql/source/partition_of.sql"), &[&oid])
        .await
        .map_err(from_driver)?;
    rows.iter().map(table_name).collect()
}

/// A replication slot of the cluster; `None` if there is none of this name.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn slot(client: &Client, name: &str) -> Result<Option<Slot>> {
    let found = client
        .query_opt(include_str!("../../sql/source/slot.sql"), &[&name])
        .await
        .map_err(from_driver)?;
    let Some(row) = found else {
        return Ok(None);
    };
    Ok(Some(Slot {
        name: get(&row, "name")?,
        plugin: get(&row, "plugin")?,
        database: get(&row, "database_name")?,
        active_pid: get(&row, "active_pid")?,
        restart_lsn: lsn(&row, "restart_lsn")?,
        confirmed_flush_lsn: lsn(&row, "confirmed_flush_lsn")?,
        wal_status: get(&row, "wal_status")?,
        safe_wal_bytes: get(&row, "safe_wal_bytes")?,
        invalidation_reason: get(&row, "invalidation_reason")?,
        held_bytes: get(&row, "held_bytes")?,
    }))
}

/// A publication of the database with its tables; `None` if there is none of this name.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn publication(client: &Client, name: &str) -> Result<Option<Publication>> {
    let found = client
        .query_opt(include_str!("../../sql/source/publication.sql"), &[&name])
        .await
        .map_err(from_driver)?;
    let Some(row) = found else {
        return Ok(None);
    };
    let tables = client
        .query(
            include_str!("../../sql/source/publication_tables.sql"),
            &[&name],
        )
        .await
        .map_err(from_driver)?;
    let tables = tables.iter().map(|row| {
        Ok(PublishedTable {
            table: table_name(row)?,
            columns: get(row, "columns")?,
            row_filter: get(row, "row_filter")?,
        })
    });
    Ok(Some(Publication {
        oid: get(&row, "oid")?,
        name: get(&row, "name")?,
        all_tables: get(&row, "all_tables")?,
        insert: get(&row, "publishes_insert")?,
        update: get(&row, "publishes_update")?,
        delete: get(&row, "publishes_delete")?,
        truncate: get(&row, "publishes_truncate")?,
        via_root: get(&row, "via_root")?,
        comment: get(&row, "comment")?,
        owned: get(&row, "owned")?,
        tables: tables.collect::<Result<_>>()?,
    }))
}

/// The tables that a publication publishes, followed or not, whose UPDATE and DELETE fail because
/// of that.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn without_identity(
    client: &Client,
    publication: &str,
) -> Result<Vec<WithoutIdentity>> {
    let rows = client
        .query(
            include_str!("../../sql/source/without_identity.sql"),
            &[&publication],
        )
        .await
        .map_err(from_driver)?;
    rows.iter()
        .map(|row| {
            Ok(WithoutIdentity {
                table: table_name(row)?,
                replica_identity: replica_identity(row)?,
                has_primary_key: get(row, "has_primary_key")?,
                deferrable_primary_key: get(row, "deferrable_primary_key")?,
                unique_index: get(row, "unique_index")?,
            })
        })
        .collect()
}

/// The comments of all publications of the database that have one.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn publication_comments(client: &Client) -> Result<Vec<String>> {
    let sql = "SELECT pg_catalog.obj_description(p.oid, 'pg_publication') AS comment FROM pg_catalog.pg_publication p \
               WHERE pg_catalog.obj_description(p.oid, 'pg_publication') IS NOT NULL ORDER BY p.pubname";
    let rows = client.query(sql, &[]).await.map_err(from_driver)?;
    rows.iter().map(|row| get(row, "comment")).collect()
}

/// System identifier of the cluster and name of the database.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn system(client: &Client) -> Result<(String, String)> {
    let sql = "SELECT system_identifier::text AS system, pg_catalog.current_database()::text AS database \
               FROM pg_catalog.pg_control_system()";
    let row = client.query_one(sql, &[]).await.map_err(from_driver)?;
    Ok((get(&row, "system")?, get(&row, "database")?))
}

/// All publications that publish this table, its root or its leaves: each of them can break its
/// writes.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn publications_of(client: &Client, table: &SourceTable) -> Result<Vec<Publication>> {
    let names = client
        .query(
            include_str!("../../sql/source/publications_of.sql"),
            &[&table.oid],
        )
        .await
        .map_err(from_driver)?;
    let mut publications = Vec::new();
    for row in &names {
        let name: String = get(row, "name")?;
        publications.extend(publication(client, &name).await?);
    }
    Ok(publications)
}

/// The end of the source's flushed WAL (of the replayed WAL on a standby).
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn current_wal(client: &Client) -> Result<Lsn> {
    let row = client
        .query_one(
            "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
             ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text AS lsn",
            &[],
        )
        .await
        .map_err(from_driver)?;
    Ok(lsn(&row, "lsn")?.unwrap_or(Lsn::ZERO))
}

/// The source's clock and the end of its flushed WAL, with the setting that says which standbys its
/// commits wait for; `None` of a standby, which does not know what its primary has flushed.
///
/// `now()` is the time at which the statement began, so the end is read after it.
pub(crate) async fn clock(client: &Client) -> Result<Option<(Reading, String)>> {
    let row = client
        .query_one(
            "SELECT (extract(epoch FROM pg_catalog.now()) * 1000000)::bigint AS time, \
             (CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn() END)::text AS flushed, \
             pg_catalog.current_setting('synchronous_standby_names') AS standbys",
            &[],
        )
        .await
        .map_err(from_driver)?;
    let time = row.try_get("time").map_err(from_driver)?;
    let standbys = get(&row, "standbys")?;
    Ok(lsn(&row, "flushed")?.map(|flushed| {
        let time = PgTimestamp::from_unix_micros(time);
        (Reading { time, flushed }, standbys)
    }))
}

/// The condition under which a source row is live: not soft-deleted, and no key column null.
///
/// A boolean soft-delete column means "not true", any other one "null". `key` are the source's
/// names.
pub fn live_condition(table: &SourceTable, soft_delete: Option<&str>, key: &[String]) -> String {
    let dead = soft_delete.map(|name| {
        let boolean = table.column(name).is_some_and(|column| column.boolean);
        format!(
            "{} {}",
            ident(name),
            if boolean { "IS NOT TRUE" } else { "IS NULL" }
        )
    });
    let key = key
        .iter()
        .map(|name| format!("{} IS NOT NULL", ident(name)));
    dead.into_iter()
        .chain(key)
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// Keys that more than one live row has, counted up to this bound.
pub(crate) const MAX_DUPLICATES: i64 = 1000;

/// How many keys more than one live row has, counted up to [`MAX_DUPLICATES`]. Reads the whole
/// table.
///
/// `key` are the source's names.
///
/// # Errors
/// Whatever the server or the connection reports, for example a missing privilege.
pub async fn duplicate_live_keys(
    client: &Client,
    table: &SourceTable,
    soft_delete: Option<&str>,
    key: &[String],
) -> Result<i64> {
    let sql = format!(
        "SELECT pg_catalog.count(*) AS keys FROM (SELECT 1 FROM {table} WHERE {live} \
         GROUP BY {key} HAVING pg_catalog.count(*) > 1 LIMIT {MAX_DUPLICATES}) d",
        table = table.name.quoted(),
        live = live_condition(table, soft_delete, key),
        key = idents(key),
    );
    let row = client.query_one(&sql, &[]).await.map_err(from_driver)?;
    get(&row, "keys")
}

/// How many rows that are not soft-deleted have a NULL in their key. Reads the whole table, unless
/// the key cannot be NULL.
///
/// `key` are the source's names.
///
/// # Errors
/// As [`duplicate_live_keys`].
pub async fn rows_without_key(
    client: &Client,
    table: &SourceTable,
    soft_delete: Option<&str>,
    key: &[String],
) -> Result<i64> {
    let nullable = key
        .iter()
        .filter(|name| table.column(name).is_some_and(|column| !column.not_null));
    let null: Vec<String> = nullable
        .map(|name| format!("{} IS NULL", ident(name)))
        .collect();
    if null.is_empty() {
        return Ok(0);
    }
    let alive = live_condition(table, soft_delete, &[]);
    let alive = if alive.is_empty() { "true" } else { &alive };
    let sql = format!(
        "SELECT pg_catalog.count(*) AS rows FROM {} WHERE {alive} AND ({})",
        table.name.quoted(),
        null.join(" OR "),
    );
    let row = client.query_one(&sql, &[]).await.map_err(from_driver)?;
    get(&row, "rows")
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T> {
    row.try_get(name).map_err(from_driver)
}

/// A count that the server sends as a bigint.
fn small(row: &Row, name: &str) -> Result<u32> {
    let value: i64 = get(row, name)?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn character(row: &Row, name: &str) -> Result<char> {
    let text: &str = get(row, name)?;
    Ok(text.chars().next().unwrap_or(' '))
}

fn lsn(row: &Row, name: &str) -> Result<Option<Lsn>> {
    get::<Option<&str>>(row, name)?.map(str::parse).transpose()
}

fn table_name(row: &Row) -> Result<TableName> {
    Ok(TableName::new(
        get::<String>(row, "schema_name")?,
        get::<String>(row, "table_name")?,
    ))
}

fn replica_identity(row: &Row) -> Result<ReplicaIdentity> {
    match character(row, "replica_identity")? {
        'd' => Ok(ReplicaIdentity::Default),
        'n' => Ok(ReplicaIdentity::Nothing),
        'f' => Ok(ReplicaIdentity::Full),
        'i' => Ok(ReplicaIdentity::Index),
        other => Err(Error::broken(format!(
            "unrecognized replica identity {other:?}"
        ))),
    }
}
