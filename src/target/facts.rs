//! Reads what the target's catalogs say into [`crate::facts`].
//!
//! In: a connection whose search_path is empty, since types are then printed as SQL can use them
//! anywhere. Out: plain values for the core. No row of a table is read.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::facts::{KeyColumn, KeyIndex, LookupColumn, LookupTable, TargetServer};
use crate::sql::{TableName, ident};
use crate::target::error::from_driver;

/// The server, the role that asks, and the bookkeeping's schema.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn server(conn: &mut Connection, schema: &str) -> Result<TargetServer> {
    let row = query(include_str!("../../sql/target/facts/server.sql"))
        .bind(schema)
        .row(conn)
        .await
        .map_err(from_driver)?;
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
pub async fn table(conn: &mut Connection, name: &TableName) -> Result<Option<LookupTable>> {
    let found = tables(conn, std::slice::from_ref(name)).await?;
    Ok(found.into_iter().next().flatten())
}

/// The same for several, in their order: by as many questions as for one.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn tables(
    conn: &mut Connection,
    names: &[TableName],
) -> Result<Vec<Option<LookupTable>>> {
    let found = query(include_str!("../../sql/target/facts/table.sql"))
        .bind(
            names
                .iter()
                .map(|name| name.schema.clone())
                .collect::<Vec<_>>(),
        )
        .bind(
            names
                .iter()
                .map(|name| name.name.clone())
                .collect::<Vec<_>>(),
        )
        .rows(conn)
        .await
        .map_err(from_driver)?;
    let oids: Vec<i64> = found
        .iter()
        .map(|row| get(row, "oid"))
        .collect::<Result<_>>()?;
    let mut columns = columns(&mut *conn, &oids).await?;
    let mut indexes = key_indexes(&mut *conn, &oids).await?;
    let mut tables: Vec<Option<LookupTable>> = names.iter().map(|_| None).collect();
    for row in &found {
        let place: i64 = get(row, "place")?;
        let place = usize::try_from(place).unwrap_or(0).checked_sub(1);
        let Some((place, name)) = place.and_then(|place| Some((place, names.get(place)?))) else {
            continue;
        };
        let oid = unsigned(row, "oid")?;
        if let Some(table) = tables.get_mut(place) {
            let (columns, indexes) = (columns.remove(&oid), indexes.remove(&oid));
            *table = Some(lookup(
                row,
                name,
                columns.unwrap_or_default(),
                indexes.unwrap_or_default(),
            )?);
        }
    }
    Ok(tables)
}

fn lookup(
    row: &Row,
    name: &TableName,
    columns: Vec<LookupColumn>,
    unique_indexes: Vec<KeyIndex>,
) -> Result<LookupTable> {
    let schemas: Vec<String> = get(row, "referencing_schemas")?;
    let tables: Vec<String> = get(row, "referencing_tables")?;
    Ok(LookupTable {
        oid: unsigned(row, "oid")?,
        name: name.clone(),
        kind: character(row, "kind")?,
        persistence: character(row, "persistence")?,
        has_parts: get(row, "has_parts")?,
        columns,
        unique_indexes,
        triggers: get(row, "triggers")?,
        referenced_by: schemas
            .into_iter()
            .zip(tables)
            .map(|(schema, table)| TableName::new(schema, table))
            .collect(),
        row_security_applies: get(row, "row_security_applies")?,
        missing_privileges: get(row, "missing_privileges")?,
    })
}

/// Columns by the OID of their table.
async fn columns(conn: &mut Connection, oids: &[i64]) -> Result<HashMap<u32, Vec<LookupColumn>>> {
    let rows = query(include_str!("../../sql/target/facts/columns.sql"))
        .bind(oids)
        .rows(conn)
        .await
        .map_err(from_driver)?;
    let mut columns: HashMap<u32, Vec<LookupColumn>> = HashMap::new();
    for row in &rows {
        let of_table = columns.entry(unsigned(row, "table_oid")?).or_default();
        of_table.push(column(row)?);
    }
    Ok(columns)
}

fn column(row: &Row) -> Result<LookupColumn> {
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
}

/// Key indexes by the OID of their table.
async fn key_indexes(conn: &mut Connection, oids: &[i64]) -> Result<HashMap<u32, Vec<KeyIndex>>> {
    let rows = query(include_str!("../../sql/target/facts/key_indexes.sql"))
        .bind(oids)
        .rows(conn)
        .await
        .map_err(from_driver)?;
    let mut indexes: HashMap<u32, Vec<KeyIndex>> = HashMap::new();
    for row in &rows {
        let name: String = get(row, "index_name")?;
        let operator: String = get(row, "operator_name")?;
        let schema: String = get(row, "operator_schema")?;
        let column = KeyColumn {
            name: get(row, "column_name")?,
            equality: format!("OPERATOR({}.{operator})", ident(&schema)),
        };
        let of_table = indexes.entry(unsigned(row, "table_oid")?).or_default();
        match of_table.last_mut().filter(|index| index.name == name) {
            Some(index) => index.columns.push(column),
            None => of_table.push(KeyIndex {
                name,
                primary: get(row, "is_primary")?,
                columns: vec![column],
            }),
        }
    }
    Ok(indexes)
}

fn get<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T> {
    row.try_get(name).map_err(from_driver)
}

/// An oid or a count, sent as a bigint.
fn unsigned(row: &Row, name: &str) -> Result<u32> {
    let value: i64 = get(row, name)?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn character(row: &Row, name: &str) -> Result<char> {
    let text: String = get(row, name)?;
    Ok(text.chars().next().unwrap_or(' '))
}

/// OID and columns of each table as text, in order: what the watch compares. Empty for a table that
/// does not exist.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn shapes(conn: &mut Connection, tables: &[TableName]) -> Result<Vec<String>> {
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    query(include_str!("../../sql/target/facts/shapes.sql"))
        .bind(names)
        .values_of(conn)
        .await
        .map_err(from_driver)
}
