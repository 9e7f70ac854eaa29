//! The publication: the SQL that makes and extends it, and its execution.
//!
//! Whole tables unless asked otherwise, no row filter, never FOR ALL TABLES. Before anything is executed it is
//! proved that the application's writes stay legal: a publication that lacks the replica identity is accepted by
//! the server and then makes every UPDATE and DELETE fail. Only a publication that `cdc` made (its comment says
//! so) is altered; for another's the SQL is told.

use tokio_postgres::Client;

use crate::error::{Class, Error, Result};
use crate::facts::{Publication, SourceTable};
use crate::identity::{identity, writes_stay_legal};
use crate::settings::{ReadModelSettings, Settings};
use crate::source::error::from_driver;
use crate::source::facts;
use crate::sql::{TableName, ident, idents, literal};

/// The comment that marks a publication as ours; `sql/source/publication.sql` looks for its beginning.
pub const COMMENT: &str = "made by cdc";

/// First version with column lists.
const COLUMN_LISTS: u32 = 150_000;

/// A table as it is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The table.
    pub table: TableName,
    /// What its read models need of it: projection, soft delete and identity.
    pub needed: Vec<String>,
    /// Whether all columns are published, those of the future too; else those that are needed.
    pub whole: bool,
}

impl Wanted {
    fn sql(&self) -> String {
        match self.columns() {
            Some(columns) => format!("{} ({})", self.table.quoted(), idents(columns)),
            None => self.table.quoted(),
        }
    }

    /// The column list; `None` if all are published.
    fn columns(&self) -> Option<&[String]> {
        (!self.whole).then_some(&*self.needed)
    }

    /// Whether a publication of these columns (`None`: all) will do. In our own one a list is what the settings say; another's
    /// may publish more than that.
    fn is_met_by(&self, published: Option<&[String]>, ours: bool) -> bool {
        match published {
            None => self.whole || !ours,
            Some(_) if self.whole && ours => false,
            Some(published) => self.needed.iter().all(|name| published.contains(name)),
        }
    }
}

/// The statements that make the publication and mark it as ours.
pub fn create_sql(name: &str, tables: &[Wanted], via_root: bool) -> Vec<String> {
    let list = tables.iter().map(Wanted::sql).collect::<Vec<_>>().join(", ");
    let root = if via_root {
        ", publish_via_partition_root = true"
    } else {
        ""
    };
    vec![
        format!(
            "CREATE PUBLICATION {} FOR TABLE {list} WITH (publish = 'insert, update, delete, truncate'{root})",
            ident(name)
        ),
        format!("COMMENT ON PUBLICATION {} IS {}", ident(name), literal(COMMENT)),
    ]
}

/// The statement that adds a table to the publication.
pub fn add_table_sql(name: &str, table: &Wanted) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {}", ident(name), table.sql())
}

/// The statements that publish a table of the publication with other columns or without a row filter.
fn again_sql(name: &str, table: &Wanted) -> Vec<String> {
    vec![
        format!(
            "ALTER PUBLICATION {} DROP TABLE {}",
            ident(name),
            table.table.quoted()
        ),
        add_table_sql(name, table),
    ]
}

