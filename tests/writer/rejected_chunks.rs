//! Large transactions with rows that a type of the lookup rejects.

use cdc::error::Class;

use crate::isolate::{LOOKUP, REJECTED, TABLES, fill, model, resync, start};
use crate::rig::{FIRST, Rig};
use crate::support::{rows, value};

async fn rig() -> Rig {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig
}

/// Nothing holds the value then: the lookup's is one that the row had before.
#[tokio::test]
async fn a_left_out_value_of_a_dead_row_that_was_rejected_breaks_the_read_model() {
    let cases: &[(&str, &[&[&str]])] = &[
        (
            "as it was",
            &[&["=1|A|far too long for it|1|x"], &["=1|A|u|1|-"]],
        ),
        (
            "behind another chunk",
            &[
                &["=2|B|deux|2|-"],
                &["=1|A|far too long for it|1|x"],
                &["=1|A|u|1|-"],
            ],
        ),
        (
            "its key is rejected",
            &[&["=1|FAR-TOO-LONG|one|1|x"], &["=1|u|one|1|-"]],
        ),
        ("new", &[&["+7|G|far too long for it|7|x"], &["=7|G|u|7|-"]]),
        (
            "under the identity that another row had",
            &[
                &["=2 > 9|B|two|2|-", "=1 > 2|A|far too long for it|1|x"],
                &["=2|A|u|1|-"],
            ],
        ),
        (
            "it stays dead",
            &[
                &["=1|A|far too long for it|1|x"],
                &["=1|A|u|8|x"],
                &["=1|A|u|1|-"],
            ],
        ),
    ];
    for (case, chunks) in cases {
        let mut rig = rig().await;
        let before = rows(&rig.db, LOOKUP).await;
        let error = rig.write_in_chunks(FIRST, chunks).await.unwrap_err();
        assert_eq!(error.class(), Class::Broken, "{case}: {error:?}");
        assert_eq!(rows(&rig.db, LOOKUP).await, before, "{case}");
    }
}

#[tokio::test]
async fn a_dead_row_that_was_rejected_is_what_later_chunks_make_of_it() {
    type Case = (
        &'static str,
        &'static [&'static [&'static str]],
        &'static [&'static str],
    );
    let cases: &[Case] = &[
        (
            "live, with all values",
            &[&["=1|A|far too long for it|1|x"], &["=1|A|uno|1|-"]],
            &["A|uno|1", "B|two|2"],
        ),
        (
            "gone",
            &[&["=1|A|far too long for it|1|x"], &["-1"]],
            &["B|two|2"],
        ),
        (
            "dead at the end",
            &[&["=1|A|far too long for it|1|x"], &["=2|B|deux|2|-"]],
            &["B|deux|2"],
        ),
        (
            "new and dead at the end",
            &[&["+7|G|far too long for it|7|x"], &["=2|B|deux|2|-"]],
            &["A|one|1", "B|deux|2"],
        ),
        (
            "behind a TRUNCATE",
            &[
                &["=1|A|far too long for it|1|x"],
                &["!", "+1|A|far too long for it|1|x"],
                &["+2|B|deux|2|-"],
            ],
            &["B|deux|2"],
        ),
        (
            "under another identity, which somebody takes",
            &[
                &["=1 > 8|A|far too long for it|1|x"],
                &["=8 > 7|A|uno|1|-", "+8|H|eight|8|-"],
            ],
            &["A|uno|1", "B|two|2", "H|eight|8"],
        ),
    ];
    for (case, chunks, lookup) in cases {
        let mut rig = rig().await;
        rig.write_in_chunks(FIRST, chunks).await.unwrap();
        assert_eq!(rows(&rig.db, LOOKUP).await, *lookup, "{case}");
        assert_eq!(rows(&rig.db, REJECTED).await, [""; 0], "{case}");
        // What is not remembered is told when its value is left out.
        if case.ends_with("at the end") {
            let identity = if case.starts_with("new") { 7 } else { 1 };
            let error = rig
                .write(FIRST, &[format!("={identity}|A|u|1|-")])
                .await
                .unwrap_err();
            assert_eq!(error.class(), Class::Broken, "{case}: {error:?}");
        }
    }
}

