//! A large first copy: the map's primary key is made once it is full, and its index by key where
//! two rows have one key.

use cdc::batch::{MergePosition, Written};

use crate::cases::{TABLES, assert_consistent, labels};
use crate::isolate::fill;
use crate::key_index::{key_indexes, map_rows_read};
use crate::rig::{FIRST, Rig};
use crate::support::{pg, rows, value};

const INDEXES: &str = "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid)
    FROM pg_index WHERE indrelid = 'cdc.map_1'::regclass ORDER BY 2";

/// Rows of a shadow of more than a megabyte.
fn lines() -> Vec<String> {
    (0..20_000)
        .map(|id| format!("{id}|l|C{id}|a label that is long enough {id}"))
        .collect()
}

async fn rig() -> (Rig, Vec<String>) {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    let indexes = rows(&rig.db, INDEXES).await;
    assert_eq!(indexes.len(), 1);
    // A new one has none.
    let new = "ALTER TABLE cdc.map_1 DROP CONSTRAINT map_1_pkey";
    rig.db.batch_execute(new).await.unwrap();
    (rig, indexes)
}

async fn merge(rig: &mut Rig, lines: &[String]) -> Written {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut shadow = fill(rig, FIRST, &lines).await;
    let position = MergePosition::Running(rig.position().lsn, None);
    let mut merged = rig.writer.merge(&[FIRST], &position, 0).await.unwrap();
    shadow.give_back(&rig.bookkeeping).await.unwrap();
    merged.remove(0).result.unwrap()
}

#[tokio::test]
async fn large_first_copy_leaves_the_map_with_its_primary_key() {
    let (mut rig, indexes) = rig().await;
    // The plans that the stream keeps are those of a map with indexes.
    rig.writer.warm(FIRST).await.unwrap();
    let written = merge(&mut rig, &lines()).await;
    assert_eq!(written.inserted, 20_000);
    assert_eq!(rows(&rig.db, INDEXES).await, indexes);
    assert_consistent(&rig, "copied").await;
    rig.write(FIRST, &["=7|C7|new|-", "-8", "+20000|C8|eight|-"])
        .await
        .unwrap();
    let sql = "SELECT code || '=' || label FROM lookup WHERE code IN ('C7', 'C8') ORDER BY 1";
    assert_eq!(rows(&rig.db, sql).await, ["C7=new", "C8=eight"]);
    // Again, with the map as it is.
    let written = merge(&mut rig, &lines()).await;
    assert_eq!(
        (written.inserted, written.updated, written.deleted),
        (0, 2, 0)
    );
    assert_eq!(rows(&rig.db, INDEXES).await, indexes);
    assert_consistent(&rig, "copied again").await;
}

#[tokio::test]
async fn large_first_copy_does_not_wait_for_a_reader_of_the_map() {
    let (mut rig, indexes) = rig().await;
    let reader = pg(&rig.url).await;
    reader
        .batch_execute("BEGIN; SELECT FROM cdc.map_1")
        .await
        .unwrap();
    assert_eq!(merge(&mut rig, &lines()).await.inserted, 20_000);
    assert_eq!(rows(&rig.db, INDEXES).await, indexes);
    assert_consistent(&rig, "beside a reader").await;
    let primary = "SELECT indisprimary FROM pg_index WHERE indrelid = 'cdc.map_1'::regclass";
    assert_eq!(
        value(&rig.db, primary).await,
        "f",
        "the constraint waits for nobody"
    );
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(merge(&mut rig, &lines()).await.changed(), 0);
    assert_eq!(value(&rig.db, primary).await, "t");
}

#[tokio::test]
async fn rejected_row_of_a_large_first_copy_is_set_apart() {
    let (mut rig, indexes) = rig().await;
    rig.db
        .batch_execute("ALTER TABLE lookup ADD CHECK (code <> 'C77')")
        .await
        .unwrap();
    let written = merge(&mut rig, &lines()).await;
    assert_eq!((written.inserted, written.rejected_in_all), (19_999, 1));
    assert_eq!(rows(&rig.db, INDEXES).await.len(), indexes.len() + 1);
    assert_eq!(value(&rig.db, "SELECT key FROM cdc.rejected").await, "C77");
}

/// Two rows with one key: its owner is looked for, but not by reading the map once for each key.
#[tokio::test]
async fn doubled_key_of_a_large_first_copy_is_shared_out_by_the_index() {
    let (mut rig, indexes) = rig().await;
    let mut lines: Vec<String> = (0..4000)
        .map(|id| format!("{id}|l|C{id}|{}", "a long label".repeat(30)))
        .collect();
    lines.push("9000|l|C7|second".to_owned());
    let written = merge(&mut rig, &lines).await;
    assert_eq!(written.inserted, 4000);
    assert_eq!(rows(&rig.db, INDEXES).await.len(), indexes.len() + 1);
    assert_eq!(key_indexes(&rig).await, "1");
    assert_consistent(&rig, "a doubled key").await;
    let read = map_rows_read(&rig).await;
    assert!(read < 100 * 4000, "{read} rows of the map were read");
}

/// What `cdc status` tells: how many live rows have a key that another one has.
#[tokio::test]
async fn rows_that_wait_for_their_key_are_counted_by_a_copy() {
    let (mut rig, _) = rig().await;
    let waiting = "SELECT coalesce(waiting, -1) FROM cdc.read_model";
    for (lines, expected) in [
        (vec!["1|l|A|one"], "0"),
        (
            vec![
                "1|l|A|one",
                "2|l|A|two",
                "3|l|A|three",
                "4|l|B|b",
                "5|l|B|b",
            ],
            "3",
        ),
        (vec!["1|l|A|one", "3|l|A|three", "4|l|B|b"], "1"),
        (vec!["1|l|A|one", "4|l|B|b"], "0"),
    ] {
        let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        merge(&mut rig, &lines).await;
        assert_eq!(value(&rig.db, waiting).await, expected, "{lines:?}");
        // The stream leaves it as it is.
        rig.write(FIRST, &["+9|A|nine|-", "-9"]).await.unwrap();
        assert_eq!(value(&rig.db, waiting).await, expected, "{lines:?}");
    }
    // So does the writer that sets rows apart.
    rig.db
        .batch_execute("ALTER TABLE lookup ADD CHECK (label <> 'bad')")
        .await
        .unwrap();
    let lines = ["1|l|A|one", "2|l|A|two", "3|l|C|bad"].map(str::to_owned);
    merge(&mut rig, &lines).await;
    assert_eq!(value(&rig.db, waiting).await, "1");
}
