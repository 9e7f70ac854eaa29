//! Large transactions that begin with many new rows: these go past the stage, and are seen with the
//! end of their transaction.

use cdc::batch::{Batch, Suspended};
use cdc::error::{Class, Error};
use cdc::read_model::ModelIndex;

use crate::cases::{TABLES, assert_consistent, labels, other};
use crate::limits::stopping;
use crate::new_rows::{inserts, rig, ways};
use crate::rig::{FIRST, Rig, SECOND};
use crate::support::{rows, value};

async fn stage(rig: &mut Rig, index: ModelIndex, changes: &[impl AsRef<str>]) {
    let fold = rig.fold(index, changes);
    rig.writer.stage_chunk(&[(index, fold)]).await.unwrap();
}

/// Codes and labels that are shown, of these codes.
async fn shown(rig: &Rig, codes: &str) -> Vec<String> {
    let sql =
        format!("SELECT code || '=' || label FROM lookup WHERE code IN ({codes}) ORDER BY code");
    rows(&rig.db, &sql).await
}

#[tokio::test]
async fn new_rows_are_changed_by_later_chunks_and_seen_with_the_end() {
    let mut rig = rig("").await;
    rig.write(FIRST, &["+9000|A|one|-"]).await.unwrap();
    ways(&rig).await;
    stage(&mut rig, FIRST, &inserts(0..600)).await;
    stage(&mut rig, FIRST, &inserts(600..1200)).await;
    assert_eq!(value(&rig.db, "SELECT count(*) FROM lookup").await, "1");
    // The transaction may stay open for long, and others tell of the read model meanwhile.
    rig.db
        .batch_execute("SET lock_timeout = '2s'; UPDATE cdc.read_model SET state = state")
        .await
        .unwrap();
    // Behind the first of these nothing goes past the stage.
    let changes = [
        "=0|C1|zero|-",
        "=1|C0|u|-",
        "-2",
        "=3 > 9003|C3|u|-",
        "-9000",
        "+4000|A|new|-",
    ];
    stage(&mut rig, FIRST, &changes).await;
    let mut last = inserts(2000..2600);
    last.push("+2|C2|again|-".to_owned());
    let written = rig.write_in_chunks_after(3, FIRST, &last).await.unwrap();
    assert_eq!(ways(&rig).await, ["COPY", "SELECT"]);
    assert_eq!(
        shown(&rig, "'A', 'C0', 'C1', 'C2', 'C3'").await,
        ["A=new", "C0=label 1", "C1=zero", "C2=again", "C3=label 3"]
    );
    assert_eq!(written.len(), 1);
    assert_eq!(value(&rig.db, "SELECT count(*) FROM lookup").await, "1801");
    assert_consistent(&rig, "changed by later chunks").await;
}

#[tokio::test]
async fn all_of_a_transaction_may_go_past_the_stage() {
    let mut rig = rig("").await;
    stage(&mut rig, FIRST, &inserts(0..600)).await;
    let written = rig
        .write_in_chunks_after(1, FIRST, &inserts(600..1200))
        .await
        .unwrap();
    assert_eq!(ways(&rig).await, ["COPY"]);
    assert_eq!(
        (written[0].0, written[0].1.inserted, written[0].1.total),
        (FIRST, 1200, 1200)
    );
    assert_consistent(&rig, "new rows only").await;
    // The same again, after a lost connection.
    stage(&mut rig, FIRST, &inserts(0..600)).await;
    let again = rig
        .write_in_chunks_after(1, FIRST, &inserts(600..1200))
        .await
        .unwrap();
    assert_eq!(again[0].1.changed(), 0);
    assert_consistent(&rig, "again").await;
}

#[tokio::test]
async fn a_truncate_takes_new_rows_of_earlier_chunks() {
    let mut rig = rig("").await;
    rig.write(FIRST, &["+9000|A|one|-"]).await.unwrap();
    stage(&mut rig, FIRST, &inserts(0..600)).await;
    rig.write_in_chunks_after(1, FIRST, &["!", "+5|C5|after|-", "+9000|B|two|-"])
        .await
        .unwrap();
    assert_eq!(
        rows(
            &rig.db,
            "SELECT code || '=' || label FROM lookup ORDER BY 1"
        )
        .await,
        ["B=two", "C5=after"]
    );
    assert_consistent(&rig, "after a TRUNCATE").await;
}

