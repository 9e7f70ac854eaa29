//! How many round trips to the target each way of writing takes, and what becomes of a batch if a
//! statement of it goes wrong on its way.

use cdc::batch::MergePosition;

use crate::cases::{TABLES, assert_consistent, labels, other};
use crate::isolate::{self, fill};
use crate::limits::stopping;
use crate::line::{Fault, Line};
use crate::rig::{FIRST, Rig, SECOND, Shape};
use crate::support::{self, rows, value, wait_until};

/// How often a batch is measured. The least is the way's own: now and then a session vacuums its
/// tables, or plans again.
const TIMES: u32 = 4;

/// What the lookups are as of.
const POSITION: &str = "SELECT lsn - '0/0'::pg_lsn FROM cdc.checkpoint";

/// A rig whose writer goes by a line.
pub async fn rig(tables: &str, shapes: &[Shape]) -> (Rig, Line) {
    let mut rig = Rig::new(tables).await;
    for shape in shapes {
        rig.add(shape).await;
    }
    let port = support::target().port();
    let line = Line::to(port).await;
    let database = value(&rig.db, "SELECT current_database()").await;
    let direct = support::target().tcp_url(&database);
    rig.url = line.url(&direct, port);
    rig.writer = rig.another_writer().await;
    rig.url = direct;
    (rig, line)
}

pub fn inserts(ids: std::ops::Range<u32>) -> Vec<String> {
    ids.map(|id| format!("+{id}|C{id}|label {id}|-")).collect()
}

fn updates(ids: std::ops::Range<u32>, label: u32) -> Vec<String> {
    ids.map(|id| format!("={id}|C{id}|label {label}|-"))
        .collect()
}

/// The fewest round trips of these batches, which are numbered.
async fn fewest(rig: &mut Rig, line: &Line, lines: impl Fn(u32) -> Vec<String>) -> usize {
    let mut taken = Vec::new();
    for number in 0..TIMES {
        let lines = lines(number);
        line.round_trips();
        rig.write(FIRST, &lines).await.unwrap();
        taken.push(line.round_trips());
    }
    taken.into_iter().min().unwrap()
}

#[tokio::test]
async fn a_batch_takes_few_round_trips() {
    let (mut rig, line) = rig(TABLES, &[labels(true)]).await;
    rig.write(FIRST, &inserts(0..6000)).await.unwrap();
    let small = fewest(&mut rig, &line, |n| updates(0..3, n)).await;
    assert_eq!(small, 1, "small");
    let by_statement = fewest(&mut rig, &line, |n| updates(0..600, n)).await;
    assert_eq!(by_statement, 2, "staged by a statement");
    let by_copy = fewest(&mut rig, &line, |n| updates(0..5100, n)).await;
    assert_eq!(by_copy, 2, "staged by COPY");
    let truncate = fewest(&mut rig, &line, |n| {
        [vec!["!".to_owned()], updates(0..9, n)].concat()
    });
    assert_eq!(truncate.await, 2, "TRUNCATE");
    let new = |n: u32| inserts(10_000 * n + 10_000..10_000 * n + 10_600);
    assert_eq!(fewest(&mut rig, &line, new).await, 3, "new rows");
    let beside = |n: u32| {
        let from = 100_000 + 10_000 * n;
        [updates(0..9, n), inserts(from..from + 5100)].concat()
    };
    assert_eq!(fewest(&mut rig, &line, beside).await, 3, "beside others");
    assert_consistent(&rig, "all ways").await;
}

#[tokio::test]
async fn a_batch_of_several_read_models_takes_no_more_round_trips() {
    let (mut rig, line) = rig(TABLES, &[labels(true), other()]).await;
    let mut taken = Vec::new();
    for n in 0..TIMES {
        let folds = vec![
            (FIRST, rig.fold(FIRST, &inserts(10 * n..10 * n + 3))),
            (SECOND, rig.fold(SECOND, &[format!("+K{n}|x")])),
        ];
        line.round_trips();
        rig.apply(folds).await.unwrap();
        taken.push(line.round_trips());
    }
    assert_eq!(taken.iter().min(), Some(&2), "{taken:?}");
}

#[tokio::test]
async fn a_batch_beside_rejected_rows_takes_few_round_trips() {
    let (mut rig, line) = rig(isolate::TABLES, &[isolate::model()]).await;
    rig.write(FIRST, &["+1|A|far too long for it|1|-"])
        .await
        .unwrap();
    let lines = |n| vec![format!("+{n}|C{n}|good|{}|-", n + 10)];
    assert_eq!(fewest(&mut rig, &line, |n| lines(n + 2)).await, 3);
}

