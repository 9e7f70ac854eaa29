//! Whether the bookkeeping's schema exists, and is ours.

use sqlx::{PgConnection, Row};

use crate::error::Result;
use crate::target::error::from_sqlx;

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
pub async fn presence(conn: &mut PgConnection, schema: &str) -> Result<Presence> {
    let row = sqlx::query(
        "SELECT pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment, \
         (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid \
          AND c.relname IN ('version', 'pipeline', 'read_model', 'resync') AND c.relkind = 'r') AS tables \
         FROM pg_catalog.pg_namespace n WHERE n.nspname = $1",
    )
    .bind(schema)
    .fetch_optional(conn)
    .await
    .map_err(from_sqlx)?;
    let Some(row) = row else {
        return Ok(Presence::Missing);
    };
    let comment: Option<String> = row.try_get("comment").map_err(from_sqlx)?;
    let tables: i64 = row.try_get("tables").map_err(from_sqlx)?;
    let ours = tables == 4 && comment.is_some_and(|comment| comment.starts_with(COMMENT));
    Ok(if ours {
        Presence::Ours
    } else {
        Presence::Foreign
    })
}
