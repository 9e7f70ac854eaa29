//! What is planned for a publication, and what it lacks for whom.

use super::*;
use crate::conninfo::Conninfo;
use crate::facts::{Leaf, PublishedTable, ReplicaIdentity};
use crate::identity::tests::{labels, strings};
use crate::ownership::tests::ownership;
use crate::settings::ReadModelSettings;
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
        log_level: "info".to_owned(),
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
        comment: Some(ownership().pipeline.mark()),
        owned: true,
        tables,
    }
}

/// What is executed; an error is what all read models lack.
fn plan(
    settings: &Settings,
    tables: &[SourceTable],
    existing: Option<&Publication>,
    version: u32,
) -> Result<Vec<String>> {
    let plan = super::plan(settings, tables, existing, &ownership(), version)?;
    match plan.refusal() {
        Some(error) => Err(error),
        None => Ok(plan.statements()),
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
            &format!(
                "COMMENT ON PUBLICATION \"cdc\" IS '{}'",
                ownership().pipeline.mark()
            ),
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
        kind: 'r',
        persistence: 'p',
        replica_identity: ReplicaIdentity::Default,
        has_primary_key: true,
        identity_columns: strings(&["id"]),
    }];
    let statements = plan(
        &settings(false),
        std::slice::from_ref(&table),
        None,
        150_000,
    )
    .unwrap();
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
    assert_eq!(error.class(), Class::Broken);
    assert!(
        error.hint().unwrap().contains("REPLICA IDENTITY"),
        "{error:?}"
    );
}

/// Nothing identifies its old rows: its read model will be suspended, but the others may still use
/// the publication.
#[test]
fn table_without_an_identity_may_be_published_whole() {
    let mut table = labels();
    table.replica_identity = ReplicaIdentity::Full;
    table.primary_key.clear();
    table.unique_indexes.clear();
    let plan = |projected: bool| {
        plan(
            &settings(projected),
            std::slice::from_ref(&table),
            None,
            150_000,
        )
    };
    assert!(plan(false).unwrap()[0].contains("FOR TABLE \"public\".\"labels\" WITH"));
    let error = plan(true).unwrap_err();
    assert_eq!(error.class(), Class::Broken);
    assert!(
        error.to_string().contains("no unique index on the key"),
        "{error}"
    );
}

#[test]
fn only_our_own_publication_is_altered() {
    let plan =
        |existing: &Publication| plan(&settings(false), &[labels()], Some(existing), 150_000);
    let good = publication(vec![published("labels", None)]);
    assert_eq!(plan(&good).unwrap(), Vec::<String>::new());
    let empty = publication(Vec::new());
    assert_eq!(plan(&empty).unwrap(), [ADD]);
    let foreign = Publication {
        comment: None,
        ..empty.clone()
    };
    let error = plan(&foreign).unwrap_err();
    assert_eq!(error.class(), Class::Broken);
    assert!(error.hint().unwrap().contains(ADD), "{error:?}");
    let foreign = Publication {
        comment: None,
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
        comment: None,
        ..publication(vec![published("labels", Some(&enough))])
    };
    assert_eq!(
        plan(&listed).unwrap(),
        Vec::<String>::new(),
        "so is its list"
    );
    let short = Publication {
        comment: None,
        ..publication(vec![published("labels", Some(&enough[1..]))])
    };
    assert_eq!(plan(&short).unwrap_err().class(), Class::Broken);
    let whole = Publication {
        comment: None,
        ..publication(vec![published("labels", None)])
    };
    let none = self::plan(&settings(true), &[labels()], Some(&whole), 150_000).unwrap();
    assert_eq!(
        none,
        Vec::<String>::new(),
        "more than is asked for is enough"
    );
    // Our own is as the settings say: whole tables.
    for columns in [&enough[..2], &enough] {
        let listed = publication(vec![published("labels", Some(columns))]);
        assert_eq!(
            plan(&listed).unwrap(),
            [
                "ALTER PUBLICATION \"cdc\" DROP TABLE \"public\".\"labels\"",
                ADD
            ]
        );
    }
    let mut filtered = publication(vec![published("labels", None)]);
    filtered.tables[0].row_filter = Some("(deleted_at IS NULL)".to_owned());
    assert_eq!(plan(&filtered).unwrap().len(), 2);
}

/// What is done to a publication that publishes all but what `lacking` removes.
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
    assert_eq!(error.class(), Class::Broken);
    let told = format!("{error:?}");
    assert!(told.contains("this role does not own it"), "{told}");
    assert!(
        told.contains(&format!("Let its owner run: {ADD};")),
        "{told}"
    );
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

