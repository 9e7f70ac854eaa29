//! The SQL of the built-in `labels_lookup` as it runs, in `tests/golden/sql`: what a change of a
//! template does shows in its diff.
//!
//! `CDC_RENEW_GOLDEN=1 cargo test --lib golden` writes the files again.

use std::path::PathBuf;

use super::*;
use crate::read_model::ModelId;
use crate::sql::fill;
use crate::target::bookkeeping::Bookkeeping;

/// The read model as the first one of its pipeline.
fn first() -> TargetModel {
    let mut model = labels().with_shadow(1, "a-copy");
    model.id = ModelId(1);
    model
}

/// Name of each file, and what it holds.
fn files() -> Vec<(&'static str, String)> {
    let model = first();
    let session = [
        model.create_stage(),
        model.create_chunk(),
        model.create_tries(),
    ];
    let calls = [
        model.apply_call(),
        model.merge_call(Joins::LookedUp),
        model.merge_call(Joins::ReadOnce),
        model.merge_shadow_call(),
        model.isolate_call(Joins::LookedUp, false),
        model.isolate_call(Joins::ReadOnce, false),
        model.isolate_call(Joins::ReadOnce, true),
        model.fold_chunk_call(),
        model.catch_up_call(),
        model.stage_statement(),
        model.copy_map(),
        model.copy_lookup(),
        model.count_new(1),
        model.are_small_beside(1),
        model.forget_rejected_dead(),
        model.count_rejected(),
        model.drop_stage_index(),
        model.empty_stage(false, true),
        model.empty_stage(true, true),
    ];
    let lookup = lookup();
    let compared = |look| {
        TargetModel::bind(ModelId(1), "pg_temp", Arc::clone(&model.model), &lookup)
            .unwrap()
            .at_look(look)
    };
    let plain = [
        compared(1).create_session_shadow(),
        compared(1).find_differing(),
        compared(1).count_differing(),
        compared(2).judge_differing(&compared(1)),
        compared(2).create_tried(&lookup),
        compared(2).try_rows((1, 10)),
        compared(2).note_rejected(),
        compared(2).plain_result(20),
    ];
    let joined = |statements: &[String]| statements.join(";\n");
    vec![
        ("schema.sql", Bookkeeping::new("cdc").create_sql()),
        ("map.sql", model.create_map()),
        ("map_identity_small.sql", model.make_map_identity_before()),
        ("map_identity.sql", model.make_map_identity()),
        (
            "shadow.sql",
            joined(&[
                model.create_shadow(),
                model.index_shadow(),
                model.analyze_shadow(),
            ]),
        ),
        ("session_tables.sql", joined(&session)),
        ("advance.sql", advance()),
        ("apply.sql", model.apply_function()),
        ("merge.sql", model.merge_function(Joins::LookedUp)),
        ("merge_read_once.sql", model.merge_function(Joins::ReadOnce)),
        ("merge_shadow.sql", model.merge_shadow_function()),
        ("isolate.sql", model.isolate_function(Joins::LookedUp)),
        (
            "isolate_read_once.sql",
            model.isolate_function(Joins::ReadOnce),
        ),
        ("isolate_shadow.sql", model.isolate_shadow_function()),
        ("fold_chunk.sql", model.fold_chunk_function()),
        ("catch_up.sql", model.catch_up_function()),
        ("compare.sql", model.compare(20)),
        ("unequal.sql", model.unequal()),
        ("plain.sql", joined(&plain)),
        ("calls.sql", joined(&calls)),
    ]
}

fn advance() -> String {
    let template = include_str!("../../../../sql/target/write/advance.sql");
    fill(template, &[("schema", "\"cdc\"")])
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "sql"]
        .iter()
        .collect()
}

/// The first line that differs, of the file and of what is made now.
fn difference(stored: &str, made: &str) -> String {
    let mut lines = stored.lines().zip(made.lines()).zip(1..);
    match lines.find(|((was, is), _)| was != is) {
        Some(((was, is), number)) => format!("line {number}\n  file: {was}\n  made: {is}"),
        None => format!(
            "the file has {} lines, {} are made",
            stored.lines().count(),
            made.lines().count()
        ),
    }
}

#[test]
fn the_sql_of_labels_lookup_is_the_golden_one() {
    let renew = std::env::var_os("CDC_RENEW_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, sql) in files() {
        let made = format!("{}\n", sql.trim_end());
        assert!(
            !made.contains("{{"),
            "{name} has a placeholder that nothing fills"
        );
        let path = folder().join(name);
        if renew {
            std::fs::write(&path, &made).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        if stored != made {
            wrong.push(format!("{name}: {}", difference(&stored, &made)));
        }
    }
    assert!(
        wrong.is_empty(),
        "the SQL differs from tests/golden/sql:\n{}\n\
         If that is meant, renew the files and look at their diff: CDC_RENEW_GOLDEN=1 cargo test --lib golden",
        wrong.join("\n")
    );
}

#[test]
fn every_golden_file_is_made() {
    let names: Vec<&str> = files().iter().map(|(name, _)| *name).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            names.contains(&name.as_str()),
            "nothing makes tests/golden/sql/{name}"
        );
    }
}
