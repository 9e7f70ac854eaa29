//! Which pipeline this is, and what its bookkeeping says of the slot and the publication that it
//! has created.

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::ownership::{Known, Ownership, Pipeline};
use crate::target::error::from_driver;

/// Replaces the system identifier of a cluster whose functions do not report it.
const UNKNOWN_SYSTEM: &str = "unknown";

impl Bookkeeping {
    /// This pipeline, by its slot and its place at the target, and what is known of it. The
    /// bookkeeping may be missing.
    ///
    /// # Errors
    /// Whatever the server or the connection reports.
    pub async fn ownership(&self, conn: &mut Connection, slot: &str) -> Result<Ownership> {
        let database: String = query("SELECT pg_catalog.current_database()::text")
            .value(conn)
            .await
            .map_err(from_driver)?;
        Ok(Ownership {
            pipeline: Pipeline {
                slot: slot.to_owned(),
                system_identifier: system_identifier(conn).await?,
                database,
                schema: self.name.clone(),
            },
            known: self.known(conn, slot).await?,
        })
    }

    /// By name from the row, since an earlier version of the bookkeeping has other columns. A
    /// position that was copied is one that this pipeline's slot has, at the source that it is of.
    async fn known(&self, conn: &mut Connection, slot: &str) -> Result<Known> {
        let exists: bool = query(
            "SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass($1), 'SELECT'), false)",
        )
        .bind(format!("{}.pipeline", self.schema))
        .value(conn)
        .await
        .map_err(from_driver)?;
        if !exists {
            return Ok(Known::default());
        }
        let sql = format!(
            "SELECT coalesce(row ->> 'slot_system_identifier', row ->> 'system_identifier'), \
             coalesce(row ->> 'slot_database', CASE WHEN row ->> 'system_identifier' IS NOT NULL THEN row ->> 'source_database' END), row ->> 'publication_mark', \
             row ->> 'slot', row ->> 'system_identifier', row ->> 'source_database', \
             CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = (row ->> 'backend_pid')::integer \
                                 AND a.backend_start = (row ->> 'backend_start')::timestamptz) \
                  THEN row ->> 'read_system_identifier' END, row ->> 'read_database' \
             FROM (SELECT pg_catalog.to_jsonb(p) FROM {}.pipeline p) p (row)",
            self.schema
        );
        let row = query(sql).optional(conn).await.map_err(from_driver)?;
        let Some(row) = row else {
            return Ok(Known::default());
        };
        let text = |at: usize| row.try_get::<_, Option<String>>(at).map_err(from_driver);
        if let Some(other) = text(3)?.filter(|of| of != slot) {
            return Ok(Known {
                other_slot: Some(other),
                ..Known::default()
            });
        }
        Ok(Known {
            slot_made_at: text(0)?.zip(text(1)?),
            mark: text(2)?,
            other_slot: None,
            copied_from: text(4)?.zip(text(5)?),
            reads: text(6)?.zip(text(7)?),
        })
    }

    /// The comment that the pipeline's publication has from now on.
    pub(crate) async fn set_publication_mark(
        &self,
        conn: &mut Connection,
        epoch: i64,
        mark: &str,
    ) -> Result<()> {
        let mark = mark.to_owned();
        self.update_pipeline(conn, epoch, "publication_mark = $2", |query| {
            query.bind(mark)
        })
        .await
    }
}

async fn system_identifier(conn: &mut Connection) -> Result<String> {
    let asked: Result<String, tokio_postgres::Error> =
        query("SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
            .value(conn)
            .await;
    match asked.map_err(from_driver) {
        // Some services keep the function from their users.
        Err(error) if matches!(error.sqlstate(), Some("42501" | "0A000")) => {
            Ok(UNKNOWN_SYSTEM.to_owned())
        }
        asked => asked,
    }
}
