//! What other sessions have left in the bookkeeping for the running process: read in one statement,
//! so that an idle target has little to do.

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::sql::{fill, literal};
use crate::target::error::from_driver;

/// What a look has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// A session waits in `wait_for` for a position.
    pub waits: bool,
    /// A resync is asked for, or was being carried out by another owner.
    pub asked: bool,
    /// A read model takes no part in the stream.
    pub not_in_step: bool,
}

impl Bookkeeping {
    /// Looks.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn pulse(&self, conn: &mut Connection, epoch: i64) -> Result<Pulse> {
        let sql = fill(
            include_str!("../../../sql/target/status/pulse.sql"),
            &[
                ("schema", &self.schema),
                ("schema_name", &literal(&self.name)),
            ],
        );
        let row = query(sql)
            .bind(epoch)
            .row(conn)
            .await
            .map_err(from_driver)?;
        Ok(Pulse {
            waits: row.try_get(0).map_err(from_driver)?,
            asked: row.try_get(1).map_err(from_driver)?,
            not_in_step: row.try_get(2).map_err(from_driver)?,
        })
    }
}
