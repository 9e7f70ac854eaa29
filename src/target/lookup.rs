//! Creates the lookup table if it is missing; an existing one is never altered.
//!
//! In: the read model's settings and the facts of its source table. Out: `CREATE TABLE`, with the
//! source's types and NOT NULLs, the key as primary key, and the time of the last change if it is
//! asked for.

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Class, Error, Result};
use crate::facts::{KeyColumn, KeyIndex, LookupColumn, LookupTable, SourceColumn, SourceTable};
use crate::settings::{ColumnMapping, ReadModelSettings};
use crate::sql::{ident, idents, literal};
use crate::target::bookkeeping::DATABASE_OWNER;
use crate::target::error::from_driver;

/// Percentage to which pages are filled with new rows. With room for the next version of each row,
/// an update stays within its page and adds nothing to the index. It takes less than half of the
/// time, and the table does not grow.
const FILLFACTOR: u8 = 50;

/// The statements that create the lookup table. Its columns have no comments: an ORM that compares
/// them would want to remove them.
///
/// # Errors
/// `Broken` where the source has no such column.
pub(crate) fn create_sql(model: &ReadModelSettings, source: &SourceTable) -> Result<String> {
    let mut lines = Vec::new();
    for mapping in &model.columns {
        let column = source_column(source, mapping)?;
        let not_null = column.not_null || model.key.contains(&mapping.target);
        lines.push(format!(
            "{} {}{}",
            ident(&mapping.target),
            column.type_name,
            if not_null { " NOT NULL" } else { "" }
        ));
    }
    if let Some(name) = &model.synced_at {
        lines.push(format!(
            "{} timestamp with time zone NOT NULL DEFAULT pg_catalog.now()",
            ident(name)
        ));
    }
    lines.push(format!("PRIMARY KEY ({})", idents(&model.key)));
    Ok(format!(
        "CREATE TABLE {table} (\n    {columns}\n) WITH (fillfactor = {FILLFACTOR});\nCOMMENT ON TABLE {table} IS {comment}",
        table = model.target.quoted(),
        columns = lines.join(",\n    "),
        comment = literal(&format!(
            "Lookup table that cdc keeps in step with source table {}. Nobody else writes it",
            model.source
        )),
    ))
}

/// The lookup table as it will be once it is created; `None` where a type is not built in, so that
/// only the target knows how it compares.
///
/// # Errors
/// `Broken` where the source has no such column.
pub(crate) fn as_made(
    model: &ReadModelSettings,
    source: &SourceTable,
) -> Result<Option<LookupTable>> {
    let mut columns = Vec::new();
    for mapping in &model.columns {
        let column = source_column(source, mapping)?;
        if !column.builtin {
            return Ok(None);
        }
        columns.push(column_as_made(&mapping.target, column));
    }
    columns.extend(model.synced_at.iter().map(|name| LookupColumn {
        has_default: true,
        ..plain_column(name, "timestamp with time zone")
    }));
    let key = model.key.iter().map(|name| KeyColumn {
        name: name.clone(),
        equality: "OPERATOR(\"pg_catalog\".=)".to_owned(),
    });
    Ok(Some(LookupTable {
        oid: 0,
        name: model.target.clone(),
        kind: 'r',
        persistence: 'p',
        has_parts: false,
        columns,
        unique_indexes: vec![KeyIndex {
            name: format!("{}_pkey", model.target.name),
            primary: true,
            columns: key.collect(),
        }],
        triggers: Vec::new(),
        referenced_by: Vec::new(),
        row_security_applies: false,
        missing_privileges: Vec::new(),
    }))
}

fn column_as_made(name: &str, source: &SourceColumn) -> LookupColumn {
    LookupColumn {
        type_oid: source.type_oid,
        bare_type_name: source.bare_type_name.clone(),
        collatable: source.collatable,
        not_null: source.not_null,
        ..plain_column(name, &source.type_name)
    }
}

fn plain_column(name: &str, type_name: &str) -> LookupColumn {
    LookupColumn {
        name: name.to_owned(),
        type_oid: 0,
        type_name: type_name.to_owned(),
        bare_type_name: type_name.to_owned(),
        declared_type_name: type_name.to_owned(),
        collation: None,
        collatable: false,
        not_null: true,
        has_default: false,
        generated: false,
    }
}

fn source_column<'a>(source: &'a SourceTable, mapping: &ColumnMapping) -> Result<&'a SourceColumn> {
    source.column(&mapping.source).ok_or_else(|| {
        Error::broken(format!(
            "column \"{}\" of table \"{}\" does not exist at the source",
            mapping.source, source.name
        ))
        .with_hint("Correct the read model's columns; names on the right are the source's.")
    })
}

