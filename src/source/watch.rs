//! The watch's look at the source: what the stream does not tell.
//!
//! A publication that is made again, a table that is taken out and put back, renamed or made again, a rewrite, TRUNCATE of one
//! partition, ATTACH and DETACH, another replica identity: none of it comes by the stream, or not on every version, or only with the
//! next change. A cheap query of the catalogs tells, and another one where the server knows publications of whole schemas.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::error::Result;
use crate::source::error::from_driver;
use crate::sql::TableName;

/// What the catalogs say of a followed table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// OID of the publication; `None` if there is none.
    pub publication: Option<u32>,
    /// OID of the table; `None` if there is none of that name.
    pub oid: Option<u32>,
    /// Options of the publication and its entries for the table.
    pub published: String,
    /// Numbers, types and storage of the table's columns, by their names.
    pub columns: BTreeMap<String, String>,
    /// By which columns the table and its leaves may name an old row, and whether a value may be stored out of line.
    pub identity: String,
    /// The table and its leaves, where another set of them needs another walsender.
    pub leaves: String,
    /// Files of the table and its leaves.
    pub storage: String,
}

impl Look {
    /// Whether the table is still the one that `before` saw, as far as a read model of these columns goes (`None`: of any).
    pub fn is_same_table(&self, before: &Self, used: Option<&[String]>) -> bool {
        let same_columns = match used {
            Some(used) => used
                .iter()
                .all(|name| self.columns.get(name) == before.columns.get(name)),
            None => self.columns == before.columns,
        };
        self.oid == before.oid
            && self.identity == before.identity
            && self.leaves == before.leaves
            && same_columns
    }
}

/// Looks at the tables, in their order.
pub async fn look(client: &Client, publication: &str, tables: &[TableName]) -> Result<Vec<Look>> {
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let sql = include_str!("../../sql/source/watch.sql");
    let rows = client
        .query(sql, &[&publication, &names])
        .await
        .map_err(from_driver)?;
    let mut looks = vec![Look::default(); tables.len()];
    let mut schemas = false;
    for row in rows {
        schemas = row.try_get("schemas").map_err(from_driver)?;
        let name: String = row.try_get("name").map_err(from_driver)?;
        let text = |column: &str| -> Result<String> {
            Ok(row
                .try_get::<_, Option<String>>(column)
                .map_err(from_driver)?
                .unwrap_or_default())
        };
        let list = |column: &str| -> Result<Vec<String>> {
            Ok(row
                .try_get::<_, Option<Vec<String>>>(column)
                .map_err(from_driver)?
                .unwrap_or_default())
        };
        let look = Look {
            publication: row.try_get("publication_oid").map_err(from_driver)?,
            oid: row.try_get("oid").map_err(from_driver)?,
            published: format!("{} / {}", text("publication_options")?, text("membership")?),
            columns: list("columns")?.into_iter().zip(list("definitions")?).collect(),
            identity: text("identity")?,
            leaves: text("leaves")?,
            storage: text("storage")?,
        };
        for (place, _) in looks.iter_mut().zip(&names).filter(|(_, of)| **of == name) {
            *place = look.clone();
        }
    }
    if schemas {
        look_at_schemas(client, publication, &names, &mut looks).await?;
    }
    Ok(looks)
}

/// Adds what a table is published by because its schema is. Where no schema is published nothing is added.
async fn look_at_schemas(
    client: &Client,
    publication: &str,
    names: &[String],
    looks: &mut [Look],
) -> Result<()> {
    let sql = include_str!("../../sql/source/watch_schemas.sql");
    let rows = client
        .query(sql, &[&publication, &names])
        .await
        .map_err(from_driver)?;
    for row in rows {
        let text = |column: &str| -> Result<String> { row.try_get(column).map_err(from_driver) };
        let (name, entry, version) = (text("name")?, text("entry")?, text("version")?);
        for (look, _) in looks.iter_mut().zip(names).filter(|(_, of)| **of == name) {
            look.published.push_str(&format!(" / {entry}"));
            look.storage.push_str(&format!(" / {version}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_columns_that_are_used_count() {
        let look = |columns: &[(&str, &str)]| Look {
            oid: Some(1),
            columns: columns
                .iter()
                .map(|(name, of)| ((*name).to_owned(), (*of).to_owned()))
                .collect(),
            ..Look::default()
        };
        let before = look(&[("id", "1:20:p"), ("code", "2:25:x"), ("note", "3:25:x")]);
        let used = ["id".to_owned(), "code".to_owned()];
        let same = |now: &Look| now.is_same_table(&before, Some(&used));
        assert!(same(&before));
        assert!(same(&look(&[
            ("id", "1:20:p"),
            ("code", "2:25:x"),
            ("more", "4:25:x")
        ])));
        assert!(!same(&look(&[
            ("id", "1:20:p"),
            ("code", "5:25:x"),
            ("note", "3:25:x")
        ])));
        assert!(!same(&look(&[("id", "1:20:p"), ("note", "3:25:x")])));
        let altered: [fn(&mut Look); 3] = [
            |now| now.oid = Some(2),
            |now| now.identity = "f".to_owned(),
            |now| now.leaves = "16400".to_owned(),
        ];
        for alter in altered {
            let mut now = before.clone();
            alter(&mut now);
            assert!(!same(&now), "{now:?}");
        }
        // Told by the stream, or by another look.
        let elsewhere = Look {
            publication: Some(2),
            published: "other".to_owned(),
            storage: "other".to_owned(),
            ..before.clone()
        };
        assert!(same(&elsewhere));
        assert!(!look(&[("id", "1:20:p")]).is_same_table(&before, None));
    }
}
