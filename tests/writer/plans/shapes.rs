//! Every shape that a batch or a copy can have, at any size.

use cdc::batch::MergePosition;
use cdc::fold::Fold;
use cdc::target::shadow::ShadowWriter;

use super::watch::{self, Watch, Work};
use crate::isolate::fill;
use crate::rig::{FIRST, Rig, Shape as Model, shape};

/// What is done with the lines of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They are one batch.
    Batch,
    /// They are a large transaction in chunks of this many lines.
    Chunks(usize),
    /// They are an exact copy, which is merged.
    Copy,
    /// They are an exact copy, with which the lookup is compared.
    Compared,
    /// They come while a copy of the rows at the start is made.
    CatchUp,
}

/// A shape: its name, rows at the start and lines for a size, and how they come.
pub struct Shape {
    pub name: &'static str,
    pub start: fn(usize) -> Vec<String>,
    pub lines: fn(usize) -> Vec<String>,
    pub way: Way,
}

const TABLES: &str =
    "CREATE TABLE lookup (code varchar(12) PRIMARY KEY, label varchar(40) NOT NULL);";

/// No row is rejected by its type alone: some only when they are written.
const CHECKED: &str = "ALTER TABLE lookup ADD CHECK (label NOT LIKE 'BAD%')";

const TOO_LONG: &str = "a label that is too long for the lookup by far";

/// Master rows are `id|code|label|deleted_at`.
fn model() -> Model {
    let columns = [
        ("id", "bigint"),
        ("code", "text"),
        ("label", "text"),
        ("deleted_at", "timestamp with time zone"),
    ];
    let projected = [("code", "code"), ("label", "label")];
    shape("lookup", &columns, &["id"], &projected, 1, true)
}

fn none(_: usize) -> Vec<String> {
    Vec::new()
}

/// One line for each number.
fn each(rows: usize, line: impl Fn(usize) -> String) -> Vec<String> {
    (0..rows).map(line).collect()
}

fn new(rows: usize) -> Vec<String> {
    each(rows, |n| format!("+{n}|C{n}|label {n}|-"))
}

fn large(rows: usize) -> Vec<String> {
    new(16 * rows)
}

fn updates(rows: usize) -> Vec<String> {
    each(rows, |n| format!("={n}|C{n}|new label {n}|-"))
}

fn moves(rows: usize) -> Vec<String> {
    each(rows, |n| format!("={n}|N{n}|label {n}|-"))
}

fn rotation(rows: usize) -> Vec<String> {
    each(rows, |n| format!("={n}|C{}|label {n}|-", (n + 1) % rows))
}

fn deletes(rows: usize) -> Vec<String> {
    each(rows, |n| format!("-{n}"))
}

fn with(mut lines: Vec<String>, more: &[String]) -> Vec<String> {
    lines.extend_from_slice(more);
    lines
}

/// Two that are rejected: by the type of the lookup, and when it is written.
fn bad() -> [String; 2] {
    [
        format!("+900001|BAD1|{TOO_LONG}|-"),
        "+900002|BAD2|BAD|-".to_owned(),
    ]
}

fn truncated(lines: Vec<String>) -> Vec<String> {
    with(vec!["!".to_owned()], &lines)
}

/// Rows as a copy has them.
fn copied(rows: usize, label: &str) -> Vec<String> {
    each(rows, |n| format!("{n}|l|C{n}|{label} {n}"))
}

fn copied_with_bad(rows: usize) -> Vec<String> {
    with(
        copied(rows, "new label"),
        &[
            format!("900001|l|BAD1|{TOO_LONG}"),
            "900002|l|BAD2|BAD".to_owned(),
        ],
    )
}

/// Updates, moves, deletes and new rows.
fn mixed(rows: usize) -> Vec<String> {
    each(rows, |n| match n % 4 {
        0 => format!("={n}|C{n}|new label {n}|-"),
        1 => format!("={n}|N{n}|label {n}|-"),
        2 => format!("-{n}"),
        _ => format!("+{}|X{n}|label {n}|-", 500_000 + n),
    })
}

const fn batch(
    name: &'static str,
    start: fn(usize) -> Vec<String>,
    lines: fn(usize) -> Vec<String>,
) -> Shape {
    come(name, start, lines, Way::Batch)
}