/// Another's publication without publish_via_partition_root lists the leaves; it does if it has all
/// of them.
#[test]
fn leaves_stand_for_their_root_if_all_are_published() {
    let leaf = |name: &str| Leaf {
        name: TableName::new("public", name),
        kind: 'r',
        persistence: 'p',
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

/// What one table or publication lacks concerns the read models of that table, whatever role
/// created the publication.
#[test]
fn what_is_lacking_concerns_its_read_models_alone() {
    let mut settings = settings(false);
    let mut products = labels();
    products.name.name = "products".to_owned();
    for lookup in ["products_lookup", "more_products"] {
        let mut model = ReadModelSettings::labels();
        model.source = products.name.clone();
        model.target.name = lookup.to_owned();
        settings.read_models.push(model);
    }
    let tables = [labels(), products.clone()];
    let add = "ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"products\"";
    let plan = |settings: &Settings, tables: &[SourceTable], existing: Option<&Publication>| {
        super::plan(settings, tables, existing, &ownership(), 150_000).unwrap()
    };
    let lacking =
        |plan: &Plan| -> Vec<usize> { plan.lacking.iter().map(|lack| lack.model).collect() };
    // Another's, with labels alone.
    let foreign = Publication {
        comment: None,
        ..publication(vec![published("labels", None)])
    };
    let planned = plan(&settings, &tables, Some(&foreign));
    assert_eq!(lacking(&planned), [1, 2]);
    assert_eq!(planned.statements(), Vec::<String>::new());
    let refusal = planned.refusal().unwrap();
    assert_eq!(
        refusal.hint(),
        Some(&*format!("Run: {add};")),
        "told once for both"
    );
    assert_eq!(planned.statements_for_a_person().unwrap(), [add]);
    // Another pipeline's: there is no SQL to be run.
    let other = Publication {
        comment: Some(
            ownership()
                .pipeline
                .mark()
                .replace("identifier 7", "identifier 8"),
        ),
        ..foreign.clone()
    };
    let planned = plan(&settings, &tables, Some(&other));
    assert_eq!(lacking(&planned), [1, 2]);
    assert!(planned.statements_for_a_person().is_err());
    // Our own, where the role does not own the one table.
    let not_owned = SourceTable {
        owned: false,
        ..products.clone()
    };
    let ours = publication(vec![published("labels", None)]);
    for existing in [None, Some(&ours)] {
        let planned = plan(&settings, &[labels(), not_owned.clone()], existing);
        assert_eq!(lacking(&planned), [1, 2], "{existing:?}");
        assert_eq!(
            planned.statements().len(),
            if existing.is_some() { 0 } else { 2 }
        );
        assert!(planned.lacking[0].error.hint().unwrap().contains(add));
    }
    // A table that was dropped, or that would break the application, does not keep the others from
    // being published.
    let broken = SourceTable {
        primary_key: Vec::new(),
        ..products
    };
    for tables in [vec![labels()], vec![labels(), broken]] {
        let planned = plan(&settings, &tables, None);
        assert_eq!(lacking(&planned), [1, 2]);
        assert!(planned.statements()[0].contains("FOR TABLE \"public\".\"labels\" WITH"));
    }
    // An option that one kind of table needs.
    let mut root = tables[1].clone();
    root.kind = 'p';
    let both = publication(vec![published("labels", None), published("products", None)]);
    let foreign = Publication {
        comment: None,
        ..both.clone()
    };
    let tables = [labels(), root];
    assert_eq!(lacking(&plan(&settings, &tables, Some(&foreign))), [1, 2]);
    let planned = plan(&settings, &tables, Some(&both));
    assert_eq!(
        (lacking(&planned), planned.unserved()),
        (vec![], vec![1, 2])
    );
}

/// So that a table that is not free does not keep the others from being published.
#[test]
fn the_parts_do_what_the_whole_does() {
    let mut settings = settings(false);
    let mut products = labels();
    products.name.name = "products".to_owned();
    let mut model = ReadModelSettings::labels();
    model.source = products.name.clone();
    settings.read_models.push(model);
    let planned = super::plan(
        &settings,
        &[labels(), products],
        None,
        &ownership(),
        150_000,
    )
    .unwrap();
    let (whole, tables) = planned.parts();
    assert_eq!(
        whole[0],
        "CREATE PUBLICATION \"cdc\" WITH (publish = 'insert, update, delete, truncate')"
    );
    assert_eq!(whole[1..], planned.statements()[1..], "the comment");
    let added: Vec<_> = tables.iter().flat_map(|step| &step.statements).collect();
    assert_eq!(added, [ADD, &ADD.replace("labels", "products")]);
}

/// An earlier version named no pipeline; a target that was renamed is another name for the same
/// one.
#[test]
fn comment_is_brought_up_to_date() {
    let comment = |comment: &str, owned: bool| {
        let existing = Publication {
            comment: Some(comment.to_owned()),
            owned,
            ..publication(vec![published("labels", None)])
        };
        plan(&settings(false), &[labels()], Some(&existing), 150_000).unwrap()
    };
    let mark = ownership().pipeline.mark();
    assert_eq!(comment(&mark, true), Vec::<String>::new());
    assert_eq!(comment("made by cdc", true), [comment_sql("cdc", &mark)]);
    assert_eq!(comment("made by cdc", false), Vec::<String>::new());
    let other = mark.replace("identifier 7", "identifier 8");
    assert_eq!(
        comment(&other, true),
        Vec::<String>::new(),
        "another pipeline's"
    );
}
