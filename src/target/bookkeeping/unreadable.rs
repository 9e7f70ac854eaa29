//! Read models with a value that the source cannot read.

use super::{Bookkeeping, of_numbers};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::error::from_driver;

impl Bookkeeping {
    /// Numbers of the read models whose last copy failed because of a value of the source.
    pub(crate) async fn unreadable(&self, conn: &mut Connection) -> Result<Vec<ModelId>> {
        let sql = format!("SELECT id FROM {}.read_model WHERE unreadable", self.schema);
        let ids: Vec<i32> = query(sql).values_of(conn).await.map_err(from_driver)?;
        Ok(of_numbers(ids))
    }

    /// Notes that the read model has such a value; returns whether that is new.
    pub(crate) async fn note_unreadable(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
    ) -> Result<bool> {
        self.set_unreadable(conn, epoch, id, true).await
    }

    /// Notes that the read model has no such value any more.
    pub(crate) async fn note_readable(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
    ) -> Result<()> {
        self.set_unreadable(conn, epoch, id, false).await.map(drop)
    }

    async fn set_unreadable(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
        unreadable: bool,
    ) -> Result<bool> {
        let sql = format!(
            "UPDATE {schema}.read_model SET unreadable = $3 WHERE id = $2 AND unreadable <> $3 \
             AND EXISTS (SELECT FROM {schema}.pipeline WHERE epoch = $1)",
            schema = self.schema
        );
        let done = query(sql)
            .bind(epoch)
            .bind(id.0)
            .bind(unreadable)
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(done > 0)
    }
}