/// The tables to publish, each once, with the columns to publish.
///
/// # Errors
/// `Configuration` where a table is unknown, or its publication would break the application's writes.
pub fn wanted(settings: &Settings, tables: &[SourceTable], version: u32) -> Result<Vec<Wanted>> {
    let projected = settings.source.publish_projected_columns;
    if projected && version < COLUMN_LISTS {
        return Err(Error::configuration(
            "publish_columns = \"projected\" needs PostgreSQL 15 or later at the source",
        )
        .with_hint("Publish whole tables: leave publish_columns out."));
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for model in &settings.read_models {
        let table = tables
            .iter()
            .find(|table| table.name == model.source)
            .ok_or_else(|| {
                Error::configuration(format!("table \"{}\" does not exist at the source", model.source))
            })?;
        let needed = needed_columns(model, table, projected)?;
        match wanted.iter_mut().find(|other| other.table == model.source) {
            None => wanted.push(Wanted {
                table: table.name.clone(),
                needed,
                whole: !projected,
            }),
            Some(other) => {
                let more = needed.into_iter().filter(|name| !other.needed.contains(name));
                let more: Vec<String> = more.collect();
                other.needed.extend(more);
            }
        }
    }
    for entry in &wanted {
        if let Some(table) = tables.iter().find(|table| table.name == entry.table) {
            writes_stay_legal(table, entry.columns(), version)
                .map_err(|error| error.with_class(Class::Configuration).context("cannot publish"))?;
        }
    }
    Ok(wanted)
}

/// What a read model needs of its table, in the table's order: projection, soft delete and identity. Without an identity the read
/// model is suspended alone, but cannot be published by a list.
fn needed_columns(model: &ReadModelSettings, table: &SourceTable, listed: bool) -> Result<Vec<String>> {
    let key = model.source_key();
    let identity = match identity(table, &key, model.soft_delete.as_deref()) {
        Ok(identity) => identity.columns,
        Err(error) if listed => {
            return Err(error.with_class(Class::Configuration).context("cannot publish"));
        }
        Err(_) => Vec::new(),
    };
    let needed = |name: &String| {
        model.columns.iter().any(|column| &column.source == name)
            || model.soft_delete.as_ref() == Some(name)
            || identity.contains(name)
    };
    let names = table.columns.iter().map(|column| &column.name);
    Ok(names.filter(|name| needed(name)).cloned().collect())
}

/// The statements that bring the publication to what the settings need; none if it is as needed.
///
/// # Errors
/// `Configuration`: publishing would break the application's writes, or a publication that `cdc` did not make
/// lacks something; then the hint holds the SQL.
pub fn plan(
    settings: &Settings,
    tables: &[SourceTable],
    existing: Option<&Publication>,
    version: u32,
) -> Result<Vec<String>> {
    let name = &settings.source.publication;
    let wanted = wanted(settings, tables, version)?;
    let via_root = tables.iter().any(|table| table.kind == 'p');
    let Some(existing) = existing else {
        return Ok(create_sql(name, &wanted, via_root));
    };
    let statements = changes(name, existing, &wanted, tables, via_root);
    if statements.is_empty() || existing.ours && existing.owned {
        return Ok(statements);
    }
    let (why, who) = if existing.ours {
        ("this role does not own it", "Let its owner run")
    } else {
        ("it was not made by cdc, so cdc does not alter it", "Run")
    };
    Err(
        Error::configuration(format!("publication \"{name}\" does not publish what is needed"))
            .with_detail(format!("The publication has to be altered, but {why}."))
            .with_hint(format!("{who}: {};", statements.join("; "))),
    )
}

fn changes(
    name: &str,
    existing: &Publication,
    wanted: &[Wanted],
    tables: &[SourceTable],
    via_root: bool,
) -> Vec<String> {
    let mut statements = Vec::new();
    if !(existing.insert && existing.update && existing.delete && existing.truncate) {
        statements.push(format!(
            "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
            ident(name)
        ));
    }
    if via_root && !existing.via_root {
        statements.push(format!(
            "ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
            ident(name)
        ));
    }
    for entry in wanted {
        let published = existing.tables.iter().find(|table| table.table == entry.table);
        match published {
            Some(table)
                if table.row_filter.is_none() && entry.is_met_by(table.columns.as_deref(), existing.ours) => {
            }
            Some(_) => statements.extend(again_sql(name, entry)),
            // Without publish_via_partition_root the leaves are listed in place of their root.
            None if !existing.via_root && lists_all_leaves(existing, tables, &entry.table) => {}
            None => statements.push(add_table_sql(name, entry)),
        }
    }
    statements
}

fn lists_all_leaves(existing: &Publication, tables: &[SourceTable], name: &TableName) -> bool {
    tables
        .iter()
        .find(|table| &table.name == name)
        .is_some_and(|table| {
            !table.leaves.is_empty()
                && table.leaves.iter().all(|leaf| {
                    existing
                        .tables
                        .iter()
                        .any(|published| published.table == leaf.name)
                })
        })
}

/// Makes or extends the publication, in one transaction; returns the statements that were executed.
///
/// # Errors
/// As [`plan`], and what the server reports; a missing privilege with the SQL that another role has to run.
pub async fn ensure(client: &Client, settings: &Settings, tables: &[SourceTable]) -> Result<Vec<String>> {
    let server = facts::server(client).await?;
    let existing = facts::publication(client, &settings.source.publication).await?;
    let statements = plan(settings, tables, existing.as_ref(), server.version)?;
    if statements.is_empty() {
        return Ok(statements);
    }
    let sql = statements.join(";\n");
    // Several statements in one message are one transaction.
    client.batch_execute(&sql).await.map_err(|error| {
        let error = from_driver(error);
        let denied = error.sqlstate() == Some("42501");
        let error = error.context(format!(
            "could not set up publication \"{}\"",
            settings.source.publication
        ));
        if denied {
            error
                .with_class(Class::Configuration)
                .with_hint(format!("Let the owner of the tables run: {sql};"))
        } else {
            error
        }
    })?;
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::Conninfo;
    use crate::facts::{Leaf, PublishedTable, ReplicaIdentity};
    use crate::identity::tests::{labels, strings};
    use crate::settings::{ResyncSettings, SourceSettings, TargetSettings};
    use std::time::Duration;

    fn settings(projected: bool) -> Settings {
        Settings {
            source: SourceSettings {
                conninfo: Conninfo::default(),
                publication: "cdc".to_owned(),
                slot: "cdc".to_owned(),
                max_retained_wal: None,
                failover: true,
                publish_projected_columns: projected,
            },
            target: TargetSettings {
                conninfo: Conninfo::default(),
                schema: "cdc".to_owned(),
                synchronous_commit: true,
            },
            read_models: vec![ReadModelSettings::labels()],
            resync: ResyncSettings::default(),
            status_interval: Duration::from_secs(10),
        }
    }

    fn published(table: &str, columns: Option<&[&str]>) -> PublishedTable {
        PublishedTable {
            table: TableName::new("public", table),
            columns: columns.map(strings),
            row_filter: None,
        }
    }

    fn publication(tables: Vec<PublishedTable>) -> Publication {
        Publication {
            oid: 1,
            name: "cdc".to_owned(),
            all_tables: false,
            insert: true,
            update: true,
            delete: true,
            truncate: true,
            via_root: false,
            ours: true,
            owned: true,
            tables,
        }
    }

    const ADD: &str = "ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"labels\"";

    #[test]
    fn missing_publication_is_made_of_whole_tables_and_marked() {
        assert_eq!(
            plan(&settings(false), &[labels()], None, 150_000).unwrap(),
            [
                "CREATE PUBLICATION \"cdc\" FOR TABLE \"public\".\"labels\" \
                 WITH (publish = 'insert, update, delete, truncate')",
                "COMMENT ON PUBLICATION \"cdc\" IS 'made by cdc'",
            ]
        );
    }

    #[test]
    fn projected_columns_hold_identity_and_soft_delete() {
        let statements = plan(&settings(true), &[labels()], None, 150_000).unwrap();
        assert!(
            statements[0].contains("(\"id\", \"code\", \"label\", \"display_name\", \"deleted_at\")"),
            "{statements:?}"
        );
        assert!(
            plan(&settings(true), &[labels()], None, 140_000).is_err(),
            "no column lists in 14"
        );
        let mut full = labels();
        full.replica_identity = ReplicaIdentity::Full;
        full.columns
            .push(crate::identity::tests::column("secret", "text", false));
        assert!(
            plan(&settings(true), &[full], None, 150_000).is_err(),
            "FULL and a list"
        );
    }

    #[test]
    fn partitioned_table_is_published_as_its_root() {
        let mut table = labels();
        table.kind = 'p';
        table.leaves = vec![Leaf {
            name: TableName::new("public", "labels_0"),
            replica_identity: ReplicaIdentity::Default,
            has_primary_key: true,
            identity_columns: strings(&["id"]),
        }];
        let statements = plan(&settings(false), std::slice::from_ref(&table), None, 150_000).unwrap();
        assert!(
            statements[0].ends_with("truncate', publish_via_partition_root = true)"),
            "{statements:?}"
        );
        let leaves = publication(vec![published("labels_0", None)]);
        assert_eq!(
            plan(&settings(false), &[table], Some(&leaves), 150_000).unwrap(),
            ["ALTER PUBLICATION \"cdc\" SET (publish_via_partition_root = true)"]
        );
    }

    #[test]
    fn table_that_would_break_the_application_is_never_published() {
        let mut table = labels();
        table.primary_key.clear();
        let error = plan(&settings(false), &[table], None, 150_000).unwrap_err();
        assert_eq!(error.class(), Class::Configuration);
        assert!(error.hint().unwrap().contains("REPLICA IDENTITY"), "{error:?}");
    }

    /// Nothing tells its old rows apart: its read model will be suspended, which is no reason to keep it from the others.
    #[test]
    fn table_without_an_identity_may_be_published_whole() {
        let mut table = labels();
        table.replica_identity = ReplicaIdentity::Full;
        table.primary_key.clear();
        table.unique_indexes.clear();
        let plan = |projected: bool| plan(&settings(projected), std::slice::from_ref(&table), None, 150_000);
        assert!(plan(false).unwrap()[0].contains("FOR TABLE \"public\".\"labels\" WITH"));
        let error = plan(true).unwrap_err();
        assert_eq!(error.class(), Class::Configuration);
        assert!(
            error.to_string().contains("no unique index on the key"),
            "{error}"
        );
    }

    #[test]
    fn only_our_own_publication_is_altered() {
        let plan = |existing: &Publication| plan(&settings(false), &[labels()], Some(existing), 150_000);
        let good = publication(vec![published("labels", None)]);
        assert_eq!(plan(&good).unwrap(), Vec::<String>::new());
        let empty = publication(Vec::new());
        assert_eq!(plan(&empty).unwrap(), [ADD]);
        let foreign = Publication {
            ours: false,
            ..empty.clone()
        };
        let error = plan(&foreign).unwrap_err();
        assert_eq!(error.class(), Class::Configuration);
        assert!(error.hint().unwrap().contains(ADD), "{error:?}");
        let foreign = Publication {
            ours: false,
            all_tables: true,
            ..good.clone()
        };
        assert_eq!(
            plan(&foreign).unwrap(),
            Vec::<String>::new(),
            "another's that is good is used"
        );
        let insert_only = Publication {
            update: false,
            delete: false,
            ..good
        };
        assert!(plan(&insert_only).unwrap()[0].contains("SET (publish ="));
        let enough = ["id", "code", "label", "display_name", "deleted_at"];
        let listed = Publication {
            ours: false,
            ..publication(vec![published("labels", Some(&enough))])
        };
        assert_eq!(plan(&listed).unwrap(), Vec::<String>::new(), "so is its list");
        let short = Publication {
            ours: false,
            ..publication(vec![published("labels", Some(&enough[1..]))])
        };
        assert_eq!(plan(&short).unwrap_err().class(), Class::Configuration);
        let whole = Publication {
            ours: false,
            ..publication(vec![published("labels", None)])
        };
        let none = super::plan(&settings(true), &[labels()], Some(&whole), 150_000).unwrap();
        assert_eq!(none, Vec::<String>::new(), "more than is asked for is enough");
        // Our own is as the settings say: whole tables.
        for columns in [&enough[..2], &enough] {
            let listed = publication(vec![published("labels", Some(columns))]);
            assert_eq!(
                plan(&listed).unwrap(),
                ["ALTER PUBLICATION \"cdc\" DROP TABLE \"public\".\"labels\"", ADD]
            );
        }
        let mut filtered = publication(vec![published("labels", None)]);
        filtered.tables[0].row_filter = Some("(deleted_at IS NULL)".to_owned());
        assert_eq!(plan(&filtered).unwrap().len(), 2);
    }

    /// What is done to a publication that publishes all but what `lacking` takes away.
    #[test]
    fn each_operation_is_published() {
        let lacking: [fn(&mut Publication); 4] = [
            |p| p.insert = false,
            |p| p.update = false,
            |p| p.delete = false,
            |p| p.truncate = false,
        ];
        for lacking in lacking {
            let mut existing = publication(vec![published("labels", None)]);
            lacking(&mut existing);
            assert_eq!(
                plan(&settings(false), &[labels()], Some(&existing), 150_000).unwrap(),
                ["ALTER PUBLICATION \"cdc\" SET (publish = 'insert, update, delete, truncate')"]
            );
        }
    }

    #[test]
    fn our_publication_is_altered_by_its_owner_only() {
        let existing = Publication {
            owned: false,
            ..publication(Vec::new())
        };
        let error = plan(&settings(false), &[labels()], Some(&existing), 150_000).unwrap_err();
        assert_eq!(error.class(), Class::Configuration);
        let told = format!("{error:?}");
        assert!(told.contains("this role does not own it"), "{told}");
        assert!(told.contains(&format!("Let its owner run: {ADD};")), "{told}");
    }

    #[test]
    fn two_read_models_of_a_table_need_what_each_of_them_needs() {
        let mut settings = settings(true);
        let mut second = ReadModelSettings::labels();
        second.target.name = "names".to_owned();
        second.soft_delete = None;
        second.columns.remove(1);
        // The first one has what the second has not, and the other way round.
        settings.read_models[0].columns.pop();
        settings.read_models.push(second);
        let statements = plan(&settings, &[labels()], None, 150_000).unwrap();
        assert!(
            statements[0].contains(
                "FOR TABLE \"public\".\"labels\" (\"id\", \"code\", \"label\", \"deleted_at\", \"display_name\") WITH"
            ),
            "{statements:?}"
        );
    }

    #[test]
    fn each_read_model_has_its_own_table() {
        let mut settings = settings(false);
        let mut products = labels();
        products.name.name = "products".to_owned();
        products.primary_key.clear();
        let mut second = ReadModelSettings::labels();
        second.source = products.name.clone();
        settings.read_models.push(second);
        let error = plan(&settings, &[labels(), products.clone()], None, 150_000).unwrap_err();
        assert!(error.to_string().contains("products"), "{error}");
        products.primary_key = strings(&["id"]);
        let existing = publication(vec![published("labels", None)]);
        assert_eq!(
            plan(&settings, &[labels(), products], Some(&existing), 150_000).unwrap(),
            ["ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"products\""]
        );
        let error = plan(&settings, &[labels()], None, 150_000).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("table \"public.products\" does not exist"),
            "{error}"
        );
    }

    /// Another's publication without publish_via_partition_root lists the leaves; it does if it has all of them.
    #[test]
    fn leaves_stand_for_their_root_if_all_are_published() {
        let leaf = |name: &str| Leaf {
            name: TableName::new("public", name),
            replica_identity: ReplicaIdentity::Default,
            has_primary_key: true,
            identity_columns: strings(&["id"]),
        };
        let mut table = labels();
        table.leaves = vec![leaf("one"), leaf("two")];
        let changes = |tables: &[&str], via_root: bool, leaves: &[Leaf]| {
            let existing = Publication {
                via_root,
                ..publication(tables.iter().map(|name| published(name, None)).collect())
            };
            let mut table = table.clone();
            table.leaves = leaves.to_vec();
            plan(&settings(false), &[table], Some(&existing), 150_000).unwrap()
        };
        let none = Vec::<String>::new();
        assert_eq!(changes(&["one", "two"], false, &table.leaves), none);
        assert_eq!(changes(&["one"], false, &table.leaves), [ADD]);
        assert_eq!(changes(&["one", "two"], true, &table.leaves), [ADD]);
        assert_eq!(
            changes(&["one", "two"], false, &[]),
            [ADD],
            "no leaf is not every leaf"
        );
    }
}
