//! The truth table case by case.

use super::*;
use crate::error::Class;
use crate::facts::SourceColumn;
use crate::relation::RelationColumn;

pub(crate) fn column(name: &str, type_oid: u32, type_name: &str, toastable: bool) -> SourceColumn {
    SourceColumn {
        name: name.to_owned(),
        number: 1,
        type_oid,
        type_name: type_name.to_owned(),
        bare_type_name: type_name.to_owned(),
        not_null: false,
        toastable,
        generated: false,
        builtin: true,
        collatable: toastable,
        boolean: type_name == "boolean",
    }
}

pub(crate) fn labels_table(replica_identity: ReplicaIdentity) -> SourceTable {
    let mut columns = vec![
        column("id", 2950, "uuid", false),
        column("code", 1043, "character varying", true),
        column("label", 1043, "character varying", true),
        column("display_name", 1043, "character varying", true),
        column("deleted_at", 1184, "timestamp with time zone", false),
    ];
    for (number, column) in (1..).zip(&mut columns) {
        column.number = number;
    }
    SourceTable {
        replica_identity,
        ..SourceTable::ordinary(16400, ReadModelSettings::labels().source, columns, &["id"])
    }
}

fn relation(model: &ReadModel, identity: &[&str]) -> Relation {
    Relation {
        oid: model.source_oid,
        name: model.settings.source.clone(),
        replica_identity: model.replica_identity,
        columns: labels_table(model.replica_identity)
            .columns
            .iter()
            .map(|column| RelationColumn {
                name: column.name.clone(),
                type_oid: column.type_oid,
                in_identity: identity.contains(&column.name.as_str()),
            })
            .collect(),
    }
}

fn cells<'a>(text: &'a str) -> Vec<Cell<'a>> {
    text.split(' ')
        .map(|word| match word {
            "-" => Cell::Null,
            "u" => Cell::Unchanged,
            word => Cell::Text(word.as_bytes()),
        })
        .collect()
}

fn default_model() -> (ReadModel, Layout) {
    let table = labels_table(ReplicaIdentity::Default);
    let model = ReadModel::bind(
        &ReadModelSettings::labels(),
        &table,
        &["id".to_owned()],
        Remembering::Map,
    )
    .unwrap();
    let layout = model.layout(&relation(&model, &["id"])).unwrap();
    (model, layout)
}

fn full_model() -> (ReadModel, Layout) {
    let table = labels_table(ReplicaIdentity::Full);
    let model = ReadModel::bind(
        &ReadModelSettings::labels(),
        &table,
        &["code".to_owned()],
        Remembering::OldTuple,
    )
    .unwrap();
    let layout = model
        .layout(&relation(
            &model,
            &["id", "code", "label", "display_name", "deleted_at"],
        ))
        .unwrap();
    (model, layout)
}

#[test]
fn identity_and_liveness_come_from_the_new_tuple() {
    let (model, layout) = default_model();
    for (tuple, live) in [
        ("1 MR Mr. Mister -", true),
        ("1 MR Mr. Mister 2026-01-01", false),
        ("1 - Mr. Mister -", false),
        ("1 u Mr. Mister -", true),
    ] {
        let Some(Change::Insert(image)) = model.insert(&layout, &cells(tuple)).unwrap() else {
            panic!("{tuple}")
        };
        assert_eq!(image.live, live, "{tuple}");
        assert_eq!(image.identity, Row::from_cells([Cell::Text(b"1")]));
    }
}

#[test]
fn an_old_row_without_the_identity_breaks_the_read_model() {
    let (model, layout) = default_model();
    let old = cells("- MR - - -");
    for error in [
        model.delete(&layout, &old).unwrap_err(),
        model
            .update(&layout, Some(&old), &cells("1 MR Mr. Mister -"))
            .unwrap_err(),
    ] {
        assert_eq!(error.class(), Class::Broken);
        assert!(
            error.message().contains("a partition has another one"),
            "{error}"
        );
    }
}

#[test]
fn soft_delete_of_a_domain_over_boolean_is_boolean() {
    let mut table = labels_table(ReplicaIdentity::Default);
    table.columns.push(SourceColumn {
        boolean: true,
        ..column("hidden", 90_001, "public.flag", false)
    });
    let mut settings = ReadModelSettings::labels();
    for (name, kind) in [
        ("hidden", SoftDelete::True),
        ("deleted_at", SoftDelete::NotNull),
    ] {
        settings.soft_delete = Some(name.to_owned());
        let model =
            ReadModel::bind(&settings, &table, &["id".to_owned()], Remembering::Map).unwrap();
        assert_eq!(model.soft_delete.unwrap().1, kind, "{name}");
    }
}

#[test]
fn boolean_soft_delete_takes_null_and_false_for_live() {
    let (mut model, layout) = default_model();
    model.soft_delete = model
        .soft_delete
        .map(|(column, _)| (column, SoftDelete::True));
    for (flag, live) in [("-", true), ("f", true), ("t", false)] {
        let tuple = format!("1 MR Mr. Mister {flag}");
        let Some(Change::Insert(image)) = model.insert(&layout, &cells(&tuple)).unwrap() else {
            panic!()
        };
        assert_eq!(image.live, live, "{flag}");
    }
}

