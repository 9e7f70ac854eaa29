//! Every placeholder of a template has a meaning, and every meaning a placeholder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::steps::STEPS;
use crate::target::model::Joins;
use crate::target::model::joins::Lookup;
use crate::target::model::tests::labels;

/// What the functions of `statements.rs` and `plain.rs` give single templates beside what every
/// template may use. Debug builds check in `fill_joined` that the template has each of them.
const OWN: &[&str] = &[
    "function",
    "merge",
    "limit",
    "most_rejected",
    "small_chunks",
    "differing",
    "differing_before",
    "judged",
    "?may_move",
    "?open",
    "?where_asked",
    "?and_asked",
    "?rejections",
    "?stage_columns",
    "?parameters",
    "?arrays",
    "?casts",
    "?before_is_start",
    "?start",
    "?o",
    "?p_and_u",
    "?carried",
    "?now",
    "?lookup_rows",
    "?and_turn",
    "?lookup_as_v",
    "?f_p",
    "?f_v",
    "?d_p",
    "?d_v",
    "?judged_identity_text",
];

/// What the calls of steps give, as `key = value`.
const OF_CALLS: &[&str] = &["kind", "statement", "part", "missing"];

/// What the templates of bookkeeping and status may use.
const OF_BOOKKEEPING: &[&str] = &[
    "schema",
    "schema_name",
    "pipeline_name",
    "version_name",
    "rejection_name",
    "?database_owner",
    "checkpoint",
    "counted",
];

fn folder(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "sql", path].iter().collect()
}

/// Templates of a folder, with name and text.
fn templates(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn writers() -> Vec<(String, String)> {
    [
        templates(&folder("target/write")),
        templates(&folder("target/write/steps")),
    ]
    .concat()
}

/// The text between double braces. A call of a step with a placeholder in it counts as the
/// placeholder.
fn placeholders(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split("{{").skip(1) {
        let inside = part.split("}}").next().unwrap_or_default();
        if !inside.trim().is_empty() && inside != "> " {
            found.insert(inside.to_owned());
        }
    }
    found
}

/// Every entry that all templates of the writer may use, in either form.
fn shared() -> Vec<super::Entry> {
    let model = labels();
    let mut all = [model.names(), model.lists(), model.conditions()].concat();
    for joins in [Joins::LookedUp, Joins::ReadOnce] {
        all.extend(joins.conditions(Lookup::One));
    }
    all
}

#[test]
fn no_template_of_the_writer_has_an_unknown_name() {
    let shared = shared();
    let mut known: BTreeSet<&str> = shared.iter().map(|(name, _)| *name).collect();
    known.extend(OWN.iter().chain(OF_CALLS).chain(&["stage"]));
    for (file, text) in writers() {
        for name in placeholders(&text) {
            match name.strip_prefix("> ") {
                Some(call) => {
                    let step = call.split(' ').next().unwrap_or_default();
                    assert!(
                        STEPS.iter().any(|(known, _)| *known == step),
                        "{file}: no step {step}"
                    );
                }
                None => assert!(
                    known.contains(name.as_str()),
                    "{file}: nothing fills {{{{{name}}}}}"
                ),
            }
        }
    }
}

#[test]
fn no_name_is_unused() {
    let shared = shared();
    let texts = writers().into_iter().map(|(_, text)| text);
    let values = shared.iter().map(|(_, value)| value.clone());
    let used: BTreeSet<String> = texts
        .chain(values)
        .flat_map(|text| placeholders(&text))
        .collect();
    // Of what Rust puts together: `make_map_identity_before`, and `?may_move` of the merge.
    let beside = ["shadow_name", "?key_is_as_it_was"];
    for name in shared
        .iter()
        .map(|(name, _)| *name)
        .chain(OWN.iter().chain(OF_CALLS).copied())
    {
        assert!(
            used.contains(name) || beside.contains(&name),
            "no template uses {{{{{name}}}}}"
        );
    }
}

#[test]
fn every_step_is_a_file_and_is_put_in_somewhere() {
    let all: String = writers().into_iter().map(|(_, text)| text).collect();
    for (name, _) in templates(&folder("target/write/steps")) {
        assert!(
            STEPS.iter().any(|(step, _)| *step == name),
            "steps.rs does not have {name}"
        );
        let called = [format!("> {name}"), format!("= {name}")];
        assert!(
            called.iter().any(|call| all.contains(call)),
            "no template puts in {name}"
        );
    }
}

#[test]
fn templates_of_bookkeeping_and_status_have_no_unknown_name() {
    let mut used = BTreeSet::new();
    for path in [
        "target/schema",
        "target/status",
        "target/facts",
        "source",
        "demo",
    ] {
        for (file, text) in templates(&folder(path)) {
            for name in placeholders(&text) {
                assert!(
                    OF_BOOKKEEPING.contains(&name.as_str()),
                    "{file}: nothing fills {{{{{name}}}}}"
                );
                used.insert(name);
            }
        }
    }
    for name in OF_BOOKKEEPING {
        assert!(used.contains(*name), "no template uses {{{{{name}}}}}");
    }
}

#[test]
fn a_step_is_indented_as_its_line_and_an_empty_one_leaves_no_line() {
    let put_in = |template: &str, joins| super::steps::put_in(template, joins, Lookup::One);
    let text = put_in("a\n    {{> hash.sql}}\nb", Joins::LookedUp);
    assert!(
        text.contains("\n    PERFORM ") && text.ends_with(";\nb"),
        "{text}"
    );
    assert_eq!(put_in("a\n    {{> hash.sql}}\nb", Joins::ReadOnce), "a\nb");
    assert_eq!(
        put_in("{{> nothing.sql}}", Joins::ReadOnce),
        "{{no step nothing.sql}}"
    );
}

#[test]
fn a_part_that_looks_rows_up_does_so_although_the_tables_are_read_once() {
    let text = super::steps::put_in(
        "{{> by_number_of_moving.sql part = insert_moving.sql}}",
        Joins::ReadOnce,
        Lookup::One,
    );
    let (looked_up, read) = text.split_once("\nELSE\n").unwrap();
    assert!(
        looked_up.contains("(SELECT l.ctid FROM {{lookup}} l WHERE {{?lookup_is_stage}}) IS NULL"),
        "{text}"
    );
    assert!(
        read.contains("NOT EXISTS (SELECT FROM {{lookup}} l WHERE {{?lookup_is_stage}})"),
        "{text}"
    );
}