const fn come(
    name: &'static str,
    start: fn(usize) -> Vec<String>,
    lines: fn(usize) -> Vec<String>,
    way: Way,
) -> Shape {
    Shape {
        name,
        start,
        lines,
        way,
    }
}

/// Shapes without a row that is rejected.
pub const TAKEN: &[Shape] = &[
    batch("new rows", none, new),
    batch("new rows of which some are known", |_| new(10), new),
    batch("updates", new, updates),
    batch("updates that change nothing", new, new_again),
    batch("updates beside a large table", large, updates),
    batch("values that were left out", new, |rows| {
        each(rows, |n| format!("={n}|C{n}|u|-"))
    }),
    batch(
        "values that were left out beside a large table",
        large,
        |rows| each(rows, |n| format!("={n}|N{n}|u|-")),
    ),
    batch("keys that move", new, moves),
    batch("keys that rotate", new, rotation),
    batch("keys that rotate beside a large table", large, rotation),
    batch("a few keys that move among updates", new, |rows| {
        with(updates(rows), &moves(rows / 100))
    }),
    batch("identities that change", new, |rows| {
        each(rows, |n| format!("={n} > {}|C{n}|label {n}|-", 500_000 + n))
    }),
    batch("deletes", new, deletes),
    batch("deletes beside a large table", large, deletes),
    batch("soft deletes", new, |rows| {
        each(rows, |n| format!("={n}|C{n}|label {n}|x"))
    }),
    batch("all of it", new, mixed),
    batch("all of it beside a large table", large, mixed),
    batch("keys that have two rows", new, second_rows),
    batch(
        "keys that have two rows beside a large table",
        large,
        second_rows,
    ),
    batch(
        "keys of which the first row goes",
        |rows| with(new(rows), &second_rows(rows)),
        deletes,
    ),
    batch("TRUNCATE and the same again", new, |rows| {
        truncated(new(rows))
    }),
    batch("TRUNCATE and others", new, |rows| {
        truncated(each(rows, |n| {
            format!("+{n}|C{}|label {n}|-", n + rows / 2)
        }))
    }),
    come("chunks of updates", new, updates, Way::Chunks(1000)),
    come("chunks of all of it", new, mixed, Way::Chunks(1000)),
    come(
        "chunks that change the same rows again",
        new,
        |rows| with(updates(rows), &moves(rows)),
        Way::Chunks(1000),
    ),
    come(
        "a first copy",
        none,
        |rows| copied(rows, "label"),
        Way::Copy,
    ),
    come(
        "a copy in which nothing differs",
        new,
        |rows| copied(rows, "label"),
        Way::Copy,
    ),
    come(
        "a copy in which all differs",
        new,
        |rows| copied(rows, "new label"),
        Way::Copy,
    ),
    come(
        "a copy of rows with other keys",
        new,
        |rows| each(rows, |n| format!("{n}|l|C{}|label {n}", n + rows / 2)),
        Way::Copy,
    ),
    come(
        "a copy of keys that have two rows",
        new,
        |rows| {
            with(
                copied(rows, "label"),
                &each(rows, |n| format!("{}|l|C{n}|second {n}", 500_000 + n)),
            )
        },
        Way::Copy,
    ),
    come(
        "a comparison",
        new,
        |rows| copied(rows, "new label"),
        Way::Compared,
    ),
    come("updates beside a copy", new, updates, Way::CatchUp),
    come("all of it beside a copy", new, mixed, Way::CatchUp),
    come(
        "values left out beside a copy",
        new,
        |rows| each(rows, |n| format!("={n}|N{n}|u|-")),
        Way::CatchUp,
    ),
];

/// Shapes with some rows that are rejected.
pub const REJECTED: &[Shape] = &[
    batch(
        "new rows and bad ones",
        |_| new(10),
        |rows| {
            with(
                each(rows, |n| format!("+{}|X{n}|label {n}|-", 500_000 + n)),
                &bad(),
            )
        },
    ),
    batch("updates and bad rows", new, |rows| {
        with(updates(rows), &bad())
    }),
    batch("updates and bad rows beside a large table", large, |rows| {
        with(updates(rows), &bad())
    }),
    batch("rows that are left out and bad ones", new, |rows| {
        with(each(rows, |n| format!("={n}|C{n}|u|-")), &bad())
    }),
    batch("keys that rotate and bad rows", new, |rows| {
        with(rotation(rows), &bad())
    }),
    batch("all of it and bad rows", new, |rows| {
        with(mixed(rows), &bad())
    }),
    batch("keys that have two rows and bad ones", new, |rows| {
        with(second_rows(rows), &bad())
    }),
    batch("TRUNCATE, the same again and bad rows", new, |rows| {
        with(truncated(new(rows)), &bad())
    }),
    come(
        "chunks and bad rows",
        new,
        |rows| with(mixed(rows), &bad()),
        Way::Chunks(1000),
    ),
    come("a copy with bad rows", new, copied_with_bad, Way::Copy),
    come(
        "a comparison with bad rows",
        new,
        copied_with_bad,
        Way::Compared,
    ),
];

