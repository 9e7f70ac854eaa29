//! What `cdc` runs in the target to create its objects, as a script for people: `cdc setup
//! --print-sql --all`.
//!
//! Pure text. Each statement follows a comment, and the whole can be run in one session: the tables
//! and functions in `pg_temp` end with it, and a session of `cdc` creates its own.

use crate::sql::{fill, ident};
use crate::target::model::{Joins, TargetModel};

/// What a session creates for all read models.
pub(crate) fn of_session(schema: &str) -> String {
    let template = include_str!("../../sql/target/write/advance.sql");
    let schema = ident(schema);
    joined(&[
        (
            "A session compiles a function when it calls it first: most read models never need all of theirs.",
            "SET check_function_bodies = off".to_owned(),
        ),
        (
            "The fence and the checkpoint, and what counts the rows.",
            fill(template, &[("schema", &schema)]),
        ),
    ])
}

/// What is created for a read model: its tables, then the tables and functions of a session.
pub(crate) fn of_read_model(model: &TargetModel) -> String {
    let stays = [
        (
            "The tables that stay: the map and the rejected rows.",
            model.create_map(),
        ),
        (
            "The primary key of the map, for a first copy made once the map is full.",
            model.make_map_identity(),
        ),
        ("A copy fills this table.", model.create_shadow()),
        (
            "Its index, from the first change that brings it forward.",
            model.index_shadow(),
        ),
    ];
    let session = [
        (
            "From here on the tables and functions of a session.",
            model.create_stage(),
        ),
        ("For large transactions.", model.create_chunk()),
        ("For batches with rejected rows.", model.create_tries()),
        (
            "Each row is looked up.",
            model.merge_function(Joins::LookedUp),
        ),
        (
            "The same, map and lookup are read once: for batches that are large beside them.",
            model.merge_function(Joins::ReadOnce),
        ),
        ("The same for a copy.", model.merge_shadow_function()),
        (
            "Batches with rejected rows, each row is looked up.",
            model.isolate_function(Joins::LookedUp),
        ),
        (
            "The same, map and lookup are read once.",
            model.isolate_function(Joins::ReadOnce),
        ),
        ("The same for a copy.", model.isolate_shadow_function()),
        (
            "A chunk of a large transaction.",
            model.fold_chunk_function(),
        ),
        (
            "A change that brings a copy forward.",
            model.catch_up_function(),
        ),
    ];
    let small = model
        .fits_one_statement()
        .then(|| ("A small batch.", model.apply_function()));
    let pieces: Vec<_> = stays.into_iter().chain(session).chain(small).collect();
    joined(&pieces)
}

/// Each piece behind its comment.
fn joined(pieces: &[(&str, String)]) -> String {
    let pieces = pieces.iter().map(|(comment, sql)| {
        let sql = sql.trim_end().trim_end_matches(';');
        format!("-- {comment}\n{sql};\n")
    });
    pieces.collect::<Vec<_>>().join("\n")
}

/// Statements of a script without a comment before them, by their first lines. A row of `COMMENT
/// ON` needs one comment.
#[cfg(test)]
pub(crate) fn without_comment(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut inside, mut quoted, mut before) = (false, false, "");
    for line in script
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
    {
        let comment = line.trim_start().starts_with("--");
        if !inside && !comment {
            let goes_on = line.starts_with("COMMENT ON") && before.starts_with("COMMENT ON");
            if !before.trim_start().starts_with("--")
                && !goes_on
                && !["BEGIN;", "COMMIT;"].contains(&line)
            {
                found.push(line.to_owned());
            }
            inside = true;
        }
        if inside {
            let dollars = line.matches("cdc$").count();
            quoted ^= dollars % 2 == 1;
            let code = line.split(" --").next().unwrap_or(line).trim_end();
            inside = quoted || comment || !code.ends_with(';');
        }
        before = line;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::bookkeeping::Bookkeeping;
    use crate::target::model::tests::labels;

    #[test]
    fn every_statement_stands_behind_a_comment() {
        let model = labels().with_shadow(1, "a-copy");
        for script in [
            Bookkeeping::new("cdc").create_sql(),
            of_session("cdc"),
            of_read_model(&model),
        ] {
            assert_eq!(without_comment(&script), Vec::<String>::new());
        }
        assert_eq!(without_comment("-- a\nSELECT 1;\nSELECT\n2;"), ["SELECT"]);
    }
}
