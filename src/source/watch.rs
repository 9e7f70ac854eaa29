//! The watch's look at the source: what the stream does not bring.
//!
//! The stream does not bring these changes, or not on every version, or only with the next row: a
//! publication that is created again; a table that is removed from it and added again, renamed or
//! created again; a rewrite, TRUNCATE of one partition, ATTACH and DETACH; another replica
//! identity; SET UNLOGGED; a renamed label of an enum. A cheap query of the catalogs shows them.
//! More queries follow if the server knows publications of whole schemas, or a table has columns of
//! types that are not built in.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::lsn::Lsn;
use crate::source::error::from_driver;
use crate::sql::TableName;

/// What the text of a table's values depends on besides the values, by column.
pub(crate) type Texts = BTreeSet<(String, String)>;

/// What the catalogs say of a followed table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Look {
    /// OID of the publication; `None` if there is none.
    pub publication: Option<u32>,
    /// OID of the table; `None` if there is none of that name.
    pub oid: Option<u32>,
    /// Options of the publication and its entries for the table.
    pub published: String,
    /// Numbers, types and storage of the table's columns, by their names.
    pub columns: BTreeMap<String, String>,
    /// Versions of the columns' catalog rows, by their names: which columns were altered.
    pub versions: BTreeMap<String, String>,
    /// By which columns the table and its leaves may name an old row, whether they are logged, and
    /// whether a value may be stored out of line.
    pub identity: String,
    /// The tables that it is a partition of.
    pub roots: String,
    /// The table and its leaves, if a change of them needs another walsender.
    pub leaves: String,
    /// Files of the table and its leaves, and by which version of its catalog row each belongs to
    /// it.
    pub storage: String,
    /// OIDs of all partitions of the table: leaves, and the partitioned tables between.
    pub parts: BTreeSet<u32>,
    /// Whether the table has neither partitions nor tables that inherit from it.
    pub alone: bool,
    /// End of the flushed WAL. What is seen was committed before it.
    pub wal_end: Lsn,
    /// What the text of its values depends on.
    pub texts: Texts,
}

impl Look {
    /// Whether the table is still the one that `before` saw, as far as a read model of these
    /// columns goes (`None`: of any).
    pub(crate) fn is_same_table(&self, before: &Self, used: Option<&[String]>) -> bool {
        self.oid == before.oid
            && self.identity == before.identity
            && self.roots == before.roots
            && self.leaves == before.leaves
            && same(&self.columns, &before.columns, used)
    }

    /// Whether these columns are unaltered since `before`.
    pub(crate) fn has_same_versions(&self, before: &Self, used: Option<&[String]>) -> bool {
        same(&self.versions, &before.versions, used)
    }

    /// What the text of these columns' values depends on (`None`: of any).
    pub(crate) fn texts_of(&self, used: Option<&[String]>) -> Texts {
        let texts = self.texts.iter();
        texts
            .filter(|(column, _)| used.is_none_or(|used| used.contains(column)))
            .cloned()
            .collect()
    }
}

/// Whether both say the same of these columns (`None`: of all).
fn same(
    now: &BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
    used: Option<&[String]>,
) -> bool {
    match used {
        Some(used) => used.iter().all(|name| now.get(name) == before.get(name)),
        None => now == before,
    }
}

/// Looks at the tables, in their order.
pub(crate) async fn look(
    client: &Client,
    publication: &str,
    tables: &[TableName],
) -> Result<Vec<Look>> {
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let sql = include_str!("../../sql/source/watch.sql");
    let rows = client
        .query(sql, &[&publication, &names])
        .await
        .map_err(from_driver)?;
    let mut looks = vec![Look::default(); tables.len()];
    let (mut schemas, mut typed) = (false, false);
    for row in &rows {
        schemas = get(row, "schemas")?;
        typed |= get::<Option<bool>>(row, "typed")?.unwrap_or(false);
        let (name, look): (String, Look) = (get(row, "name")?, read(row)?);
        for (place, _) in looks.iter_mut().zip(&names).filter(|(_, of)| **of == name) {
            *place = look.clone();
        }
    }
    if schemas {
        look_at_schemas(client, publication, &names, &mut looks).await?;
    }
    if typed {
        for (look, texts) in looks.iter_mut().zip(texts(client, tables).await?) {
            look.texts = texts;
        }
    }
    Ok(looks)
}

fn read(row: &Row) -> Result<Look> {
    let text = |column: &str| -> Result<String> {
        Ok(get::<Option<String>>(row, column)?.unwrap_or_default())
    };
    let list = |column: &str| -> Result<Vec<String>> {
        Ok(get::<Option<Vec<String>>>(row, column)?.unwrap_or_default())
    };
    let names = list("columns")?;
    Ok(Look {
        publication: get(row, "publication_oid")?,
        oid: get(row, "oid")?,
        published: format!("{} / {}", text("publication_options")?, text("membership")?),
        versions: names.iter().cloned().zip(list("versions")?).collect(),
        columns: names.into_iter().zip(list("definitions")?).collect(),
        identity: text("identity")?,
        roots: text("roots")?,
        leaves: text("leaves")?,
        storage: text("storage")?,
        parts: get::<Option<Vec<u32>>>(row, "parts")?
            .unwrap_or_default()
            .into_iter()
            .collect(),
        alone: get::<Option<bool>>(row, "alone")?.unwrap_or(false),
        wal_end: text("wal_end")?.parse().unwrap_or_default(),
        texts: Texts::new(),
    })
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(from_driver)
}

/// What the text of the tables' values depends on besides the values, in their order.
///
/// # Errors
/// As any query.
pub(crate) async fn texts(client: &Client, tables: &[TableName]) -> Result<Vec<Texts>> {
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let sql = include_str!("../../sql/source/watch_types.sql");
    let rows = client.query(sql, &[&names]).await.map_err(from_driver)?;
    let mut texts = vec![Texts::new(); tables.len()];
    for row in &rows {
        let name: String = get(row, "name")?;
        let entry = (get(row, "column_name")?, get(row, "entry")?);
        for (texts, _) in texts.iter_mut().zip(&names).filter(|(_, of)| **of == name) {
            texts.insert(entry.clone());
        }
    }
    Ok(texts)
}

/// Adds the entries of tables that are published through their schema. If no schema is published,
/// nothing is added.
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
        let altered: [fn(&mut Look); 4] = [
            |now| now.oid = Some(2),
            |now| now.identity = "f".to_owned(),
            |now| now.leaves = "16400".to_owned(),
            |now| now.roots = "16400".to_owned(),
        ];
        for alter in altered {
            let mut now = before.clone();
            alter(&mut now);
            assert!(!same(&now), "{now:?}");
        }
        // Shown by the stream, or by another look.
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