#[tokio::test]
async fn a_chunk_takes_few_round_trips() {
    let (mut rig, line) = rig(TABLES, &[labels(true)]).await;
    rig.write(FIRST, &inserts(0..9)).await.unwrap();
    let mut taken = Vec::new();
    for chunk in [
        inserts(1000..1600),
        inserts(2000..2600),
        updates(0..9, 1),
        updates(0..9, 2),
        updates(0..9, 3),
    ] {
        line.round_trips();
        let fold = rig.fold(FIRST, &chunk);
        rig.writer.stage_chunk(&[(FIRST, fold)]).await.unwrap();
        taken.push(line.round_trips());
    }
    // New rows, then a chunk that is folded into the stage.
    assert_eq!((taken[1], taken[4]), (3, 3), "{taken:?}");
    line.round_trips();
    rig.write_in_chunks_after(5, FIRST, &updates(0..9, 4))
        .await
        .unwrap();
    let end = line.round_trips();
    assert_eq!(end, 7, "the last chunk, the merge and the commit");
    assert_consistent(&rig, "in chunks").await;
}

#[tokio::test]
async fn a_copy_takes_few_round_trips() {
    let (mut rig, line) = rig(TABLES, &[labels(true)]).await;
    let mut taken = Vec::new();
    for label in ["a", "b", "c"] {
        let lines = [format!("1|l|C1|{label}")];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut shadow = fill(&rig, FIRST, &lines).await;
        let position = MergePosition::Running(rig.position().lsn, None);
        line.round_trips();
        let merged = rig.writer.merge(&[FIRST], &position, 0).await.unwrap();
        taken.push(line.round_trips());
        assert!(merged.iter().all(|one| one.result.is_ok()));
        shadow.give_back(&rig.bookkeeping).await.unwrap();
    }
    assert_eq!(taken.iter().min(), Some(&11), "{taken:?}");
}

/// What a session needs before it can write, and at its first batch.
#[tokio::test]
async fn a_new_session_begins_after_few_round_trips() {
    let (mut rig, line) = rig(TABLES, &[labels(true)]).await;
    let database = value(&rig.db, "SELECT current_database()").await;
    let port = support::target().port();
    rig.url = line.url(&support::target().tcp_url(&database), port);
    line.round_trips();
    rig.writer = rig.another_writer().await;
    let begun = line.round_trips();
    rig.writer.warm(FIRST).await.unwrap();
    let warm = line.round_trips();
    rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
    assert_eq!((begun, warm, line.round_trips()), (8, 8, 1));
}

/// The batches of every way that has a transaction of its own.
fn ways() -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("by a statement", updates(0..600, 1)),
        ("by COPY", updates(0..5100, 1)),
        ("new rows", inserts(10_000..10_600)),
    ]
}

async fn filled() -> (Rig, Line) {
    let (mut rig, line) = rig(TABLES, &[stopping(labels(true))]).await;
    rig.write(FIRST, &inserts(0..6000)).await.unwrap();
    (rig, line)
}

/// What is shown, and as of when.
async fn shown(rig: &Rig) -> Vec<String> {
    let hash = "SELECT count(*), sum(hashtext(code || label)) FROM lookup";
    [rows(&rig.db, hash).await, rows(&rig.db, POSITION).await].concat()
}

/// Nothing was written, and the next batch is written as if nothing had been.
async fn nothing_stays(rig: &mut Rig, before: &[String], case: &str) {
    assert_eq!(shown(rig).await, before, "{case}");
    rig.write(FIRST, &updates(600..610, 7)).await.unwrap();
    rig.write(FIRST, &updates(600..1300, 8)).await.unwrap();
    let others = "SELECT count(*) FROM lookup WHERE label NOT LIKE 'label ' || substr(code, 2)";
    assert_eq!(value(&rig.db, others).await, "700", "{case}");
    assert_consistent(rig, case).await;
}

