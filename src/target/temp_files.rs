//! Room for temporary files, for `cdc check`.

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::facts::TempFiles;
use crate::sql::TableName;
use crate::target::error::from_driver;

/// The setting is -1 if there is no limit, else in kilobytes.
const ROOM: &str = "SELECT s.setting::bigint * 1024 AS room, t.place, pg_catalog.pg_table_size(t.oid) AS bytes \
    FROM pg_catalog.pg_settings s CROSS JOIN ( \
      SELECT n.place, pg_catalog.to_regclass(n.name) AS oid FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n (name, place)) t \
    WHERE s.name = 'temp_file_limit' AND s.setting::bigint >= 0 AND t.oid IS NOT NULL ORDER BY 3 DESC LIMIT 1";

/// The limit beside the largest of these lookups; `None` without a limit, or if none of them
/// exists.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn room(
    conn: &mut Connection,
    lookups: &[TableName],
) -> Result<Option<TempFiles>> {
    let names: Vec<String> = lookups.iter().map(TableName::quoted).collect();
    let row = query(ROOM)
        .bind(names)
        .optional(conn)
        .await
        .map_err(from_driver)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let place: i64 = row.try_get("place").map_err(from_driver)?;
    let at = usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
    let (limit, bytes) = (
        row.try_get("room").map_err(from_driver)?,
        row.try_get("bytes").map_err(from_driver)?,
    );
    let lookup = lookups.get(at).cloned();
    Ok(lookup.map(|lookup| TempFiles {
        limit,
        lookup,
        bytes,
    }))
}
