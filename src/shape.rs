//! Which columns a Relation message means. The message names them in the order of their numbers,
//! without the numbers.
//!
//! A table's columns may swap their names, or be dropped and created again: the message looks the
//! same, but its rows are of other columns than those that the lookup shows. So no row is handed on
//! until the catalogs were read, later than the message was received. A column that existed before
//! and still exists was the same column in between, with one exception: a name that was missing and
//! has come back. The message itself shows that case:
//!
//! - PostgreSQL sends the columns in the order of their numbers, without dropped, unpublished and
//!   generated ones (`logicalrep_write_attrs`, proto.c), and a new column gets a higher number than
//!   any before it;
//! - so a column that the message lacks has a higher number than all that it names, or had another
//!   name;
//! - and a column that the catalogs no longer have was dropped, which leaves a number free, or had
//!   another name.

use crate::error::{Error, Result};
use crate::read_model::ReadModel;
use crate::relation::Relation;
use crate::sql::TableName;

/// The columns of a table as the catalogs list them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// OID of the table; `None` if there is none of that name.
    pub oid: Option<u32>,
    /// Columns in the order of their numbers, without dropped ones.
    pub columns: Vec<ShapeColumn>,
    /// OIDs of its partitions, where their changes may still come under its name after they were
    /// detached: before PostgreSQL 15.
    pub parts: Option<Vec<u32>>,
}

/// A column as the catalogs list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeColumn {
    /// Name.
    pub name: String,
    /// Number (pg_attribute.attnum).
    pub number: i16,
    /// Type.
    pub type_oid: u32,
    /// Whether a Relation message has to name it: it is published, and not generated.
    pub streamed: bool,
}

impl Shape {
    /// Proves that the table is the one that the read model was bound to, column by column.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken), with what differs.
    pub fn is_bound_to(&self, model: &ReadModel) -> Result<()> {
        let table = &model.settings.source;
        if self.oid != Some(model.source_oid) {
            return Err(Error::broken(format!(
                "table \"{table}\" was renamed, dropped or created again"
            )));
        }
        let differs = model.used_columns().find(|bound| {
            !self.columns.iter().any(|column| {
                column.name == bound.name
                    && column.number == bound.number
                    && column.type_oid == bound.type_oid
            })
        });
        match differs {
            None => Ok(()),
            Some(bound) => Err(Error::broken(format!(
                "column \"{}\" of table \"{table}\" is another one than it was",
                bound.name
            ))),
        }
    }

    /// Proves that a message which was received before meant the columns that the read model was
    /// bound to.
    ///
    /// # Errors
    /// As [`Self::is_bound_to`].
    pub(crate) fn proves(&self, model: &ReadModel, relation: &Relation) -> Result<()> {
        self.is_bound_to(model)?;
        if self.explains(relation) {
            return Ok(());
        }
        Err(Error::broken(format!(
            "columns of table \"{}\" were renamed to and fro",
            model.settings.source
        )))
    }

