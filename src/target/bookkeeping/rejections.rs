//! Rejected rows as every role may see them: which they are, and why the target does not take them.

use tokio_postgres::Row;

use super::Bookkeeping;
use crate::batch::{Rejected, Written};
use crate::connect::Connection;
use crate::connect::pipeline::{Sent, send};
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::error::from_driver;

/// Rejected rows of a read model that are named.
const NAMED_REJECTED: usize = 20;

impl Bookkeeping {
    /// Whether the read model has rejected rows.
    pub(crate) async fn has_rejected(&self, conn: &mut Connection, id: ModelId) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.rejection WHERE read_model = $1)",
            self.schema
        );
        query(sql).bind(id.0).value(conn).await.map_err(from_driver)
    }

    /// Notes the rows that this transaction has rejected, and how many the read model has in all.
    pub(crate) async fn read_rejected(
        &self,
        conn: &mut Connection,
        id: ModelId,
        written: &mut Written,
    ) -> Result<()> {
        self.send_rejections(conn, id)
            .answer()
            .await?
            .note_in(written);
        Ok(())
    }

    /// Asks for the read model's rejected rows; the answer is read later.
    pub(crate) fn send_rejections(
        &self,
        conn: &Connection,
        id: ModelId,
    ) -> Sent<'static, Result<Rejections>> {
        let sql = format!(
            "SELECT key, identity, sqlstate, constraint_name, column_name, rejected_at = now() AS new \
             FROM {}.rejection WHERE read_model = $1 ORDER BY n",
            self.schema
        );
        let query = query(sql).bind(id.0);
        let rows = send(conn, |client| async move { query.rows(&client).await });
        rows.map(|rows| Rejections::read(&rows.map_err(from_driver)?))
    }
}

/// The rejected rows of a read model.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    in_all: i64,
    first: Vec<Rejected>,
    /// Those that this transaction has rejected.
    new: Vec<Rejected>,
}

impl Rejections {
    fn read(rows: &[Row]) -> Result<Self> {
        let mut rejections = Self {
            in_all: i64::try_from(rows.len()).unwrap_or(i64::MAX),
            ..Self::default()
        };
        for row in rows {
            let rejected = Rejected {
                key: row.try_get("key").map_err(from_driver)?,
                identity: row.try_get("identity").map_err(from_driver)?,
                sqlstate: row.try_get("sqlstate").map_err(from_driver)?,
                constraint: row.try_get("constraint_name").map_err(from_driver)?,
                column: row.try_get("column_name").map_err(from_driver)?,
            };
            if rejections.first.len() < NAMED_REJECTED {
                rejections.first.push(rejected.clone());
            }
            if row.try_get("new").map_err(from_driver)? {
                rejections.new.push(rejected);
            }
        }
        Ok(rejections)
    }

    /// Notes them with what was written.
    pub(crate) fn note_in(self, written: &mut Written) {
        written.rejected_in_all = self.in_all;
        written.first_rejected = self.first;
        written.rejected = self.new;
    }
}