#[tokio::test]
async fn a_transaction_that_breaks_off_leaves_nothing() {
    let mut rig = rig("").await;
    stage(&mut rig, FIRST, &inserts(0..600)).await;
    rig.writer.abandon_chunks().await.unwrap();
    assert_eq!(value(&rig.db, "SELECT count(*) FROM cdc.map_1").await, "0");
    rig.write(FIRST, &inserts(0..600)).await.unwrap();
    assert_consistent(&rig, "after one that broke off").await;
}

/// The chunk goes by the stage from the first such row on, and what is rejected is rejected alone.
#[tokio::test]
async fn rejected_rows_of_a_chunk_are_set_apart() {
    let deferred = "CREATE TABLE kind (label text PRIMARY KEY);
        INSERT INTO kind SELECT 'label ' || n FROM generate_series(0, 3599) n WHERE n <> 707;
        ALTER TABLE lookup ADD FOREIGN KEY (label) REFERENCES kind DEFERRABLE INITIALLY DEFERRED;";
    for (case, tables) in [
        (
            "checked with the row",
            "ALTER TABLE lookup ADD CHECK (label <> 'label 707');",
        ),
        ("checked at the end", deferred),
    ] {
        let mut rig = rig(tables).await;
        stage(&mut rig, FIRST, &inserts(0..600)).await;
        let written = rig
            .write_in_chunks_after(1, FIRST, &inserts(600..1200))
            .await
            .unwrap();
        let told = (written[0].1.inserted, written[0].1.rejected_in_all);
        assert_eq!(told, (1199, 1), "{case}");
        assert_eq!(
            shown(&rig, "'C706', 'C707'").await,
            ["C706=label 706"],
            "{case}"
        );
        // While it is rejected nothing goes past those who wait.
        ways(&rig).await;
        stage(&mut rig, FIRST, &inserts(3000..3600)).await;
        let written = rig
            .write_in_chunks_after(1, FIRST, &inserts(1..1))
            .await
            .unwrap();
        assert_eq!(
            (written[0].1.inserted, written[0].1.rejected_in_all),
            (600, 1),
            "{case}"
        );
        assert_eq!(ways(&rig).await, ["SELECT"], "{case}");
    }
}

/// Rows that are written are taken back when their read model leaves; the others take the
/// transaction when it comes again.
#[tokio::test]
async fn a_read_model_that_leaves_shows_nothing_of_the_transaction() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&stopping(labels(false))).await;
    rig.add(&other()).await;
    rig.db
        .batch_execute("UPDATE cdc.read_model SET state = 'in_step'")
        .await
        .unwrap();
    let others: Vec<String> = (0..600).map(|n| format!("+x{n}|y")).collect();
    stage(&mut rig, FIRST, &inserts(0..600)).await;
    stage(&mut rig, SECOND, &others).await;
    let batch = Batch {
        position: rig.position(),
        folds: vec![(SECOND, rig.fold(SECOND, &["+z|y"]))],
        suspended: vec![Suspended {
            index: FIRST,
            error: Error::new(Class::Broken, "a value is missing"),
        }],
        transactions: 1,
        chunks: 2,
    };
    let error = rig.writer.apply(batch).await.unwrap_err();
    assert_eq!(
        (error.class(), rig.writer.culprit()),
        (Class::Transient, None),
        "{error}"
    );
    let state = "SELECT id || ' ' || state FROM cdc.read_model ORDER BY id";
    assert_eq!(rows(&rig.db, state).await, ["1 suspended", "2 in_step"]);
    for table in ["lookup", "cdc.map_1", "other"] {
        assert_eq!(
            value(&rig.db, &format!("SELECT count(*) FROM {table}")).await,
            "0",
            "{table}"
        );
    }
    stage(&mut rig, SECOND, &others).await;
    rig.write_in_chunks_after(1, SECOND, &["+z|y"])
        .await
        .unwrap();
    assert_eq!(value(&rig.db, "SELECT count(*) FROM other").await, "601");
}
