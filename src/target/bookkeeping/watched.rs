//! What the watch has seen of the source, kept so that a difference is noticed across restarts.

use std::collections::{BTreeSet, HashMap};

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::error::from_driver;

/// What is stored of a read model's table; `None` where nothing was stored yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Options of the publication and its entries for the table.
    pub published: Option<String>,
    /// Files of the table and its leaves.
    pub storage: Option<String>,
    /// What the text of its values depends on besides the values.
    pub texts: Option<BTreeSet<String>>,
}

impl Bookkeeping {
    /// What the watch has stored, by the number of the read model.
    pub(crate) async fn watched(&self, conn: &mut Connection) -> Result<HashMap<ModelId, Stored>> {
        let sql = format!(
            "SELECT id, published, storage, texts FROM {}.read_model",
            self.schema
        );
        let rows = query(sql).rows(conn).await.map_err(from_driver)?;
        rows.iter()
            .map(|row| {
                let texts: Option<Vec<String>> = row.try_get(3).map_err(from_driver)?;
                let stored = Stored {
                    published: row.try_get(1).map_err(from_driver)?,
                    storage: row.try_get(2).map_err(from_driver)?,
                    texts: texts.map(|texts| texts.into_iter().collect()),
                };
                Ok((ModelId(row.try_get(0).map_err(from_driver)?), stored))
            })
            .collect()
    }

    /// Notes that the stream has brought changes of a leaf that the watch has never seen: its next
    /// look differs from what is stored, in the next session too.
    ///
    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken over.
    pub(crate) async fn note_leaf(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model SET storage = storage || ' +' WHERE id = $2 AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch).bind(id.0);
        self.write(conn, epoch, query).await?;
        Ok(())
    }

    /// Stores what the watch sees.
    ///
    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken over.
    pub async fn set_watched(
        &self,
        conn: &mut Connection,
        (epoch, id): (i64, ModelId),
        seen: &Stored,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model SET published = $3, storage = $4, texts = $5 WHERE id = $2 AND {}",
            self.schema,
            self.ours()
        );
        let texts: Option<Vec<String>> = seen
            .texts
            .as_ref()
            .map(|texts| texts.iter().cloned().collect());
        let query = query(sql).bind(epoch).bind(id.0);
        let query = query
            .bind(seen.published.clone())
            .bind(seen.storage.clone())
            .bind(texts);
        self.write(conn, epoch, query).await?;
        Ok(())
    }
}