fn new_again(rows: usize) -> Vec<String> {
    each(rows, |n| format!("={n}|C{n}|label {n}|-"))
}

fn second_rows(rows: usize) -> Vec<String> {
    each(rows, |n| format!("+{}|C{n}|second {n}|-", 500_000 + n))
}

impl Shape {
    /// Carries it out for this many rows, and tells what the server has done. `lie` is what is done
    /// to the server's statistics before.
    pub async fn run(&self, rows: usize, rejected_before: bool, lie: &str) -> Work {
        self.run_on(rows, rows, rejected_before, lie).await
    }

    /// The same with tables of another size.
    pub async fn run_on(
        &self,
        there: usize,
        rows: usize,
        rejected_before: bool,
        lie: &str,
    ) -> Work {
        let mut rig = Rig::at(watch::database().await, TABLES).await;
        rig.db.batch_execute(CHECKED).await.unwrap();
        rig.add(&model()).await;
        let start = (self.start)(there);
        rig.write(FIRST, &start).await.unwrap();
        if rejected_before {
            // So the plans of small batches are kept, and those of the isolating run.
            rig.write(FIRST, &["+900010|OK|ok|-"]).await.unwrap();
            for id in 900_011..900_014 {
                rig.write(FIRST, &[format!("+{id}|R{id}|{TOO_LONG}|-")])
                    .await
                    .unwrap();
            }
        }
        let lines = (self.lines)(rows);
        rig.db.batch_execute(lie).await.unwrap();
        match self.way {
            Way::Batch => {
                let fold = rig.fold(FIRST, &lines);
                let watch = Watch::begin(rig.writer.connection()).await;
                rig.apply(vec![(FIRST, fold)]).await.unwrap();
                watch.end(rig.writer.connection()).await
            }
            Way::Chunks(size) => {
                let chunks: Vec<&[String]> = lines.chunks(size).collect();
                let watch = Watch::begin(rig.writer.connection()).await;
                rig.write_in_chunks(FIRST, &chunks).await.unwrap();
                watch.end(rig.writer.connection()).await
            }
            Way::Copy => {
                let _shadow = filled(&rig, &lines).await;
                rig.db.batch_execute(lie).await.unwrap();
                let position = MergePosition::Running(rig.position().lsn, None);
                let watch = Watch::begin(rig.writer.connection()).await;
                let merged = rig.writer.merge(&[FIRST], &position, 0).await.unwrap();
                assert!(merged.iter().all(|one| one.result.is_ok()), "{merged:?}");
                watch.end(rig.writer.connection()).await
            }
            Way::Compared => {
                let mut shadow = filled(&rig, &lines).await;
                rig.db.batch_execute(lie).await.unwrap();
                let watch = Watch::begin(shadow.connection()).await;
                let target = rig.models[0].target.clone();
                shadow.compare(&target, 10).await.unwrap();
                watch.end(shadow.connection()).await
            }
            Way::CatchUp => {
                let mut shadow = filled(&rig, &copied(there, "label")).await;
                rig.db.batch_execute(lie).await.unwrap();
                let target = rig.models[0].target.clone();
                // What is made once is made.
                shadow
                    .catch_up(vec![(&target, Fold::default())])
                    .await
                    .unwrap();
                let fold = rig.fold(FIRST, &lines);
                let watch = Watch::begin(shadow.connection()).await;
                shadow.catch_up(vec![(&target, fold)]).await.unwrap();
                watch.end(shadow.connection()).await
            }
        }
    }
}

async fn filled(rig: &Rig, lines: &[String]) -> ShadowWriter {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    fill(rig, FIRST, &lines).await
}