#[test]
fn old_identity_is_kept_only_where_it_changed() {
    let (model, layout) = default_model();
    let new = cells("2 MR u Mister -");
    for (old, expected) in [
        (None, None),
        (Some("2 - - - -"), None),
        (Some("1 - - - -"), Some(b"1")),
    ] {
        let old = old.map(cells);
        let Some(Change::Update { old, new }) =
            model.update(&layout, old.as_deref(), &new).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            old,
            expected.map(|id: &[u8; 1]| Row::from_cells([Cell::Text(id)]))
        );
        assert!(new.values.has_unchanged());
    }
}

#[test]
fn under_full_without_primary_key_the_old_tuple_tells_what_was_live() {
    let (model, layout) = full_model();
    let (live, dead) = ("1 MR Mr. Mister -", "1 MR Mr. Mister 2026-01-01");
    let key = Row::from_cells([Cell::Text(b"MR")]);
    let update = |old, new| {
        model
            .update(&layout, Some(&cells(old)), &cells(new))
            .unwrap()
    };
    assert_eq!(update(dead, dead), None);
    assert_eq!(update(live, dead), Some(Change::Delete(key.clone())));
    assert!(matches!(update(dead, live), Some(Change::Insert(_))));
    assert!(matches!(
        update(live, live),
        Some(Change::Update { old: None, .. })
    ));
    assert_eq!(model.delete(&layout, &cells(dead)).unwrap(), None);
    assert_eq!(
        model.delete(&layout, &cells(live)).unwrap(),
        Some(Change::Delete(key))
    );
    assert_eq!(model.insert(&layout, &cells(dead)).unwrap(), None);
    let Some(Change::Update { new, .. }) = update(live, "1 MR Mr. u -") else {
        panic!()
    };
    assert_eq!(
        new.values.cell(2),
        Cell::Text(b"Mister"),
        "an unchanged value comes from the old tuple"
    );
}

#[test]
fn dead_rows_are_kept_where_the_map_remembers_and_a_value_may_be_left_out() {
    let plain = |model: &mut ReadModel| {
        model
            .columns
            .iter_mut()
            .for_each(|column| column.toastable = false)
    };
    let (mut model, _) = default_model();
    assert!(model.keeps_dead_rows());
    plain(&mut model);
    assert!(!model.keeps_dead_rows());
    model.columns[1].toastable = true;
    assert!(model.keeps_dead_rows());
    let (mut model, _) = full_model();
    assert!(!model.keeps_dead_rows(), "every old row comes whole");
    plain(&mut model);
    assert!(!model.keeps_dead_rows());
}

#[test]
fn a_value_that_could_not_be_left_out_breaks_the_read_model_when_it_is() {
    let (mut model, layout) = default_model();
    model.columns[1].toastable = false;
    let update = |tuple: &str| model.update(&layout, None, &cells(tuple));
    assert!(update("1 MR Mr. u -").is_ok());
    let error = update("1 MR u Mister -").unwrap_err();
    assert_eq!(error.class(), crate::error::Class::Broken);
    assert!(
        error.to_string().contains("left out column \"label\""),
        "{error}"
    );
    let (mut model, layout) = full_model();
    model.columns[1].toastable = false;
    let old = cells("1 MR Mr. Mister -");
    assert!(
        model
            .update(&layout, Some(&old), &cells("1 MR u Mister -"))
            .is_ok()
    );
}

#[test]
fn a_change_is_as_large_as_its_rows_and_itself() {
    let one = |text: &str| Row::from_cells([Cell::Text(text.as_bytes())]);
    let image = || Image {
        identity: one("1"),
        live: true,
        values: one("longer"),
    };
    let itself = size_of::<Change>();
    let (short, long) = (one("1").bytes(), one("longer").bytes());
    for (change, bytes) in [
        (Change::Truncate, itself),
        (Change::Delete(one("1")), itself + short),
        (Change::Insert(image()), itself + short + long),
        (
            Change::Update {
                old: None,
                new: image(),
            },
            itself + short + long,
        ),
        (
            Change::Update {
                old: Some(one("longer")),
                new: image(),
            },
            itself + short + 2 * long,
        ),
    ] {
        assert_eq!(change.bytes(), bytes, "{change:?}");
    }
}

#[test]
fn toasted_identity_is_taken_from_the_old_tuple() {
    let (model, layout) = default_model();
    let Some(Change::Update { old, new }) = model
        .update(
            &layout,
            Some(&cells("1 - - - -")),
            &cells("u MR Mr. Mister -"),
        )
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (old, new.identity),
        (None, Row::from_cells([Cell::Text(b"1")]))
    );
    assert!(
        model
            .update(&layout, None, &cells("u MR Mr. Mister -"))
            .is_err()
    );
}

#[test]
fn a_changed_relation_is_told_precisely() {
    let (model, _) = default_model();
    let good = relation(&model, &["id"]);
    let changed = |change: &dyn Fn(&mut Relation)| {
        let mut relation = good.clone();
        change(&mut relation);
        model.layout(&relation).unwrap_err().to_string()
    };
    assert!(changed(&|r| r.name.name = "tags".to_owned()).contains("is now called"));
    assert!(changed(&|r| r.replica_identity = ReplicaIdentity::Full).contains("replica identity"));
    assert!(changed(&|r| r.columns[2].name = "text".to_owned()).contains("\"label\""));
    assert!(changed(&|r| r.columns[2].type_oid = 25).contains("type of column \"label\""));
    assert!(changed(&|r| r.columns[1].in_identity = true).contains("identity of table"));
    assert!(changed(&|r| r.columns[0].in_identity = false).contains("identity of table"));
}