/// Its values are missed only if it comes back without them.
#[tokio::test]
async fn a_value_left_out_of_a_dead_row_that_nobody_remembers_is_no_matter() {
    let cases: &[(&str, &[&[&str]])] = &[
        ("a batch", &[&["=1|A|u|8|x"]]),
        (
            "a large transaction",
            &[&["=2|B|zwei|2|-"], &["=1|A|u|8|x"]],
        ),
        (
            "rejected in it",
            &[&["=1|A|far too long again|1|x"], &["=1|A|u|8|x"]],
        ),
        (
            "rejected in it while it was live",
            &[&["=1|A|far too long again|1|-"], &["=1|A|u|8|x"]],
        ),
        (
            "under another identity",
            &[
                &["=1 > 7|A|u|8|x"],
                &["+1|I|eins|1|-", "=7 > 8|A|u|9|x", "-1"],
            ],
        ),
    ];
    let rejected = "=1|A|far too long for it|1|x";
    for (case, chunks) in cases {
        for isolating in [false, true] {
            let mut rig = rig().await;
            rig.write(FIRST, &[rejected]).await.unwrap();
            if isolating {
                rig.write(FIRST, &["+5|FORBIDDEN|five|5|-"]).await.unwrap();
            }
            rig.write(FIRST, &["=2|B|deux|2|-"]).await.unwrap();
            match chunks {
                [batch] => rig.write(FIRST, batch).await.map(|_| ()).unwrap(),
                chunks => rig
                    .write_in_chunks(FIRST, chunks)
                    .await
                    .map(|_| ())
                    .unwrap(),
            }
            let lookup = rows(&rig.db, LOOKUP).await;
            assert_eq!(lookup.len(), 1, "{case}: {lookup:?}");
            rig.write(FIRST, &["+9|A|new|9|-"]).await.unwrap();
            assert_eq!(rows(&rig.db, LOOKUP).await.len(), 2, "{case}");
            assert_eq!(
                rows(&rig.db, REJECTED).await.len(),
                usize::from(isolating),
                "{case}"
            );
            let error = rig.write(FIRST, &["=1|A|u|1|-"]).await.unwrap_err();
            assert_eq!(error.class(), Class::Broken, "{case}: {error:?}");
        }
    }
}

/// The same beside the stream.
#[tokio::test]
async fn a_copy_catches_up_with_dead_rows_that_nobody_remembers() {
    let rig = rig().await;
    let model = rig.models[0].target.clone();
    let copy = ["2|l|B|two|2", "3|d|C|dead and far too long|3"];
    let mut shadow = fill(&rig, FIRST, &copy).await;
    for line in ["=3|C|u|7|x", "=2|B|far too long for it|2|-", "=2|B|u|8|x"] {
        let fold = rig.fold(FIRST, &[line]);
        shadow.catch_up(vec![(&model, fold)]).await.unwrap();
    }
    for line in ["=3|C|u|3|-", "=2|B|u|8|-"] {
        let fold = rig.fold(FIRST, &[line]);
        let error = shadow.catch_up(vec![(&model, fold)]).await.unwrap_err();
        assert_eq!(error.class(), Class::Broken, "{line}: {error:?}");
    }
}

/// More than may be rejected, though none of them at the end: dead rows are not in the lookup,
/// whatever they hold.
#[tokio::test]
async fn dead_rows_do_not_count_as_rejected() {
    let dead = |from: usize| -> Vec<String> {
        (from..from + 1200)
            .map(|n| format!("+{n}|D{n}|far too long for it|{n}|x"))
            .collect()
    };
    let mut rig = rig().await;
    let written = rig.write(FIRST, &dead(1000)).await.unwrap();
    assert_eq!((written.rejected_rows, written.rejected_in_all), (0, 0));
    let chunks = [dead(3000), dead(5000), vec!["+7|G|seven|7|-".to_owned()]];
    let chunks: Vec<&[String]> = chunks.iter().map(Vec::as_slice).collect();
    rig.write_in_chunks(FIRST, &chunks).await.unwrap();
    let mut copy = vec!["0|l|ZZ|good|\\N".to_owned(), "7|l|G|seven|7".to_owned()];
    copy.extend((1000..2200).map(|n| format!("{n}|d|D{n}|far too long for it|{n}")));
    let copy: Vec<&str> = copy.iter().map(String::as_str).collect();
    let (_, written) = resync(&mut rig, &copy).await;
    assert_eq!(written.rejected_in_all, 0);
    assert_eq!(rows(&rig.db, LOOKUP).await, ["G|seven|7"]);
}

/// A row that is rejected in each chunk is one row; a TRUNCATE takes those before it.
#[tokio::test]
async fn rows_are_counted_as_rejected_once() {
    let bad = |step: usize| -> Vec<String> {
        (1000..1600)
            .map(|n| format!("={n}|D{n}|far too long for it {step}|-|-"))
            .collect()
    };
    let inserts: Vec<String> = bad(0)
        .iter()
        .map(|line| line.replacen('=', "+", 1))
        .collect();
    let mut rig = rig().await;
    let chunks = [inserts, bad(1), bad(2)];
    let chunks: Vec<&[String]> = chunks.iter().map(Vec::as_slice).collect();
    let written = rig.write_in_chunks(FIRST, &chunks).await.unwrap();
    assert_eq!(written[0].1.rejected_in_all, 600);
    let mut again = bad(3);
    again.insert(0, "!".to_owned());
    again.push("+0|ZZ|good|-|-".to_owned());
    let more: Vec<String> = (2000..2600)
        .map(|n| format!("+{n}|D{n}|far too long for it|-|-"))
        .collect();
    let error = rig
        .write_in_chunks(FIRST, &[&again, &more])
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Rejected, "{error:?}");
    assert_eq!(
        value(&rig.db, "SELECT count(*) FROM cdc.rejected").await,
        "600"
    );
    let truncated = ["!", "+0|ZZ|good|-|-"].map(str::to_owned);
    rig.write_in_chunks(FIRST, &[&more, &truncated, &bad(3)])
        .await
        .unwrap();
    assert_eq!(
        value(&rig.db, "SELECT count(*) FROM cdc.rejected").await,
        "600"
    );
}
