//! Replaces each `{{> step.sql}}` by the file of `sql/target/write/steps`.
//!
//! `{{> step.sql key = value, key = value}}` fills `{{key}}` in the step first. The key `joins`
//! takes the step, and what it puts in, as it is where rows are looked up. A step is indented like
//! the line that includes it; if the step is empty, a line of its own is removed.

use super::fill_entries;
use crate::sql::fill;
use crate::target::model::joins::{Joins, Lookup};

const BEGINS: &str = "{{> ";

macro_rules! steps {
    ($($name:literal),* $(,)?) => {
        /// The pieces by name.
        pub(super) const STEPS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../sql/target/write/steps/", $name)))),*];
    };
}

steps![
    "by_number_of_moving.sql",
    "count_rows.sql",
    "delete_unclaimed.sql",
    "find_claims.sql",
    "find_holders.sql",
    "find_moving.sql",
    "find_shown.sql",
    "hash.sql",
    "insert_missing.sql",
    "insert_missing_moving.sql",
    "insert_moving.sql",
    "judge_number_of_moving.sql",
    "key_index_is_usable.sql",
    "keys_of_rejected.sql",
    "left_out_values.sql",
    "look_up.sql",
    "make_key_index.sql",
    "make_stage_index.sql",
    "read.sql",
    "fail_if_left_out.sql",
    "settle_moving.sql",
    "share_out_keys.sql",
    "take_in.sql",
    "update_shown.sql",
];

/// The template with all its steps, and with the conditions of this way of joining.
pub(super) fn put_in(template: &str, joins: Joins, lookup: Lookup) -> String {
    let template = fill_entries(template, &joins.conditions(lookup));
    let mut text = String::new();
    for line in template.split_inclusive('\n') {
        put_in_line(&mut text, line, joins, lookup);
    }
    text
}

fn put_in_line(text: &mut String, line: &str, joins: Joins, lookup: Lookup) {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let mut rest = line;
    while let Some((before, from)) = rest.split_once(BEGINS) {
        let Some((call, after)) = from.split_once("}}") else {
            break;
        };
        let step = step(call, joins, lookup);
        if step.is_empty() && format!("{before}{after}").trim().is_empty() {
            return;
        }
        text.push_str(before);
        text.push_str(&indented(&step, indent));
        rest = after;
    }
    text.push_str(rest);
}

/// One step, filled with what its call gives.
fn step(call: &str, joins: Joins, lookup: Lookup) -> String {
    let (name, values) = call.split_once(' ').unwrap_or((call, ""));
    let values: Vec<(&str, &str)> = values
        .split(", ")
        .filter_map(|value| value.split_once(" = "))
        .collect();
    let joins = if values.iter().any(|(key, _)| *key == "joins") {
        Joins::LookedUp
    } else {
        joins
    };
    let found = STEPS.iter().find(|(step, _)| *step == name);
    match found.map(|(_, text)| joins.step(name).unwrap_or(text)) {
        Some(text) => put_in(&fill(text.trim_end(), &values), joins, lookup),
        // A test finds what is left.
        None => format!("{{{{no step {name}}}}}"),
    }
}

/// All lines but the first one are indented; the first one is where the call was.
fn indented(step: &str, indent: usize) -> String {
    let blanks = " ".repeat(indent);
    let mut lines = step.lines();
    let mut text = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        text.push('\n');
        if !line.is_empty() {
            text.push_str(&blanks);
            text.push_str(line);
        }
    }
    text
}
