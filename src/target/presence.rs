//! Whether the bookkeeping's schema exists, and is ours.

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::target::error::from_driver;

/// The beginning of the schema's comment, which marks it as ours
/// (`sql/target/schema/bookkeeping.sql`).
const COMMENT: &str = "cdc bookkeeping";

/// The state of the bookkeeping's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// There is no such schema.
    Missing,
    /// There is one, and its comment or its tables are not ours.
    Foreign,
    /// It is ours.
    Ours,
}

/// Whether the bookkeeping's schema exists and is ours.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn presence(conn: &mut Connection, schema: &str) -> Result<Presence> {
    let row = query(
        "SELECT pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment, \
         (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid \
          AND c.relname IN ('version', 'pipeline', 'read_model', 'resync') AND c.relkind = 'r') AS tables \
         FROM pg_catalog.pg_namespace n WHERE n.nspname = $1",
    )
    .bind(schema)
    .optional(conn)
    .await
    .map_err(from_driver)?;
    let Some(row) = row else {
        return Ok(Presence::Missing);
    };
    let comment: Option<String> = row.try_get("comment").map_err(from_driver)?;
    let tables: i64 = row.try_get("tables").map_err(from_driver)?;
    let ours = tables == 4 && comment.is_some_and(|comment| comment.starts_with(COMMENT));
    Ok(if ours {
        Presence::Ours
    } else {
        Presence::Foreign
    })
}
