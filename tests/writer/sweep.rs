//! The session's staging tables are empty after each batch, and stay small.

use crate::cases::{TABLES, labels, other};
use crate::isolate::fill;
use crate::limits::stopping;
use crate::rig::{FIRST, Rig, SECOND};
use cdc::batch::{Batch, MergePosition};

async fn rig() -> Rig {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.add(&other()).await;
    rig
}

/// Name, rows and bytes of each staging table.
async fn tables(rig: &mut Rig) -> Vec<(String, i64, i64)> {
    let conn = rig.writer.connection();
    let found = conn.query(
        "SELECT relname::text, (xpath('//n/text()', query_to_xml('SELECT count(*) AS n FROM pg_temp.' || relname, true, true, '')))[1]::text::bigint,
                pg_total_relation_size(oid)
         FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r' ORDER BY 1",
        &[],
    )
    .await
    .unwrap();
    found
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

async fn assert_empty(rig: &mut Rig, case: &str) {
    let found = tables(rig).await;
    assert!(!found.is_empty(), "{case}");
    let full: Vec<_> = found.iter().filter(|(_, rows, _)| *rows > 0).collect();
    assert!(full.is_empty(), "{case}: {full:?}");
}

fn updates(ids: std::ops::Range<u32>, label: &str) -> Vec<String> {
    ids.map(|id| format!("=1{id}|C{id}|{label}|-")).collect()
}

#[tokio::test]
async fn staging_tables_are_empty_after_each_batch() {
    let mut rig = rig().await;
    let insert: Vec<String> = (0..700).map(|id| format!("+1{id}|C{id}|one|-")).collect();
    rig.write(FIRST, &insert[..300]).await.unwrap();
    assert_empty(&mut rig, "few rows").await;
    rig.write(FIRST, &insert[300..]).await.unwrap();
    rig.write(FIRST, &updates(0..700, "two")).await.unwrap();
    assert_empty(&mut rig, "many rows").await;
    let folds = vec![
        (FIRST, rig.fold(FIRST, &updates(0..5, "three"))),
        (SECOND, rig.fold(SECOND, &["+x|y"])),
    ];
    rig.apply(folds).await.unwrap();
    assert_empty(&mut rig, "two read models").await;
    let (first, second) = (updates(0..600, "four"), updates(100..700, "five"));
    let chunks = [first.as_slice(), second.as_slice(), &first[..1]];
    rig.write_in_chunks(FIRST, &chunks).await.unwrap();
    assert_empty(&mut rig, "chunks").await;
    rig.write(FIRST, &["+9|FAR-TOO-LONG|x|-", "=10|C0|six|-"])
        .await
        .unwrap();
    assert_empty(&mut rig, "a rejected row").await;
    let mut many = updates(0..700, "seven");
    many.push("+8|FAR-TOO-LONG|x|-".to_owned());
    rig.write(FIRST, &many).await.unwrap();
    assert_empty(&mut rig, "a rejected row among many").await;
    for lines in [
        vec!["1|l|A|one", "2|l|FAR-TOO-LONG|two"],
        vec!["1|l|A|one", "1|l|A|one"],
    ] {
        let mut shadow = fill(&rig, FIRST, &lines).await;
        let position = MergePosition::Running(rig.position().lsn, None);
        let _ = rig.writer.merge(&[FIRST], &position, 20).await;
        shadow.give_back(&rig.bookkeeping).await.unwrap();
        assert_empty(&mut rig, "a copy").await;
    }
}

/// One read model sets rows apart, the other stops at a rejected row and has none.
#[tokio::test]
async fn rejected_row_of_a_large_transaction_beside_a_read_model_that_stops_at_one() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.add(&stopping(other())).await;
    let both = |rig: &Rig, id: u32, code: &str| {
        vec![
            (FIRST, rig.fold(FIRST, &[format!("+{id}|{code}|x|-")])),
            (SECOND, rig.fold(SECOND, &[format!("+{code}|y")])),
        ]
    };
    let chunk = both(&rig, 1, "FAR-TOO-LONG");
    rig.writer.stage_chunk(&chunk).await.unwrap();
    let batch = Batch {
        position: rig.position(),
        folds: both(&rig, 2, "B"),
        suspended: Vec::new(),
        transactions: 1,
        chunks: 1,
    };
    let written = rig.writer.apply(batch).await.unwrap();
    let told: Vec<_> = written
        .iter()
        .map(|(index, of)| (*index, of.inserted, of.rejected_in_all))
        .collect();
    assert_eq!(told, [(FIRST, 1, 1), (SECOND, 2, 0)]);
    assert_empty(&mut rig, "chunks of two read models").await;
}

async fn stage_bytes(rig: &mut Rig) -> i64 {
    let tables = tables(rig).await;
    let stage = tables.into_iter().find(|(name, ..)| name == "stage_1");
    stage.unwrap().2
}

#[tokio::test]
async fn dead_rows_of_staging_tables_are_vacuumed() {
    let mut rig = rig().await;
    let insert: Vec<String> = (0..400).map(|id| format!("+1{id}|C{id}|one|-")).collect();
    rig.write(FIRST, &insert).await.unwrap();
    let mut most = 0;
    for round in 0..60 {
        rig.write(FIRST, &updates(0..400, &format!("round {round}")))
            .await
            .unwrap();
        most = stage_bytes(&mut rig).await.max(most);
    }
    // 24,000 rows of some 70 bytes.
    assert!(most < 1_000_000, "{most} bytes");
    // Many new rows, which go past the stage, leave its dead rows where they are.
    for round in 0..6_u32 {
        for _ in 0..12 {
            rig.write(FIRST, &updates(0..400, &format!("and {round}")))
                .await
                .unwrap();
        }
        let new: Vec<String> = (0..501)
            .map(|n| format!("+3{round}{n}|N{round}-{n}|new|-"))
            .collect();
        rig.write(FIRST, &new).await.unwrap();
        most = stage_bytes(&mut rig).await.max(most);
    }
    assert!(most < 1_000_000, "{most} bytes, past the stage");
    // A large transaction that breaks off leaves all of it dead.
    let large = updates(0..20_000, "some label");
    let fold = rig.fold(FIRST, &large);
    rig.writer.stage_chunk(&[(FIRST, fold)]).await.unwrap();
    rig.writer.abandon_chunks().await.unwrap();
    rig.write(FIRST, &updates(0..1, "after it")).await.unwrap();
    let found = tables(&mut rig).await;
    assert!(
        found.iter().all(|(.., bytes)| *bytes < 200_000),
        "{found:?}"
    );
}