    /// Proves that a leaf whose changes come under the name of this table is still a part of it.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if it was detached: some of its changes may
    /// be of the detached table.
    pub(crate) fn has_leaf(&self, table: &TableName, leaf: u32) -> Result<()> {
        match &self.parts {
            Some(parts) if !parts.contains(&leaf) => Err(Error::broken(format!(
                "a partition of table \"{table}\" was detached, and its changes still come under the table's name"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether added and dropped columns, without renamed ones, are enough to explain the message.
    fn explains(&self, relation: &Relation) -> bool {
        let mut number = 0;
        let mut unknown = 0;
        for named in &relation.columns {
            let known = self.columns.iter().find(|column| column.name == named.name);
            match known {
                Some(column)
                    if column.number > number && unknown <= self.free(number, column.number) =>
                {
                    number = column.number;
                    unknown = 0;
                }
                Some(_) => return false,
                None => unknown += 1,
            }
        }
        let missing = |column: &ShapeColumn| {
            column.streamed && relation.position(&column.name).is_none() && column.number < number
        };
        !self.columns.iter().any(missing)
    }

    /// How many numbers between these no longer belong to a column.
    fn free(&self, after: i16, before: i16) -> i16 {
        let taken = self
            .columns
            .iter()
            .filter(|column| column.number > after && column.number < before);
        let taken = i16::try_from(taken.count()).unwrap_or(i16::MAX);
        before
            .saturating_sub(after)
            .saturating_sub(1)
            .saturating_sub(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::facts::ReplicaIdentity;
    use crate::read_model::Remembering;
    use crate::read_model::tests::labels_table;
    use crate::relation::RelationColumn;
    use crate::settings::ReadModelSettings;
    use crate::sql::TableName;

    /// Columns as `name#number`; a `-` before the name says that it is not streamed.
    fn shape(columns: &[&str]) -> Shape {
        let columns = columns.iter().map(|column| {
            let (name, number) = column.split_once('#').unwrap();
            ShapeColumn {
                name: name.trim_start_matches('-').to_owned(),
                number: number.parse().unwrap(),
                type_oid: 25,
                streamed: !name.starts_with('-'),
            }
        });
        Shape {
            parts: None,
            oid: Some(1),
            columns: columns.collect(),
        }
    }

    fn relation(names: &[&str]) -> Relation {
        Relation {
            oid: 1,
            name: TableName::new("public", "t"),
            replica_identity: ReplicaIdentity::Default,
            columns: names
                .iter()
                .map(|name| RelationColumn {
                    name: (*name).to_owned(),
                    type_oid: 25,
                    in_identity: false,
                })
                .collect(),
        }
    }

    #[test]
    fn a_message_is_explained_by_columns_that_came_and_went_alone() {
        let now = ["id#1", "a#2", "b#4", "c#5", "-g#6", "d#7"];
        for (names, explained) in [
            (&["id", "a", "b", "c", "d"][..], true),
            (&["id", "a", "b", "c", "g", "d"], true),
            // Added later.
            (&["id", "a", "b", "c"], true),
            (&["id", "a", "b"], true),
            // Dropped since: number 3, or behind all others.
            (&["id", "a", "old", "b", "c", "d"], true),
            (&["id", "a", "b", "c", "d", "old", "older"], true),
            (&["id", "a", "b", "old"], true),
            // Two names have changed places.
            (&["id", "b", "a", "c", "d"], false),
            // One was away and is back.
            (&["id", "x", "b", "c", "d"], false),
            (&["id", "x", "a", "b", "c", "d"], false),
            (&["id", "a", "x", "y", "b", "c", "d"], false),
            (&["id", "a", "x", "c", "d"], false),
            // The last one has taken a name, and given it back.
            (&["id", "a", "b", "old", "c"], false),
            // A column that is not streamed leaves no room either.
            (&["id", "a", "b", "c", "x", "d"], false),
        ] {
            assert_eq!(
                shape(&now).explains(&relation(names)),
                explained,
                "{names:?}"
            );
        }
        // Without a gap there is no room for a column that was dropped.
        let full = shape(&["id#1", "tag#2", "note#3", "spare#4"]);
        assert!(full.explains(&relation(&["id", "tag", "note", "spare"])));
        assert!(!full.explains(&relation(&["id", "tag", "old", "note"])));
        assert!(!full.explains(&relation(&["id", "tag", "spare", "note"])));
    }

    fn labels() -> (ReadModel, Shape) {
        let table = labels_table(ReplicaIdentity::Default);
        let settings = ReadModelSettings::labels();
        let model =
            ReadModel::bind(&settings, &table, &["id".to_owned()], Remembering::Map).unwrap();
        let columns = table.columns.iter().map(|column| ShapeColumn {
            name: column.name.clone(),
            number: column.number,
            type_oid: column.type_oid,
            streamed: true,
        });
        let shape = Shape {
            parts: None,
            oid: Some(table.oid),
            columns: columns.collect(),
        };
        (model, shape)
    }

    #[test]
    fn a_table_that_is_another_one_proves_nothing() {
        let (model, shape) = labels();
        assert!(shape.is_bound_to(&model).is_ok());
        type Alter = fn(&mut Shape);
        let alters: [(&str, Alter); 5] = [
            ("renamed", |shape| shape.oid = Some(2)),
            ("gone", |shape| *shape = Shape::default()),
            ("made again", |shape| {
                shape.columns.last_mut().unwrap().number += 1
            }),
            ("another type", |shape| shape.columns[1].type_oid += 1),
            ("swapped", |shape| {
                let name = shape.columns[1].name.clone();
                shape.columns[1].name = std::mem::replace(&mut shape.columns[2].name, name);
            }),
        ];
        for (case, alter) in alters {
            let mut now = shape.clone();
            alter(&mut now);
            let error = now.is_bound_to(&model).unwrap_err();
            assert_eq!(error.class(), Class::Broken, "{case}");
        }
    }
}
