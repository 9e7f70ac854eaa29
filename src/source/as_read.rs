//! What a COPY takes from the current catalogs, although the rows that it reads are older.
//!
//! A table's partitions are those of the moment when the COPY begins, and the text of an enum comes
//! from its current labels. `cdc` reads both as of the snapshot, and again beside the COPY. They
//! must be the same: otherwise the rows are those of no commit.

use tokio_postgres::Client;

use super::error::from_driver;
use super::watch::{Texts, texts};
use crate::error::Result;
use crate::sql::TableName;

/// What the catalogs say of a table beside its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AsRead {
    tree: Vec<u32>,
    texts: Texts,
}

impl AsRead {
    /// What the catalogs say, as the connection sees them: of now, or as of its snapshot.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn read(client: &Client, table: &TableName) -> Result<Self> {
        let row = client
            .query_one(
                include_str!("../../sql/source/tree.sql"),
                &[&table.quoted()],
            )
            .await
            .map_err(from_driver)?;
        let texts = texts(client, std::slice::from_ref(table)).await?;
        Ok(Self {
            tree: row.try_get("oids").map_err(from_driver)?,
            texts: texts.into_iter().flatten().collect(),
        })
    }

    /// Whether rows that are read by the catalogs of `now` have the same text as by these. Labels
    /// may have been added since.
    pub(crate) fn holds(&self, now: &Self) -> bool {
        self.tree == now.tree && self.texts_hold(now)
    }

    /// The same, of their texts alone: a COPY that has begun is not affected by partitions that are
    /// attached or detached later.
    pub(crate) fn texts_hold(&self, now: &Self) -> bool {
        self.texts.is_subset(&now.texts)
    }
}
