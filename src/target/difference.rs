//! The result of a comparison: how lookup and source differ, and which rows the lookup does not
//! take.
//!
//! Only identities and keys, never values.

use tokio_postgres::Row;

use crate::batch::Rejected;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::target::error::from_driver;

/// What a comparison found in one lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rows that the lookup lacks.
    pub missing: i64,
    /// Rows that the source does not have.
    pub extra: i64,
    /// Rows with other values.
    pub different: i64,
    /// Rows that are right.
    pub same: i64,
    /// Rows that the lookup does not take; their keys are not compared.
    pub rejected: i64,
    /// Live rows whose key another live row has.
    pub waiting: i64,
    /// Rows that differ, but not in the same way for some seconds: a change may be under way. Only
    /// where no `cdc` runs.
    pub changing: i64,
    /// Keys of some of them, by kind.
    pub keys: Vec<(String, Vec<String>)>,
    /// Some of the rejected rows.
    pub rejections: Vec<Rejected>,
}

/// Runs the comparison; its rows are kind, count, keys, and the rejected rows as JSON.
pub(crate) async fn compare(conn: &mut Connection, sql: String) -> Result<Difference> {
    let rows = query(sql).rows(conn).await.map_err(from_driver)?;
    let mut found = Difference::default();
    for row in rows {
        found.add(&row)?;
    }
    Ok(found)
}

impl Difference {
    fn add(&mut self, row: &Row) -> Result<()> {
        let kind: String = row.try_get(0).map_err(from_driver)?;
        let keys: Option<Vec<String>> = row.try_get(2).map_err(from_driver)?;
        let count = match kind.as_str() {
            "missing" => &mut self.missing,
            "extra" => &mut self.extra,
            "different" => &mut self.different,
            "rejected" => &mut self.rejected,
            "waiting" => &mut self.waiting,
            _ => &mut self.same,
        };
        *count = row.try_get(1).map_err(from_driver)?;
        if let Some(keys) = keys {
            self.keys.push((kind, keys));
        }
        let rejections: Option<String> = row.try_get(3).map_err(from_driver)?;
        if let Some(text) = rejections {
            self.rejections = rejections_of(&text)?;
            let names = self.rejections.iter().map(|row| row.name().to_owned());
            self.keys.push(("rejected".to_owned(), names.collect()));
        }
        Ok(())
    }
}

fn rejections_of(text: &str) -> Result<Vec<Rejected>> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| Error::protocol("cannot read the rejected rows").with_source(error))?;
    let rejected = |row: &serde_json::Value| {
        let text = |name: &str| row.get(name)?.as_str().map(str::to_owned);
        Rejected {
            key: text("key"),
            identity: text("identity"),
            sqlstate: text("sqlstate").unwrap_or_default(),
            constraint: text("constraint"),
            column: text("column"),
        }
    };
    Ok(rows.iter().map(rejected).collect())
}
