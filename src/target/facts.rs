//! Reads what the target's catalogs say into [`crate::facts`].
//!
//! In: a connection whose search_path is empty, since types are then printed as SQL can use them anywhere.
//! Out: plain values for the core. No row of a table is read.

use sqlx::postgres::PgRow;
use sqlx::{Decode, PgConnection, Postgres, Row, Type};

use crate::error::Result;
use crate::facts::{KeyColumn, KeyIndex, LookupColumn, LookupTable, TargetServer};
use crate::sql::{TableName, ident};
use crate::target::error::from_sqlx;

/// The server, the role that asks, and the bookkeeping's schema.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn server(conn: &mut PgConnection, schema: &str) -> Result<TargetServer> {
    let row = sqlx::query(include_str!("../../sql/target/server.sql"))
        .bind(schema)
        .fetch_one(conn)
        .await
        .map_err(from_sqlx)?;
    Ok(TargetServer {
        version: unsigned(&row, "version")?,
        version_text: get(&row, "version_text")?,
        in_recovery: get(&row, "in_recovery")?,
        user: get(&row, "user_name")?,
        database: get(&row, "database_name")?,
        may_create: get(&row, "may_create")?,
        may_use_temporary: get(&row, "may_use_temporary")?,
        encoding: get(&row, "encoding")?,
        bookkeeping_exists: get(&row, "bookkeeping_exists")?,
        bookkeeping_usable: get(&row, "bookkeeping_usable")?,
    })
}

/// A lookup table with its columns and key indexes; `None` if there is none of this name.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn table(conn: &mut PgConnection, name: &TableName) -> Result<Option<LookupTable>> {
    let found = sqlx::query(include_str!("../../sql/target/table.sql"))
        .bind(&name.schema)
        .bind(&name.name)
        .fetch_optional(&mut *conn)
        .await
        .map_err(from_sqlx)?;
    let Some(row) = found else {
        return Ok(None);
    };
    let oid = unsigned(&row, "oid")?;
    let schemas: Vec<String> = get(&row, "referencing_schemas")?;
    let tables: Vec<String> = get(&row, "referencing_tables")?;
    Ok(Some(LookupTable {
        oid,
        name: name.clone(),
        kind: character(&row, "kind")?,
        persistence: character(&row, "persistence")?,
        has_parts: get(&row, "has_parts")?,
        columns: columns(&mut *conn, oid).await?,
        unique_indexes: key_indexes(&mut *conn, oid).await?,
        triggers: get(&row, "triggers")?,
        referenced_by: schemas
            .into_iter()
            .zip(tables)
            .map(|(schema, table)| TableName::new(schema, table))
            .collect(),
        row_security_applies: get(&row, "row_security_applies")?,
        missing_privileges: get(&row, "missing_privileges")?,
    }))
}

async fn columns(conn: &mut PgConnection, oid: u32) -> Result<Vec<LookupColumn>> {
    let rows = sqlx::query(include_str!("../../sql/target/columns.sql"))
        .bind(i64::from(oid))
        .fetch_all(conn)
        .await
        .map_err(from_sqlx)?;
    rows.iter()
        .map(|row| {
            let schema: Option<String> = get(row, "collation_schema")?;
            let collation: Option<String> = get(row, "collation_name")?;
            Ok(LookupColumn {
                name: get(row, "name")?,
                type_oid: unsigned(row, "type_oid")?,
                type_name: get(row, "type_name")?,
                bare_type_name: get(row, "bare_type_name")?,
                declared_type_name: get(row, "declared_type_name")?,
                collation: schema
                    .zip(collation)
                    .map(|(schema, name)| TableName::new(schema, name).quoted()),
                collatable: get(row, "collatable")?,
                not_null: get(row, "not_null")?,
                has_default: get(row, "has_default")?,
                generated: get(row, "generated")?,
            })
        })
        .collect()
}

async fn key_indexes(conn: &mut PgConnection, oid: u32) -> Result<Vec<KeyIndex>> {
    let rows = sqlx::query(include_str!("../../sql/target/key_indexes.sql"))
        .bind(i64::from(oid))
        .fetch_all(conn)
        .await
        .map_err(from_sqlx)?;
    let mut indexes: Vec<KeyIndex> = Vec::new();
    for row in &rows {
        let name: String = get(row, "index_name")?;
        let operator: String = get(row, "operator_name")?;
        let schema: String = get(row, "operator_schema")?;
        let column = KeyColumn {
            name: get(row, "column_name")?,
            equality: format!("OPERATOR({}.{operator})", ident(&schema)),
        };
        match indexes.last_mut().filter(|index| index.name == name) {
            Some(index) => index.columns.push(column),
            None => indexes.push(KeyIndex {
                name,
                primary: get(row, "is_primary")?,
                columns: vec![column],
            }),
        }
    }
    Ok(indexes)
}

fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, name: &str) -> Result<T> {
    row.try_get(name).map_err(from_sqlx)
}

/// An oid or a count, sent as a bigint.
fn unsigned(row: &PgRow, name: &str) -> Result<u32> {
    let value: i64 = get(row, name)?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn character(row: &PgRow, name: &str) -> Result<char> {
    let text: String = get(row, name)?;
    Ok(text.chars().next().unwrap_or(' '))
}

/// OID and columns of each table as text, in order: what the watch compares. Empty for a table that is not there.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn shapes(conn: &mut PgConnection, tables: &[TableName]) -> Result<Vec<String>> {
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    sqlx::query_scalar(include_str!("../../sql/target/shapes.sql"))
        .bind(names)
        .fetch_all(conn)
        .await
        .map_err(from_sqlx)
}
