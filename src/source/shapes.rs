//! Reads the columns of tables, to prove what a Relation message means: once for each message, so
//! it is one cheap query.

use tokio_postgres::{Client, Row, Statement};

use super::error::from_driver;
use crate::error::Result;
use crate::shape::{Shape, ShapeColumn};
use crate::sql::TableName;

/// The query, prepared on one connection.
#[derive(Debug)]
pub(crate) struct Shapes {
    statement: Statement,
}

impl Shapes {
    /// Prepares the query.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn prepare(client: &Client) -> Result<Self> {
        let sql = include_str!("../../sql/source/shapes.sql");
        let statement = client.prepare(sql).await.map_err(from_driver)?;
        Ok(Self { statement })
    }

    /// The tables as the catalogs list them now, in their order.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn read(
        &self,
        client: &Client,
        publication: &str,
        tables: &[TableName],
    ) -> Result<Vec<Shape>> {
        let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
        let rows = client
            .query(&self.statement, &[&publication, &names])
            .await
            .map_err(from_driver)?;
        let mut shapes = vec![Shape::default(); tables.len()];
        for row in &rows {
            let name: String = row.try_get("name").map_err(from_driver)?;
            let shape = shape(row)?;
            for (place, _) in shapes.iter_mut().zip(&names).filter(|(_, of)| **of == name) {
                *place = shape.clone();
            }
        }
        Ok(shapes)
    }
}

fn shape(row: &Row) -> Result<Shape> {
    let names: Vec<String> = row.try_get("names").map_err(from_driver)?;
    let numbers: Vec<i16> = row.try_get("numbers").map_err(from_driver)?;
    let types: Vec<u32> = row.try_get("types").map_err(from_driver)?;
    let streamed: Vec<bool> = row.try_get("streamed").map_err(from_driver)?;
    let columns = names.into_iter().zip(numbers).zip(types).zip(streamed);
    Ok(Shape {
        oid: row.try_get("oid").map_err(from_driver)?,
        parts: row.try_get("parts").map_err(from_driver)?,
        columns: columns
            .map(|(((name, number), type_oid), streamed)| ShapeColumn {
                name,
                number,
                type_oid,
                streamed,
            })
            .collect(),
    })
}
