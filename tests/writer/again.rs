//! Rows that the target rejects again, or takes at last after another lookup's turn.

use cdc::batch::{MergePosition, Merged};

use crate::cases::other;
use crate::isolate::{KEPT, LOOKUP, REJECTED, TABLES, fill, model, resync, start};
use crate::rig::{FIRST, Rig, SECOND};
use crate::support::rows;

/// Whoever looks at the view wants to know since when a row is rejected, however often it was tried
/// meanwhile.
#[tokio::test]
async fn a_row_that_is_rejected_again_in_the_same_way_keeps_its_entry() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig.db.batch_execute(KEPT).await.unwrap();
    let bad = [
        "=1|A|TRIGGER|1|-",
        "+4|D|far too long for it|4|-",
        "-2",
        "+5|E|five|5|-",
    ];
    let written = rig.write(FIRST, &bad).await.unwrap();
    assert_eq!((written.rejected_rows, written.rejected.len()), (2, 3));
    let entries = "SELECT concat_ws('|', r.n, x.identity, x.key, x.sqlstate, x.lsn, x.rejected_at) FROM cdc.rejection x JOIN cdc.rejected_1 r
                   ON r.n = x.n AND r.at = x.rejected_at AND r.lsn = x.lsn ORDER BY r.n";
    let first = rows(&rig.db, entries).await;
    assert_eq!(first.len(), 3);
    let again: &[&[&str]] = &[
        &["=1|A|TRIGGER|8|-"],
        &["=4|D|much too long for it|4|-"],
        // Each is tried again with the others, and the row of B that cannot go too.
        &[
            "=1|A|TRIGGER|9|-",
            "=4|D|far too long again|4|-",
            "+2|B|TRIGGER|2|-",
            "-2",
        ],
        &["=1|A|fine|9|-", "=1|A|TRIGGER|9|-"],
    ];
    for batch in again {
        let written = rig.write(FIRST, batch).await.unwrap();
        assert_eq!(rows(&rig.db, entries).await, first, "{batch:?}");
        assert_eq!(
            (written.rejected.len(), written.rejected_in_all),
            (0, 3),
            "{batch:?}"
        );
    }
    let copy = [
        "0|l|ZZ|good|\\N",
        "1|l|A|TRIGGER|1",
        "4|l|D|far too long for it|4",
        "5|l|E|five|5",
    ];
    for _ in 0..2 {
        let (_, written) = resync(&mut rig, &copy).await;
        assert_eq!(rows(&rig.db, entries).await, first, "a resync");
        assert_eq!(
            (
                written.changed(),
                written.rejected.len(),
                written.rejected_in_all
            ),
            (0, 0, 3)
        );
    }
    // Another reason or another key is another entry, with a new number and time; so is one after a
    // good state.
    for batch in [
        &["=1|A|far too long for it|9|-", "=4|D|TRIGGER|4|-"][..],
        &["=1|A|TRIGGER|9|-", "=4|X|TRIGGER|4|-"],
    ] {
        let before = rows(&rig.db, entries).await;
        let written = rig.write(FIRST, batch).await.unwrap();
        let after = rows(&rig.db, entries).await;
        assert_eq!((written.rejected.len(), after.len()), (2, 3), "{batch:?}");
        let kept: Vec<&String> = after
            .iter()
            .filter(|entry| before.contains(entry))
            .collect();
        assert!(
            kept.len() == 1 && kept[0].contains("|B|23503|"),
            "{before:?} {after:?}"
        );
    }
    rig.write(FIRST, &["=1|A|fine|9|-"]).await.unwrap();
    let before = rows(&rig.db, entries).await;
    rig.write(FIRST, &["=1|A|TRIGGER|9|-"]).await.unwrap();
    let after = rows(&rig.db, entries).await;
    assert_eq!((before.len(), after.len()), (2, 3));
    assert_eq!(after[..2], before[..], "what was not touched");
}

/// What was rejected before and stays so does not keep a row from being tried once more after
/// another lookup's turn.
#[tokio::test]
async fn a_row_that_was_rejected_before_waits_for_another_lookup_too() {
    let mut rig = referring().await;
    rig.write(FIRST, &["+0|ZZ|good|-|-", "+1|A|one|x|-"])
        .await
        .unwrap();
    assert_eq!(rows(&rig.db, REJECTED).await.len(), 1);
    let folds = vec![
        (FIRST, rig.fold(FIRST, &["=1|A|uno|x|-"])),
        (SECOND, rig.fold(SECOND, &["+x|fine"])),
    ];
    rig.apply(folds).await.unwrap();
    assert_eq!(rows(&rig.db, REJECTED).await, [""; 0]);
    assert_eq!(rows(&rig.db, LOOKUP).await, ["A|uno|x"]);
}

/// Two lookups of which the first refers to the second.
async fn referring() -> Rig {
    let mut rig = Rig::new(
        "CREATE TABLE other (code text PRIMARY KEY, label text);
         CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label text, number text REFERENCES other);",
    )
    .await;
    rig.add(&model()).await;
    rig.add(&other()).await;
    rig
}

/// More rows than are rejected, and more than none at all, wait for the other lookup's.
#[tokio::test]
async fn many_rows_that_all_wait_for_another_lookup_are_written_after_it() {
    for count in [2, 1500] {
        for chunked in [false, true] {
            let mut rig = referring().await;
            let first: Vec<String> = (0..count)
                .map(|n| format!("+{n}|C{n}|label|K{n}|-"))
                .collect();
            let second: Vec<String> = (0..count).map(|n| format!("+K{n}|x")).collect();
            if chunked {
                let folds = [(FIRST, rig.fold(FIRST, &first))];
                rig.writer.stage_chunk(&folds).await.unwrap();
                rig.write_in_chunks_after(1, SECOND, &second).await.unwrap();
            } else {
                let folds = vec![
                    (FIRST, rig.fold(FIRST, &first)),
                    (SECOND, rig.fold(SECOND, &second)),
                ];
                rig.apply(folds).await.unwrap();
            }
            let case = format!("{count} rows, in chunks {chunked}");
            for table in ["lookup", "other"] {
                let counted = rows(&rig.db, &format!("SELECT count(*) FROM {table}")).await;
                assert_eq!(counted, [count.to_string()], "{case}, {table}");
            }
            assert_eq!(rows(&rig.db, REJECTED).await, [""; 0], "{case}");
        }
    }
}

#[tokio::test]
async fn copies_that_all_wait_for_another_lookup_are_merged_after_it() {
    for count in [2, 1500] {
        let mut rig = referring().await;
        let first: Vec<String> = (0..count)
            .map(|n| format!("{n}|l|C{n}|label|K{n}"))
            .collect();
        let second: Vec<String> = (0..count).map(|n| format!("K{n}|l|K{n}|x")).collect();
        for (index, lines) in [(FIRST, first), (SECOND, second)] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            fill(&rig, index, &lines).await;
        }
        let position = MergePosition::Running(rig.position().lsn, None);
        let merged = rig
            .writer
            .merge(&[FIRST, SECOND], &position, 20)
            .await
            .unwrap();
        for Merged { index, result } in merged {
            let written = result.unwrap();
            assert_eq!(
                (written.inserted, written.rejected_in_all),
                (count, 0),
                "{index:?}"
            );
        }
        assert_eq!(rows(&rig.db, REJECTED).await, [""; 0], "{count}");
    }
}
