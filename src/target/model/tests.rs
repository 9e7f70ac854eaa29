use super::*;
use crate::error::Result;
use crate::facts::{KeyColumn, KeyIndex, LookupColumn, LookupTable, ReplicaIdentity};
use crate::read_model::tests::labels_table;
use crate::read_model::{ModelId, Remembering};
use crate::settings::ReadModelSettings;

mod golden;

fn lookup() -> LookupTable {
    let column = |name: &str, type_name: &str| LookupColumn {
        name: name.to_owned(),
        type_oid: 1043,
        type_name: type_name.to_owned(),
        bare_type_name: "character varying".to_owned(),
        declared_type_name: type_name.to_owned(),
        collation: None,
        collatable: true,
        not_null: true,
        has_default: false,
        generated: false,
    };
    LookupTable {
        oid: 1,
        name: ReadModelSettings::labels().target,
        kind: 'r',
        persistence: 'p',
        has_parts: false,
        columns: vec![
            column("code", "character varying(10)"),
            column("label", "character varying(50)"),
            column("display_name", "character varying(50)"),
            column("updated_at", "timestamp with time zone"),
        ],
        unique_indexes: vec![KeyIndex {
            name: "labels_lookup_pkey".to_owned(),
            primary: true,
            columns: vec![KeyColumn {
                name: "code".to_owned(),
                equality: "OPERATOR(pg_catalog.=)".to_owned(),
            }],
        }],
        triggers: Vec::new(),
        referenced_by: Vec::new(),
        row_security_applies: false,
        missing_privileges: Vec::new(),
    }
}

fn bind(lookup: &LookupTable) -> Result<TargetModel> {
    let table = labels_table(ReplicaIdentity::Default);
    let model = ReadModel::bind(
        &ReadModelSettings::labels(),
        &table,
        &["id".to_owned()],
        Remembering::Map,
    )
    .unwrap();
    TargetModel::bind(ModelId(7), "cdc", Arc::new(model), lookup)
}

/// The labels read model in its place.
pub(crate) fn labels() -> TargetModel {
    bind(&lookup()).unwrap()
}

#[test]
fn rows_are_sorted_for_the_map_unless_that_takes_the_rules_of_a_language() {
    let sort = "ORDER BY coalesce(s.i1, s.o1)";
    assert!(labels().merge_function(Joins::LookedUp).contains(sort));
    let table = labels_table(ReplicaIdentity::Default);
    let settings = ReadModelSettings::labels();
    let by_code =
        ReadModel::bind(&settings, &table, &["code".to_owned()], Remembering::Map).unwrap();
    let by_code = TargetModel::bind(ModelId(7), "cdc", Arc::new(by_code), &lookup()).unwrap();
    assert!(!by_code.merge_function(Joins::LookedUp).contains(sort));
}

#[test]
fn no_placeholder_is_left_in_any_statement() {
    let model = labels();
    for sql in [
        model.create_map(),
        model.make_map_identity_before(),
        model.make_map_identity(),
        model.create_stage(),
        model.create_shadow(),
        model.merge_function(Joins::LookedUp),
        model.merge_function(Joins::ReadOnce),
        model.merge_shadow_function(),
        model.isolate_function(Joins::LookedUp),
        model.isolate_function(Joins::ReadOnce),
        model.isolate_shadow_function(),
        model.create_rejected(),
        model.create_tries(),
        model.apply_function(),
        model.create_chunk(),
        model.fold_chunk_function(),
        model.catch_up_function(),
        model.compare(5),
        model.unequal(),
        model.count_differing(),
        model.judge_differing(&labels().at_look(1)),
        model.plain_result(5),
    ] {
        assert!(!sql.contains("{{"), "{sql}");
    }
    for (indexes, in_turn) in [(lookup().unique_indexes, false), (Vec::new(), true)] {
        let mut lookup = lookup();
        lookup.unique_indexes = indexes;
        let model =
            TargetModel::bind(ModelId(7), "pg_temp", Arc::clone(&labels().model), &lookup).unwrap();
        let sql = model.find_differing();
        assert!(!sql.contains("{{"), "{sql}");
        assert_eq!(
            sql.contains("row_number() OVER (PARTITION BY"),
            in_turn,
            "{sql}"
        );
    }
}

#[test]
fn names_that_would_break_the_functions_are_refused() {
    for bad in ["a$cdc$b", "{{id}}"] {
        let named = |settings: ReadModelSettings, lookup: &LookupTable, schema: &str| {
            let table = labels_table(ReplicaIdentity::Default);
            let identity = ["id".to_owned()];
            let model = ReadModel::bind(&settings, &table, &identity, Remembering::Map).unwrap();
            let error = TargetModel::bind(ModelId(7), schema, Arc::new(model), lookup).unwrap_err();
            assert!(
                error.to_string().contains(&format!("the name {bad} holds")),
                "{error}"
            );
        };
        let mut settings = ReadModelSettings::labels();
        settings.target.name = bad.to_owned();
        named(settings, &lookup(), "cdc");
        let mut settings = ReadModelSettings::labels();
        settings.columns[1].target = bad.to_owned();
        let mut other = lookup();
        other.columns[1].name = bad.to_owned();
        named(settings, &other, "cdc");
        let mut settings = ReadModelSettings::labels();
        settings.synced_at = Some(bad.to_owned());
        let mut other = lookup();
        other.columns[3].name = bad.to_owned();
        named(settings, &other, "cdc");
        let mut typed = lookup();
        typed.columns[1].type_name = bad.to_owned();
        named(ReadModelSettings::labels(), &typed, "cdc");
        named(ReadModelSettings::labels(), &lookup(), bad);
    }
}