/// Creates the lookup table; types that are not built in must exist at the target under the same
/// name.
///
/// # Errors
/// `Broken` where a column or type is missing; otherwise what the server reports.
pub async fn create(
    conn: &mut Connection,
    model: &ReadModelSettings,
    source: &SourceTable,
) -> Result<()> {
    let sql = create_sql(model, source)?;
    for mapping in &model.columns {
        let column = source_column(source, mapping)?;
        if !column.builtin && !type_exists(&mut *conn, &column.bare_type_name).await? {
            return Err(Error::broken(format!(
                "cannot create table \"{}\": type {} of column \"{}\" does not exist at the target",
                model.target, column.bare_type_name, mapping.target
            ))
            .with_hint("Create the type (or its extension) at the target, or create the lookup table with another type."));
        }
    }
    let sql = format!("{sql}; {}", let_owner_read(model));
    match conn.batch_execute(&sql).await {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(model, from_driver(error))),
    }
}

/// Lets the owner of the database read the table: otherwise dumps by the owner would fail.
fn let_owner_read(model: &ReadModelSettings) -> String {
    format!(
        "DO $cdc$ BEGIN EXECUTE pg_catalog.format('GRANT SELECT ON TABLE %s TO %I', {}, {DATABASE_OWNER}); END $cdc$",
        literal(&model.target.quoted())
    )
}

/// An error that only a person can correct suspends this read model and says how.
fn explain(model: &ReadModelSettings, error: Error) -> Error {
    let hint = match error.sqlstate() {
        Some("3F000") => format!("Create it: CREATE SCHEMA {};", ident(&model.target.schema)),
        Some("42501") => format!(
            "Create the table as another role, or: GRANT CREATE ON SCHEMA {} TO the role of the target's URL.",
            ident(&model.target.schema)
        ),
        _ => return error.context(format!("could not create table \"{}\"", model.target)),
    };
    error
        .with_class(Class::Broken)
        .context(format!("cannot create table \"{}\"", model.target))
        .with_hint(hint)
}

async fn type_exists(conn: &mut Connection, name: &str) -> Result<bool> {
    let row = query("SELECT pg_catalog.to_regtype($1) IS NOT NULL AS found")
        .bind(name)
        .row(conn)
        .await
        .map_err(from_driver)?;
    row.try_get("found").map_err(from_driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{column, labels};
    use crate::sql::TableName;

    #[test]
    fn labels_lookup_is_made_as_the_reports_expect_it() {
        assert_eq!(
            create_sql(&ReadModelSettings::labels(), &labels()).unwrap(),
            "CREATE TABLE \"public\".\"labels_lookup\" (\n    \
             \"code\" character varying(10) NOT NULL,\n    \
             \"label\" character varying(50) NOT NULL,\n    \
             \"display_name\" character varying(50) NOT NULL,\n    \
             \"updated_at\" timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),\n    \
             PRIMARY KEY (\"code\")\n) WITH (fillfactor = 50);\n\
             COMMENT ON TABLE \"public\".\"labels_lookup\" IS \
             'Lookup table that cdc keeps in step with source table public.labels. Nobody else writes it'"
        );
    }

    #[test]
    fn renamed_nullable_and_compound_columns_keep_their_types() {
        let mut source = labels();
        source.columns.push(column("Größe", "numeric(10,2)", false));
        let map = |target: &str, source: &str| ColumnMapping {
            target: target.to_owned(),
            source: source.to_owned(),
        };
        let model = ReadModelSettings {
            source: source.name.clone(),
            target: TableName::new("Reports", "l"),
            key: vec!["c".to_owned(), "size".to_owned()],
            columns: vec![
                map("c", "code"),
                map("size", "Größe"),
                map("gone", "deleted_at"),
            ],
            soft_delete: None,
            synced_at: None,
            on_row_error: crate::settings::OnRowError::default(),
        };
        assert_eq!(
            create_sql(&model, &source)
                .unwrap()
                .split(';')
                .next()
                .unwrap(),
            "CREATE TABLE \"Reports\".\"l\" (\n    \"c\" character varying(10) NOT NULL,\n    \
             \"size\" numeric(10,2) NOT NULL,\n    \"gone\" timestamp with time zone,\n    \
             PRIMARY KEY (\"c\", \"size\")\n) WITH (fillfactor = 50)"
        );
        let model = ReadModelSettings {
            columns: vec![map("c", "nowhere")],
            ..model
        };
        assert!(
            create_sql(&model, &source)
                .unwrap_err()
                .to_string()
                .contains("\"nowhere\"")
        );
    }
}