#[tokio::test]
async fn a_batch_whose_answers_are_lost_is_found_to_be_written() {
    for (case, lines) in ways() {
        let (mut rig, line) = filled().await;
        line.fault("; COMMIT", Fault::Unanswered);
        let wanted = (rig.lsn + 8).to_string();
        let looker = support::pg(&rig.url).await;
        let committed = async {
            wait_until("the batch has committed", async || {
                let found = value(&looker, POSITION).await;
                if found == wanted { Ok(()) } else { Err(found) }
            })
            .await;
            line.cut();
        };
        let (written, ()) = tokio::join!(rig.write(FIRST, &lines), committed);
        assert!(written.unwrap_err().is_transient(), "{case}");
        // The next session reads the position again, and goes on behind it.
        rig.writer = rig.another_writer().await;
        assert_consistent(&rig, case).await;
        rig.write(FIRST, &updates(0..3, 9)).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_whose_commit_is_lost_leaves_nothing() {
    for (case, lines) in ways() {
        let (mut rig, line) = filled().await;
        let before = shown(&rig).await;
        line.fault("; COMMIT", Fault::Lost);
        let written = rig.write(FIRST, &lines).await;
        assert!(written.unwrap_err().is_transient(), "{case}");
        rig.writer = rig.another_writer().await;
        nothing_stays(&mut rig, &before, case).await;
    }
}

/// As if the BEGIN were cancelled: what was sent behind it is carried out without a transaction.
#[tokio::test]
async fn a_batch_whose_begin_fails_leaves_nothing() {
    for (case, lines) in ways() {
        let (mut rig, line) = filled().await;
        let before = shown(&rig).await;
        line.fault("BEGIN; SET LOCAL cdc.", Fault::Spoilt);
        let error = rig.write(FIRST, &lines).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("42601"), "{case}: {error}");
        nothing_stays(&mut rig, &before, case).await;
    }
}

/// The same beside rejected rows, which are staged in pieces.
#[tokio::test]
async fn a_batch_beside_rejected_rows_whose_begin_fails_leaves_nothing() {
    let (mut rig, line) = rig(isolate::TABLES, &[isolate::model()]).await;
    let before = ["+1|A|far too long for it|1|-", "+2|B|two|2|-"];
    rig.write(FIRST, &before).await.unwrap();
    let state = async |rig: &Rig| {
        let rejected = rows(&rig.db, isolate::REJECTED).await;
        [
            rows(&rig.db, isolate::LOOKUP).await,
            rejected,
            rows(&rig.db, POSITION).await,
        ]
        .concat()
    };
    let before = state(&rig).await;
    line.fault("BEGIN; SET LOCAL cdc.", Fault::Spoilt);
    let lines = [
        "=1|A|right|1|-",
        "=2|B|far too long as well|2|-",
        "+3|C|c|3|-",
    ];
    let error = rig.write(FIRST, &lines).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42601"), "{error}");
    assert_eq!(state(&rig).await, before);
    rig.write(FIRST, &["+4|D|d|4|-"]).await.unwrap();
    assert_eq!(rows(&rig.db, isolate::LOOKUP).await, ["B|two|2", "D|d|4"]);
}

/// The COMMIT is sent before the target has said what it has against a row.
#[tokio::test]
async fn a_batch_that_fails_reports_its_first_error_and_leaves_nothing() {
    for (constraint, sqlstate) in [
        ("CHECK (label <> 'bad')", "23514"),
        (
            "FOREIGN KEY (label) REFERENCES kind DEFERRABLE INITIALLY DEFERRED",
            "23503",
        ),
    ] {
        for (case, mut lines) in ways() {
            let (mut rig, _line) = filled().await;
            let before = shown(&rig).await;
            rig.db
                .batch_execute(&format!(
                    "CREATE TABLE kind (label text PRIMARY KEY);
                     INSERT INTO kind SELECT 'label ' || n FROM generate_series(0, 10599) n;
                     ALTER TABLE lookup ADD CONSTRAINT against {constraint}"
                ))
                .await
                .unwrap();
            let case = format!("{case}, {constraint}");
            lines[3] = lines[3].replace("label", "bad");
            if constraint.starts_with("CHECK") {
                let last = lines[3].rfind('|').unwrap();
                let label = lines[3][..last].rfind('|').unwrap();
                lines[3].replace_range(label..last, "|bad");
            }
            let error = rig.write(FIRST, &lines).await.unwrap_err();
            assert_eq!(error.sqlstate(), Some(sqlstate), "{case}: {error}");
            assert!(error.message().contains("read model"), "{case}: {error}");
            assert_eq!(rig.writer.culprit(), Some(FIRST), "{case}");
            nothing_stays(&mut rig, &before, &case).await;
        }
    }
}
