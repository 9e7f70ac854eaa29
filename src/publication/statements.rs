//! The statements that create and alter a publication.

use super::wanted::Wanted;
use crate::sql::{TableName, ident, literal};

pub(super) fn create_sql(name: &str, tables: &[&str], options: &str) -> String {
    let list = if tables.is_empty() {
        String::new()
    } else {
        format!(" FOR TABLE {}", tables.join(", "))
    };
    format!("CREATE PUBLICATION {}{list} WITH ({options})", ident(name))
}

/// The statement that removes a table from the publication.
pub(crate) fn drop_table_sql(name: &str, table: &TableName) -> String {
    format!(
        "ALTER PUBLICATION {} DROP TABLE {}",
        ident(name),
        table.quoted()
    )
}

pub(super) fn comment_sql(name: &str, mark: &str) -> String {
    format!(
        "COMMENT ON PUBLICATION {} IS {}",
        ident(name),
        literal(mark)
    )
}

/// The statement that adds a table to the publication.
pub(super) fn add_table_sql(name: &str, table: &Wanted) -> String {
    format!(
        "ALTER PUBLICATION {} ADD TABLE {}",
        ident(name),
        table.sql()
    )
}

/// The statements that publish a table of the publication with other columns or without a row
/// filter.
pub(super) fn again_sql(name: &str, table: &Wanted) -> Vec<String> {
    vec![
        format!(
            "ALTER PUBLICATION {} DROP TABLE {}",
            ident(name),
            table.table.quoted()
        ),
        add_table_sql(name, table),
    ]
}
