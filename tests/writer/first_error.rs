//! Statements are in flight and one of them fails: its error counts, and not what comes of it.

use cdc::error::Class;
use cdc::read_model::ModelIndex;

use crate::cases::{self, labels, other};
use crate::isolate::{self, LOOKUP, model, start};
use crate::limits::stopping;
use crate::line::Fault;
use crate::rig::{FIRST, Rig, SECOND, Shape, shape};
use crate::round_trips::{self, inserts};
use crate::support::{rows, value};

/// The rows of a read model that stops go by a COPY whose end is answered later.
#[tokio::test]
async fn a_read_model_that_stops_is_the_culprit_beside_rejected_rows_of_another_one() {
    for (case, before, with) in [
        ("before", "=1|A|far too long for it|1|-", "=2|B|deux|2|-"),
        ("in the batch", "=2|B|zwei|2|-", "=1|A|TRIGGER|1|-"),
    ] {
        let tables = "ALTER TABLE other ALTER label TYPE varchar(3)";
        let mut rig = Rig::new(&[isolate::TABLES, tables].concat()).await;
        rig.add(&model()).await;
        rig.add(&stopping(other())).await;
        start(&mut rig).await;
        rig.write(FIRST, &[before]).await.unwrap();
        let shown = rows(&rig.db, LOOKUP).await;
        let folds = vec![
            (FIRST, rig.fold(FIRST, &[with])),
            (SECOND, rig.fold(SECOND, &["+x|far too long"])),
        ];
        let error = rig.apply(folds).await.unwrap_err();
        assert_eq!(
            (error.class(), error.sqlstate(), rig.writer.culprit()),
            (Class::Rejected, Some("22001"), Some(SECOND)),
            "{case}: {error:?}"
        );
        assert_eq!(rows(&rig.db, LOOKUP).await, shown, "{case}");
        let folds = vec![
            (FIRST, rig.fold(FIRST, &[with])),
            (SECOND, rig.fold(SECOND, &["+x|fit"])),
        ];
        rig.apply(folds).await.unwrap();
        assert_eq!(
            value(&rig.db, "SELECT label FROM other").await,
            "fit",
            "{case}"
        );
    }
}

/// At the end of a large transaction the rejected rows are counted behind the fence.
#[tokio::test]
async fn a_process_that_was_overtaken_hears_so_beside_rejected_rows() {
    let mut rig = Rig::new(isolate::TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    let before = rows(&rig.db, LOOKUP).await;
    let fold = rig.fold(FIRST, &["=1|A|far too long for it|1|-"]);
    rig.writer.stage_chunk(&[(FIRST, fold)]).await.unwrap();
    let _other = rig.another_writer().await;
    let ended = rig.write_in_chunks_after(1, FIRST, &["=2|B|deux|2|-"]);
    let error = ended.await.unwrap_err();
    assert_eq!(error.class(), Class::Fenced, "{error:?}");
    assert_eq!(rows(&rig.db, LOOKUP).await, before);
}

/// Without its savepoint nothing of a chunk can be undone alone.
#[tokio::test]
async fn a_savepoint_that_cannot_be_set_ends_the_large_transaction() {
    let (mut rig, line) = round_trips::rig(cases::TABLES, &[labels(true)]).await;
    line.fault("SAVEPOINT new_rows", Fault::Spoilt);
    let fold = rig.fold(FIRST, &inserts(0..600));
    let staged = rig.writer.stage_chunk(&[(FIRST, fold)]).await;
    let error = staged.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42601"), "{error:?}");
    let chunks = [inserts(0..600), inserts(600..700)];
    let chunks: Vec<&[String]> = chunks.iter().map(Vec::as_slice).collect();
    rig.write_in_chunks(FIRST, &chunks).await.unwrap();
    assert_eq!(value(&rig.db, "SELECT count(*) FROM lookup").await, "700");
}

/// Arguments are in memory until they are answered, so not all wait together: the first one's
/// answer comes before the last one is sent.
#[tokio::test]
async fn arguments_of_many_read_models_are_not_in_flight_together() {
    const MODELS: usize = 4;
    let tables = (0..MODELS)
        .map(|n| format!("CREATE TABLE l{n} (code text PRIMARY KEY, label varchar(50000));"));
    let shapes = (0..MODELS).map(|n| {
        stopping(shape(
            &format!("l{n}"),
            &[("code", "text"), ("label", "text")],
            &["code"],
            &[("code", "code"), ("label", "label")],
            1,
            false,
        ))
    });
    let shapes: Vec<Shape> = shapes.collect();
    let (mut rig, line) = round_trips::rig(&tables.collect::<String>(), &shapes).await;
    let long = "x".repeat(50_000);
    let folds = |rig: &Rig, more: &str| {
        let fold = |n: usize| {
            let mut lines: Vec<String> = (0..18).map(|id| format!("+{id}|{long}")).collect();
            match n {
                0 => lines.push(format!("+18|{long}{more}")),
                _ if n == MODELS - 1 => lines = vec!["+the last one|x".to_owned()],
                _ => {}
            }
            (ModelIndex(n), rig.fold(ModelIndex(n), &lines))
        };
        (0..MODELS).map(fold).collect::<Vec<_>>()
    };
    // The session prepares its statements.
    rig.apply(folds(&rig, "")).await.unwrap();
    line.fault("the last one", Fault::Spoilt);
    let error = rig.apply(folds(&rig, "x")).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.sqlstate(), rig.writer.culprit()),
        (Some("22001"), Some(FIRST)),
        "{error:?}"
    );
    assert!(!line.has_met_fault(), "the last one was sent all the same");
}
